"""A worker of the search: fits configurations on its folds and scores them.

In: the training rows, and a problem. Out: an `Evaluated` per configuration; whatever goes wrong in one becomes a
failure with its cause, never an exception, so that a bad configuration costs a trial and not the worker. The class is
plain: `stages.fleet` makes a Ray actor of it.
"""

import importlib
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from harness.clock import SystemClock
from harness.errors import UsageError
from harness.ports import Problem, SklearnPipeline, Workbench
from harness.records.candidate import Configuration, Evaluated, Signature
from harness.records.run import Cause, Failure
from harness.space.build import build, estimator_class
from harness.space.families import families_for
from harness.space.score import predict, score

if TYPE_CHECKING:
    import pandas as pd

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows to fit on, and rows to score, as positions in the training rows."""


class NonfiniteScoreError(ValueError):
    """A fitted pipeline answered something that has no score."""


class Worker:
    """The workbench of an engine, in a process of its own."""

    def __init__(self, worker: int, frame: "pd.DataFrame", target: NDArray[Any], signature: Signature) -> None:
        self.worker = worker
        self._frame = frame
        self.target = target
        self._signature = signature
        self._clock = SystemClock()
        self._problem: Problem | None = None
        self._folds: tuple[Fold, ...] = ()
        self._running: Configuration = {}
        self._left = 0
        self._deadline_s = math.inf

    def start(self, problem: Problem, folds: tuple[Fold, ...]) -> None:
        """Take up a problem. Imports its families' libraries now, so that no trial pays for it."""
        self._problem = problem
        self._folds = folds
        self._left = problem.trials
        self._deadline_s = math.inf
        for family in families_for(problem.task, problem.families):
            estimator_class(family, problem.task)

    def running(self) -> Configuration:
        """The configuration that is being evaluated; empty: none."""
        return self._running

    def evaluate(self, configuration: Configuration) -> Evaluated:
        """Fit and score a configuration on every fold, on one thread."""
        self._running = configuration
        began_s = self._clock.monotonic_s()
        scores: tuple[float, ...] = ()
        failure = None
        try:
            with warnings.catch_warnings(), threadpool_limits(limits=1):
                # A fit that did not converge shows in its score; a line per fold would drown the log.
                warnings.simplefilter("ignore")
                scores = self._fold_scores(configuration)
        except Exception as error:
            failure = Failure.of(cause_of(error), error)
        self._running = {}
        return Evaluated(
            configuration=configuration,
            fold_scores=scores,
            duration_s=self._clock.monotonic_s() - began_s,
            worker=self.worker,
            failure=failure,
        )

    def attempt(self, configuration: Configuration) -> Evaluated | None:
        """What an engine's own loop evaluates with: `evaluate`, or None once trials or seconds are spent."""
        if self._left <= 0 or self._clock.monotonic_s() >= self._deadline_s:
            return None
        self._left -= 1
        return self.evaluate(configuration)

    def inside(self, loop: Callable[[Workbench, Problem], Iterable[Evaluated]]) -> Iterator[Evaluated | None]:
        """None once the loop's libraries are imported and its time begins; then what the loop yields."""
        for library in getattr(sys.modules.get(loop.__module__), "REQUIRES", ()):
            importlib.import_module(library)
        self._deadline_s = self._clock.monotonic_s() + self._asked.seconds
        yield None
        for number, evaluated in enumerate(loop(self, self._asked), start=1):
            yield evaluated
            # A loop that does not evaluate through `attempt` is held here.
            if number >= self._asked.trials or self._clock.monotonic_s() >= self._deadline_s:
                return

    @property
    def _asked(self) -> Problem:
        if self._problem is None:
            raise RuntimeError("a worker is given a problem with `start` before it is asked for anything")
        return self._problem

    def _fold_scores(self, configuration: Configuration) -> tuple[float, ...]:
        found: list[float] = []
        for fit_rows, score_rows in self._folds:
            pipeline = self._build(configuration)
            pipeline.fit(self._frame.iloc[fit_rows], self.target[fit_rows])
            value = self._score(pipeline, score_rows)
            if not math.isfinite(value):
                raise NonfiniteScoreError(f"{self._asked.metric} is {value} on fold {len(found)}")
            found.append(value)
        return tuple(found)

    def _build(self, configuration: Configuration) -> SklearnPipeline:
        return build(configuration, self._signature, self._asked.seed)

    def _score(self, pipeline: SklearnPipeline, rows: NDArray[np.intp]) -> float:
        prediction = predict(pipeline, self._frame.iloc[rows], self._asked.task)
        return score(self._asked.metric, self.target[rows], prediction)


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
        case ValueError():
            # scikit-learn refuses a parameter with a private subclass of ValueError, known by name only; any other
            # ValueError of a fit speaks of the rows.
            return Cause.CONFIG if type(error).__name__ == "InvalidParameterError" else Cause.DATA
        case _:
            return Cause.ENGINE_ERROR
