"""FLAML's BlendSearch: local searches from the best points of a global one, asked by the driver for as many workers as
there are.

In: a problem and a fleet. Out: what finishes, as it does. FLAML's own loop (`flaml_search`) waits for each score before
its next step, so it has one worker. BlendSearch (Wang et al. 2021) is what stands behind such loops: it is asked and
told, and while some of its threads of search wait for a score, others propose. Costs are left out of it (each trial
costs 1): with seconds, the same answers would not make the same search.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.engines.flaml_search import REPEATS, domain, plain
from harness.ports import Finished, Fleet, Problem, Proposal
from harness.records.candidate import MINIMISED, Configuration
from harness.space.families import FAMILY, Family, defaults, families_for

REQUIRES = ("flaml",)

_MODEL = "model"
_SCORE = "score"


@dataclass(frozen=True, slots=True)
class FlamlBlendsearch:
    """BlendSearch over a tree of families: first the defaults of each, then local steps (FLOW2) and TPE in turns."""

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        families = {family.name: family for family in families_for(problem.task, problem.families)}
        searcher = _searcher(problem, tuple(families.values()))
        proposed: list[tuple[str, Any]] = []
        suggestions = 0

        def ask() -> Proposal | None:
            nonlocal suggestions
            for _ in range(REPEATS):
                suggestions += 1
                point = searcher.suggest(str(suggestions))
                if point is not None:
                    proposed.append((str(suggestions), point))
                    return Proposal(_configuration(point[_MODEL], families))
            return None

        for finished in fleet.evaluate(ask):
            yield finished
            suggestion, point = proposed[finished.asked]
            score = finished.evaluated.score
            if score is None:
                searcher.on_trial_complete(suggestion, error=True)
            else:
                searcher.on_trial_complete(suggestion, {_SCORE: score, "config": point})


def _searcher(problem: Problem, families: tuple[Family, ...]) -> Any:
    from flaml.tune.sample import choice
    from flaml.tune.searcher.blendsearch import BlendSearch

    # It tells of the study in its memory, and warns of its own second telling of a point that it has proposed twice.
    for name in ("optuna", "flaml.tune.searcher"):
        logging.getLogger(name).setLevel(logging.ERROR)
    branches = [
        {FAMILY: family.name} | {parameter.name: domain(parameter) for parameter in family.parameters}
        for family in families
    ]
    return BlendSearch(
        metric=_SCORE,
        mode="min" if problem.metric in MINIMISED else "max",
        space={_MODEL: choice(branches)},
        points_to_evaluate=[{_MODEL: defaults(family)} for family in families],
        cost_attr=None,
        seed=problem.seed,
    )


def _configuration(point: dict[str, Any], families: dict[str, Family]) -> Configuration:
    family = families[point[FAMILY]]
    return {FAMILY: family.name} | {
        parameter.name: plain(parameter, point[parameter.name]) for parameter in family.parameters
    }
