"""Searches that are interrupted again and again: what engines are told, and what they do then, in virtual time.

Three workers, so that proposals are under way at each interruption: they are begun anew after it, and answered late.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from harness.engines.flaml_blendsearch import FlamlBlendsearch
from harness.engines.halving import Halving
from harness.engines.optuna_search import OptunaSearch
from harness.engines.random_search import RandomSearch
from harness.ports import Engine, Finished, Fleet, Problem, Proposal
from harness.records.candidate import Configuration, Evaluated, Trial
from tests.engines.landscape import Landscape, searched

TRIALS = 40
FAMILIES = ("logistic", "knn", "random_forest")
ENGINES = pytest.mark.parametrize(
    "engine",
    [RandomSearch(), Halving(), OptunaSearch(startup_trials=4), FlamlBlendsearch()],
    ids=lambda one: type(one).__name__,
)
ENDS = pytest.mark.parametrize("ends", [(7, 16), (15, 25, 33)], ids=["twice", "three times"])


@dataclass
class Heard:
    """An engine, and how many of its answers it was given again."""

    engine: Engine
    again: int = field(default=0, init=False)

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        for finished in self.engine.search(problem, fleet):
            self.again += finished.is_known
            yield finished


def lives(engine: Engine, known: Landscape, ends: Sequence[int]) -> list[Trial]:
    """A search that was interrupted after so many trials, each time."""
    trials: list[Trial] = []
    for end in (*ends, None):
        heard = Heard(engine)
        history = trials
        trials = searched(heard, 3, TRIALS, known=known, history=history, families=FAMILIES)[:end]
        assert trials[: len(history)] == history
        assert heard.again == len(history)
    return trials


class Even(Landscape):
    """A landscape on which trials end in the order in which they are sent, interrupted or not."""

    def evaluate(self, proposal: Proposal, folds: Sequence[int] | None, worker: int) -> Evaluated:
        return super().evaluate(proposal, folds, worker).model_copy(update={"duration_s": 1.0})


@ENDS
@ENGINES
def test_it_is_told_the_same_again_and_numbers_and_budget_go_on(engine: Engine, ends: tuple[int, ...]) -> None:
    trials = lives(engine, Landscape(), ends)
    assert sorted(one.asked for one in trials) == list(range(TRIALS))


@ENDS
@ENGINES
def test_where_the_order_of_answers_is_the_same_so_is_the_search(engine: Engine, ends: tuple[int, ...]) -> None:
    def did(trials: Sequence[Trial]) -> list[tuple[int, Configuration, float]]:
        return [(one.asked, one.evaluated.configuration, one.evaluated.rows_share) for one in trials]

    assert did(lives(engine, Even(), ends)) == did(lives(engine, Even(), ()))


def test_halving_that_takes_another_way_still_ends_on_all_rows() -> None:
    # Of another seed's search nothing is asked for again; its trials count.
    other = searched(Halving(), 3, TRIALS, families=("random_forest",))[:25]
    trials = searched(Halving(), 3, TRIALS, history=other)
    assert len(trials) == TRIALS
    assert len({one.asked for one in trials}) == TRIALS
    assert trials[-1].evaluated.rows_share == 1.0
