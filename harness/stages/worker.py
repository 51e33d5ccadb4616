"""A worker of the search: what stands on a node for the fleet, above a supervisor that runs its trials.

In: the training rows, and a problem. Out: an `Evaluated` per proposal, and the workbench of an engine whose loop runs
here. The class is plain: `stages.ray_workers` makes a Ray actor of it. Nothing is fitted in this process, so that no
trial can take it along.
"""

import importlib
import math
import pickle
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import harness
from harness.clock import SystemClock
from harness.ports import Loop, Problem, Proposal
from harness.records.candidate import Configuration, Evaluated
from harness.records.run import Host
from harness.stages.host import fingerprint
from harness.stages.supervisor import FITTER, Supervised, supervised


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker stands on."""

    harness_version: str
    node: str
    """Its name in its network."""
    host: Host


class Worker:
    """The workbench of an engine; its supervisor ends with this process."""

    def __init__(self, worker: int, rows: Callable[[], Sequence[bytes]], fitter: str = FITTER) -> None:
        """`rows` fetches the pickled table and the pickled target from where they lie."""
        self.worker = worker
        self._clock = SystemClock()
        began_s = self._clock.monotonic_s()
        table, target = rows()
        self._fetched_s = self._clock.monotonic_s() - began_s
        self.target: NDArray[Any] = np.array(pickle.loads(target))  # noqa: S301 - from our own driver
        self._stack = ExitStack()
        self._trials: Supervised = self._stack.enter_context(supervised(worker, table, fitter))
        self._problem: Problem | None = None
        self._told: Sequence[Evaluated] = ()
        self._left = 0
        self._deadline_s = math.inf
        self._grace_s = 0.0

    def start(self, problem: Problem, folds: Any, machines: Sequence[str]) -> Standing:
        """Take up a problem. `machines` has the `machine` of each worker of the fleet: those here share its memory."""
        self._problem = problem
        # None where this one came in the place of a worker of another machine.
        self._trials.start(problem, folds, max(1, machines.count(self.machine())))
        return Standing(harness.__version__, self.machine(), fingerprint())

    def machine(self) -> str:
        """The name of the machine, or container, that this worker is on."""
        return platform.node()

    def fetched_s(self) -> float:
        """How long it was at fetching its rows since it was last asked."""
        fetched_s, self._fetched_s = self._fetched_s, 0.0
        return fetched_s

    def evaluate(self, proposal: Proposal, folds: Sequence[int] | None, limit_s: float) -> Evaluated:
        """Fit and score a proposal on the folds of these numbers (None: all), within `limit_s` seconds."""
        return self._trials.evaluate(proposal, folds, limit_s)

    def attempt(self, configuration: Configuration) -> Evaluated | None:
        """What an engine's own loop evaluates with: `evaluate`, or None once trials or seconds are spent."""
        if self._told:
            known, *self._told = self._told
            if known.configuration == configuration:
                return known
            self._told = ()  # it takes another way, of which nothing is known
        left_s = self._deadline_s - self._clock.monotonic_s()
        if self._left <= 0 or left_s <= 0:
            return None
        self._left -= 1
        limit_s = left_s + self._grace_s
        if self._asked.trial_seconds is not None:
            limit_s = min(limit_s, self._asked.trial_seconds)
        return self.evaluate(Proposal(configuration), None, limit_s)

    def inside(
        self, loop: Loop, told: Sequence[Evaluated], seconds: float, grace_s: float
    ) -> Iterator[Evaluated | None]:
        """None once the loop's libraries are imported and its time begins; then what the loop yields.

        `told` are the answers that it has had before it was interrupted, and gets again where it asks for the same.
        """
        for library in getattr(sys.modules.get(loop.__module__), "REQUIRES", ()):
            importlib.import_module(library)
        self._told, self._left = list(told), self._asked.trials - len(told)
        self._deadline_s, self._grace_s = self._clock.monotonic_s() + seconds, grace_s
        yield None
        for number, evaluated in enumerate(loop(self, self._asked), start=1):
            yield evaluated
            # A loop that does not evaluate through `attempt` is held here.
            if number >= self._asked.trials or self._clock.monotonic_s() >= self._deadline_s:
                return

    @property
    def _asked(self) -> Problem:
        if self._problem is None:
            raise RuntimeError("a worker is given a problem with `start` before it is asked for anything")
        return self._problem
