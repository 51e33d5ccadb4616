"""What a served cell carries, found again where it is known."""

from types import ModuleType
from typing import Any

import pytest

from harness.analysis.capacity import Met, capacities, met, offered_rps
from harness.analysis.findings import findings
from harness.analysis.load_tables import capacity as capacity_table
from harness.analysis.reduce import reduce_step
from harness.records.finding import Capacity
from harness.records.load import Outcome, Reason
from harness.records.run import Cause, Failure
from harness.records.scenario import Objective
from harness.units import Unit


def of(story: object, origin: str = "optuna_search") -> Capacity:
    return next(one for one in capacities(story.ledger(), story.reduced()) if one.candidate == origin)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("capacity_rps", "found"), [(500.0, 400), (1000.0, 800), (1500.0, 1200), (1900.0, 1600)])
def test_a_known_capacity_is_found_between_the_steps_around_it(
    ledgers: ModuleType, capacity_rps: float, found: float
) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), capacity_rps, (400, 800, 1200, 1600, 2000))
    rate = of(story).rate
    assert rate.value == rate.low == found
    assert rate.high == found + 400
    assert rate.low <= capacity_rps <= rate.high


def test_the_p99_and_the_step_of_the_capacity_are_given_with_it(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400, 800, 1200))
    carried, results = of(story), story.reduced()
    step = next(result for result in results if result.id == carried.step)
    assert step.step.rate_rps == 800
    assert carried.p99.value == step.scheduled["p99"].value_s
    assert carried.p99.unit is Unit.SECONDS
    assert carried.rate.n == step.planned


def test_the_rate_is_the_one_offered_not_what_chance_put_into_the_window(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400,))
    result = next(result for result in story.reduced() if result.step.mode == "open")
    assert result.throughput_rps != 400
    assert offered_rps(result) == 400


def test_where_answers_are_missing_the_measured_throughput_stands(ledgers: ModuleType) -> None:
    """The server answers within the objective, but 5 % of the due rate is missing from the window."""
    story = ledgers.Story(ledgers.scenario(load={"objective": {"p99_s": 0.05, "error_share": 0.2}}))
    step = ledgers.open_step(0, 400)
    columns = ledgers.open_exchanges(step, 1000.0, seed=1)
    rows = slice(0, len(columns["due_ns"]), 10)
    story.step(story.cell("serve", "optuna_search"), step, ledgers.fail(columns, rows, Outcome.HTTP_ERROR))
    rate = of(story).rate
    assert rate.value == story.reduced()[0].throughput_rps == pytest.approx(360, rel=0.03)
    assert "The step offered 400 req/s; fewer answers arrived in its window." in rate.warnings


def test_a_cell_that_never_missed_has_at_least_its_capacity(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 5000.0, (400, 800))
    rate = of(story).rate
    assert (rate.value, rate.high) == (800, None)
    assert "Capacity is at least this: no step above it missed the objective." in rate.warnings


def test_a_cell_that_always_missed_has_a_capacity_of_zero(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 300.0, (400, 800))
    carried = of(story)
    assert (carried.rate.value, carried.rate.high, carried.step) == (0.0, 400, None)
    assert carried.rate.warnings == ("No open step met the objective; the lowest rate tried was 400 req/s.",)
    assert carried.p99.value is None and carried.p99.reason == "No open step met the objective."


def test_a_step_with_too_few_samples_has_neither_met_nor_missed(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (50,))
    result = next(result for result in story.reduced() if result.step.mode == "open")
    assert met(result, Objective(p99_s=0.05)) is Met.UNDECIDED
    rate = of(story).rate
    assert rate.value is None
    assert rate.reason == (
        "No open step can be said to have met the objective: at 50 req/s, 266 successes are too few: 368 are needed."
    )


