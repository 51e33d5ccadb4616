"""The fleet: gives workers what an engine proposes, and the engine what came of it, within a budget that is kept.

In: workers, a problem, and the trials it has already. Out: what finishes, as it does.

Whose workers they are, and in whose time they work, it does not know: `stages.ray_workers` are actors of Ray,
`stages.simulated_workers` repeat recorded trials in virtual time. A search that was interrupted is told again what it
was told: the engine is asked as before, recorded answers come in their recorded order, and only what was never
answered is sent to a worker. What the engine knew at each of its proposals is counted and not timed: a proposal that
was under way is asked for again, and that takes place at another time.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.clock import Clock
from harness.ports import Finished, GoOn, Loop, Problem, Proposal
from harness.records.candidate import Evaluated, Trial
from harness.records.run import Cause, Failure, SearchStart
from harness.stages.split import LabelledRows, fold_rows
from harness.stages.supervisor import KILL_AFTER_S

GRACE_S = 2.0
GRACE_SHARE = 0.03
"""Once the seconds of a budget are spent, running trials may go on for the longer of both; then they are stopped."""

SILENCE_S = 1.0
"""A worker that has not stopped a trial so long after it should have is given up."""


@dataclass(frozen=True, slots=True)
class Done:
    """A worker's answer to what it was sent."""

    number: int
    evaluated: Evaluated
    fetched_s: float = 0.0
    """How long it took to fetch it, once it was there."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker that can be sent something."""

    worker: int


