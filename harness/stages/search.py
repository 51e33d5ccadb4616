"""The search: an engine's trials, and the best of them.

In: an engine, a problem and a fleet. Out: a `Trial` per evaluation, recorded the moment it finishes and before the
engine is told of it; and the best of them.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from harness.ports import Engine, Problem
from harness.records.candidate import Trial, better
from harness.records.run import SearchStart
from harness.records.words import Metric
from harness.stages.fleet import SearchFleet


def search(
    engine: Engine,
    problem: Problem,
    fleet: SearchFleet,
    record: Callable[[Trial], None],
    cell: str,
    history: Sequence[Trial] = (),
    began: Callable[[SearchStart], None] = lambda start: None,
) -> list[Trial]:
    """Let an engine search; every trial is recorded before the engine hears of it, failed ones too.

    `history` are the trials that an interrupted search has left, in their order: they are not recorded again.
    `began` is told what it took to make the workers ready. Raises InfrastructureError where workers keep dying,
    UsageError where the table is too small for the folds.
    """
    began(fleet.start(replace(problem, foreign=getattr(engine, "foreign", None)), history))
    trials = list(history)
    store_s = 0.0
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
                transport_s=finished.transport_s,
                last_store_s=store_s,
                evaluated=finished.evaluated,
            )
        )
        store_s = fleet.stored_s(functools.partial(record, trials[-1]))
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
