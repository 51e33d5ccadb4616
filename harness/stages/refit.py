"""Refit: what a search found, fitted on all training rows and timed, in processes that did nothing before.

In: a table and a configuration (none: the dummy). Out: `fitted`, the pipeline and its answers to the holdout;
`refitted`, also how long fitting, loading and predicting took, cold and warm; or the failure.

A supervisor (`stages.supervisor`) loads the table and the libraries, and forks: one fork fits, the next one is given
the fitted pipeline and asked. Each is a process of its own and not a new interpreter: it has in memory what its
supervisor has imported and read, and nothing else. So imports and reads are outside every timer, what is asked has
never fitted, and what is cold is the first of its kind in its process. Two new Pythons would show the same, and take
seconds each to come to that point. Limits of time and memory hold as in a trial: whatever a fit does, it costs its own
process, and the driver, which has no limits, only holds what came out of it.
"""

import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.clock import SystemClock
from harness.environments import interpreter
from harness.ports import Problem, SklearnPipeline
from harness.records.candidate import Configuration, Signature
from harness.records.refit import PredictTime
from harness.records.rows import Batch, Prediction
from harness.records.run import Failure
from harness.records.scenario import ComparePlan
from harness.space.build import build, build_dummy, estimator_class
from harness.space.families import FAMILY, family_named
from harness.space.preprocess import to_batch, to_frame
from harness.space.score import predict
from harness.stages.descendants import base_memory_bytes, peak_memory_bytes
from harness.stages.fitting import cause_of, fitting_alone, foreign_pipeline, import_libraries
from harness.stages.supervisor import Supervised, supervised

if TYPE_CHECKING:
    import pandas as pd

    from harness.stages.data import Table

REFITTER = "harness.stages.refit:Refitter"
"""The class that fits and asks, by import path."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be fitted, and what it may take; made by `order`."""

    training: "pd.DataFrame | Batch"
    """Its rows; a batch where another pandas than ours is to make the frame."""
    target: NDArray[Any]
    """Of the training rows. The truth of the holdout stays with who scores."""
    holdout: "pd.DataFrame | Batch"
    signature: Signature
    configuration: Configuration
    """Empty: the dummy."""
    seed: int
    limit_s: float
    """For all of it, once the supervisor stands."""
    memory_bytes: int | None = None
    """Of a process, table and libraries included; None: 80 % of what is free."""
    foreign: Problem | None = None
    """What was asked of an engine whose models have an environment of their own; None: the models are of `space`."""


def order(
    table: "Table",
    configuration: Configuration,
    seed: int,
    limit_s: float,
    memory_bytes: int | None = None,
    foreign: Problem | None = None,
) -> Order:
    """An order on a table; its fields are those of `Order`."""
    columns = table.signature.columns
    parts = table.frame.iloc[table.train], table.frame.iloc[table.holdout]
    # A pickled frame is read by the pandas that wrote it.
    training, holdout = (to_batch(part, columns) for part in parts) if foreign else parts
    target, signature = table.target[table.train], table.signature
    return Order(training, target, holdout, signature, configuration, seed, limit_s, memory_bytes, foreign)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the process that fits has to say."""

    answers: Prediction
    """To the holdout rows."""
    pipeline: bytes
    """Pickled."""
    fits_s: tuple[float, ...]
    """Seconds of each fit; the first one is cold."""
    peak_memory_bytes: int
    fit_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the process that is asked has to say."""

    load_s: float
    predict_cold_s: float
    predict: tuple[PredictTime, ...]


def fitted(order: Order, cores: tuple[int, ...], refitter: str = REFITTER) -> Fitted | Failure:
    """Fit once, on `cores` (empty: any). Raises InfrastructureError where the supervisor does not start, or is gone."""
    with _supervised(order, cores, refitter) as process:
        found: Fitted | Failure = process.do("fit", 1, limit_s=order.limit_s, memory_bytes=order.memory_bytes)
        return found


def refitted(
    order: Order, plan: ComparePlan, cores: tuple[int, ...], refitter: str = REFITTER
) -> tuple[Fitted, Asked] | Failure:
    """Fit twice, and ask as planned; otherwise like `fitted`."""
    clock = SystemClock()
    with _supervised(order, cores, refitter) as process:
        end_s = clock.monotonic_s() + order.limit_s
        found: Fitted | Failure = process.do("fit", 2, limit_s=order.limit_s, memory_bytes=order.memory_bytes)
        if isinstance(found, Failure):
            return found
        left_s = max(0.0, end_s - clock.monotonic_s())
        asked: Asked | Failure = process.do(
            "ask", found.pipeline, plan, limit_s=left_s, memory_bytes=order.memory_bytes
        )
        return asked if isinstance(asked, Failure) else (found, asked)


