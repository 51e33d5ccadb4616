"""Fitting: scores on every fold, and a failure with its cause for whatever goes wrong."""

import dataclasses
import errno
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from harness.ports import Problem, Proposal, SklearnPipeline
from harness.records.candidate import Configuration
from harness.records.run import Cause
from harness.records.table import DataPlan
from harness.space.preprocess import to_batch
from harness.stages.data import load_table
from harness.stages.fitting import FEWEST_ROWS, Fitter
from harness.stages.split import fold_rows

TABLE = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
FRAME = TABLE.frame.iloc[TABLE.train].reset_index(drop=True)
TARGET = TABLE.target[TABLE.train]
PROBLEM = Problem(
    task="binary", metric="roc_auc", families=("logistic", "knn"), folds=3, trials=4, seconds=60.0, seed=1
)
FOLDS = fold_rows(TABLE.training, 3, 1)


def fitter(kind: type[Fitter] = Fitter) -> Fitter:
    made = kind(7, FRAME, TARGET, TABLE.signature)
    made.start(PROBLEM, FOLDS)
    return made


def test_scores_are_those_of_scikit_learn_on_the_same_folds() -> None:
    evaluated = fitter().evaluate(Proposal({"family": "logistic", "C": 0.5}))
    expected = []
    for fitted, scored in FOLDS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
        model.fit(FRAME.iloc[fitted], TARGET[fitted])
        expected.append(roc_auc_score(TARGET[scored], model.predict_proba(FRAME.iloc[scored])[:, 1]))
    assert evaluated.fold_scores == pytest.approx(expected)
    assert evaluated.failure is None
    assert evaluated.worker == 7
    assert evaluated.duration_s > 0


def test_a_batch_of_rows_gives_the_scores_of_the_frame() -> None:
    batch = Fitter(7, to_batch(FRAME, TABLE.signature.columns), TARGET, TABLE.signature)
    batch.start(PROBLEM, FOLDS)
    proposal = Proposal({"family": "logistic", "C": 0.5})
    assert batch.evaluate(proposal).fold_scores == fitter().evaluate(proposal).fold_scores


def test_the_same_configuration_gets_the_same_scores() -> None:
    configuration: Configuration = {"family": "logistic", "C": 2.0}
    assert (
        fitter().evaluate(Proposal(configuration)).fold_scores == fitter().evaluate(Proposal(configuration)).fold_scores
    )


def test_a_trial_copes_with_two_thousand_columns() -> None:
    axes = {"rows": 80, "columns": 2_000, "categories_share": 0.01, "missing_share": 0.01}
    table = load_table(DataPlan(source="synthetic:binary", parameters=axes), Path())
    wide = Fitter(7, table.frame.iloc[table.train].reset_index(drop=True), table.target[table.train], table.signature)
    wide.start(PROBLEM, fold_rows(table.training, 2, 1))
    for family in ("logistic", "random_forest"):
        evaluated = wide.evaluate(Proposal({"family": family}))
        assert (evaluated.failure, len(evaluated.fold_scores)) == (None, 2)


class Scripted(Fitter):
    """A fitter whose pipelines do what a test wants."""

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
        (OSError(errno.ENOSPC, "No space left on device"), Cause.DISK),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Cause.DISK),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), Cause.ENGINE_ERROR),
        (RuntimeError("solver broke"), Cause.ENGINE_ERROR),
        (TypeError("no such argument"), Cause.ENGINE_ERROR),
    ],
)
def test_whatever_a_fit_raises_is_a_failure_with_its_cause(error: Exception, cause: Cause) -> None:
    scripted = fitter(Scripted)
    scripted.error = error  # type: ignore[attr-defined]
    failure = scripted.evaluate(Proposal({"family": "logistic"})).failure
    assert failure is not None
    assert failure.cause is cause
    assert str(error) in failure.message


