"""From exchanges to a step's figures: every figure here can be worked out by hand."""

from types import ModuleType

import numpy as np
import pytest

from harness.analysis.reduce import reduce_step, rung
from harness.records.ledger import StepEntry
from harness.records.load import EXCHANGE_COLUMNS, GeneratorHealth, Outcome, Step, StepResult, WorkerHealth

MS = 1_000_000
S = 1_000_000_000


HEALTH = GeneratorHealth(
    workers=(WorkerHealth(cpu_share=0.3, started_late_s=0.0, gc_s=0.0, clock_moved_s=0.0, timer="timerfd"),)
)


def reduced(step: Step, columns: dict[str, np.ndarray]) -> StepResult:
    recorded = {"planned": len(columns["due_ns"]), "plan_sha256": "1" * 64, "generator": HEALTH}
    return reduce_step(StepEntry(id="s", cell="c", step=step, exchanges_sha256="0" * 64, **recorded), columns)


def steady(ledgers: ModuleType, latency_ms: float = 5.0) -> tuple[Step, dict[str, np.ndarray]]:
    """6 s at 400 req/s, the first second warms up; every answer takes the same time."""
    due = (np.arange(2400) * S) // 400
    return ledgers.open_step(0, 400), ledgers.exchanges(due, np.full(2400, int(latency_ms * MS)))


def test_a_steady_open_step_measures_what_it_was_given(ledgers: ModuleType) -> None:
    found = reduced(*steady(ledgers))
    assert (found.planned, found.succeeded, found.failed, found.error_share) == (2000, 2000, {}, 0.0)
    assert found.throughput_rps == 400
    assert found.scheduled["p50"].value_s == found.scheduled["p99"].value_s == pytest.approx(0.005)
    assert found.lag_p99_s == 0
    assert found.warnings == ()


def test_a_share_of_errors_at_its_bound_is_exact(ledgers: ModuleType) -> None:
    """2 of 2,000 is 0.001, and not a last binary digit more: an objective of 0.001 is met."""
    step, columns = steady(ledgers)
    columns["outcome"][400:402] = Outcome.HTTP_ERROR
    assert reduced(step, columns).error_share == 0.001


def test_what_a_full_queue_refuses_is_told_apart_from_what_went_wrong(ledgers: ModuleType) -> None:
    step, columns = steady(ledgers)
    columns["outcome"][400:410] = Outcome.HTTP_ERROR
    columns["status"][400:407], columns["status"][407:410] = 503, 500
    found = reduced(step, columns)
    assert (found.failed, found.refused) == ({"http_error": 10}, 7)


def test_exchanges_due_in_the_warm_up_are_not_measured(ledgers: ModuleType) -> None:
    step, columns = steady(ledgers)
    columns["done_ns"][:400] = columns["due_ns"][:400] + 900 * MS
    assert reduced(step, columns).scheduled["p99"].value_s == pytest.approx(0.005)


def test_answers_after_the_end_of_the_step_keep_their_latency(ledgers: ModuleType) -> None:
    """Cutting them off would leave out exactly the slow ones."""
    step, columns = steady(ledgers)
    columns["done_ns"][-100:] = columns["due_ns"][-100:] + 3 * S
    found = reduced(step, columns)
    assert found.succeeded == 2000
    assert found.scheduled["p99"].value_s == pytest.approx(3.0)
    # They did not arrive inside the window, so they are no throughput; two of them would not have done so anyway.
    assert found.throughput_rps == pytest.approx(400 - 98 / 5)


