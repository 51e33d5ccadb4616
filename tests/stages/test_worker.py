"""The worker: scores on every fold, and a failure with its cause for whatever goes wrong."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from harness.ports import Problem, SklearnPipeline, Workbench
from harness.records.candidate import Configuration, Evaluated
from harness.records.run import Cause
from harness.records.scenario import DataPlan
from harness.stages.data import fold_rows, load_table
from harness.stages.worker import Worker

TABLE = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
FRAME = TABLE.frame.iloc[TABLE.train].reset_index(drop=True)
TARGET = TABLE.target[TABLE.train]
PROBLEM = Problem(
    task="binary", metric="roc_auc", families=("logistic", "knn"), folds=3, trials=4, seconds=60.0, seed=1
)
FOLDS = fold_rows(TARGET, "binary", 3, 1)


def worker(kind: type[Worker] = Worker) -> Worker:
    made = kind(7, FRAME, TARGET, TABLE.signature)
    made.start(PROBLEM, FOLDS)
    return made


def test_scores_are_those_of_scikit_learn_on_the_same_folds() -> None:
    evaluated = worker().evaluate({"family": "logistic", "C": 0.5})
    expected = []
    for fitted, scored in FOLDS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
        model.fit(FRAME.iloc[fitted], TARGET[fitted])
        expected.append(roc_auc_score(TARGET[scored], model.predict_proba(FRAME.iloc[scored])[:, 1]))
    assert evaluated.fold_scores == pytest.approx(expected)
    assert evaluated.failure is None
    assert evaluated.worker == 7
    assert evaluated.duration_s > 0


def test_the_same_configuration_gets_the_same_scores() -> None:
    configuration: Configuration = {"family": "logistic", "C": 2.0}
    assert worker().evaluate(configuration).fold_scores == worker().evaluate(configuration).fold_scores


class Scripted(Worker):
    """A worker whose pipelines do what a test wants."""

    error: Exception | None = None
    answer = 0.5

    def _build(self, configuration: Configuration) -> SklearnPipeline:
        return self

    def fit(self, frame: Any, target: Any) -> None:
        if self.error is not None:
            raise self.error

    def predict_proba(self, frame: Any) -> Any:
        return np.full((len(frame), 2), self.answer)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("Input X contains infinity"), Cause.DATA),
        (MemoryError("4 GiB"), Cause.MEMORY),
        (TimeoutError("too slow"), Cause.TIME),
        (RuntimeError("solver broke"), Cause.ENGINE_ERROR),
        (TypeError("no such argument"), Cause.ENGINE_ERROR),
    ],
)
def test_whatever_a_fit_raises_is_a_failure_with_its_cause(error: Exception, cause: Cause) -> None:
    scripted = worker(Scripted)
    scripted.error = error  # type: ignore[attr-defined]
    failure = scripted.evaluate({"family": "logistic"}).failure
    assert failure is not None
    assert failure.cause is cause
    assert str(error) in failure.message


def test_answers_that_are_not_numbers_are_a_failure_of_the_metric() -> None:
    scripted = worker(Scripted)
    scripted.answer = float("nan")  # type: ignore[attr-defined]
    failure = scripted.evaluate({"family": "logistic"}).failure
    assert failure is not None
    assert failure.cause is Cause.NONFINITE_METRIC
    assert "roc_auc is nan on fold 0" in failure.message


@pytest.mark.parametrize(
    "configuration",
    [{"family": "nothing"}, {"family": "logistic", "depth": 3}, {"family": "logistic", "C": -1.0}],
    ids=["unknown family", "unknown parameter", "value the estimator refuses"],
)
def test_a_bad_configuration_is_a_failure_of_the_configuration(configuration: Configuration) -> None:
    failure = worker().evaluate(configuration).failure
    assert failure is not None
    assert failure.cause is Cause.CONFIG


def test_a_fit_has_one_thread() -> None:
    class Counting(Scripted):
        threads: tuple[int, ...] = ()

        def fit(self, frame: Any, target: Any) -> None:
            self.threads = tuple(pool["num_threads"] for pool in threadpool_info())

    counting = worker(Counting)
    counting.evaluate({"family": "logistic"})
    assert set(counting.threads) == {1}  # type: ignore[attr-defined]


def test_a_worker_says_what_it_is_at() -> None:
    seen: list[Configuration] = []

    class Watched(Scripted):
        def fit(self, frame: Any, target: Any) -> None:
            seen.append(self.running())

    watched = worker(Watched)
    watched.evaluate({"family": "logistic", "C": 3.0})
    assert seen == [{"family": "logistic", "C": 3.0}] * PROBLEM.folds
    assert watched.running() == {}


def test_an_engines_own_loop_gets_as_many_attempts_as_the_budget_has_trials() -> None:
    def loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
        while (evaluated := workbench.attempt({"family": "knn"})) is not None:
            yield evaluated

    told = list(worker(Scripted).inside(loop))
    assert told[0] is None
    assert len(told) == 1 + PROBLEM.trials


def test_a_loop_that_does_not_ask_is_held_to_the_budget_too() -> None:
    def loop(workbench: Workbench, problem: Problem) -> Iterable[Evaluated]:
        while True:
            yield Evaluated(configuration={}, fold_scores=(1.0,), duration_s=0.0, worker=0)

    assert len(list(worker(Scripted).inside(loop))) == 1 + PROBLEM.trials


def test_no_attempt_begins_after_the_deadline() -> None:
    spent = Worker(0, FRAME, TARGET, TABLE.signature)
    spent.start(Problem("binary", "roc_auc", ("knn",), 3, 10, 1e-9, 1), FOLDS)

    def loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
        while (evaluated := workbench.attempt({"family": "knn"})) is not None:
            yield evaluated

    assert list(spent.inside(loop)) == [None]
