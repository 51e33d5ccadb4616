"""Workers of the search that only remember: recorded trials, repeated in virtual time on any number of workers.

In: recorded trials, a number of workers, a clock that moves when it is told to, and what a trial costs the driver.
Out: `SimulatedWorkers`, to which `stages.fleet` gives its work as to any other, `Recorded`, what they remember, and
`SimulatedFleet`, whose driver takes its time.

An engine proposes other configurations here than the ones that were recorded, so each is answered with the recorded
trial that is nearest to it: of its family, by the distance of parameters on their scales. Two machines that replay the
same trials with the same seed get the same search to the bit, for no real time enters it.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.clock import Clock, FakeClock
from harness.errors import UsageError
from harness.ports import Finished, GoOn, Loop, Problem, Proposal
from harness.records.candidate import Configuration, Evaluated, Trial
from harness.records.run import Cause, Failure, SearchStart
from harness.records.words import Scalar
from harness.space.families import FAMILY, Choice, Family, FloatRange, IntegerRange, Parameter, family_named
from harness.stages.fleet import Done, Ready, SearchFleet, grace_s
from harness.stages.split import LabelledRows

_NOT_ITS_OWN = frozenset({Cause.TIME, Cause.WORKER_LOST, Cause.NODE_LOST, Cause.DISK, Cause.UNKNOWN})

_OTHER_CHOICE = 1.0
"""Distance of two choices that are not the same, where a whole range is 1 long."""


class Recorded:
    """Recorded trials, by what is nearest. Raises UsageError where there is none of a family that is asked for."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._of_family: dict[str, list[Evaluated]] = {}
        for trial in trials:
            failure = trial.evaluated.failure
            # Whether time ends a trial, or its machine, is not its own doing; nor, perhaps, what nobody can tell.
            if trial.evaluated.is_whole or (failure is not None and failure.cause not in _NOT_ITS_OWN):
                self._of_family.setdefault(str(trial.evaluated.configuration.get(FAMILY)), []).append(trial.evaluated)
        self._places = {name: _placed(name, found) for name, found in self._of_family.items() if name != "None"}

    @property
    def families(self) -> frozenset[str]:
        """Those of which something is known."""
        return frozenset(self._places)

    def evaluate(self, proposal: Proposal, folds: Sequence[int] | None, worker: int) -> Evaluated:
        """What became of the recorded configuration that is nearest to the proposed one."""
        name = str(proposal.configuration[FAMILY])
        if name not in self._places:
            known = ", ".join(sorted(self._places)) or "none"
            raise UsageError(
                f"No recorded trial is of the family {name!r}, so nothing is known of one (recorded: {known}): record "
                "more trials, or set `search.families` to those that were recorded."
            )
        place = _place(family_named(name), proposal.configuration)
        nearest = int(np.argmin(((self._places[name] - place) ** 2).sum(axis=1)))
        found = self._of_family[name][nearest]
        # A failure has no scores to take a fold from.
        whole = folds is None or found.failure is not None
        scores = found.fold_scores if whole else tuple(found.fold_scores[fold] for fold in folds or ())
        share = proposal.rows_share
        if folds is not None:
            share *= len(folds) / max(len(found.fold_scores), len(folds))
        return found.model_copy(
            update={
                "configuration": proposal.configuration,
                "fold_scores": scores,
                "duration_s": found.duration_s * share,
                "fit_s": found.fit_s * share,
                "rows_share": proposal.rows_share,
                "worker": worker,
            }
        )


class SimulatedWorkers:
    """`stages.fleet.Workers` in virtual time."""

    def __init__(
        self,
        recorded: Recorded,
        count: int,
        clock: FakeClock,
        target: NDArray[Any],
        hand_over_s: float = 0.0,
        transport_s: float = 0.0,
    ) -> None:
        self.count = count
        self.clock: Clock = clock
        self.target = target
        self._recorded = recorded
        self._hand_over_s = hand_over_s
        """The way to a worker and back."""
        self._transport_s = transport_s
        """What the driver does for it, and for one trial after the other."""
        self._under: list[tuple[float, int, int, int, Evaluated]] = []
        """A heap: when it ends, when it was sent, by whom, which proposal, and its end."""
        self._sent = 0
        self._stopped: deque[int] = deque()
        """Workers that come back, at once: what a kill costs is not known."""
        self.think_s = 0.0
        """What an engine's own loop takes before each of its trials."""
        self._problem: Problem | None = None
        self._told: list[Evaluated] = []
        self._left = 0
        self._end_s = self._grace_s = 0.0

    def start(self, problem: Problem, folds: Sequence[Any]) -> SearchStart:
        """Take up a problem."""
        self._problem = problem
        self._under, self._stopped = [], deque()
        return SearchStart(took_s=0.0)

    def send(self, worker: int, number: int, proposal: Proposal, folds: Sequence[int] | None, limit_s: float) -> None:
        """Give a worker a proposal."""
        self.clock.sleep(self._transport_s)
        evaluated = _within(self._recorded.evaluate(proposal, folds, worker), limit_s)
        self._sent += 1
        # The order of equals is that in which they were sent.
        ends_s = self.clock.monotonic_s() + evaluated.duration_s + self._hand_over_s
        heapq.heappush(self._under, (ends_s, self._sent, worker, number, evaluated))

    def receive(self, timeout_s: float) -> list[Done | Ready]:
        """The next answer, at its time."""
        if self._stopped:
            return [Ready(self._stopped.popleft())]
        now_s = self.clock.monotonic_s()
        if not self._under or self._under[0][0] > now_s + timeout_s:
            self.clock.sleep(timeout_s)
            return []
        ends_s, _, worker, number, evaluated = heapq.heappop(self._under)
        self.clock.sleep(ends_s - now_s)
        return [Ready(worker), Done(number, evaluated)]

    def stop(self, worker: int) -> None:
        """End what a worker is at."""
        self._under = [entry for entry in self._under if entry[2] != worker]
        heapq.heapify(self._under)
        self._stopped.append(worker)

    def attempt(self, configuration: Configuration) -> Evaluated | None:
        """As `ports.Workbench`, for an engine whose loop runs inside."""
        if self._told:
            known, *self._told = self._told
            if known.configuration == configuration:
                return known
            self._told = []  # it takes another way, of which nothing is known
        self.clock.sleep(self.think_s)
        left_s = self._end_s - self.clock.monotonic_s()
        if self._left <= 0 or left_s <= 0:
            return None
        self._left -= 1
        evaluated = _within(self._recorded.evaluate(Proposal(configuration), None, 0), left_s + self._grace_s)
        self.clock.sleep(evaluated.duration_s)
        return evaluated

    def inside(
        self, loop: Loop, told: Sequence[Evaluated], seconds: float, grace_s: float
    ) -> Iterator[Evaluated | None]:
        """Run a loop here, with this as its workbench; None first, when its time begins."""
        assert self._problem is not None
        self._told, self._left = list(told), self._problem.trials - len(told)
        self._end_s, self._grace_s = self.clock.monotonic_s() + seconds, grace_s
        yield None
        yield from loop(self, self._problem)


