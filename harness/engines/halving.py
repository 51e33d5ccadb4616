"""Halving: many configurations on few rows, and more rows for the best of them (ASHA), without waiting for anyone.

In: a problem and a fleet. Out: what finishes, as it does; a trial is one configuration on one share of the rows.

Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2):
a configuration that is among the best 1/eta of its rung is tried on the next one, with eta times the rows; where there
is none, a new one is drawn for the lowest rung. Nobody waits for a rung to be full, so every worker always has
something to do. What the paper leaves open is the end: its rungs fill from below, and a short search would never come
to the top. So the last part of the budget is for the best of what is known, on all rows.
"""

import math
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from harness.ports import Finished, Fleet, Problem, Proposal
from harness.records.candidate import MINIMISED, Configuration
from harness.records.words import Metric
from harness.space.families import families_for, sample

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Halving:
    """ASHA over rows: shares of 1, 1/eta, 1/eta^2 and so on, as long as they are not below the smallest one."""

    smallest_share: float = 0.1
    """No trial is fitted on a smaller share of the rows."""
    reduction_factor: int = 3
    """eta: of so many configurations on a rung one goes on, with so many times the rows."""

    def __post_init__(self) -> None:
        if not 0.0 < self.smallest_share <= 1.0:
            raise ValueError("smallest_share must be above 0 and at most 1")
        if self.reduction_factor < 2:
            raise ValueError("reduction_factor must be at least 2")

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the rows on each rung, rising to 1."""
        # The tolerance is for a smallest share that is itself a power of 1/eta.
        steps = math.floor(math.log(1 / self.smallest_share, self.reduction_factor) + 1e-9)
        return tuple(1 / self.reduction_factor**step for step in range(steps, -1, -1))

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        families = families_for(problem.task, problem.families)
        rng = np.random.default_rng(problem.seed)
        rungs = [_Rung(share) for share in self.shares]
        asked: list[tuple[Configuration, int]] = []
        told_s = 0.0

        def ask() -> Proposal:
            # In ASHA each rung costs about as much as any other: the last one keeps its part of trials and of seconds.
            left = fleet.trials - len(asked)
            closing = left <= max(1, problem.trials // len(rungs)) or told_s >= problem.seconds * (1 - 1 / len(rungs))
            found = _best_left(rungs) if closing else _promotable(rungs, self.reduction_factor)
            configuration, rung = (sample(families, rng), 0) if found is None else (found.configuration, found.rung + 1)
            if found is not None:
                found.is_promoted = True
            if closing:
                rung = len(rungs) - 1
            asked.append((configuration, rung))
            return Proposal(configuration, rungs[rung].share)

        for finished in fleet.evaluate(ask):
            yield finished
            configuration, rung = asked[finished.asked]
            told_s = finished.finished_s
            loss = _loss(finished.evaluated.score, problem.metric)
            insort(rungs[rung].ranked, _Ranked(loss, finished.asked, rung, configuration))


@dataclass(order=True, slots=True)
class _Ranked:
    """A configuration that was tried on a rung; of equals the one that was asked for first is the better one."""

    loss: float
    asked: int
    rung: int = field(compare=False)
    configuration: Configuration = field(compare=False)
    is_promoted: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class _Rung:
    """What was tried on one share of the rows, the best first."""

    share: float
    ranked: list[_Ranked] = field(default_factory=list)

    def best(self, count: int) -> _Ranked | None:
        """The best of the first `count` that has not gone on; None where there is none. What failed never goes on."""
        for one in self.ranked[:count]:
            if not one.is_promoted and one.loss < math.inf:
                return one
        return None


def _loss(score: float | None, metric: Metric) -> float:
    if score is None:
        return math.inf
    return score if metric in MINIMISED else -score


def _promotable(rungs: list[_Rung], reduction_factor: int) -> _Ranked | None:
    """What ASHA tries on the next rung: among the best 1/eta of its own, of the highest rung that has such a one."""
    for rung in reversed(rungs[:-1]):
        if (found := rung.best(len(rung.ranked) // reduction_factor)) is not None:
            return found
    return None


def _best_left(rungs: list[_Rung]) -> _Ranked | None:
    """The best of the highest rung below the last that has one: it has been compared on the most rows."""
    for rung in reversed(rungs[:-1]):
        if (found := rung.best(len(rung.ranked))) is not None:
            return found
    return None
