"""Refits, for real: a child that forks twice, and what becomes of one that breaks."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from harness.records.run import Cause, Failure
from harness.records.scenario import ComparePlan
from harness.records.table import DataPlan
from harness.space.score import predict, score
from harness.stages.data import Table, load_table
from harness.stages.refit import Order, answered, refitted
from harness.stats.scaling import PowerLaw, power_law

PLAN = ComparePlan(rows=(1, 300), repeats=3, seconds=5.0)
FOREST = {"family": "random_forest", "max_depth": 4}


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table(DataPlan(source="sklearn:iris"), Path())


def test_what_is_fitted_is_asked_in_another_process(table: Table) -> None:
    answer = refitted(Order(table, FOREST, 7, PLAN), (), 120.0)
    assert not isinstance(answer, Failure)
    fitted, asked = answer
    assert [(time.rows, len(time.calls_s)) for time in asked.predict] == [(1, 3), (300, 3)]
    assert min(fitted.fit_cold_s, fitted.fit_warm_s, asked.load_s, asked.predict_cold_s) > 0
    # What came back is the pipeline that answered.
    pipeline = pickle.loads(fitted.pipeline)
    holdout = table.frame.iloc[table.holdout]
    again = predict(pipeline, holdout, "multiclass")
    assert again.probabilities is not None
    assert fitted.answers.probabilities is not None
    np.testing.assert_array_equal(again.probabilities, fitted.answers.probabilities)
    assert score("accuracy", table.target[table.holdout], fitted.answers) > 0.8


def test_the_dummy_never_looks_at_the_columns(table: Table) -> None:
    answer = refitted(Order(table, {}, 7, PLAN), (), 120.0)
    assert not isinstance(answer, Failure)
    shares = answer[0].answers.probabilities
    assert shares is not None
    np.testing.assert_allclose(shares, np.tile(np.bincount(table.target[table.train]) / len(table.train), (38, 1)))


def test_a_time_budget_ends_the_calls_but_one_is_always_made(table: Table) -> None:
    hasty = ComparePlan(rows=(1,), repeats=1000, seconds=1e-9)
    answer = refitted(Order(table, {}, 7, hasty), (), 120.0)
    assert not isinstance(answer, Failure)
    assert len(answer[1].predict[0].calls_s) == 1


def test_memory_of_fitting_grows_with_the_rows_though_that_of_the_process_hardly_does() -> None:
    """A linear model takes copies of its rows and little else; the process holds libraries too, for any number of rows.

    Its forks are made here, where all is imported: that of a new Python takes longer than the three fits.
    """
    sizes, fitting_bytes, process_bytes = (2000, 8000, 32000), [], []
    for rows in sizes:
        made = load_table(DataPlan(source="synthetic:binary", parameters={"rows": rows, "columns": 20}), Path())
        answer = answered(Order(made, {"family": "logistic"}, 7, ComparePlan(rows=(1,), repeats=1, seconds=0.1)))
        assert not isinstance(answer, Failure)
        fitting_bytes.append(answer[0].fit_memory_bytes)
        process_bytes.append(answer[0].peak_memory_bytes)
    assert fitting_bytes[-1] > 2 * 0.75 * 32000 * 20 * 8  # two copies of the training rows at least
    of_fitting, of_process = power_law(sizes, fitting_bytes), power_law(sizes, process_bytes)
    assert isinstance(of_fitting, PowerLaw) and isinstance(of_process, PowerLaw)
    assert 0.75 < of_fitting.exponent < 1.25
    assert of_process.exponent < 0.2


def test_what_a_fit_raises_is_a_failure_with_its_cause(table: Table) -> None:
    holes = dataclasses.replace(table, target=np.full(len(table.target), np.nan))
    answer = refitted(Order(holes, FOREST, 7, PLAN), (), 120.0)
    assert isinstance(answer, Failure)
    assert answer.cause is Cause.DATA
    unknown = refitted(Order(table, {**FOREST, "max_depth": "deep"}, 7, PLAN), (), 120.0)
    assert isinstance(unknown, Failure)
    assert unknown.cause is Cause.CONFIG


def test_a_refit_has_a_limit(table: Table) -> None:
    answer = refitted(Order(table, FOREST, 7, PLAN), (), 0.2)
    assert isinstance(answer, Failure)
    assert answer.cause is Cause.TIME