def test_percentiles_are_observed_values_of_scheduled_and_service_latency(ledgers: ModuleType) -> None:
    due = np.arange(2400) * S // 400
    latency = np.resize(np.arange(1, 101), 2400) * MS
    found = reduced(ledgers.open_step(0, 400), ledgers.exchanges(due, latency, lag_ns=MS // 2))
    assert {name: value.value_s for name, value in found.scheduled.items() if name != "p99.9"} == {
        "p50": 0.05, "p90": 0.09, "p99": 0.099
    }  # fmt: skip
    assert found.service["p99"].value_s == pytest.approx(0.0985)
    assert found.lag_p99_s == pytest.approx(0.0005)


def test_a_percentile_that_the_sample_cannot_bound_is_refused(ledgers: ModuleType) -> None:
    found = reduced(*steady(ledgers))
    assert found.scheduled["p99.9"].value_s is None
    assert found.scheduled["p99.9"].reason == "2,000 samples are too few: a 95 % interval needs 3,688"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome.DROPPED, "50 of 2,000 requests were dropped: the limit of requests in flight was reached."),
        (Outcome.CENSORED, "50 of 2,000 requests had no answer when the step was cut off."),
        (Outcome.WRONG_ANSWER, "50 of 2,000 requests got a wrong answer."),
        (Outcome.TIMEOUT, None),
        (Outcome.HTTP_ERROR, None),
        (Outcome.CONNECTION, None),
    ],
)
def test_whatever_is_no_success_is_a_failure(ledgers: ModuleType, outcome: Outcome, words: str | None) -> None:
    step, columns = steady(ledgers)
    found = reduced(step, ledgers.fail(columns, slice(1000, 1050), outcome))
    assert found.failed == {outcome.name.lower(): 50}
    assert found.error_share == pytest.approx(50 / 2000)
    assert found.succeeded == 1950
    assert (words in found.warnings) if words else not any("of 2,000 requests" in text for text in found.warnings)


def test_failures_do_not_enter_the_latencies(ledgers: ModuleType) -> None:
    step, columns = steady(ledgers)
    columns["done_ns"][500:900] = columns["due_ns"][500:900] + MS // 1000
    columns["outcome"][500:900] = Outcome.HTTP_ERROR
    assert reduced(step, columns).scheduled["p50"].value_s == pytest.approx(0.005)


def test_a_late_generator_is_told_on(ledgers: ModuleType) -> None:
    due = np.arange(2400) * S // 400
    late = reduced(ledgers.open_step(0, 400), ledgers.exchanges(due, np.full(2400, 10 * MS), lag_ns=2 * MS))
    assert late.warnings == ("p99 of the generator's lag is 2.00 ms, 20.0 % of the scheduled p99.",)


def test_a_lag_that_hardly_shows_in_the_latency_is_not(ledgers: ModuleType) -> None:
    due = np.arange(2400) * S // 400
    assert reduced(ledgers.open_step(0, 400), ledgers.exchanges(due, np.full(2400, 50 * MS), 2 * MS)).warnings == ()


def test_a_generator_that_falls_behind_its_plan_is_told_on(ledgers: ModuleType) -> None:
    """Offered 400 per second, sent at 350: the last of 2,400 leaves 0.86 s after the step has ended."""
    due = np.arange(2400) * S // 400
    sent = np.arange(2400) * S // 350
    columns = ledgers.exchanges(due, sent - due + 5 * MS, sent - due)
    assert reduced(ledgers.open_step(0, 400), columns).observed.rate_off == pytest.approx(1750 / 2000 - 1)


def test_a_step_without_requests_does_not_look_like_one_without_errors(ledgers: ModuleType) -> None:
    empty = {name: np.zeros(0, dtype=dtype) for name, dtype in EXCHANGE_COLUMNS.items()}
    found = reduced(ledgers.open_step(0, 50), empty)
    assert (found.planned, found.error_share, found.throughput_rps) == (0, 1.0, 0.0)