@contextmanager
def _supervised(order: Order, cores: tuple[int, ...], refitter: str) -> Iterator[Supervised]:
    own = order.foreign.foreign if order.foreign else None
    python = interpreter(own.environment) if own else None
    with supervised(0, pickle.dumps((order,), protocol=5), refitter, cores, python) as process:
        yield process


class Refitter:
    """What the supervisor makes, with its imports; its methods run in a fork each."""

    def __init__(self, worker: int, order: Order) -> None:
        self._order = order
        self._task = order.signature.task
        self._training, self._holdout = (
            to_frame(part, order.signature.columns) if isinstance(part, Batch) else part
            for part in (order.training, order.holdout)
        )
        if order.foreign is not None and order.foreign.foreign is not None:
            import_libraries(order.foreign.foreign)
        elif order.configuration:
            estimator_class(family_named(str(order.configuration[FAMILY])), self._task)

    def fit(self, times: int, limit_s: float) -> Fitted | Failure:
        """Fit so many times; what the last fit made answers the holdout."""
        found: Fitted | Failure = _or_failure(limit_s, lambda: self._fit(times))
        return found

    def ask(self, pickled: bytes, plan: ComparePlan, limit_s: float) -> Asked | Failure:
        """Load a fitted pipeline, and have it predict: one row first, then as planned."""
        found: Asked | Failure = _or_failure(limit_s, lambda: self._ask(pickled, plan))
        return found

    def _unfitted(self) -> SklearnPipeline:
        asked = self._order
        if asked.foreign is not None:
            return foreign_pipeline(asked.configuration, asked.signature, asked.foreign)
        if not asked.configuration:
            return build_dummy(self._task)
        return build(asked.configuration, asked.signature, asked.seed)

    def _fit(self, times: int) -> Fitted:
        fits_s, most_bytes = [], 0
        for _ in range(times):
            # What was fitted before is gone by now: the memory is of one model, without what is imported at first use.
            pipeline = self._unfitted()
            most_bytes, base_bytes = max(most_bytes, peak_memory_bytes() or 0), base_memory_bytes()
            with _timed() as elapsed_s:
                pipeline = pipeline.fit(self._training, self._order.target)
            fits_s.append(elapsed_s())
            peak_bytes = peak_memory_bytes() or 0
        return Fitted(
            answers=predict(pipeline, self._holdout, self._task),
            pipeline=pickle.dumps(pipeline, protocol=5),
            fits_s=tuple(fits_s),
            peak_memory_bytes=max(most_bytes, peak_bytes),
            fit_memory_bytes=max(0, peak_bytes - base_bytes),
        )

    def _ask(self, pickled: bytes, plan: ComparePlan) -> Asked:
        holdout, task = self._holdout, self._task
        with _timed() as load_s:
            pipeline = pickle.loads(pickled)  # noqa: S301 - from the fork before
        one = holdout.iloc[:1]
        with _timed() as cold_s:
            predict(pipeline, one, task)
        clock, found = SystemClock(), []
        for count in plan.rows:
            # A holdout of fewer rows is repeated.
            rows = holdout.take(np.arange(count) % len(holdout))
            predict(pipeline, rows, task)
            calls_s: list[float] = []
            end_s = clock.monotonic_s() + plan.seconds
            while len(calls_s) < plan.repeats and (not calls_s or clock.monotonic_s() < end_s):
                with _timed() as elapsed_s:
                    predict(pipeline, rows, task)
                calls_s.append(elapsed_s())
            found.append(PredictTime(rows=count, calls_s=tuple(calls_s)))
        return Asked(load_s=load_s(), predict_cold_s=cold_s(), predict=tuple(found))


def _or_failure(limit_s: float, do: Callable[[], Any]) -> Any:
    try:
        with fitting_alone(limit_s):
            return do()
    except Exception as error:
        return Failure.of(cause_of(error), error)


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    """Gives, once its block is left, the seconds spent in it."""
    clock, elapsed_s = SystemClock(), math.nan
    began_s = clock.monotonic_s()
    yield lambda: elapsed_s
    elapsed_s = clock.monotonic_s() - began_s
