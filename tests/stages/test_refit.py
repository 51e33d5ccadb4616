"""Fits on all training rows, for real: a supervisor that forks for each step, and what becomes of one that breaks."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.records.run import Cause, Failure
from harness.records.scenario import ComparePlan
from harness.records.table import DataPlan
from harness.space.score import predict, score
from harness.stages.data import Table, load_table
from harness.stages.refit import Asked, Refitter, fitted, order, refitted
from harness.stats.scaling import PowerLaw, power_law

PLAN = ComparePlan(rows=(1, 300), repeats=3, seconds=5.0)
FOREST = {"family": "random_forest", "max_depth": 4}


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table(DataPlan(source="sklearn:iris"), Path())


def test_what_is_fitted_is_asked_in_another_process(table: Table) -> None:
    answer = refitted(order(table, FOREST, 7, 120.0), PLAN, ())
    assert not isinstance(answer, Failure)
    found, asked = answer
    assert [(time.rows, len(time.calls_s)) for time in asked.predict] == [(1, 3), (300, 3)]
    assert min(*found.fits_s, asked.load_s, asked.predict_cold_s) > 0
    # What came back is the pipeline that answered.
    pipeline = pickle.loads(found.pipeline)
    holdout = table.frame.iloc[table.holdout]
    again = predict(pipeline, holdout, "multiclass")
    assert again.probabilities is not None
    assert found.answers.probabilities is not None
    np.testing.assert_array_equal(again.probabilities, found.answers.probabilities)
    assert score("accuracy", table.target[table.holdout], found.answers) > 0.8


def test_the_dummy_never_looks_at_the_columns(table: Table) -> None:
    answer = Refitter(0, order(table, {}, 7, 120.0)).fit(1, 120.0)
    assert not isinstance(answer, Failure)
    shares = answer.answers.probabilities
    assert shares is not None
    np.testing.assert_allclose(shares, np.tile(np.bincount(table.target[table.train]) / len(table.train), (38, 1)))


def test_a_time_budget_ends_the_calls_but_one_is_always_made(table: Table) -> None:
    hasty = ComparePlan(rows=(1,), repeats=1000, seconds=1e-9)
    refitter = Refitter(0, order(table, {}, 7, 120.0))
    found = refitter.fit(1, 120.0)
    assert not isinstance(found, Failure)
    answer = refitter.ask(found.pipeline, hasty, 120.0)
    assert not isinstance(answer, Failure)
    assert len(answer.predict[0].calls_s) == 1


def test_memory_of_fitting_grows_with_the_rows_though_that_of_the_process_hardly_does() -> None:
    """A linear model takes copies of its rows and little else; the process holds libraries too, whatever is fitted."""
    sizes, fitting_bytes, process_bytes = (2000, 8000, 32000), [], []
    for rows in sizes:
        made = load_table(DataPlan(source="synthetic:binary", parameters={"rows": rows, "columns": 20}), Path())
        answer = Refitter(0, order(made, {"family": "logistic"}, 7, 120.0)).fit(2, 120.0)
        assert not isinstance(answer, Failure)
        fitting_bytes.append(answer.fit_memory_bytes)
        process_bytes.append(answer.peak_memory_bytes)
    assert fitting_bytes[-1] > 2 * 0.75 * 32000 * 20 * 8  # two copies of the training rows at least
    of_fitting, of_process = power_law(sizes, fitting_bytes), power_law(sizes, process_bytes)
    assert isinstance(of_fitting, PowerLaw) and isinstance(of_process, PowerLaw)
    assert 0.75 < of_fitting.exponent < 1.25
    assert of_process.exponent < 0.2


def test_what_a_fit_raises_is_a_failure_with_its_cause(table: Table) -> None:
    holes = dataclasses.replace(table, target=np.full(len(table.target), np.nan))
    answer = Refitter(0, order(holes, FOREST, 7, 120.0)).fit(1, 120.0)
    assert isinstance(answer, Failure)
    assert answer.cause is Cause.DATA
    unknown = Refitter(0, order(table, {**FOREST, "max_depth": "deep"}, 7, 120.0)).fit(1, 120.0)
    assert isinstance(unknown, Failure)
    assert unknown.cause is Cause.CONFIG


def test_fitted_once_it_is_fitted_on_all_training_rows_and_no_other() -> None:
    diabetes = load_table(DataPlan(source="sklearn:diabetes"), Path())
    found = fitted(order(diabetes, {"family": "ridge", "alpha": 1e-9}, 1, 120.0), ())
    assert not isinstance(found, Failure)
    assert len(found.fits_s) == 1
    # Ordinary least squares by numpy, which has seen the same rows.
    rows = np.column_stack([np.ones(len(diabetes.train)), diabetes.frame.iloc[diabetes.train]])
    weights = np.linalg.lstsq(rows, diabetes.target[diabetes.train], rcond=None)[0]
    expected = np.column_stack([np.ones(len(diabetes.holdout)), diabetes.frame.iloc[diabetes.holdout]]) @ weights
    np.testing.assert_allclose(found.answers.values, expected, rtol=1e-5)


LIGHT = {"family": "lightgbm", "n_estimators": 5}


@pytest.fixture(scope="module")
def watched(table: Table, tmp_path_factory: pytest.TempPathFactory) -> tuple[Asked, list[dict[str, Any]]]:
    """What a refit has to say, and what its pipeline noted."""
    notes = tmp_path_factory.mktemp("refit") / "notes"
    plan = ComparePlan(rows=(1, 10_000), repeats=2, seconds=60.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parent))
        patched.setenv("REFIT_NOTES", str(notes))
        answer = refitted(order(table, LIGHT, 7, 120.0), plan, (), "watched_refitter:WatchedRefitter")
    assert not isinstance(answer, Failure)
    return answer[1], [json.loads(line) for line in notes.read_text().splitlines()]


def test_a_process_fits_and_another_one_that_never_fitted_is_asked(watched: Any) -> None:
    _, notes = watched
    fits, asked = ({note["process"] for note in notes if note["what"] == what} for what in ("fitted", "load"))
    assert len(fits) == len(asked) == 1
    assert not fits & asked
    by_fit, by_asked = ([note["what"] for note in notes if note["process"] in ids] for ids in (fits, asked))
    assert by_fit == ["build", "fitted", "build", "fitted", "predict"]
    # Cold, then for each number of rows one that does not count and two that do.
    assert by_asked == ["load", "loaded", *["predict"] * 7]


def test_libraries_are_there_before_anything_is_timed(watched: Any) -> None:
    assert all(note["imported"] for note in watched[1])


def test_the_first_prediction_is_of_one_row_and_does_not_hold_the_loading(watched: Any) -> None:
    asked, notes = watched
    loaded = next(place for place, note in enumerate(notes) if note["what"] == "loaded")
    cold, after = notes[loaded + 1 : loaded + 3]
    assert (cold["what"], cold["rows"]) == ("predict", 1)
    assert asked.load_s >= 0.3
    # However slow this machine is just now: it began after the loading, and ended before the next one.
    assert asked.predict_cold_s <= after["at_s"] - notes[loaded]["at_s"]


def test_ten_thousand_rows_are_asked_for_where_the_holdout_has_fewer(watched: Any, table: Table) -> None:
    most = max((note for note in watched[1] if note["what"] == "predict"), key=lambda note: note["rows"])
    assert most["rows"] == 10_000
    assert most["unlike"] == len(table.frame.iloc[table.holdout].drop_duplicates()) < 40


def test_fitting_and_predicting_have_one_thread(watched: Any) -> None:
    assert {note["threads"] for note in watched[1] if "threads" in note} == {1}