def test_answers_that_are_not_numbers_are_a_failure_of_the_metric() -> None:
    scripted = fitter(Scripted)
    scripted.answer = float("nan")  # type: ignore[attr-defined]
    failure = scripted.evaluate(Proposal({"family": "logistic"})).failure
    assert failure is not None
    assert failure.cause is Cause.NONFINITE_METRIC
    assert "roc_auc is nan on fold 0" in failure.message


@pytest.mark.parametrize(
    "configuration",
    [{"family": "nothing"}, {"family": "logistic", "depth": 3}, {"family": "logistic", "C": -1.0}],
    ids=["unknown family", "unknown parameter", "value the estimator refuses"],
)
def test_a_bad_configuration_is_a_failure_of_the_configuration(configuration: Configuration) -> None:
    failure = fitter().evaluate(Proposal(configuration)).failure
    assert failure is not None
    assert failure.cause is Cause.CONFIG


def test_a_fit_has_one_thread() -> None:
    class Counting(Scripted):
        threads: tuple[int, ...] = ()

        def fit(self, frame: Any, target: Any) -> None:
            self.threads = tuple(pool["num_threads"] for pool in threadpool_info())

    counting = fitter(Counting)
    counting.evaluate(Proposal({"family": "logistic"}))
    assert set(counting.threads) == {1}  # type: ignore[attr-defined]


def test_only_the_folds_that_are_asked_for_are_scored() -> None:
    proposal = Proposal({"family": "logistic"})
    whole = fitter().evaluate(proposal).fold_scores
    assert tuple(fitter().evaluate(proposal, (fold,)).fold_scores[0] for fold in range(3)) == whole


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5])
def test_a_share_of_the_rows_holds_every_class_and_is_the_same_every_time(share: float) -> None:
    seen: list[Any] = []

    class Watching(Scripted):
        def fit(self, frame: Any, target: Any) -> None:
            assert set(target) == {0, 1}
            seen.append(tuple(frame.index))

    watching = fitter(Watching)
    for _ in range(2):
        assert watching.evaluate(Proposal({"family": "logistic"}, share)).rows_share == share
    assert seen[:3] == seen[3:]
    assert len(seen[0]) == max(FEWEST_ROWS, round(share * len(FOLDS[0][0])))
    # What is added with a larger share is added to what was there.
    larger: list[Any] = seen.copy()
    watching.evaluate(Proposal({"family": "logistic"}, min(1.0, 2 * share)))
    assert set(larger[0]) <= set(seen[-3])


def test_a_share_of_the_rows_keeps_two_of_a_class_for_families_that_part_them() -> None:
    target = np.zeros(len(TARGET), dtype=int)
    target[[10, 11]] = 1
    rare = Fitter(7, FRAME, target, TABLE.signature)
    rare.start(dataclasses.replace(PROBLEM, metric="accuracy"), ((np.arange(400), np.arange(400, 426)),))
    for family in ("svc", "logistic"):
        assert rare.evaluate(Proposal({"family": family}, 0.1)).failure is None


def test_a_trial_whose_time_ends_with_its_last_score_has_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    real = signal.setitimer

    def setitimer(which: int, seconds: float) -> Any:
        if seconds == 0.0:
            real(which, seconds)
            signal.raise_signal(signal.SIGALRM)
        return real(which, seconds)

    with monkeypatch.context() as patched:
        patched.setattr(signal, "setitimer", setitimer)
        evaluated = fitter(Scripted).evaluate(Proposal({"family": "logistic"}), limit_s=60.0)
    assert evaluated.fold_scores == ()
    assert evaluated.failure is not None
    assert evaluated.failure.cause is Cause.TIME


def test_python_code_is_interrupted_at_its_limit_and_time_in_a_fit_is_told_apart() -> None:
    class Slow(Scripted):
        def fit(self, frame: Any, target: Any) -> None:
            time.sleep(60.0)

    evaluated = fitter(Slow).evaluate(Proposal({"family": "logistic"}), limit_s=0.2)
    assert evaluated.failure is not None
    assert evaluated.failure.cause is Cause.TIME
    assert 0.2 <= evaluated.fit_s <= evaluated.duration_s < 5.0