def test_a_slow_start_is_cropped_and_an_unsteady_end_is_seen(ledgers: ModuleType) -> None:
    due = np.arange(2400) * S // 400
    slow = np.where(due < 2.4 * S, 50 * MS, 5 * MS)
    found = reduced(ledgers.open_step(0, 400), ledgers.exchanges(due, slow))
    # A slot is a quarter of a second of the five from the warm-up on; the sixth holds the end of what is slow.
    assert found.measured_from_s == 2.5
    assert found.scheduled["p99.9"].reason is not None and found.scheduled["p99"].value_s == pytest.approx(0.005)
    assert not found.observed.drifting
    rising = reduced(ledgers.open_step(0, 400), ledgers.exchanges(due, 5 * MS + due // 200))
    assert rising.observed.drifting and rising.measured_from_s == 1.0


def test_a_server_that_falls_behind_has_a_backlog_that_grows(ledgers: ModuleType) -> None:
    """Offered 400 per second, answered at 300: a quarter of the rate is added to the backlog all the time."""
    due = np.arange(2400) * S // 400
    done = np.arange(2400) * S // 300
    assert reduced(ledgers.open_step(0, 400), ledgers.exchanges(due, done - due)).observed.backlog_growth == (
        pytest.approx(0.25, rel=0.02)
    )
    assert reduced(*steady(ledgers)).observed.backlog_growth == 0


def test_littles_law_counts_from_the_due_time(ledgers: ModuleType) -> None:
    """Four lanes, 100 ms each, and the next request 10 ms after it could have been sent: still four in flight."""
    start = np.repeat(np.arange(0, 3 * S, 110 * MS), 4)
    columns = ledgers.exchanges(start, np.full(len(start), 110 * MS), 10 * MS)
    found = reduced(ledgers.closed_step(0, 4), columns)
    assert found.observed.little_off == pytest.approx(0, abs=0.05)
    assert found.lag_p99_s is None or found.lag_p99_s == pytest.approx(0.01)
    three = reduced(
        ledgers.closed_step(0, 4), {name: np.delete(column, slice(0, None, 4)) for name, column in columns.items()}
    )
    assert three.observed.little_off == pytest.approx(-0.25, abs=0.05)


def test_the_gaps_are_held_against_the_plan(ledgers: ModuleType) -> None:
    due = np.sort(np.random.default_rng(3).integers(0, 6 * S, 6000))
    on_time = reduced(ledgers.open_step(0, 1000), ledgers.exchanges(due, np.full(6000, 5 * MS), 50_000)).observed
    assert on_time.gap_distance is not None and on_time.gap_distance < 0.01
    every_ten_ms = -(-due // (10 * MS)) * 10 * MS - due
    held = reduced(ledgers.open_step(0, 1000), ledgers.exchanges(due, every_ten_ms + 5 * MS, every_ten_ms)).observed
    assert held.gap_distance is not None and held.gap_bound is not None
    assert held.gap_distance > 0.5 > 10 * held.gap_bound


def test_answers_that_slow_down_are_told_where_requests_were_dropped(ledgers: ModuleType) -> None:
    due = np.arange(2400) * S // 400
    columns = ledgers.exchanges(due, np.where(due < S // 20, 2 * MS, 20 * MS))
    assert reduced(ledgers.open_step(0, 400), columns).observed.slowdown is None
    ledgers.fail(columns, slice(1000, 1010), Outcome.DROPPED)
    assert reduced(ledgers.open_step(0, 400), columns).observed.slowdown == pytest.approx(10)


def test_a_closed_step_is_measured_by_when_its_exchanges_ended(ledgers: ModuleType) -> None:
    """Four in flight, 100 ms each: the 40 answers per second of seconds 1 to 3, whenever they were sent."""
    step = ledgers.closed_step(0, 4)
    due = np.repeat(np.arange(30) * 100 * MS, 4)
    found = reduced(step, ledgers.exchanges(due, np.full(120, 100 * MS)))
    assert found.throughput_rps == 40
    assert found.planned == 80


def test_a_closed_step_counts_what_never_ended(ledgers: ModuleType) -> None:
    step = ledgers.closed_step(0, 4)
    due = np.repeat(np.arange(30) * 100 * MS, 4)
    columns = ledgers.fail(ledgers.exchanges(due, np.full(120, 100 * MS)), slice(60, 64), Outcome.TIMEOUT)
    assert reduced(step, columns).failed == {"timeout": 4}


def test_a_rung_says_what_a_shape_may_know(ledgers: ModuleType) -> None:
    step, columns = steady(ledgers)
    told = rung(reduced(step, columns))
    assert (told.step, told.throughput_rps, told.p99_s, told.error_share) == (step, 400.0, 0.005, 0.0)


def test_the_curve_rises_and_stops_where_the_sample_does(ledgers: ModuleType) -> None:
    step = ledgers.open_step(0, 400)
    curve = reduced(step, ledgers.open_exchanges(step, 1000.0, seed=1)).curve
    shares, latencies = zip(*curve, strict=True)
    assert len(curve) < 100
    assert list(shares) == sorted(shares) and list(latencies) == sorted(latencies)
    # 0.025 ** (1 / 2000): beyond it fewer than 3.7 observations are expected.
    assert shares[-1] == pytest.approx(0.99816, abs=2e-4)
