"""What a model does wrong is told of the model: a row with its cause, and never the end of the run."""

import functools
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from harness.clock import SystemClock
from harness.pipeline import cells as room
from harness.pipeline.cells import candidate_cell, micro_cell
from harness.pipeline.inputs import read_inputs
from harness.pipeline.work import CellFailedError, Work
from harness.records.cell import cells
from harness.records.run import Cause, Run
from harness.records.scenario import Scenario
from harness.records.words import BASELINE
from harness.runtimes.onnx import Onnx
from harness.space.build import build
from harness.space.score import predict
from harness.stages.host import fingerprint
from harness.stages.refit import Fitted, fitted
from harness.store.database import Database
from harness.store.runs import RunFolder

SCENARIO = Scenario.model_validate(
    {
        "question": "Which?",
        "data": [{"source": "sklearn:iris"}],
        "search": {"engines": ["random_search"], "memory_bytes": 2**30},
        "serve": [{"target": "asgi"}],
    }
)
(CELL,) = (cell for cell in cells(SCENARIO, ("null",)) if cell.kind == "candidate" and cell.candidate == BASELINE)


class Broken(Pipeline):
    """A pipeline that predicts `answer` times what it should."""

    answer: float

    def predict_proba(self, frame):
        return super().predict_proba(frame) * self.answer


@pytest.fixture
def work(tmp_path: Path):
    run = Run(
        id="r",
        scenario="s",
        data_folder="/",
        scenario_sha256="",
        data_sha256="",
        harness_version="0",
        started_utc="2026-01-01T00:00:00Z",
    )
    host = fingerprint()
    with Database.create(tmp_path / "run.db", run, host, SCENARIO, (), (CELL,)) as database:
        database.begin(CELL)
        yield Work(
            folder=RunFolder(tmp_path),
            database=database,
            scenario=SCENARIO,
            host=host,
            inputs=read_inputs(SCENARIO, tmp_path),
            clock=SystemClock(),
            tell=lambda words: None,
        )


def given(make):
    """In place of a fit in a child: the pipeline that `make` makes of a sound one."""

    def fit(order, cores):
        pipeline = build(order.configuration, order.signature, order.seed)
        made = make(pipeline.fit(order.training, order.target))
        answers = predict(made, order.holdout, order.signature.task)
        return Fitted(answers, pickle.dumps(made), (0.1,), 2**20, 2**10)

    return fit


def multiplied(answer: float):
    def make(pipeline):
        broken = Broken(pipeline.steps)
        broken.answer = answer
        return broken

    return make


@pytest.mark.parametrize(
    ("does", "cause", "told"),
    [
        pytest.param("sleep_in_c", Cause.TIME, "after its limit of 0.5 s", marks=pytest.mark.long),
        ("allocate", Cause.MEMORY, "its limit is 1.00 GiB"),
        pytest.param("refuse", Cause.ENGINE_ERROR, "ZeroDivisionError: no answer", marks=pytest.mark.long),
    ],
)
def test_whatever_a_last_fit_does_it_is_a_failed_cell_and_the_run_goes_on(work, monkeypatch, does, cause, told):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "stages"))
    monkeypatch.setattr(room, "fitted", functools.partial(fitted, refitter="faulty_fitter:FaultyRefitter"))
    monkeypatch.setattr(room, "baseline", lambda task: {"family": does})
    if cause is Cause.TIME:
        monkeypatch.setattr(room, "LAST_FIT_S", 0.5)
        monkeypatch.setattr(room, "LAST_FIT_SEARCHES", 0.0)
    with pytest.raises(CellFailedError, match=told) as failed:
        candidate_cell(work, CELL)
    assert failed.value.cause is cause
    assert work.database.ledger().candidates == ()
    with pytest.raises(CellFailedError, match="there is no candidate baseline"):
        micro_cell(work, CELL)


def test_an_engine_with_an_environment_of_its_own_leaves_no_candidate_and_says_so(work, monkeypatch):
    monkeypatch.setattr(room, "_best_of", lambda *ledger, engine: ({"family": engine}, 0.9))
    cell = CELL.model_copy(update={"candidate": "autogluon"})
    with pytest.raises(CellFailedError, match="exist in its own environment only") as caught:
        candidate_cell(work, cell)
    assert caught.value.cause is Cause.NOT_CONVERTIBLE


def test_a_runtime_whose_export_raises_is_a_reason_and_costs_no_other(work, monkeypatch):
    def export(*given):
        raise RuntimeError("out\nof order")

    monkeypatch.setattr(Onnx, "export", export)
    candidate_cell(work, CELL)
    (candidate,) = work.database.ledger().candidates
    assert {artifact.runtime: artifact.reason for artifact in candidate.artifacts} == {
        "onnx": "its export raised RuntimeError: out of order",
        "sklearn_native": None,
    }
    assert all(check.passed for check in work.database.ledger().checks)


def test_a_model_that_was_stored_with_holes_in_it_fails_everywhere_in_one_line(work, monkeypatch):
    def hollow(pipeline):
        pipeline.steps[-1][1].coef_.fill(np.nan)
        return pipeline

    monkeypatch.setattr(room, "fitted", given(hollow))
    candidate_cell(work, CELL)
    (candidate,) = work.database.ledger().candidates
    reasons = {artifact.runtime: artifact.reason for artifact in candidate.artifacts}
    assert reasons["onnx"] == "the converted graph answers with values that are not finite"
    checks = {check.name: check for check in work.database.ledger().checks if check.runtime in (None, "sklearn_native")}
    assert set(checks) == {"holdout_score", "runtime_parity", "same_after_reload"}
    assert not any(check.passed for check in checks.values())
    assert "the model's prediction is not a finite number" in checks["same_after_reload"].detail
    assert "Traceback" not in checks["same_after_reload"].detail


def test_answers_that_are_no_numbers_fail_their_checks(work, monkeypatch):
    monkeypatch.setattr(room, "fitted", given(multiplied(np.nan)))
    candidate_cell(work, CELL)
    checks = {check.name: check for check in work.database.ledger().checks}
    assert not checks["holdout_score"].passed
    assert "38 of 38 holdout rows got no finite answer" in checks["holdout_score"].detail
    assert not checks["runtime_parity"].passed
    assert "beats_dummy" not in checks


def test_a_runtime_that_raises_fails_its_own_check_only(work, monkeypatch):
    loaded = room.loaded

    def raising(bundle, runtime):
        candidate, compute = loaded(bundle, runtime)

        def refuse(batch):
            raise RuntimeError("out of order")

        return candidate, refuse if runtime == "onnx" else compute

    monkeypatch.setattr(room, "fitted", given(lambda pipeline: pipeline))
    monkeypatch.setattr(room, "loaded", raising)
    candidate_cell(work, CELL)
    checks = {(check.name, check.runtime): check for check in work.database.ledger().checks}
    assert checks["runtime_parity", "onnx"].detail == "runtime onnx raised RuntimeError: out of order"
    assert ("same_after_reload", "onnx") not in checks
    assert checks["runtime_parity", "sklearn_native"].passed and checks["same_after_reload", "sklearn_native"].passed
