"""The search: trials are recorded in the order in which they finish, before the engine hears of them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.clock import FakeClock
from harness.errors import UsageError
from harness.ports import Fleet, Problem, Workbench
from harness.records.candidate import Configuration, Evaluated, Trial
from harness.records.run import Cause, Failure
from harness.records.scenario import DataPlan
from harness.stages.data import load_table
from harness.stages.search import best, fit_candidate, search

PROBLEM = Problem("binary", "roc_auc", ("logistic",), folds=3, trials=3, seconds=60.0, seed=1)
FAILURE = Failure(cause=Cause.DATA, message="no")


def evaluated(*scores: float) -> Evaluated:
    failure = None if scores else FAILURE
    return Evaluated(configuration={"family": "x"}, fold_scores=scores, duration_s=1.0, worker=0, failure=failure)


def trial(number: int, *scores: float) -> Trial:
    return Trial(cell="c", number=number, finished_s=1.0, evaluated=evaluated(*scores))


class ScriptedFleet:
    """Answers one, two, three ... to whatever it is asked, a second apart."""

    workers = 1

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.problem: Problem | None = None

    def start(self, problem: Problem) -> None:
        self.clock.sleep(100.0)
        self.problem = problem

    def evaluate(self, ask: Callable[[], Configuration | None]) -> Iterator[Evaluated]:
        for score in range(1, 4):
            if ask() is not None:
                self.clock.sleep(1.0)
                yield evaluated(float(score))

    def inside(self, loop: Callable[[Workbench, Problem], Iterable[Evaluated]]) -> Iterator[Evaluated]:
        raise NotImplementedError


def test_a_trial_is_recorded_before_the_engine_hears_of_it() -> None:
    heard: list[str] = []

    class Engine:
        def search(self, problem: Problem, fleet: Fleet) -> Iterator[Evaluated]:
            for found in fleet.evaluate(lambda: {"family": "x"}):
                yield found
                heard.append(f"told {found.score:g}")

    clock = FakeClock()
    fleet = ScriptedFleet(clock)
    trials = search(Engine(), PROBLEM, fleet, lambda made: heard.append(f"kept {made.number}"), "c", clock)
    assert heard == ["kept 0", "told 1", "kept 1", "told 2", "kept 2", "told 3"]
    assert fleet.problem == PROBLEM
    # Making the workers ready is not search time.
    assert [made.finished_s for made in trials] == [1.0, 2.0, 3.0]
    assert {made.cell for made in trials} == {"c"}


def test_a_record_that_cannot_be_kept_ends_the_search() -> None:
    class Engine:
        def search(self, problem: Problem, fleet: Fleet) -> Iterator[Evaluated]:
            return fleet.evaluate(lambda: {"family": "x"})

    def refuse(_: Trial) -> None:
        raise OSError("disk full")

    clock = FakeClock()
    with pytest.raises(OSError, match="disk full"):
        search(Engine(), PROBLEM, ScriptedFleet(clock), refuse, "c", clock)


def test_the_best_trial_has_the_highest_score_or_the_lowest_loss() -> None:
    trials = [trial(0, 0.5, 0.7), trial(1), trial(2, 0.9, 0.9), trial(3, 0.9, 0.9)]
    assert best(trials, "roc_auc") == trials[2]
    assert best(trials, "log_loss") == trials[0]
    assert best(trials[1:2], "roc_auc") is None


def test_a_candidate_is_fitted_on_all_training_rows_and_no_other() -> None:
    table = load_table(DataPlan(source="sklearn:diabetes"), Path())
    pipeline = fit_candidate({"family": "ridge", "alpha": 1e-9}, table, seed=1)
    # Ordinary least squares by numpy, which has seen the same rows.
    rows = np.column_stack([np.ones(len(table.train)), table.frame.iloc[table.train]])
    weights = np.linalg.lstsq(rows, table.target[table.train], rcond=None)[0]
    expected = np.column_stack([np.ones(len(table.holdout)), table.frame.iloc[table.holdout]]) @ weights
    np.testing.assert_allclose(pipeline.predict(table.frame.iloc[table.holdout]), expected, rtol=1e-5)


def test_a_bad_configuration_is_refused() -> None:
    table = load_table(DataPlan(source="sklearn:iris"), Path())
    with pytest.raises(UsageError, match="no model family 'tree'"):
        fit_candidate({"family": "tree"}, table, seed=1)