class Workers(Protocol):
    """Those who do the work, by number from 0."""

    count: int

    @property
    def clock(self) -> Clock:
        """In whose time they work."""

    def start(self, problem: Problem, folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> SearchStart:
        """Make all of them ready for a problem, and say what that took.

        Raises InfrastructureError where they do not get ready.
        """

    def send(self, worker: int, number: int, proposal: Proposal, folds: Sequence[int] | None, limit_s: float) -> None:
        """Give a worker that is ready a proposal, its folds of these numbers (None: all), and its limit in seconds."""

    def receive(self, timeout_s: float) -> list[Done | Ready]:
        """The next answer, and who is ready for more; nothing after `timeout_s` seconds.

        Raises InfrastructureError where workers keep dying.
        """

    def stop(self, worker: int) -> None:
        """End what a worker is at; it is `Ready` again some time later."""

    def inside(
        self, loop: Loop, told: Sequence[Evaluated], seconds: float, grace_s: float
    ) -> Iterator[Evaluated | None]:
        """Run a loop in worker 0, and give it those answers first, as long as it attempts the same; yield None when its
        time begins, then what it yields, and a failure at last where it breaks, or goes on for longer than `seconds`
        and `grace_s`.
        """


class SearchFleet:
    """Workers on one table, for one problem after the other: what engines see as `ports.Fleet`."""

    def __init__(self, workers: Workers, rows: LabelledRows) -> None:
        self.workers = workers.count
        self._workers = workers
        self._rows = rows
        self._clock = workers.clock
        self._problem: Problem | None = None
        self._history: Sequence[Trial] = ()
        self._replay = _Replay(())

    @property
    def trials(self) -> int:
        """How many proposals of the engine there is room for."""
        return self._asked.trials - self._replay.dropped

    def start(self, problem: Problem, history: Sequence[Trial] = ()) -> SearchStart:
        """Make every worker ready for a problem, of which these trials are there already, in their order.

        Raises UsageError where the table is too small for the folds, InfrastructureError where workers do not start.
        """
        folds = fold_rows(self._rows, problem.folds, problem.seed)
        self._problem, self._history, self._replay = problem, history, _Replay(history)
        return self._workers.start(problem, folds)

    def stored_s(self, store: Callable[[], None]) -> float:
        """Have a trial stored; how long that took, in the time of the workers."""
        began_s = self._clock.monotonic_s()
        store()
        return self._clock.monotonic_s() - began_s

    def evaluate(self, ask: Callable[[], Proposal | None], go_on: GoOn | None = None) -> Iterator[Finished]:
        """Keep every worker busy with what `ask` returns; yield what finishes, as it does."""
        return _Search(self._asked, self._workers, self._clock, self._replay, ask, go_on).finished()

    def inside(self, loop: Loop) -> Iterator[Finished]:
        """Run an engine's own loop in the first worker; yield what it yields, while it goes on."""
        problem, known = self._asked, deque(self._history)
        spent_s = known[-1].finished_s if known else 0.0
        told = [trial.evaluated for trial in known]
        began_s, last_s, number = self._clock.monotonic_s() - spent_s, 0.0, _next_number(known)
        for evaluated in self._workers.inside(loop, told, max(0.0, problem.seconds - spent_s), grace_s(problem)):
            if evaluated is None:
                began_s = self._clock.monotonic_s() - spent_s
            elif known and known[0].evaluated == evaluated:
                last_s = known[0].finished_s
                yield _again(known.popleft())
            else:
                known.clear()  # it took another way, and what comes is new
                finished_s = self._clock.monotonic_s() - began_s
                sent_s = max(last_s, finished_s - evaluated.duration_s)
                yield Finished(number, last_s, sent_s, finished_s, evaluated, proposed=number + 1)
                last_s, number = finished_s, number + 1

    @property
    def _asked(self) -> Problem:
        if self._problem is None:
            raise RuntimeError("a fleet is given a problem with `start` before it is asked for anything")
        return self._problem


@dataclass(slots=True)
class _Running:
    """A proposal under way."""

    worker: int
    proposal: Proposal
    asked_s: float
    sent_s: float
    parts: list[Evaluated] = field(default_factory=list)
    """Of its folds so far, where the engine decides after each."""
    limit_s: float | None = None
    """Of what its worker is at now; None: the worker was not sent anything yet."""
    began_s: float = 0.0
    transport_s: float = 0.0


class _Replay:
    """What is known already, in the order in which it was told."""

    def __init__(self, history: Sequence[Trial]) -> None:
        self._left = deque(history)
        self._next_number = _next_number(history)
        self.dropped = 0
        """Recorded answers that the engine did not ask for again; they are trials of the search all the same."""
        self.moved = 0
        """What is to be added to the numbers of what is new then, so that no two trials have the same."""

    @property
    def is_on(self) -> bool:
        return bool(self._left)

    @property
    def spent_s(self) -> float:
        return self._left[-1].finished_s if self._left else 0.0

    def may_ask(self, asked: int) -> bool:
        """Whether the engine, asked for so many, was asked once more before it was told of the next recorded answer."""
        proposed = self._left[0].proposed if self._left else None
        return proposed is None or asked < proposed

    def next(self, running: dict[int, _Running]) -> Trial | None:
        """The next recorded answer; None, from then on, where the engine did not ask for it again."""
        known = self._left.popleft()
        same = running.get(known.asked)
        if same is not None and same.proposal.configuration == known.evaluated.configuration:
            return known
        self.dropped = 1 + len(self._left)
        self.moved = self._next_number - min(running, default=0)
        self._left.clear()
        return None


class _Search:
    """One search under way."""

    def __init__(
        self,
        problem: Problem,
        workers: Workers,
        clock: Clock,
        replay: _Replay,
        ask: Callable[[], Proposal | None],
        go_on: GoOn | None,
    ) -> None:
        self._problem, self._workers, self._clock, self._replay = problem, workers, clock, replay
        self._ask, self._go_on = ask, go_on
        self._began_s = clock.monotonic_s() - replay.spent_s
        self._running: dict[int, _Running] = {}
        self._idle = deque(range(workers.count))
        self._asked = 0
        self._ended = False

    def finished(self) -> Iterator[Finished]:
        try:
            while True:
                if not self._replay.is_on:
                    # What was under way before an interruption goes first, as it did then.
                    for number, running in self._running.items():
                        if running.limit_s is None:
                            self._send(number, running)
                self._ask_for_all()
                if self._replay.is_on:
                    if (known := self._replay.next(self._running)) is not None:
                        yield self._told_again(known)
                    continue
                if self._ended and not self._running:
                    return
                for number, evaluated in self._received():
                    running = self._running.pop(number)
                    times_s = running.asked_s, running.sent_s, self._now_s()
                    told, moved = Finished(number, *times_s, evaluated, running.transport_s), self._replay.moved
                    yield replace(told, proposed=self._asked, moved=moved)
        finally:
            # Left early: what still runs would hold its worker back from the next search.
            for running in self._running.values():
                if running.limit_s is not None:
                    self._workers.stop(running.worker)

    def _now_s(self) -> float:
        return self._clock.monotonic_s() - self._began_s

    def _end_s(self) -> float:
        """The latest moment for a trial to end by itself."""
        return self._problem.seconds + grace_s(self._problem)

    def _ask_for_all(self) -> None:
        """A proposal for every worker that has none."""
        while True:
            # Looked at first: whoever was lost in the last trial need not be waited for.
            self._ended = self._ended or self._asked >= self._problem.trials - self._replay.dropped
            if self._ended or not self._idle or not self._replay.may_ask(self._asked):
                return
            asked_s = self._now_s()
            in_time = self._replay.is_on or asked_s < self._problem.seconds
            proposal = self._ask() if in_time else None
            if proposal is None:
                self._ended = True
                return
            running = _Running(self._idle.popleft(), proposal, asked_s, self._now_s())
            self._running[self._asked] = running
            if not self._replay.is_on:
                self._send(self._asked, running)
            self._asked += 1

    def _send(self, number: int, running: _Running) -> None:
        limit_s = self._end_s() - self._now_s()
        if self._problem.trial_seconds is not None:
            limit_s = min(limit_s, self._problem.trial_seconds - sum(part.duration_s for part in running.parts))
        running.limit_s, running.began_s = max(0.0, limit_s), self._now_s()
        folds = None if self._go_on is None else (len(running.parts),)
        self._workers.send(running.worker, number, running.proposal, folds, running.limit_s)
        running.transport_s += self._now_s() - running.began_s

    def _received(self) -> Iterator[tuple[int, Evaluated]]:
        """Proposals that have come to their end, after a wait for whatever comes in first."""
        silent_s = min((_silent_s(running) for running in self._running.values()), default=self._end_s())
        received = self._workers.receive(max(0.0, silent_s - self._now_s()))
        for event in received:
            match event:
                case Ready(worker):
                    self._idle.append(worker)
                case Done(number, evaluated, fetched_s):
                    self._running[number].transport_s += fetched_s
                    ended = self._whole(number, self._running[number], evaluated)
                    if ended is not None:
                        yield number, ended
        if not received:
            if not self._running:
                self._ended = True  # no worker came back in time
            for number, running in list(self._running.items()):
                if _silent_s(running) <= self._now_s():
                    self._workers.stop(running.worker)
                    yield number, _merged([*running.parts, self._silent(running)])

    def _whole(self, number: int, running: _Running, evaluated: Evaluated) -> Evaluated | None:
        """The evaluation of a whole proposal; None where it goes on with its next fold."""
        if self._go_on is None:
            return evaluated
        running.parts.append(evaluated)
        merged = _merged(running.parts)
        if merged.failure is not None or len(running.parts) == self._problem.folds:
            return merged
        if self._go_on(number, merged.fold_scores):
            running.limit_s = None
            self._idle.remove(running.worker)
            self._send(number, running)
            return None
        return merged.model_copy(update={"pruned": True})

    def _told_again(self, known: Trial) -> Finished:
        running = self._running.pop(known.asked)
        self._idle.append(running.worker)
        scores = known.evaluated.fold_scores
        if self._go_on is not None:
            for so_far in range(1, min(len(scores) + 1, self._problem.folds)):
                self._go_on(known.asked, scores[:so_far])
        return _again(known)

    def _silent(self, running: _Running) -> Evaluated:
        text = f"its worker gave no sign for {self._now_s() - running.began_s:.3g} s, and was given up"
        return Evaluated(
            configuration=running.proposal.configuration,
            duration_s=self._now_s() - running.began_s,
            worker=running.worker,
            rows_share=running.proposal.rows_share,
            failure=Failure.of(Cause.TIME, text),
        )


def _silent_s(running: _Running) -> float:
    """When a worker should have said something."""
    return running.began_s + (running.limit_s or 0.0) + KILL_AFTER_S + SILENCE_S


def _merged(parts: Sequence[Evaluated]) -> Evaluated:
    """The evaluations of some folds as one."""
    last, cpus_s = parts[-1], [part.cpu_s for part in parts if part.cpu_s is not None]
    return last.model_copy(
        update={
            "fold_scores": () if last.failure else tuple(score for part in parts for score in part.fold_scores),
            "duration_s": math.fsum(part.duration_s for part in parts),
            "fit_s": math.fsum(part.fit_s for part in parts),
            "cpu_s": math.fsum(cpus_s) if cpus_s else None,
            "peak_memory_bytes": max((part.peak_memory_bytes or 0 for part in parts), default=0) or None,
        }
    )


def _next_number(history: Sequence[Trial]) -> int:
    """Of a proposal that is none of those recorded."""
    return 1 + max((trial.asked for trial in history), default=-1)


def _again(known: Trial) -> Finished:
    times_s = known.asked_s, known.sent_s, known.finished_s
    return Finished(known.asked, *times_s, known.evaluated, known.transport_s, is_known=True)


def grace_s(problem: Problem) -> float:
    """How long trials may go on once the seconds of a problem are spent."""
    return max(GRACE_S, GRACE_SHARE * problem.seconds)