class SimulatedFleet(SearchFleet):
    """`stages.fleet.SearchFleet` in virtual time, in which the driver is one thread that takes its time too.

    Without its costs a simulation would promise that trials per second double with the workers for ever.
    """

    def __init__(
        self, workers: SimulatedWorkers, rows: LabelledRows, ask_s: float, told_s: float, store_s: float = 0.0
    ) -> None:
        super().__init__(workers, rows)
        self._simulated, self._ask_s, self._told_s, self._store_s = workers, ask_s, told_s, store_s
        workers.think_s = ask_s + told_s
        self._is_inside = False

    def stored_s(self, store: Callable[[], None]) -> float:
        """As it took when it was recorded; nothing where a loop inside a worker does not wait for it."""
        store()
        taken_s = 0.0 if self._is_inside else self._store_s
        self._simulated.clock.sleep(taken_s)
        return taken_s

    def evaluate(self, ask: Callable[[], Proposal | None], go_on: GoOn | None = None) -> Iterator[Finished]:
        """As `ports.Fleet`; to have a trial proposed, and to tell the engine of it, takes what it took."""
        clock, self._is_inside = self._simulated.clock, False

        def slowly() -> Proposal | None:
            proposal = ask()
            clock.sleep(self._ask_s)
            return proposal

        for finished in super().evaluate(slowly, go_on):
            yield finished
            clock.sleep(self._told_s)

    def inside(self, loop: Loop) -> Iterator[Finished]:
        """As `ports.Fleet`, one trial after the other; before each the loop takes what it took.

        By the sum of these lengths, not by the clock: a loop in a thread of its own may have moved that on by now.
        """
        problem, last_s, self._is_inside = self._asked, 0.0, True
        found = filter(None, self._simulated.inside(loop, (), problem.seconds, grace_s(problem)))
        for number, evaluated in enumerate(found):
            sent_s = last_s + self._simulated.think_s
            finished_s = sent_s + evaluated.duration_s
            yield Finished(number, last_s, sent_s, finished_s, evaluated, proposed=number + 1)
            last_s = finished_s


def _within(evaluated: Evaluated, limit_s: float) -> Evaluated:
    """The same, or its end by the limit."""
    if evaluated.duration_s <= limit_s:
        return evaluated
    failure = Failure.of(Cause.TIME, f"stopped after its limit of {limit_s:.3g} s")
    return evaluated.model_copy(update={"fold_scores": (), "duration_s": limit_s, "failure": failure})


def _placed(name: str, found: Sequence[Evaluated]) -> NDArray[np.float64]:
    family = family_named(name)
    return np.array([_place(family, evaluated.configuration) for evaluated in found])


def _place(family: Family, configuration: Configuration) -> NDArray[np.float64]:
    """Where a configuration lies in the unit cube of its family; of a choice each value has an axis of its own."""
    found: list[float] = []
    for parameter in family.parameters:
        value = configuration.get(parameter.name, parameter.default)
        if isinstance(parameter, Choice):
            found += [math.sqrt(_OTHER_CHOICE / 2) * (value == choice) for choice in parameter.choices]
        else:
            found.append(_share(parameter, value))
    # Rounded: the logarithms of two machines may differ in their last digit, and the nearest must be the same on both.
    return np.round(np.array(found), 9)


def _share(parameter: Parameter, value: Scalar) -> float:
    assert isinstance(parameter, FloatRange | IntegerRange)
    low, high, at = float(parameter.low), float(parameter.high), float(value)
    if parameter.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)