def failing(ledgers: ModuleType, rows: slice, outcome: Outcome) -> tuple[Any, Any]:
    """A story with one open step, of which some requests came to that; and the step's exchanges."""
    story = ledgers.Story()
    step = ledgers.open_step(0, 400)
    columns = ledgers.fail(ledgers.open_exchanges(step, 1000.0, seed=1), rows, outcome)
    story.step(story.cell("serve", "optuna_search"), step, columns)
    return story, columns


def test_errors_miss_the_objective_however_fast_the_rest_is(ledgers: ModuleType) -> None:
    story, columns = failing(ledgers, slice(1000, 1010), Outcome.HTTP_ERROR)
    result = story.reduced()[0]
    assert result.scheduled["p99"].value_s is None
    assert met(result, Objective(p99_s=0.05)) is Met.NO
    (entry,) = story.steps
    raw = reduce_step(entry, columns)
    assert raw.scheduled["p99"].value_s is not None and raw.scheduled["p99"].value_s < 0.05
    assert met(raw, Objective(p99_s=0.05, error_share=0.01)) is Met.YES


def test_what_the_limit_in_flight_held_back_is_no_miss_of_the_servers(ledgers: ModuleType) -> None:
    """More than may fail was dropped, while answers took no longer than at first: nobody knows what they would do."""
    story, _ = failing(ledgers, slice(1000, 1100), Outcome.DROPPED)
    result = story.reduced()[0]
    assert {doubt.reason for doubt in result.doubts} == {Reason.POOL_TOO_SMALL}
    assert result.error_share > 0.04 and result.failed_share == pytest.approx(0.0)
    assert met(result, Objective(p99_s=0.05)) is Met.UNDECIDED


def test_a_miss_below_the_capacity_is_a_warning(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    cell = story.cell("serve", "optuna_search")
    for number, (rate, capacity) in enumerate(((400, 100.0), (800, 1000.0), (1200, 1000.0))):
        step = ledgers.open_step(number, rate)
        story.step(cell, step, ledgers.open_exchanges(step, capacity, seed=1))
    rate = of(story).rate
    assert (rate.value, rate.high) == (800, 1200)
    assert any("the cell is not stable at this rate" in warning for warning in rate.warnings)


def test_the_peak_is_of_closed_steps_and_needs_no_objective(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(load={}))
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400,), in_flight=(1, 2, 4))
    carried = of(story)
    assert carried.peak.value == pytest.approx(1000, rel=0.01)
    assert carried.rate.value is None
    assert carried.rate.reason == "The scenario has no objective, so no rate is inside it."


def test_every_planned_cell_has_a_capacity_or_a_reason(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    failed = Failure(cause=Cause.TARGET, message="the server did not become ready")
    story.done(story.cell("serve", "random_search"), failure=failed)
    found = capacities(story.ledger(), story.reduced())
    assert [one.cell for one in found] == [cell.id for cell in story.plan if cell.kind == "serve"]
    reasons = {one.candidate: (one.rate.reason, one.peak.reason) for one in found}
    assert reasons["random_search"] == ("Never loaded: the server did not become ready",) * 2
    assert reasons["baseline"] == ("Never loaded: the run did not come to it.",) * 2


def test_how_a_server_was_told_to_serve_is_in_its_capacity_and_in_the_table(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(serve=[{"target": "asgi", "batch_requests": [1, 8], "batch_wait_s": 0.01}]))
    found = findings(story.ledger(), story.reduced())
    (usual, batched), table = found.capacities[:2], capacity_table(found)
    assert usual.settings is None
    assert batched.settings is not None and batched.settings.words == "batch 8 within 10 ms"
    keys = [field.key for field in table.fields]
    assert [row[keys.index("batch_requests")] for row in table.rows[:2]] == [1, 8]
    assert [row[keys.index("batch_wait_s")] for row in table.rows[:2]] == [0.0, 0.01]
    plain = ledgers.Story()
    usual_table = capacity_table(findings(plain.ledger(), plain.reduced()))
    assert "batch_requests" not in [field.key for field in usual_table.fields]
    assert {len(row) for row in table.rows} == {len(keys)}
