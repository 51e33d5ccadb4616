"""A landscape of known answers, for engines that the driver asks: no fit, no real time, any number of workers."""

from collections.abc import Sequence

import numpy as np

from harness.clock import FakeClock
from harness.ports import Engine, Problem, Proposal
from harness.records.candidate import Configuration, Evaluated, Trial
from harness.records.run import Cause, Failure
from harness.records.words import Metric
from harness.stages.fleet import SearchFleet
from harness.stages.search import search
from harness.stages.simulated_workers import Recorded, SimulatedWorkers
from harness.stages.split import LabelledRows

TARGET = np.array([0, 1] * 20)


def away(configuration: Configuration) -> float:
    """How many powers of ten a logistic regression is from C = 1; another family is as far away as can be."""
    return float(abs(np.log10(float(configuration.get("C", 1e4)))))


class Landscape(Recorded):
    """The score is best at C = 1, rows bring a little of it, and the seconds are those of the rows."""

    def __init__(self, failing_above: float = 2.0) -> None:
        self._failing_above = failing_above

    def evaluate(self, proposal: Proposal, folds: Sequence[int] | None, worker: int) -> Evaluated:
        distance = away(proposal.configuration)
        failure = Failure.of(Cause.MEMORY, "too large") if proposal.rows_share > self._failing_above else None
        return Evaluated(
            configuration=proposal.configuration,
            fold_scores=() if failure else (1.0 - distance / 10 + proposal.rows_share / 100,),
            duration_s=(3.0 + distance) * proposal.rows_share,
            worker=worker,
            rows_share=proposal.rows_share,
            failure=failure,
        )


def searched(
    engine: Engine,
    workers: int = 1,
    trials: int = 120,
    seconds: float = 1e6,
    metric: Metric = "roc_auc",
    known: Recorded | None = None,
    history: Sequence[Trial] = (),
    families: tuple[str, ...] = ("logistic",),
) -> list[Trial]:
    """The trials of an engine on the landscape."""
    problem = Problem("binary", metric, families, 3, trials, seconds, 1)
    hands = SimulatedWorkers(known or Landscape(), workers, FakeClock(), TARGET)
    return search(
        engine,
        problem,
        SearchFleet(hands, LabelledRows(TARGET, "binary", "stratified")),
        lambda made: None,
        "c",
        history,
    )


def waits_s(trials: Sequence[Trial], worker: int) -> list[float]:
    """How long a worker stood idle before each of its trials."""
    own = sorted((one for one in trials if one.evaluated.worker == worker), key=lambda one: one.sent_s)
    ends_s = [0.0, *(one.finished_s for one in own)]
    return [one.sent_s - end_s for one, end_s in zip(own, ends_s, strict=False)]
