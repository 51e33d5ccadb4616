"""What a run knows of its load generator: what was found before it, and what it leaves to the runs after it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from harness.clock import FakeClock
from harness.errors import IntegrityError, UsageError
from harness.pipeline import refusals
from harness.pipeline import run as run_room
from harness.pipeline.run import Surroundings, _keep_roofline, resume, start
from harness.records.run import Progress, Roofline, Run
from harness.stages.host import fingerprint
from harness.store.database import Database
from harness.store.exchanges import write_exchanges
from harness.store.roofline import keep_roofline, read_roofline
from harness.store.runs import RunFolder

SMOKE = Path(__file__).resolve().parents[2] / "scenarios" / "smoke.toml"


class StopError(Exception):
    """Ends a run where a test has seen enough of it."""


def surroundings(results: Path) -> Surroundings:
    """A run that ends as soon as it has begun with its first cell."""

    def stop(told: Progress) -> None:
        raise StopError

    return Surroundings(results, None, lambda folder: None, stop, FakeClock())


def known(rate_rps: float) -> Roofline:
    return Roofline(
        rate_rps=rate_rps,
        measured_utc="2025-12-31T00:00:00Z",
        measured_by="harness doctor",
        workers=1,
        rows=1,
        host=fingerprint(),
    )


def recorded(results: Path, run_id: str) -> Run:
    with Database.read(results / run_id / "run.db") as database:
        return database.ledger().run


@pytest.fixture
def finished(ledgers: ModuleType, tmp_path: Path) -> Callable[[tuple[int, ...]], None]:
    """Ends a run that drove `null`, of 3,000 requests/s, with so many in flight."""

    def finish(in_flight: tuple[int, ...]) -> None:
        story = ledgers.Story(ledgers.scenario(serve=[{"target": "null"}]))
        story.loaded(story.cell("serve", target="null"), 3000.0, (), in_flight)
        folder = RunFolder(tmp_path / story.ledger().run.id)
        for step, columns in story.exchanges.items():
            write_exchanges(folder.exchanges(step), columns)
        _keep_roofline(folder, story.ledger(), surroundings(tmp_path))

    return finish


def test_a_run_with_null_steps_leaves_its_roofline(
    ledgers: ModuleType, finished: Callable[[tuple[int, ...]], None], tmp_path: Path
) -> None:
    finished((1, 4, 8, 16))
    found = read_roofline(tmp_path, ledgers.whole_run().ledger().host)
    assert found is not None and found.rate_rps == pytest.approx(3000)
    assert (found.measured_by, found.measured_utc) == ("20260101-000000-quickstart", "2026-01-01T00:05:00Z")


@pytest.mark.parametrize("in_flight", [(), (1,), (1, 4)])
def test_a_ladder_that_was_cut_short_leaves_none(
    finished: Callable[[tuple[int, ...]], None], tmp_path: Path, in_flight: tuple[int, ...]
) -> None:
    finished(in_flight)
    assert not (tmp_path / "roofline.json").exists()


def test_a_run_takes_up_what_is_known_when_it_begins_and_keeps_that_when_it_is_resumed(tmp_path: Path) -> None:
    for run_id in ("before", "after"):
        with pytest.raises(StopError):
            start(SMOKE, (), run_id, surroundings(tmp_path))
        keep_roofline(tmp_path, known(60_000))
    keep_roofline(tmp_path, known(50_000))
    for run_id, rate_rps in (("before", None), ("after", 60_000)):
        with pytest.raises(StopError):
            resume(run_id, surroundings(tmp_path))
        assert recorded(tmp_path, run_id).roofline == (rate_rps and known(rate_rps))


def test_another_machine_or_version_does_not_go_on_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StopError):
        start(SMOKE, (), "begun", surroundings(tmp_path))
    ours, before = fingerprint(), recorded(tmp_path, "begun")
    for changed in ({"cpu": "Abacus"}, {"versions": {**ours.versions, "numpy": "0.1"}}, {"memory_bytes": 1}):
        with monkeypatch.context() as patched:
            patched.setattr(refusals, "fingerprint", lambda changed=changed: ours.model_copy(update=changed))
            with pytest.raises(UsageError, match="was begun on another machine or with other libraries"):
                resume("begun", surroundings(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr("harness.__version__", "0.0.9")
        with pytest.raises(UsageError, match=r"was begun by harness .*; this is 0\.0\.9\. Figures of two versions"):
            resume("begun", surroundings(tmp_path))
    assert recorded(tmp_path, "begun") == before
    with pytest.raises(StopError):  # and the machine that began it does
        resume("begun", surroundings(tmp_path))


def test_a_run_is_gone_on_with_where_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_room, "refuse_silent", lambda address: None)
    here = surroundings(tmp_path)
    cluster = dataclasses.replace(here, ray_address="10.0.0.1:6379")
    for run_id, begun, other, refusal in (
        ("here", here, cluster, "begun on this machine alone: leave out --ray-address"),
        ("there", cluster, here, "begun on a Ray cluster: give --ray-address"),
    ):
        with pytest.raises(StopError):
            start(SMOKE, (), run_id, begun)
        before = recorded(tmp_path, run_id)
        with pytest.raises(UsageError, match=refusal):
            resume(run_id, other)
        assert recorded(tmp_path, run_id) == before
        with pytest.raises(StopError):
            resume(run_id, begun)


def test_a_damaged_roofline_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    (tmp_path / "roofline.json").write_text("{")
    with pytest.raises(IntegrityError, match="cannot be read"):
        start(SMOKE, (), "refused", surroundings(tmp_path))
    assert not (tmp_path / "refused").exists()
