"""Random search: configurations drawn evenly from the whole space; what every other engine has to beat.

In: a problem and a fleet. Out: what finishes, as it does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.ports import Finished, Fleet, Problem, Proposal
from harness.space.families import families_for, sample

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RandomSearch:
    """Draws a family evenly, then its parameters evenly on their linear or logarithmic ranges."""

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        families = families_for(problem.task, problem.families)
        rng = np.random.default_rng(problem.seed)
        return fleet.evaluate(lambda: Proposal(sample(families, rng)))
