"""The plan refuses, before anything runs, whatever does not exist; and its estimate errs to the long side."""

from pathlib import Path
from typing import Any

import pytest

from harness.analysis.growth import places_along
from harness.errors import UsageError
from harness.pipeline.plan import refuse_outside, resolved, steps
from harness.records.load import Rung, Step
from harness.records.scenario import LoadPlan, Scenario
from harness.stats.scaling import SCALES_AT_LEAST, SIZES_AT_LEAST
from harness.store.scenarios import read_scenario


def scenario(**changes: Any) -> Scenario:
    values: dict[str, Any] = {
        "question": "Which?",
        "data": [{"source": "sklearn:iris"}],
        "search": {"engines": ["random_search"], "seconds": 10},
        "serve": [{"target": "asgi"}, {"target": "null"}],
    }
    return Scenario.model_validate(values | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search": {"engines": ["random_serch"]}}, "did you mean random_search"),
        ({"search": {"engines": ["random_search"], "families": ["mpl"]}}, "did you mean mlp"),
        ({"search": {"engines": ["random_search"], "parameters": {"optuna_search": {}}}}, "search.parameters names"),
        ({"serve": [{"target": "asgy"}]}, "did you mean asgi"),
        ({"serve": [{"target": "asgi", "runtimes": ["onx"]}]}, "did you mean onnx"),
        (
            {"serve": [{"target": "asgi", "candidates": ["optuna_search"]}]},
            "serve asgi candidates names 'optuna_search'",
        ),
        ({"serve": [{"target": "null", "batch_requests": [8]}]}, "told neither batch_requests nor"),
        ({"serve": [{"target": "asgi", "parameters": {"prot": 1}}]}, "did you mean port"),
        ({"serve": [{"target": "asgi", "parameters": {"port": 65536}}]}, "cannot listen on port 65536"),
        ({"serve": [{"target": "asgi", "parameters": {"port": -1}}]}, "cannot listen on port -1"),
        ({"serve": [{"target": "asgi"}, {"target": "asgi"}]}, "plans the same cell twice"),
        ({"load": {"shapes": ["stars"]}}, "did you mean stairs"),
        ({"load": {"parameters": {"ladr": {}}}}, "load.parameters names 'ladr'"),
        ({"load": {"parameters": {"ladder": {"limt": 1}}}}, "did you mean limit"),
        ({"gates": [{"name": "g", "measure": "capacity_rps", "at_least": 1}]}, "objective"),
        (
            {"gates": [{"name": "g", "measure": "score", "at_least": 1, "candidate": "optuna_search"}]},
            "optuna_search",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_does_not_exist_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=f"my.toml: .*{told}"):
        resolved(scenario(**changes), "my.toml")


def test_each_cell_has_an_estimate() -> None:
    plan = resolved(scenario(), "my.toml")
    assert len(plan.cells) == len(plan.estimates_s)
    by_kind = {cell.kind: estimate_s for cell, estimate_s in zip(plan.cells, plan.estimates_s, strict=True)}
    assert by_kind["search"] == 10
    longer = {"parameters": {"stairs": {"step_s": 30.0}}}
    assert resolved(scenario(load=longer), "my.toml").estimated_s > plan.estimated_s + 60


def test_the_suite_of_growing_scales_measures_enough_for_its_laws_in_a_quarter_of_an_hour() -> None:
    suite, _ = read_scenario(Path(__file__).parents[2] / "scenarios" / "automl-scale.toml")
    assert suite.search is not None and suite.comparison is not None
    assert len(set(suite.search.workers)) >= SCALES_AT_LEAST
    for axis in ("rows", "columns"):
        assert {len(sizes) for sizes in _along(suite, axis).values()} == {SIZES_AT_LEAST}
    # Workers are started anew for each table and number of them, which the estimate leaves out.
    starts_s = 4.0 * len(suite.tables) * len(suite.search.workers)
    assert resolved(suite, "automl-scale.toml").estimated_s + starts_s < 900


def _along(suite: Scenario, axis: str) -> dict[str, set[int]]:
    """Sizes along an axis, by what else tells these tables from others."""
    found: dict[str, set[int]] = {}
    for size, beside in places_along(suite, axis).values():
        found.setdefault(beside, set()).add(size)
    return found


def test_shapes_are_walked_in_order_and_told_what_came_before() -> None:
    driven: list[Step] = []

    def drive(step: Step) -> Rung:
        driven.append(step)
        throughput = step.rate_rps or 1000.0 * min(step.in_flight or 1, 4)
        return Rung(step=step, throughput_rps=throughput, p99_s=0.001, error_share=0.0)

    rungs = list(steps(LoadPlan(), drive))
    assert [rung.step for rung in rungs] == driven
    assert [step.number for step in driven] == list(range(len(driven)))
    modes = [step.mode for step in driven]
    assert modes == sorted(modes)  # closed first: the stairs stand on the ladder's peak
    rates = [step.rate_rps for step in driven if step.rate_rps is not None]
    assert rates == sorted(rates)
    assert max(rates) <= 4000.0 * 1.5


def test_an_isolated_run_is_refused_what_lies_beyond_loopback_and_not_what_may_be_in_a_cache() -> None:
    external = [{"target": "external", "parameters": {"url": "http://127.0.0.1:1"}}]
    with pytest.raises(UsageError, match="With --isolate nothing but loopback can be reached, and the target external"):
        refuse_outside(resolved(scenario(serve=external), "here"))
    cached = [{"source": "openml:61", "target": "class", "task": "multiclass"}]
    refuse_outside(resolved(scenario(data=cached), "here"))
