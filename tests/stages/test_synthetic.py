"""Synthetic tables hold what they were asked for, and what can be known of them is true."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score

from harness.errors import UsageError
from harness.records.table import DataPlan
from harness.stages.data import Table, load_table
from harness.stages.synthetic import synthetic_plan, synthetic_table


def table_of(task: str, seed: int = 7, **parameters: Any) -> Table:
    return load_table(DataPlan(source=f"synthetic:{task}", seed=seed, parameters=parameters), Path())


@pytest.mark.parametrize(
    ("task", "classes"), [("binary", 2), ("multiclass", 3), ("regression", 0)], ids=lambda value: str(value)
)
def test_a_table_of_each_task_is_ready_to_be_searched(task: str, classes: int) -> None:
    table = table_of(task)
    assert table.signature.task == task
    assert len(table.signature.classes) == classes
    assert table.frame.shape == (1_000, 20)


def test_rows_columns_and_classes_are_as_many_as_asked_for() -> None:
    table = table_of("multiclass", rows=500, columns=11, classes=5)
    assert table.frame.shape == (500, 11)
    assert table.signature.classes == tuple(f"class_{number}" for number in range(5))


def test_categories_have_the_cardinality_asked_for_and_holes_the_share() -> None:
    table = table_of("binary", rows=4_000, columns=10, categories_share=0.3, cardinality=12, missing_share=0.2)
    texts = list(table.signature.text_columns)
    assert len(texts) == 3
    assert all(set(table.frame[name]) - {""} == {f"t{part:02}" for part in range(12)} for name in texts)
    empty = (table.frame[texts] == "").to_numpy().mean(), table.frame[list(table.signature.number_columns)].isna()
    assert empty[0] == pytest.approx(0.2, abs=0.02)
    assert empty[1].to_numpy().mean() == pytest.approx(0.2, abs=0.01)


def test_a_category_holds_what_its_number_told() -> None:
    numbers = synthetic_table("regression", synthetic_plan("regression", {"columns": 4}), 3)
    texts = synthetic_table("regression", synthetic_plan("regression", {"columns": 4, "categories_share": 1.0}), 3)
    for name in ("x0", "x1", "x2", "x3"):
        highest = numbers[name].groupby(texts[name]).max().to_numpy()
        lowest = numbers[name].groupby(texts[name]).min().to_numpy()
        assert len(highest) == 10
        assert (highest[:-1] < lowest[1:]).all()


def test_the_rows_are_those_of_scikit_learn() -> None:
    frame = synthetic_table("binary", synthetic_plan("binary", {"rows": 100, "columns": 6}), 5)
    made, index = make_classification(
        100, 6, n_informative=3, n_redundant=0, n_clusters_per_class=2, flip_y=0.0, random_state=5
    )
    np.testing.assert_array_equal(frame.drop(columns="target").to_numpy(), made)
    assert list(frame["target"]) == [f"class_{value}" for value in index]


def test_the_seed_decides() -> None:
    assert table_of("binary").sha256 == table_of("binary").sha256
    assert table_of("binary").sha256 != table_of("binary", seed=8).sha256


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_no_model_explains_more_than_the_noise_leaves(noise: float) -> None:
    table = table_of("regression", rows=20_000, columns=5, noise=noise)
    found = LinearRegression().fit(table.frame, table.target).score(table.frame, table.target)
    assert found == pytest.approx(1 / (1 + noise**2), abs=0.02)


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 4)])
def test_the_noise_is_the_share_of_labels_that_were_drawn_anew(task: str, classes: int) -> None:
    given: dict[str, Any] = {"rows": 20_000, "columns": 8} | ({"classes": classes} if classes > 2 else {})
    tables = [table_of(task, noise=noise, **given) for noise in (0.0, 0.3)]
    # The same rows in another order, with their columns in another order: what they add up to tells them apart.
    pure, noisy = (table.target[np.argsort(table.frame.sum(axis=1).to_numpy())] for table in tables)
    assert (pure != noisy).mean() == pytest.approx(0.3 * (classes - 1) / classes, abs=0.01)


def test_only_the_informative_columns_tell_anything() -> None:
    """The quarter of the columns that a forest finds most important is all that it needs."""
    table = table_of("binary", rows=2_000, columns=16, informative_share=0.25)
    forest = RandomForestClassifier(60, random_state=1).fit(table.frame, table.target)
    order = np.argsort(forest.feature_importances_)[::-1]

    def score(columns: Any) -> float:
        return float(cross_val_score(forest, table.frame.iloc[:, columns], table.target, cv=3).mean())

    assert score(order[:4]) > 0.85
    assert score(order[4:]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("task", "parameters", "told"),
    [
        ("binry", {}, "`synthetic:binry` cannot be made; did you mean binary"),
        ("binary", {"row": 10}, "has no parameter 'row'; did you mean rows"),
        ("binary", {"size": 10}, "has no parameter 'size'; it has rows, columns, informative_share"),
        ("binary", {"rows": 5}, "parameter 'rows' is 5: input should be greater than or equal to 20"),
        ("binary", {"rows": "many"}, "parameter 'rows' is 'many': input should be a valid integer"),
        ("binary", {"rows": True}, "parameter 'rows' is True"),
        ("binary", {"missing_share": 1.0}, "parameter 'missing_share' is 1.0: input should be less than 1"),
        ("binary", {"noise": 1.5}, "it is a share of the labels, at most 1"),
        ("binary", {"classes": 4}, "has no parameter 'classes': a multiclass table has"),
        ("multiclass", {"classes": 2}, "parameter 'classes' is 2: input should be greater than or equal to 3"),
        ("multiclass", {"columns": 4, "classes": 5}, "5 classes need 4 informative columns, and it has 2"),
        ("binary", {"categories_share": 0.5, "cardinality": 501}, "a cardinality of 501 in 1000 rows would be names"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(task: str, parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        table_of(task, **parameters)
    assert "\n" not in str(refused.value)
