"""The search: an engine's trials, the best of them, and the pipeline that is worth serving.

In: an engine, a problem and a fleet. Out: a `Trial` per evaluation, recorded the moment it finishes and before the
engine is told of it; the best of them, and its pipeline fitted on all training rows.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from threadpoolctl import threadpool_limits

from harness.ports import Engine, Problem, SklearnPipeline
from harness.records.candidate import Configuration, Trial, better
from harness.records.words import Metric
from harness.space.build import build
from harness.stages.data import Table
from harness.stages.fleet import SearchFleet


def search(
    engine: Engine,
    problem: Problem,
    fleet: SearchFleet,
    record: Callable[[Trial], None],
    cell: str,
    history: Sequence[Trial] = (),
) -> list[Trial]:
    """Let an engine search; every trial is recorded before the engine hears of it, failed ones too.

    `history` are the trials that an interrupted search has left, in their order: they are not recorded again. Raises
    InfrastructureError where workers keep dying, UsageError where the table is too small for the folds.
    """
    fleet.start(replace(problem, foreign=getattr(engine, "foreign", None)), history)
    trials = list(history)
    for finished in engine.search(problem, fleet):
        if finished.is_known:
            continue
        trials.append(
            Trial(
                cell=cell,
                number=len(trials),
                asked=finished.asked + finished.moved,
                proposed=finished.proposed + finished.moved,
                asked_s=finished.asked_s,
                sent_s=finished.sent_s,
                finished_s=finished.finished_s,
                evaluated=finished.evaluated,
            )
        )
        record(trials[-1])
    return trials


def best(trials: Iterable[Trial], metric: Metric) -> Trial | None:
    """The trial with the best score of those that are whole, the earlier one of equals; None where none is."""
    found: Trial | None = None
    leading = 0.0
    for trial in trials:
        score = trial.evaluated.score
        if score is not None and trial.evaluated.is_whole and (found is None or better(metric, score, leading)):
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
