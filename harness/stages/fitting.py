"""Fitting: one proposal of an engine, fitted and scored on the folds of a problem.

In: the training rows, a problem and its folds. Out: an `Evaluated` per proposal; whatever goes wrong in one becomes a
failure with its cause, never an exception. It knows no limits: `stages.supervisor` runs it in a process that can be
ended from outside.
"""

import importlib
import math
import os
import pkgutil
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from harness.clock import SystemClock
from harness.errors import DISK_ERRORS, UsageError
from harness.ports import Foreign, Problem, Proposal, SklearnPipeline
from harness.records.candidate import Configuration, Evaluated, Signature
from harness.records.rows import Batch
from harness.records.run import Cause, Failure
from harness.space.build import build, estimator_class
from harness.space.families import families_for
from harness.space.preprocess import to_frame
from harness.space.score import predict, score

if TYPE_CHECKING:
    import pandas as pd

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows to fit on, and rows to score, as positions in the training rows."""

THREADS = 1
"""That fitting and predicting may use, in a trial and after it."""

FEWEST_ROWS = 50
"""A share of the rows is never fewer: it would save no time, and fail what is sound on all rows (more neighbours)."""


class NonfiniteScoreError(ValueError):
    """A fitted pipeline answered something that has no score."""


class Fitter:
    """Fits and scores on one table, one proposal at a time.

    Rows come as a frame, or as a batch where another pandas than ours is to make the frame.
    """

    def __init__(self, worker: int, rows: "pd.DataFrame | Batch", target: NDArray[Any], signature: Signature) -> None:
        self.worker = worker
        self._frame = to_frame(rows, signature.columns) if isinstance(rows, Batch) else rows
        self._target = target
        self._signature = signature
        self._clock = SystemClock()
        self._problem: Problem | None = None
        self._folds: tuple[Fold, ...] = ()
        self._fit_s = 0.0

    def start(self, problem: Problem, folds: tuple[Fold, ...]) -> None:
        """Take up a problem. Imports the libraries of its models now, so that no trial pays for it."""
        self._problem = problem
        self._folds = folds
        if problem.foreign is not None:
            import_libraries(problem.foreign)
            return
        for family in families_for(problem.task, problem.families):
            estimator_class(family, problem.task)

    def evaluate(self, proposal: Proposal, folds: Sequence[int] | None = None, limit_s: float = math.inf) -> Evaluated:
        """Fit and score a proposal on the folds of these numbers (None: all), on one thread.

        After `limit_s` seconds Python code in it is interrupted, and the cause is `time`; code in C goes on.
        """
        began_s, cpu_s = self._clock.monotonic_s(), _cpu_s()
        self._fit_s = 0.0
        scores: tuple[float, ...] = ()
        failure = None
        try:
            with fitting_alone(limit_s):
                scores = tuple(self._fold_scores(proposal, range(len(self._folds)) if folds is None else folds))
        except Exception as error:
            # The time may be over between the last score and the end of the timer.
            scores, failure = (), Failure.of(cause_of(error), error)
        return Evaluated(
            configuration=proposal.configuration,
            fold_scores=scores,
            duration_s=self._clock.monotonic_s() - began_s,
            worker=self.worker,
            fit_s=self._fit_s,
            cpu_s=_cpu_s() - cpu_s,
            rows_share=proposal.rows_share,
            failure=failure,
        )

    @property
    def _asked(self) -> Problem:
        if self._problem is None:
            raise RuntimeError("a fitter is given a problem with `start` before it is asked for anything")
        return self._problem

    def _fold_scores(self, proposal: Proposal, folds: Sequence[int]) -> Iterator[float]:
        for fold in folds:
            fit_rows, score_rows = self._folds[fold]
            pipeline = self._build(proposal.configuration)
            rows = self._some(fit_rows, proposal.rows_share)
            began_s = self._clock.monotonic_s()
            try:
                pipeline.fit(self._frame.iloc[rows], self._target[rows])
            finally:
                self._fit_s += self._clock.monotonic_s() - began_s
            value = self._score(pipeline, score_rows)
            if not math.isfinite(value):
                raise NonfiniteScoreError(f"{self._asked.metric} is {value} on fold {fold}")
            yield value

    def _some(self, rows: NDArray[np.intp], share: float) -> NDArray[np.intp]:
        """The first so many of the rows in a shuffled order; of a classification two of each class, where there are.

        With one of a class, families that see rows that they were not fitted on (`svc`) would fail on what is sound.
        """
        if share >= 1.0:
            return rows
        shuffled = np.random.default_rng(self._asked.seed).permutation(rows)
        count = max(min(FEWEST_ROWS, len(rows)), round(share * len(rows)))
        if self._asked.task == "regression":
            return np.sort(shuffled[:count])
        # Rows that come first in their class go first, so that a class that is in the fold is in every part of it.
        labels = self._target[shuffled]
        first = np.concatenate([np.flatnonzero(labels == index)[:2] for index in np.unique(labels)])
        rest = np.setdiff1d(np.arange(len(shuffled)), first)
        return np.sort(shuffled[np.concatenate([first, rest])[: max(count, len(first))]])

    def _build(self, configuration: Configuration) -> SklearnPipeline:
        if self._asked.foreign is not None:
            return foreign_pipeline(configuration, self._signature, self._asked)
        return build(configuration, self._signature, self._asked.seed)

    def _score(self, pipeline: SklearnPipeline, rows: NDArray[np.intp]) -> float:
        prediction = predict(pipeline, self._frame.iloc[rows], self._asked.task)
        return score(self._asked.metric, self._target[rows], prediction)


def import_libraries(foreign: Foreign) -> None:
    """What an engine's own models need, so that no trial pays for it."""
    made_by = pkgutil.resolve_name(foreign.build)
    for library in sys.modules[made_by.__module__].REQUIRES:
        importlib.import_module(library)


