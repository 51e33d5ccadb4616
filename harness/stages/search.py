"""The search: an engine's trials, the best of them, and the pipeline that is worth serving.

In: an engine, a problem and a fleet. Out: a `Trial` per evaluation, recorded the moment it finishes and before the
engine is told of it; the best of them, and its pipeline fitted on all training rows.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Protocol

from threadpoolctl import threadpool_limits

from harness.clock import Clock
from harness.ports import Engine, Fleet, Problem, SklearnPipeline
from harness.records.candidate import Configuration, Trial, better
from harness.records.scenario import Metric
from harness.space.build import build
from harness.stages.data import Table


class SearchFleet(Fleet, Protocol):
    """A fleet that takes up one problem after the other."""

    def start(self, problem: Problem) -> None:
        """Make every worker ready for a problem, with its budget untouched."""
        ...


def search(
    engine: Engine, problem: Problem, fleet: SearchFleet, record: Callable[[Trial], None], cell: str, clock: Clock
) -> list[Trial]:
    """Let an engine search; every trial is recorded before the engine hears of it, failed ones too.

    Raises InfrastructureError where workers keep dying, UsageError where the table is too small for the folds.
    """
    fleet.start(problem)
    began_s = clock.monotonic_s()
    trials: list[Trial] = []
    for evaluated in engine.search(problem, fleet):
        finished_s = clock.monotonic_s() - began_s
        trials.append(Trial(cell=cell, number=len(trials), finished_s=finished_s, evaluated=evaluated))
        record(trials[-1])
    return trials


def best(trials: Iterable[Trial], metric: Metric) -> Trial | None:
    """The trial with the best score, the earlier one of equals; None where none has a score."""
    found: Trial | None = None
    leading = 0.0
    for trial in trials:
        score = trial.evaluated.score
        if score is not None and (found is None or better(metric, score, leading)):
            found, leading = trial, score
    return found


def fit_candidate(configuration: Configuration, table: Table, seed: int) -> SklearnPipeline:
    """The pipeline of a configuration, fitted on all training rows, on one thread.

    Raises UsageError on a bad configuration, and whatever the estimator raises.
    """
    pipeline = build(configuration, table.signature, seed)
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore")
        return pipeline.fit(table.frame.iloc[table.train], table.target[table.train])
