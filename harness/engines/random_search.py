"""Random search: configurations drawn evenly from the whole space; what every other engine has to beat.

In: a problem and a fleet. Out: evaluations as they finish.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.ports import Fleet, Problem
from harness.records.candidate import Evaluated
from harness.space.families import families_for, sample

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RandomSearch:
    """Draws a family evenly, then its parameters evenly on their linear or logarithmic ranges."""

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Evaluated]:
        families = families_for(problem.task, problem.families)
        rng = np.random.default_rng(problem.seed)
        return fleet.evaluate(lambda: sample(families, rng))
