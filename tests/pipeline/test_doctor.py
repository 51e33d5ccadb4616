"""A look at the machine climbs as far as the generator comes, and keeps what it found."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from harness.analysis.reduce import reduce_step
from harness.clock import FakeClock
from harness.errors import InfrastructureError, LockedError
from harness.pipeline import doctor as room
from harness.pipeline.doctor import Driven, _climb, _closed, examined
from harness.records.diagnosis import Gaps
from harness.records.load import GeneratorHealth, Step, WorkerHealth
from harness.stages.host import fingerprint
from harness.stages.load import crew
from harness.stages.load.generator import Recording
from harness.store.roofline import read_roofline
from harness.store.runs import locked

S = 1_000_000_000
HEALTH = GeneratorHealth(
    workers=(WorkerHealth(cpu_share=0.3, started_late_s=0.0, gc_s=0.0, clock_moved_s=0.0, timer="timerfd"),)
)
QUIET = Gaps(seconds_s=2.0, threshold_s=5e-5, count=0, longest_s=0.0, lost_s=0.0)


@pytest.fixture
def made_up(ledgers: ModuleType) -> Callable[..., Callable[[Step], Driven]]:
    """A generator that sends `capacity_rps` at most, and against which closed load reaches the next of `closed_rps`."""

    def generator(
        capacity_rps: float = 0.0, closed_rps: tuple[float, ...] = (), answered: float = 1.0, late_ns: int = 0
    ) -> Callable[[Step], Driven]:
        rungs, numbers = iter(closed_rps), count()

        def drive(step: Step) -> Driven:
            rate = step.rate_rps or next(rungs)
            due = (np.arange(round(rate * step.duration_s)) * S / rate).astype(np.int64)
            lag = np.zeros(len(due), dtype=np.int64)
            if step.mode == "open":
                lag = np.maximum(0, np.arange(len(due)) * S / capacity_rps - due).astype(np.int64)
            lag += late_ns
            columns = ledgers.exchanges(due, lag + 100_000, lag)
            if answered < 1:
                # The rest is answered, but only when the step is over.
                columns["done_ns"][round(answered * len(due)) :] += round(step.duration_s * S)
            entry = ledgers.step_entry(step.model_copy(update={"number": next(numbers)}), columns)
            return Driven(reduce_step(entry, columns), Recording(columns, len(due), "", HEALTH))

        return drive

    return generator


@pytest.mark.parametrize(
    ("capacity_rps", "rates", "sustained"),
    [
        (15_000, [5000, 6300, 8000, 10_000, 12_500, 16_000], 12_500),  # up, until it is late
        (3600, [5000, 4000, 3150], 3150),  # down, until it is on time
        (1e9, [5000, 6300, 8000, 10_000, 12_500, 16_000], 16_000),  # no end in sight
        (100, [5000, 4000, 3150, 2500, 2000, 1600], None),
    ],
)
def test_the_climb_ends_where_the_generator_does(
    made_up: Callable[..., Callable[[Step], Driven]], capacity_rps: float, rates: list[float], sustained: float | None
) -> None:
    found = list(_climb(made_up(capacity_rps), 1.0, 10_000.0))
    assert [lag.rate_rps for lag in found] == rates
    assert max((lag.rate_rps for lag in found if lag.sustained), default=None) == sustained


def test_where_nothing_is_answered_there_is_no_climb(made_up: Callable[..., Callable[[Step], Driven]]) -> None:
    assert list(_climb(made_up(1000), 1.0, 0.0)) == []


@pytest.mark.parametrize(("answered", "sustained"), [(1.0, True), (0.995, True), (0.97, False)])
def test_what_is_sent_and_not_answered_in_time_is_not_sustained(
    made_up: Callable[..., Callable[[Step], Driven]], answered: float, sustained: bool
) -> None:
    first = next(_climb(made_up(1e9, answered=answered), 1.0, 10_000.0))
    assert first.sustained is sustained


@pytest.mark.parametrize(("late_ns", "sustained"), [(1_000_000, True), (1_001_000, False)])
def test_what_is_sent_at_its_rate_but_late_is_not_sustained(
    made_up: Callable[..., Callable[[Step], Driven]], late_ns: int, sustained: bool
) -> None:
    first = next(_climb(made_up(1e9, late_ns=late_ns), 1.0, 10_000.0))
    assert first.sustained is sustained
    assert first.p50_s == first.p99_s == first.max_s == late_ns / 1e9


@pytest.mark.parametrize(
    ("reached", "in_flight"),
    [
        ((1000, 2000, 2050, 2040, 9999), [1, 2, 4, 8]),  # two rungs bring nothing more
        ((1000, 2000, 2050, 4000, 4100, 3900), [1, 2, 4, 8, 16, 32]),  # one did, and then there was more
        ((1000,) * 3, [1, 2, 4]),
        (tuple(1000 * 2**n for n in range(7)), [1, 2, 4, 8, 16, 32, 64]),
    ],
)
def test_closed_load_climbs_until_two_rungs_bring_nothing(
    made_up: Callable[..., Callable[[Step], Driven]], reached: tuple[float, ...], in_flight: list[int]
) -> None:
    found = list(_closed(made_up(closed_rps=reached), 1.0))
    assert [one.in_flight for one in found] == in_flight
    assert [one.answered_rps for one in found] == pytest.approx(reached[: len(in_flight)], rel=0.01)


def test_while_a_run_measures_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "spinning", lambda *given: pytest.fail("it disturbs the run"))
    with locked(tmp_path), pytest.raises(LockedError):
        examined(tmp_path, 4.0, lambda words: None, FakeClock())


def test_a_generator_that_does_not_start_is_told_and_leaves_no_roofline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "spinning", lambda *given: QUIET)
    monkeypatch.setattr(crew, "LOCUSTFILE", tmp_path / "nowhere.py")
    with pytest.raises(InfrastructureError, match="died in its start"):
        examined(tmp_path / "results", 4.0, lambda words: None, FakeClock())
    assert read_roofline(tmp_path / "results", fingerprint()) is None


@pytest.mark.long
def test_the_real_generator_is_driven_idle_closed_and_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "spinning", lambda *given: QUIET)
    said: list[str] = []
    found = examined(tmp_path, 4.0, said.append, FakeClock(label="2026-01-02T03:04:05Z"))
    assert [lag.rate_rps for lag in found.idle] == [100, 1000, 2000, 4000]
    assert all(0 <= lag.p50_s <= lag.p99_s <= lag.max_s for lag in (*found.idle, *found.open))
    assert [one.in_flight for one in found.closed] == [2**rung for rung in range(len(found.closed))]
    rates = [one.answered_rps for one in (*found.closed, *found.open, *found.idle)]
    assert found.roofline.rate_rps == max(rates) > 0
    assert (found.roofline.measured_utc, found.roofline.measured_by) == ("2026-01-02T03:04:05Z", "harness doctor")
    assert found.host == fingerprint() and read_roofline(tmp_path, found.host) == found.roofline
    assert {path.name for path in tmp_path.iterdir()} <= {"roofline.json", ".lock"}
    assert "open load, 2,000 req/s" in said and "closed load, 1 in flight" in said
