"""Halving: who goes on to more rows and when, checked against the rule of the paper, on any number of workers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.engines.halving import Halving
from harness.engines.random_search import RandomSearch
from harness.ports import Problem, Proposal
from harness.records.candidate import Trial
from harness.records.table import DataPlan
from harness.stages.data import load_table
from harness.stages.fitting import Fitter
from harness.stages.search import best
from tests.engines.landscape import Landscape, away, searched, waits_s


def shares(trials: Sequence[Trial]) -> list[float]:
    return [round(trial.evaluated.rows_share, 4) for trial in sorted(trials, key=lambda trial: trial.asked)]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (Halving(), (1 / 9, 1 / 3, 1.0)),
        (Halving(smallest_share=1 / 9), (1 / 9, 1 / 3, 1.0)),
        (Halving(smallest_share=0.12), (1 / 3, 1.0)),
        (Halving(smallest_share=0.05, reduction_factor=2), (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)),
        (Halving(smallest_share=1.0), (1.0,)),
    ],
)
def test_rungs_rise_by_the_factor_to_all_rows(engine: Halving, expected: tuple[float, ...]) -> None:
    assert engine.shares == pytest.approx(expected)


@pytest.mark.parametrize("parameters", [{"smallest_share": 0.0}, {"smallest_share": 1.5}, {"reduction_factor": 1}])
def test_rungs_that_cannot_be_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Halving(**parameters)


def test_one_worker_goes_on_as_the_paper_says_by_hand() -> None:
    # Three on the lowest rung let one go on, nine let three, and these three let one of them come to all rows.
    low, middle, whole = round(1 / 9, 4), round(1 / 3, 4), 1.0
    expected = [low, low, low, middle] * 3 + [whole]
    assert shares(searched(Halving(), trials=39))[:13] == expected


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_who_goes_on_was_among_the_best_third_of_what_was_known_then(workers: int) -> None:
    trials = searched(Halving(), workers)
    closing = len(trials) // 3
    for trial in trials:
        if trial.evaluated.rows_share == pytest.approx(1 / 9) or trial.asked >= len(trials) - closing:
            continue
        told = [one for one in trials if one.finished_s <= trial.asked_s]
        below = [one for one in told if one.evaluated.rows_share == pytest.approx(trial.evaluated.rows_share / 3)]
        ranked = sorted(below, key=lambda one: (-(one.evaluated.score or 0.0), one.asked))
        place = [one.evaluated.configuration for one in ranked].index(trial.evaluated.configuration)
        assert place < len(below) // 3


@pytest.mark.parametrize("workers", [2, 5, 16])
def test_no_worker_ever_waits(workers: int) -> None:
    trials = searched(Halving(), workers)
    for worker in range(workers):
        assert waits_s(trials, worker) == pytest.approx([0.0] * len(waits_s(trials, worker)))


def test_no_configuration_is_tried_on_a_share_twice() -> None:
    trials = searched(Halving(), 4)
    tried = [(one.evaluated.configuration["C"], one.evaluated.rows_share) for one in trials]
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize(("trials", "whole"), [(1, 1), (2, 1), (8, 2), (30, 10)])
def test_the_last_trials_are_for_the_best_on_all_rows(trials: int, whole: int) -> None:
    found = searched(Halving(), trials=trials)
    assert shares(found)[-whole:] == [1.0] * whole
    shipped = best(found, "roc_auc")
    assert shipped is not None
    # Rows bring every configuration the same here, so the best of all is the best on all rows.
    known = [away(one.evaluated.configuration) for one in found]
    assert away(shipped.evaluated.configuration) == min(known)


def test_so_are_the_last_seconds_where_they_end_first() -> None:
    found = searched(Halving(), workers=2, trials=10_000, seconds=300.0)
    late = [one for one in found if one.asked_s > 200.0]
    assert late
    assert {one.evaluated.rows_share for one in late[2:]} == {1.0}
    assert best(found, "roc_auc") is not None


def test_less_is_better_where_the_metric_says_so() -> None:
    # The landscape's score falls with the distance from C = 1: as a loss, its best of the first three is the farthest.
    first = sorted(searched(Halving(), metric="log_loss"), key=lambda one: one.asked)[:4]
    distances = [away(one.evaluated.configuration) for one in first]
    assert distances[3] == max(distances[:3])


def test_what_failed_is_the_worst_of_its_rung_and_never_goes_on() -> None:
    found = searched(Halving(), known=Landscape(failing_above=0.2))
    assert sum(one.evaluated.failure is not None for one in found) == sum(share > 0.2 for share in shares(found))
    # Nothing came past the second rung by its merit; the end still tries the best of the lowest one on all rows.
    assert shares(found).index(1.0) == 80


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("done", [1, 20, 70])
def test_an_interrupted_search_goes_on_to_the_same_end(workers: int, done: int) -> None:
    whole = searched(Halving(), workers, trials=90)
    resumed = searched(Halving(), workers, trials=90, history=whole[:done])
    assert resumed[:done] == whole[:done]
    assert len(resumed) == 90
    if workers == 1:
        assert [one.evaluated for one in resumed] == [one.evaluated for one in whole]


def test_in_the_same_seconds_it_sees_more_configurations_than_random_search() -> None:
    seen, by_chance = (
        {one.evaluated.configuration["C"] for one in searched(engine, trials=10_000, seconds=100.0)}
        for engine in (Halving(), RandomSearch())
    )
    assert len(seen) > 1.5 * len(by_chance)


def test_rows_are_real_on_a_real_table() -> None:
    table = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
    fitted: list[int] = []

    class Counting(Fitter):
        def _some(self, rows: Any, share: float) -> Any:
            some = super()._some(rows, share)
            fitted.append(len(some))
            return some

    fitter = Counting(
        0, table.frame.iloc[table.train].reset_index(drop=True), table.target[table.train], table.signature
    )
    halves = np.arange(len(table.train))
    fitter.start(Problem("binary", "roc_auc", ("logistic",), 2, 1, 1e6, 1), ((halves[::2], halves[1::2]),))
    for share in Halving(smallest_share=0.25, reduction_factor=2).shares:
        assert fitter.evaluate(Proposal({"family": "logistic"}, share)).failure is None
    half = len(halves[::2])
    assert fitted == [round(half / 4), round(half / 2), half]
