"""What a run knows of its load generator: what was found before it, and what it leaves to the runs after it."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from harness.clock import FakeClock
from harness.errors import IntegrityError
from harness.pipeline.run import Surroundings, _keep_roofline, start
from harness.records.run import Progress
from harness.store.exchanges import write_exchanges
from harness.store.roofline import read_roofline
from harness.store.runs import RunFolder

SMOKE = Path(__file__).resolve().parents[2] / "scenarios" / "smoke.toml"


def surroundings(results: Path) -> Surroundings:
    def nobody(told: Progress | RunFolder) -> None:
        """Hears, and says nothing."""

    return Surroundings(results, None, nobody, nobody, FakeClock())


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


def test_a_damaged_roofline_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    (tmp_path / "roofline.json").write_text("{")
    with pytest.raises(IntegrityError, match="cannot be read"):
        start(SMOKE, (), "refused", surroundings(tmp_path))
    assert not (tmp_path / "refused").exists()
