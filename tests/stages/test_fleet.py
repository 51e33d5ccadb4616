"""The fleet in virtual time: who is given what and when, where a budget ends, and how an interrupted search goes on.

Its workers are `stages.simulated_workers` on made-up trials, so every length here is exact.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from harness.clock import FakeClock
from harness.errors import UsageError
from harness.ports import Finished, Problem, Proposal, Workbench
from harness.records.candidate import Evaluated, Trial
from harness.records.run import Cause, Failure
from harness.stages.fleet import GRACE_S, SILENCE_S, Done, Ready, SearchFleet, grace_s
from harness.stages.simulated_workers import Recorded, SimulatedWorkers
from harness.stages.split import LabelledRows
from harness.stages.supervisor import KILL_AFTER_S

TARGET = np.array([0, 1] * 20)
SECONDS = {"logistic": 1.0, "knn": 2.0, "mlp": 10.0}


def problem(trials: int = 6, seconds: float = 100.0, **limits: float) -> Problem:
    return Problem("binary", "roc_auc", tuple(SECONDS), 3, trials, seconds, 1, **limits)  # type: ignore[arg-type]


def recorded(family: str, seconds: float, *scores: float, cause: Cause | None = None) -> Trial:
    failure = Failure.of(cause, "recorded so") if cause else None
    evaluated = Evaluated(
        configuration={"family": family}, fold_scores=scores, duration_s=seconds, worker=0, failure=failure
    )
    return Trial(cell="c", number=0, asked=0, asked_s=0.0, sent_s=0.0, finished_s=seconds, evaluated=evaluated)


KNOWN = Recorded([recorded(family, seconds, 0.6, 0.7, 0.8) for family, seconds in SECONDS.items()])


class Story:
    """A fleet of simulated workers, and an engine that proposes families in an order."""

    def __init__(self, workers: int, known: Recorded = KNOWN) -> None:
        self.clock = FakeClock()
        self.workers = SimulatedWorkers(known, workers, self.clock, TARGET)
        self.fleet = SearchFleet(self.workers, LabelledRows(TARGET, "binary", "stratified"))
        self.asked_when: list[float] = []

    def search(
        self, asked: Problem, *families: str, history: Sequence[Trial] = (), go_on: object = None
    ) -> list[Finished]:
        self.fleet.start(asked, history)
        left = iter(families)

        def ask() -> Proposal | None:
            self.asked_when.append(self.clock.monotonic_s())
            return next((Proposal({"family": family}) for family in left), None)

        return list(self.fleet.evaluate(ask, go_on))  # type: ignore[arg-type]


def trials(found: Sequence[Finished]) -> list[Trial]:
    return [
        Trial(
            cell="c",
            number=number,
            asked=one.asked + one.moved,
            proposed=one.proposed + one.moved,
            asked_s=one.asked_s,
            sent_s=one.sent_s,
            finished_s=one.finished_s,
            evaluated=one.evaluated,
        )
        for number, one in enumerate(found)
    ]


def test_a_worker_that_is_done_is_given_the_next_proposal_at_once() -> None:
    found = Story(2).search(problem(), "mlp", "logistic", "logistic", "logistic", "knn")
    assert [(one.asked, one.finished_s) for one in found] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 5.0), (0, 10.0)]
    assert [one.evaluated.worker for one in found] == [1, 1, 1, 1, 0]
    assert [one.sent_s for one in found] == [0.0, 1.0, 2.0, 3.0, 0.0]


def test_who_was_lost_in_the_last_trial_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(1)
    receive = story.workers.receive

    def never_back(timeout_s: float) -> list[Done | Ready]:
        return [event for event in receive(timeout_s) if not isinstance(event, Ready)]

    monkeypatch.setattr(story.workers, "receive", never_back)
    assert len(story.search(problem(trials=1), "logistic", "logistic")) == 1
    assert story.clock.monotonic_s() == 1.0


def test_work_that_divides_evenly_takes_its_share_of_the_time() -> None:
    for workers in (1, 2, 4, 8):
        story = Story(workers)
        assert len(story.search(problem(trials=16), *["knn"] * 99)) == 16
        assert story.clock.monotonic_s() == 16 * 2.0 / workers


def test_nothing_is_asked_for_once_the_seconds_are_spent_and_what_runs_may_end_within_the_grace() -> None:
    story = Story(1)
    found = story.search(problem(99, 5.0), *["knn"] * 99)
    assert [one.finished_s for one in found] == [2.0, 4.0, 6.0]
    assert story.asked_when == [0.0, 2.0, 4.0]
    assert all(one.evaluated.failure is None for one in found)


def test_a_trial_that_goes_on_beyond_the_grace_is_stopped_there() -> None:
    (late,) = Story(1).search(problem(99, 5.0), "mlp")
    assert late.finished_s == 5.0 + GRACE_S
    assert late.evaluated.failure is not None
    assert late.evaluated.failure.cause is Cause.TIME


@pytest.mark.parametrize("seconds", [0.1, 1.0, 60.0, 99.0, 100.0, 101.0, 200.0, 3600.0, 1e6])
def test_the_longest_overrun_is_five_seconds_or_a_twentieth_of_the_budget(seconds: float) -> None:
    grace = grace_s(problem(seconds=seconds))
    assert grace + KILL_AFTER_S + SILENCE_S <= max(5.0, 0.05 * seconds) + 1e-9
    # A share of long budgets: their trials are longer too.
    assert grace == pytest.approx(max(2.0, 0.03 * seconds))


def test_a_trial_has_its_own_limit_too() -> None:
    found = Story(1).search(problem(trial_seconds=3.0), "mlp", "knn")
    assert [one.finished_s for one in found] == [3.0, 5.0]
    assert [one.evaluated.failure is None for one in found] == [False, True]


def test_folds_go_out_one_by_one_where_the_engine_decides_after_each() -> None:
    seen: list[tuple[int, tuple[float, ...]]] = []

    def go_on(number: int, scores: tuple[float, ...]) -> bool:
        seen.append((number, scores))
        return number != 1 or len(scores) < 2

    story = Story(1, Recorded([recorded("knn", 3.0, 0.6, 0.7, 0.8)]))
    whole, pruned = story.search(problem(2), "knn", "knn", go_on=go_on)
    assert seen == [(0, (0.6,)), (0, (0.6, 0.7)), (1, (0.6,)), (1, (0.6, 0.7))]
    assert whole.evaluated.fold_scores == (0.6, 0.7, 0.8)
    assert whole.evaluated.duration_s == 3.0
    assert pruned.evaluated.fold_scores == (0.6, 0.7)
    assert pruned.evaluated.pruned and not whole.evaluated.pruned
    assert pruned.finished_s == 5.0


def test_a_worker_that_says_nothing_is_given_up() -> None:
    class Silent(SimulatedWorkers):
        def send(self, worker: int, number: int, proposal: Proposal, folds: object, limit_s: float) -> None:
            if number:
                super().send(worker, number, proposal, None, limit_s)

        def stop(self, worker: int) -> None:
            self.stopped = worker

    story = Story(2)
    story.workers.__class__ = Silent
    found = story.search(problem(3, 4.0), "mlp", "logistic", "logistic")
    lost = found[-1]
    assert [one.asked for one in found] == [1, 2, 0]
    assert lost.evaluated.failure is not None
    assert "gave no sign" in lost.evaluated.failure.message
    assert lost.finished_s <= 4.0 + 5.0
    assert story.workers.stopped == 0  # type: ignore[attr-defined]


def test_a_search_that_is_left_early_stops_what_runs() -> None:
    story = Story(2)
    story.fleet.start(problem())
    running = story.fleet.evaluate(lambda: Proposal({"family": "knn"}))
    next(running)
    running.close()  # type: ignore[attr-defined]
    # Whoever was stopped comes back, and with no answer.
    assert [story.workers.receive(1.0) for _ in range(2)] == [[Ready(1)], []]


def test_a_table_too_thin_for_the_folds_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match=r"lower `search\.folds`"):
        Story(1).fleet.start(Problem("binary", "roc_auc", ("knn",), 30, 6, 60.0, 1))


ORDER = ["mlp", "logistic", "knn", "knn", "logistic", "mlp", "knn", "logistic"]


@pytest.mark.parametrize("done", range(8))
def test_an_interrupted_search_is_told_the_same_again_and_sends_only_what_was_not_answered(done: int) -> None:
    whole = Story(2).search(problem(8), *ORDER)
    history = trials(whole)[:done]
    story = Story(2)
    resumed = story.search(problem(8), *ORDER, history=history)
    assert [one.is_known for one in resumed] == [True] * done + [False] * (8 - done)
    assert sorted(one.asked for one in resumed) == list(range(8))
    # Known answers cost no time; what was under way is begun anew.
    spent_s = sum(SECONDS[ORDER[one.asked]] for one in resumed if not one.is_known)
    assert story.clock.monotonic_s() <= spent_s
    if history:
        assert resumed[-1].finished_s >= history[-1].finished_s


def test_the_seconds_that_were_spent_before_count() -> None:
    history = trials(Story(1).search(problem(99, 10.0), *["knn"] * 99))[:4]
    resumed = Story(1).search(problem(99, 10.0), *["knn"] * 99, history=history)
    assert len(resumed) == 5
    assert resumed[-1].finished_s == 10.0


def test_an_engine_that_takes_another_way_is_told_nothing_more_of_the_old_one() -> None:
    history = trials(Story(1).search(problem(4), *["knn"] * 4))[:3]
    resumed = Story(1).search(problem(4), "knn", "logistic", "logistic", "logistic", history=history)
    # Three trials are recorded, and four was the budget; number 1 and 2 are those of the old way.
    assert [one.is_known for one in resumed] == [True, False]
    assert [one.asked + one.moved for one in resumed] == [0, 3]


def test_pruning_is_decided_again_from_the_recorded_folds() -> None:
    def go_on(number: int, scores: tuple[float, ...]) -> bool:
        seen.append((number, scores))
        return len(scores) < 2

    seen: list[tuple[int, tuple[float, ...]]] = []
    first = Story(1).search(problem(3), "knn", "knn", "knn", go_on=go_on)
    before, seen = seen, []
    Story(1).search(problem(3), "knn", "knn", "knn", go_on=go_on, history=trials(first)[:2])
    assert seen == before


def loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    for family in ["knn", "logistic"] * 10:
        evaluated = workbench.attempt({"family": family})
        if evaluated is None:
            return
        yield evaluated


def test_an_engines_own_loop_is_told_again_too() -> None:
    story = Story(4)
    story.fleet.start(problem(5))
    whole = list(story.fleet.inside(loop))
    assert [one.finished_s for one in whole] == [2.0, 3.0, 5.0, 6.0, 8.0]
    again = Story(4)
    again.fleet.start(problem(5), trials(whole)[:3])
    resumed = list(again.fleet.inside(loop))
    assert [one.is_known for one in resumed] == [True, True, True, False, False]
    assert [one.finished_s for one in resumed] == [2.0, 3.0, 5.0, 6.0, 8.0]


def knn_first(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    for family in ["knn"] + ["mlp"] * 10:
        evaluated = workbench.attempt({"family": family})
        if evaluated is None:
            return
        assert evaluated.configuration["family"] == family
        yield evaluated


def test_a_loop_that_takes_another_way_is_given_no_answer_of_the_old_one() -> None:
    story = Story(1)
    story.fleet.start(problem(5))
    history = trials(list(story.fleet.inside(loop)))[:3]
    again = Story(1)
    again.fleet.start(problem(5), history)
    resumed = list(again.fleet.inside(knn_first))
    # Three of five trials are recorded, two of them of another way.
    assert [(one.asked, one.is_known) for one in resumed] == [(0, True), (3, False), (4, False)]
    assert [one.finished_s for one in resumed] == [2.0, 15.0, 25.0]
    assert again.clock.monotonic_s() == 20.0


def test_a_loops_time_begins_when_its_libraries_are_there_and_goes_on_from_its_last_known_trial() -> None:
    class Importing(SimulatedWorkers):
        def inside(self, *asked: object) -> Iterator[Evaluated | None]:
            self.clock.sleep(2.0)
            yield from super().inside(*asked)  # type: ignore[arg-type]

    found: list[Finished] = []
    for _life in range(2):
        story = Story(1)
        story.workers.__class__ = Importing
        story.fleet.start(problem(5), trials(found)[:3])
        found = list(story.fleet.inside(loop))
        assert [(one.asked_s, one.sent_s) for one in found] == [(at, at) for at in (0.0, 2.0, 3.0, 5.0, 6.0)]


def test_events_of_a_worker_come_with_its_readiness() -> None:
    story = Story(1)
    story.fleet.start(problem())
    story.workers.send(0, 7, Proposal({"family": "knn"}), None, 60.0)
    ready, done = story.workers.receive(60.0)
    assert ready == Ready(0)
    assert isinstance(done, Done) and done.number == 7
