"""The search: trials are recorded in the order in which they finish, before the engine hears of them."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from harness.clock import FakeClock
from harness.ports import Finished, Fleet, Problem, Proposal
from harness.records.candidate import Evaluated, Trial
from harness.records.run import Cause, Failure
from harness.stages.fleet import Done, Ready, SearchFleet
from harness.stages.search import best, search
from harness.stages.split import LabelledRows

PROBLEM = Problem("binary", "roc_auc", ("logistic",), folds=3, trials=3, seconds=60.0, seed=1)
FAILURE = Failure(cause=Cause.DATA, message="no")


def evaluated(*scores: float, pruned: bool = False, rows_share: float = 1.0) -> Evaluated:
    return Evaluated(
        configuration={"family": "x"},
        fold_scores=scores,
        duration_s=1.0,
        worker=0,
        pruned=pruned,
        rows_share=rows_share,
        failure=None if scores else FAILURE,
    )


def trial(number: int, *scores: float, pruned: bool = False, rows_share: float = 1.0) -> Trial:
    made = evaluated(*scores, pruned=pruned, rows_share=rows_share)
    return Trial(cell="c", number=number, asked=number, asked_s=0.0, sent_s=0.0, finished_s=1.0, evaluated=made)


class ScriptedWorkers:
    """One worker that answers one, two, three ... to whatever it is sent, a second apart."""

    count = 1

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self._left: list[Done | Ready] = []
        self._scores = iter(range(1, 100))

    def start(self, problem: Problem, folds: object) -> None:
        self.clock.sleep(100.0)

    def send(self, worker: int, number: int, proposal: Proposal, folds: object, limit_s: float) -> None:
        self._left = [Ready(worker), Done(number, evaluated(float(next(self._scores))))]

    def receive(self, timeout_s: float) -> Sequence[Done | Ready]:
        self.clock.sleep(1.0)
        return self._left


def fleet() -> SearchFleet:
    rows = LabelledRows(np.array([0, 1] * 10), "binary", "stratified")
    return SearchFleet(ScriptedWorkers(FakeClock()), rows)  # type: ignore[arg-type]


class Engine:
    """Proposes the same again and again, and says what it hears."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        for found in fleet.evaluate(lambda: Proposal({"family": "x"})):
            yield found
            self.heard.append(f"told {found.evaluated.score:g}")


def test_a_trial_is_recorded_before_the_engine_hears_of_it() -> None:
    heard: list[str] = []
    trials = search(Engine(heard), PROBLEM, fleet(), lambda made: heard.append(f"kept {made.number}"), "c")
    assert heard == ["kept 0", "told 1", "kept 1", "told 2", "kept 2", "told 3"]
    # Making the workers ready is not search time.
    assert [made.finished_s for made in trials] == [1.0, 2.0, 3.0]
    assert [(made.asked, made.asked_s, made.sent_s) for made in trials] == [(0, 0.0, 0.0), (1, 1.0, 1.0), (2, 2.0, 2.0)]
    assert {made.cell for made in trials} == {"c"}


def test_how_long_a_trial_took_to_store_stands_in_the_next_one() -> None:
    """Storing takes an eighth of a second, sending a quarter, fetching half of one."""
    clock = FakeClock()

    class Slow(ScriptedWorkers):
        def send(self, worker: int, number: int, proposal: Proposal, folds: object, limit_s: float) -> None:
            clock.sleep(0.25)
            self._left = [Ready(worker), Done(number, evaluated(1.0), fetched_s=0.5)]

    slow = SearchFleet(Slow(clock), LabelledRows(np.array([0, 1] * 10), "binary", "stratified"))  # type: ignore[arg-type]
    trials = search(Engine([]), PROBLEM, slow, lambda made: clock.sleep(0.125), "c")
    assert [made.last_store_s for made in trials] == [0.0, 0.125, 0.125]
    assert [made.transport_s for made in trials] == [0.75] * 3
    assert [made.asked_s for made in trials] == [0.0, 1.375, 2.75]


def test_what_was_recorded_is_told_again_and_not_recorded_twice() -> None:
    first = search(Engine([]), PROBLEM, fleet(), lambda made: None, "c")
    heard: list[str] = []
    again = search(Engine(heard), PROBLEM, fleet(), lambda made: heard.append(f"kept {made.number}"), "c", first[:2])
    # A worker that is new begins to count anew.
    assert heard == ["told 1", "told 2", "kept 2", "told 1"]
    assert again[:2] == first[:2]
    assert again[2].finished_s == 3.0


def test_a_record_that_cannot_be_kept_ends_the_search() -> None:
    def refuse(_: Trial) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        search(Engine([]), PROBLEM, fleet(), refuse, "c")


def test_the_best_trial_has_the_highest_score_or_the_lowest_loss() -> None:
    trials = [trial(0, 0.5, 0.7), trial(1), trial(2, 0.9, 0.9), trial(3, 0.9, 0.9)]
    assert best(trials, "roc_auc") == trials[2]
    assert best(trials, "log_loss") == trials[0]
    assert best(trials[1:2], "roc_auc") is None


def test_a_trial_that_is_not_whole_is_not_the_best() -> None:
    whole = trial(0, 0.5, 0.5)
    assert best([whole, trial(1, 0.9, pruned=True), trial(2, 0.9, 0.9, rows_share=0.5)], "roc_auc") == whole