def foreign_pipeline(configuration: Configuration, signature: Signature, problem: Problem) -> SklearnPipeline:
    """An unfitted model of an engine that brings its own; `problem.foreign` is there."""
    assert problem.foreign is not None
    return pkgutil.resolve_name(problem.foreign.build)(configuration, signature, problem)


def cause_of(error: Exception) -> Cause:
    """Whose fault it is what fitting or predicting raised."""
    match error:
        case NonfiniteScoreError():
            return Cause.NONFINITE_METRIC
        case UsageError():
            return Cause.CONFIG
        case MemoryError():
            return Cause.MEMORY
        case TimeoutError():
            return Cause.TIME
        case OSError() if error.errno in DISK_ERRORS:
            return Cause.DISK
        case ValueError():
            # scikit-learn refuses a parameter with a private subclass of ValueError, known by name only; any other
            # ValueError of a fit speaks of the rows.
            return Cause.CONFIG if type(error).__name__ == "InvalidParameterError" else Cause.DATA
        case _:
            return Cause.ENGINE_ERROR


@contextmanager
def fitting_alone(limit_s: float) -> Iterator[None]:
    """On one thread, without warnings; raises TimeoutError inside after `limit_s` seconds, in Python code only."""
    with warnings.catch_warnings(), threadpool_limits(limits=THREADS), _interrupted_after(limit_s):
        # A fit that did not converge shows in its score; a line per fold would drown the log.
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _interrupted_after(limit_s: float) -> Iterator[None]:
    """Raises TimeoutError inside, after so many seconds; the main thread only, where alone signals are handled."""
    if not math.isfinite(limit_s):
        yield
        return

    def interrupt(*_unused: object) -> None:
        raise TimeoutError(f"stopped after its limit of {limit_s:.3g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, max(limit_s, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _cpu_s() -> float:
    """Processor time of this process, and of children that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
