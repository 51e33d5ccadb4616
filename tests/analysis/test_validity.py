"""The verdict on a step: each way to be wrong has its reason, and takes the figures away."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from harness.analysis.load_tables import verdict
from harness.analysis.reduce import reduce_step
from harness.analysis.validity import judged, known_roofline, levelled_off, roofline_rps
from harness.records.load import ADVICE, GeneratorHealth, Outcome, Reason, Step, StepResult, WorkerHealth
from harness.records.run import Roofline
from harness.records.scenario import Scenario

MS = 1_000_000
S = 1_000_000_000
SOUND: dict[str, Any] = {"cpu_share": 0.3, "started_late_s": 0.0, "gc_s": 0.0, "clock_moved_s": 0.0, "timer": "timerfd"}


def with_null(ledgers: ModuleType) -> Scenario:
    return ledgers.scenario(serve=[{"target": "asgi", "runtimes": ["onnx"]}, {"target": "null"}])


def steady(ledgers: ModuleType) -> tuple[Step, dict[str, np.ndarray]]:
    """6 s at 400 req/s; every answer takes 5 ms."""
    due = np.arange(2400) * S // 400
    return ledgers.open_step(0, 400), ledgers.exchanges(due, np.full(2400, 5 * MS))


def seen(
    ledgers: ModuleType, step: Step, columns: dict[str, np.ndarray], target: str = "asgi", **entry: Any
) -> StepResult:
    story = ledgers.Story(with_null(ledgers))
    cell = story.cell("serve", None if target == "null" else "optuna_search", target=target)
    ledger = story.ledger()
    recorded = ledgers.step_entry(step, columns, cell=cell.id, **entry)
    ledger = ledger.__class__(**{**{name: getattr(ledger, name) for name in ledger.__slots__}, "steps": (recorded,)})
    (result,) = judged(ledger, [reduce_step(recorded, columns)])
    return result


def reasons(result: StepResult) -> set[Reason]:
    return {doubt.reason for doubt in result.doubts}


def health(**changes: Any) -> GeneratorHealth:
    return GeneratorHealth(workers=(WorkerHealth(**{**SOUND, **changes}),))


def test_a_step_that_nothing_speaks_against_has_its_figures(ledgers: ModuleType) -> None:
    found = seen(ledgers, *steady(ledgers))
    assert found.doubts == () and verdict(found) == "valid"
    assert found.throughput_rps == 400 and found.scheduled["p99"].value_s == pytest.approx(0.005)


def test_a_step_with_a_doubt_has_no_figure_but_the_reason(ledgers: ModuleType) -> None:
    found = seen(ledgers, *steady(ledgers), generator=health(cpu_share=0.97))
    assert verdict(found) == "invalid: generator busy"
    assert found.throughput_rps is None and found.curve == ()
    for latency in (*found.scheduled.values(), *found.service.values()):
        assert (latency.value_s, latency.low_s, latency.high_s) == (None, None, None)
        assert latency.reason == "the generator used 97.0 % of a core, and was at its limit"


def test_every_reason_has_its_advice() -> None:
    assert ADVICE.keys() == set(Reason)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"planned": 2401}, Reason.ROWS_MISSING),
        ({"generator": GeneratorHealth(workers=(), lost=("it died in step 0",))}, Reason.WORKER_LOST),
        ({"generator": health(started_late_s=0.5)}, Reason.STARTED_LATE),
        ({"generator": health(clock_moved_s=-1.5)}, Reason.CLOCK_MOVED),
        ({"generator": health(gc_s=0.2)}, Reason.GARBAGE_COLLECTED),
        ({"generator": health(cpu_share=0.81)}, Reason.GENERATOR_BUSY),
        (
            {"generator": GeneratorHealth(workers=(), servers_before={"a": 4, "b": 4}, servers_after={"a": 8})},
            Reason.SERVERS_CHANGED,
        ),
        (
            {"generator": GeneratorHealth(workers=(), servers_before={"a": 8}, servers_after={"a": 4, "b": 4})},
            Reason.SERVERS_CHANGED,
        ),
        (
            {"generator": GeneratorHealth(workers=(), servers_before={"a": 1}, servers_after={"b": 1})},
            Reason.SERVERS_CHANGED,
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_the_generator_says_of_itself_and_of_the_servers(
    ledgers: ModuleType, entry: dict[str, Any], reason: Reason
) -> None:
    assert reasons(seen(ledgers, *steady(ledgers), **entry)) == {reason}


def test_a_connection_that_changed_hands_is_no_change_of_servers(ledgers: ModuleType) -> None:
    spread = GeneratorHealth(workers=(), servers_before={"a": 7, "b": 1}, servers_after={"a": 8})
    assert seen(ledgers, *steady(ledgers), generator=spread).doubts == ()


def test_two_workers_on_one_core_are_busy_together(ledgers: ModuleType) -> None:
    two = GeneratorHealth(workers=(WorkerHealth(**{**SOUND, "cpu_share": 0.45}),) * 2)
    assert reasons(seen(ledgers, *steady(ledgers), generator=two)) == {Reason.GENERATOR_BUSY}


def test_a_late_generator(ledgers: ModuleType) -> None:
    step, _ = steady(ledgers)
    due = np.arange(2400) * S // 400
    assert reasons(seen(ledgers, step, ledgers.exchanges(due, np.full(2400, 10 * MS), 2 * MS))) == {
        Reason.GENERATOR_LATE
    }
    # Two milliseconds of a p99 of fifty are told, and do not take it away.
    assert seen(ledgers, step, ledgers.exchanges(due, np.full(2400, 50 * MS), 2 * MS)).doubts == ()
    # A fifth of a p99 that is below a millisecond is too little to be a doubt.
    told = seen(ledgers, step, ledgers.exchanges(due, np.full(2400, MS), MS // 5))
    assert told.doubts == () and "20.0 % of the scheduled p99" in told.warnings[0]


def test_a_generator_that_falls_behind_its_plan(ledgers: ModuleType) -> None:
    due, sent = np.arange(2400) * S // 400, np.arange(2400) * S // 350
    found = reasons(seen(ledgers, ledgers.open_step(0, 400), ledgers.exchanges(due, sent - due + 5 * MS, sent - due)))
    assert {Reason.RATE_OFF, Reason.GENERATOR_LATE} <= found


def test_requests_sent_in_lumps(ledgers: ModuleType) -> None:
    due = np.sort(np.random.default_rng(3).integers(0, 6 * S, 6000))
    lag = -(-due // (10 * MS)) * 10 * MS - due
    found = seen(ledgers, ledgers.open_step(0, 1000), ledgers.exchanges(due, lag + 500 * MS, lag))
    assert reasons(found) == {Reason.GAPS_OFF}


def test_fewer_in_flight_than_were_asked_for(ledgers: ModuleType) -> None:
    due = np.repeat(np.arange(0, 3 * S, 100 * MS), 3)
    due = np.tile(due, 2)
    columns = ledgers.exchanges(np.sort(due), np.full(len(due), 100 * MS))
    assert reasons(seen(ledgers, ledgers.closed_step(0, 8), columns)) == {Reason.LITTLES_LAW}
    assert seen(ledgers, ledgers.closed_step(0, 6), columns).doubts == ()


def test_errors_beyond_the_objective(ledgers: ModuleType) -> None:
    step, columns = steady(ledgers)
    ledgers.fail(columns, slice(1000, 1010), Outcome.HTTP_ERROR)
    assert reasons(seen(ledgers, step, columns)) == {Reason.ERRORS}


def test_too_few_samples(ledgers: ModuleType) -> None:
    due = np.arange(300) * S // 50
    assert reasons(seen(ledgers, ledgers.open_step(0, 50), ledgers.exchanges(due, np.full(300, MS)))) == {
        Reason.FEW_SAMPLES
    }


def test_a_latency_that_never_settles(ledgers: ModuleType) -> None:
    due = np.arange(2400) * S // 400
    falling = 50 * MS - due // 150
    assert reasons(seen(ledgers, ledgers.open_step(0, 400), ledgers.exchanges(due, falling))) == {Reason.NOT_STEADY}


def test_a_server_that_falls_behind_is_a_result_and_keeps_its_figures(ledgers: ModuleType) -> None:
    due, done = np.arange(2400) * S // 400, np.arange(2400) * S // 300
    found = seen(ledgers, ledgers.open_step(0, 400), ledgers.exchanges(due, done - due + 5 * MS))
    assert found.doubts == () and verdict(found) == "overloaded"
    assert found.overloaded is not None and "25.0 % of the rate" in found.overloaded
    assert found.scheduled["p99"].value_s is not None


@pytest.mark.parametrize(
    ("slow_ms", "cpu_share", "expected"),
    [(20, 0.3, set()), (2, 0.3, {Reason.POOL_TOO_SMALL}), (20, 0.9, {Reason.GENERATOR_BUSY, Reason.GENERATOR_LIMITED})],
    ids=["the server", "the limit in flight", "the generator"],
)
def test_who_is_to_blame_for_what_was_dropped(
    ledgers: ModuleType, slow_ms: int, cpu_share: float, expected: set[Reason]
) -> None:
    due = np.arange(2400) * S // 400
    columns = ledgers.exchanges(due, np.where(due < S // 20, 2 * MS, slow_ms * MS))
    ledgers.fail(columns, slice(1000, 1002), Outcome.DROPPED)
    found = seen(ledgers, ledgers.open_step(0, 400), columns, generator=health(cpu_share=cpu_share))
    assert reasons(found) == expected
    assert (found.overloaded is not None) == (not expected)


def test_the_roofline_is_what_the_generator_reaches_against_nothing(ledgers: ModuleType) -> None:
    story = ledgers.Story(with_null(ledgers))
    null, served = story.cell("serve", target="null"), story.cell("serve", "optuna_search")
    for cell, rate in ((null, 1000), (served, 600), (served, 800)):
        step = ledgers.open_step(len(story.steps), rate)
        due = np.arange(6 * rate) * S // rate
        story.step(cell, step, ledgers.exchanges(due, np.full(6 * rate, 5 * MS)))
    results = story.reduced()
    assert roofline_rps(story.ledger(), results) == 1000
    assert [reasons(result) for result in results] == [set(), set(), {Reason.NEAR_ROOFLINE}]


def stored(ledgers: ModuleType, rate_rps: float, **load: int) -> Roofline:
    """A roofline that was known before the run began."""
    return Roofline(
        rate_rps=rate_rps,
        measured_utc="2025-12-31T00:00:00Z",
        measured_by="harness doctor",
        **{"workers": 1, "rows": 1, **load},
        host=ledgers.whole_run().ledger().host,
    )


def served_at(ledgers: ModuleType, rate: int, known: Roofline | None, null: int | None = None, lost: str = "") -> Any:
    """A run that served one candidate at a rate, and `null` at another; `lost` says what became of a process there."""
    story = ledgers.Story(with_null(ledgers))
    story.roofline = known
    for cell, asked in ((story.cell("serve", "optuna_search"), rate), (story.cell("serve", target="null"), null)):
        if asked is not None:
            due = np.arange(6 * asked) * S // asked
            story.step(cell, ledgers.open_step(len(story.steps), asked), ledgers.exchanges(due, np.full(len(due), MS)))
    if lost:
        story.steps[1] = story.steps[1].model_copy(update={"generator": GeneratorHealth(workers=(), lost=(lost,))})
    return story


@pytest.mark.parametrize(
    ("known_rps", "null", "expected"),
    [
        (None, None, set()),
        (1000.0, None, {Reason.NEAR_ROOFLINE}),
        (1500.0, None, set()),
        (1000.0, 1500, set()),
        (1500.0, 1000, set()),  # the most that it ever did is what it can do
    ],
)
def test_a_run_without_null_steps_is_held_against_the_roofline_that_was_known_before_it(
    ledgers: ModuleType, known_rps: float | None, null: int | None, expected: set[Reason]
) -> None:
    story = served_at(ledgers, 800, None if known_rps is None else stored(ledgers, known_rps), null)
    assert reasons(story.reduced()[0]) == expected


def test_a_null_step_that_cannot_be_believed_is_no_roofline(ledgers: ModuleType) -> None:
    story = served_at(ledgers, 800, stored(ledgers, 5000.0), null=1000, lost="it died in step 1")
    served, null = story.reduced()
    assert reasons(null) == {Reason.WORKER_LOST} and reasons(served) == set()
    known = known_roofline(story.ledger(), (served, null))
    assert known is not None and known.rate_rps == 5000.0


@pytest.mark.parametrize("load", [{"workers": 2}, {"rows": 100}])
def test_a_roofline_of_another_load_says_nothing(ledgers: ModuleType, load: dict[str, int]) -> None:
    story = served_at(ledgers, 800, stored(ledgers, 1000.0, **load))
    assert reasons(story.reduced()[0]) == set()
    assert known_roofline(story.ledger(), story.reduced()) is None


@pytest.mark.parametrize(
    ("rates", "expected"),
    [([], False), ([1000], False), ([1000, 1050], True), ([1000, 1500], False), ([1000, 2000, 1900], True)],
)
def test_a_ladder_has_found_the_top_when_its_last_rung_brings_nothing_more(
    ledgers: ModuleType, rates: list[int], expected: bool
) -> None:
    story = ledgers.Story(with_null(ledgers))
    for number, rate in enumerate(rates):
        due = np.arange(3 * rate) * S // rate
        latency = np.full(len(due), 2**number * S // rate)
        step = ledgers.closed_step(number, 2**number)
        story.step(story.cell("serve", target="null"), step, ledgers.exchanges(due, latency))
    assert levelled_off(story.ledger(), story.reduced()) is expected


def test_the_roofline_itself_may_take_the_generator_to_its_limit(ledgers: ModuleType) -> None:
    assert seen(ledgers, *steady(ledgers), target="null", generator=health(cpu_share=1.0)).doubts == ()
