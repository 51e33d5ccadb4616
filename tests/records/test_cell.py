"""What a scenario resolves to where it has several tables, axes, or several numbers of workers."""

from collections import Counter

import pytest
from pydantic import ValidationError

from harness.records.cell import Cell, cells
from harness.records.scenario import Scenario


def scenario(**changes: object) -> Scenario:
    told: dict[str, object] = {
        "question": "Which engine?",
        "data": [{"source": "sklearn:iris"}, {"source": "data/Churn 2024.csv"}],
        "search": {"engines": ["random_search", "optuna_search"], "seeds": [1, 2]},
    }
    return Scenario.model_validate({**told, **changes})


def test_on_several_tables_engines_are_compared_and_nothing_is_served() -> None:
    planned = cells(scenario(), ())
    assert Counter(cell.kind for cell in planned) == {"search": 2 * 2 * 2, "refit": 2 * (2 + 2 * 2)}
    assert {cell.table for cell in planned} == {"iris", "churn-2024"}
    unsearched = {(cell.engine, cell.seed) for cell in planned if cell.kind == "refit" and cell.seed is None}
    assert unsearched == {("dummy", None), ("baseline", None)}


def test_a_table_of_its_own_is_compared_on_when_asked() -> None:
    one = [{"source": "sklearn:iris"}]
    assert "refit" not in {cell.kind for cell in cells(scenario(data=one), ())}
    assert {"refit", "candidate"} <= {cell.kind for cell in cells(scenario(data=one, compare={}), ())}


def test_each_number_of_workers_searches_anew_and_what_is_found_is_fitted_once() -> None:
    search = {"engines": ["random_search"], "workers": [1, 2, 4]}
    planned = cells(scenario(search=search), ())
    assert [cell.workers for cell in planned if cell.kind == "search" and cell.table == "iris"] == [1, 2, 4]
    assert [cell.engine for cell in planned if cell.kind == "refit" and cell.table == "iris"] == [
        "dummy",
        "baseline",
        "random_search",
    ]


def test_an_axis_is_a_table_per_value() -> None:
    axes = {"rows": [100, 1000], "noise": [0.1, 0.2], "columns": 5}
    tables = scenario(data=[{"source": "synthetic:binary", "parameters": axes}]).tables
    assert [table.name for table in tables] == [
        "synthetic-binary-rows100-noise0.1",
        "synthetic-binary-rows100-noise0.2",
        "synthetic-binary-rows1000-noise0.1",
        "synthetic-binary-rows1000-noise0.2",
    ]
    assert tables[2].parameters == {"rows": 1000, "noise": 0.1, "columns": 5}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"serve": [{"target": "asgi"}]}, "serve"),
        ({"expect": {"score_at_least": 0.9}}, "expect"),
        ({"gates": [{"name": "g", "measure": "score", "at_least": 0.9}]}, "gates"),
        ({"data": [{"source": "sklearn:iris"}, {"source": "sklearn:iris"}]}, "data names one thing twice: iris, iris"),
    ],
)
def test_what_needs_one_table_is_refused_on_several(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        scenario(**changes)


ONE_TABLE = [{"source": "sklearn:iris"}]


def served(**told: object) -> list[Cell]:
    plan = scenario(data=ONE_TABLE, serve=[{"target": "asgi", "candidates": ["baseline"], **told}])
    return [cell for cell in cells(plan, ()) if cell.kind == "serve"]


def test_each_size_of_batch_is_a_cell_and_the_usual_one_is_the_cell_that_it_always_was() -> None:
    usual, *batched = served(batch_requests=[1, 8, 32], batch_wait_s=0.002)
    assert [usual] == served()
    assert [cell.label for cell in batched] == [
        "baseline onnx asgi x1 batch 8 within 2 ms",
        "baseline onnx asgi x1 batch 32 within 2 ms",
    ]
    assert len({cell.id for cell in (usual, *batched, *served(batch_requests=[8]), *served(waiting_s=2.0))}) == 5


def test_waiting_for_a_batch_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch_wait_s is for batches"):
        served(batch_wait_s=0.01)
