"""The queue before a server's models: bounded, first come first served, one computation at a time.

In: jobs, as their bodies become whole. Out: `Queue.answered`, which returns when a job has its outcome, or raises
`QueueFullError` at once.

A replica is one core. What takes little time is computed in the event loop itself, because a hand-over to a thread
(30 to 60 microseconds) takes longer than most predictions; after each slice of time the loop looks at its sockets, so
that whoever comes to a full queue is told so soon. What takes long is computed in a thread beside the loop, for the
same reason.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from harness.clock import SystemClock
from harness.errors import UsageError
from harness.serving.work import Job, Wire, compute, compute_together

IN_LOOP_S = 0.003
"""What is expected to take longer is computed in a thread."""

_SLICE_S = 0.002
"""After so long in the event loop, its sockets are looked at."""

_MOST_BYTES = 256 * 2**20
"""Of bodies that wait."""

_UNKNOWN_S = 0.05
"""What a request is taken to need of a model of which nothing is known yet: it has no example, and computed nothing.

More than most need: where one may wait for half a second, about ten are let in until the first is computed.
"""

_GAPS = 0.1
"""Weight of the last gap between arrivals in their average."""

_LOOK_EVERY = 64
_LOOK_UP_TO_S = 0.05
"""Of so many jobs beside the loop one is computed in it, where it is expected to take no longer than that there."""

_now_s = SystemClock().monotonic_s


class QueueFullError(Exception):
    """Those that wait take as long as one may have to."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s
        """When those that wait now will have been answered."""


class Queue:
    """See above. Made and used in one event loop."""

    def __init__(self, most_s: float, batch: int = 1, batch_wait_s: float = 0.0) -> None:
        """`most_s` is for how long one may have to wait, as far as that can be foreseen. Up to `batch` are computed
        together; `batch_wait_s` is how long the first of them waits for others, where others are likely to come.
        """
        self._most_s = most_s
        self._batch = batch
        self._batch_wait_s = batch_wait_s
        self._waiting: deque[Job] = deque()
        self._running = False
        self._pending: asyncio.TimerHandle | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._ahead_s = 0.0
        """What computing those that wait is expected to take."""
        self._ahead_bytes = 0
        self._gap_s = 1.0
        """Between arrivals: an average that moves."""
        self._arrived_s = 0.0
        self._spent_s = 0.0
        """In this turn of the loop, by `computed_at_once`."""

    def warm(self, wire: Wire) -> None:
        """Have a model answer its own example, where it has one, before anybody waits for it.

        What a library makes or reads at its first use is there then, and how long an answer takes is known. Raises
        UsageError where it does not answer.
        """
        for _ in range(2) if wire.model.example is not None else ():
            job = Job(wire, wire.model.example or b"", None, _now_s(), _now_s())
            wire.seconds.clear()  # of the last time alone, for the first one was cold
            self._compute([job])
            if job.outcome is None or job.outcome.answer is None:
                said = "" if job.outcome is None else f": {job.outcome.error}"
                raise UsageError(f"The model {wire.model.name} does not answer its own example{said}.")

    def computed_at_once(self, job: Job) -> bool:
        """Compute a job here and now, where nobody waits and the loop can spare the time; False where it cannot.

        To wait for one's turn takes the loop 2 to 4 microseconds, a thirtieth of what a small request costs.
        """
        if self._running or self._spent_s > _SLICE_S or self._batch > 1:
            return False
        if job.wire.expected_s(job.body) > IN_LOOP_S:
            return False
        if self._spent_s == 0.0:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        compute(job)
        took_s = job.encoded_s - job.taken_s
        _learn(job, took_s)
        self._spent_s += took_s
        return True

    def _begin_turn(self) -> None:
        self._spent_s = 0.0

    def refuse_full(self) -> None:
        """Raises QueueFullError where whoever comes now would have to wait for too long."""
        if self._ahead_s > self._most_s or self._ahead_bytes > _MOST_BYTES:
            raise QueueFullError(self._ahead_s)

    async def answered(self, job: Job) -> None:
        """Wait for a job's turn, and compute it. Raises QueueFullError."""
        self.refuse_full()
        loop = asyncio.get_running_loop()
        job.done = loop.create_future()
        self._waiting.append(job)
        self._count(job, 1)
        if self._batch_wait_s > 0:
            self._observe_arrival(job.received_s)
        if not self._running:
            self._running = True
            loop.call_soon(self._run, loop)
        elif self._pending is not None and len(self._waiting) >= self._batch:
            self._pending.cancel()
            self._pending = None
            loop.call_soon(self._run, loop)
        try:
            await job.done
        except asyncio.CancelledError:
            # Whoever asked is gone: nobody needs it computed.
            if job in self._waiting:
                self._waiting.remove(job)
                self._count(job, -1)
            raise

    def close(self) -> None:
        """Let the thread go, where there is one."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._pending = None
        began_s = _now_s()
        while self._waiting:
            if self._waits_for_more():
                self._pending = loop.call_later(self._batch_wait_s, self._run_now, loop)
                return
            if self._run_next(loop):
                return
            if self._waiting and _now_s() - began_s > _SLICE_S:
                loop.call_soon(self._run, loop)
                return
        self._running = False

    def _run_now(self, loop: asyncio.AbstractEventLoop) -> None:
        """The first of a batch has waited long enough."""
        self._pending = None
        if self._waiting and self._run_next(loop):
            return
        self._run(loop)

    def _run_next(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Compute what is next; True where a thread does so now, and goes on here when it has."""
        jobs = self._taken()
        if self._belongs_in_loop(jobs):
            self._compute(jobs)
            self._finish(jobs)
            return False
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        computing = loop.run_in_executor(self._thread, self._compute, jobs)
        computing.add_done_callback(lambda _: self._go_on(loop, jobs))
        return True

    def _belongs_in_loop(self, jobs: Sequence[Job]) -> bool:
        """Whether jobs of one model are quick; of those that seem not to be, now and then one is looked at again.

        In a thread whoever computes also waits for the interpreter, which the loop holds: what was moved there by one
        bad moment would seem slow for ever.
        """
        wire = jobs[0].wire
        expected_s = sum(wire.expected_s(job.body) for job in jobs)
        if expected_s <= IN_LOOP_S:
            return True
        wire.beside += 1
        if wire.beside % _LOOK_EVERY or expected_s > _LOOK_UP_TO_S:
            return False
        for job in jobs:
            wire.seconds.pop(len(job.body).bit_length(), None)
        return True

    def _go_on(self, loop: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
        self._finish(jobs)
        self._run(loop)

    def _waits_for_more(self) -> bool:
        return len(self._waiting) < self._batch and self._gap_s < self._batch_wait_s

    def _taken(self) -> list[Job]:
        jobs = [self._waiting.popleft()]
        while len(jobs) < self._batch and self._waiting and self._waiting[0].wire is jobs[0].wire:
            jobs.append(self._waiting.popleft())
        for job in jobs:
            self._count(job, -1)
        return jobs

    def _count(self, job: Job, sign: int) -> None:
        if sign > 0:
            job.expected_s = job.wire.expected_s(job.body)
            if job.expected_s == math.inf:
                job.expected_s = job.wire.guessed_s(job.body, _UNKNOWN_S)
        self._ahead_s = max(0.0, self._ahead_s + sign * job.expected_s)
        self._ahead_bytes += sign * len(job.body)

    def _compute(self, jobs: Sequence[Job]) -> None:
        began_s = _now_s()
        if len(jobs) == 1:
            compute(jobs[0])
        else:
            compute_together(jobs)
        took_s, asked = _now_s() - began_s, [job for job in jobs if job.request is not None]
        for job in asked:
            _learn(job, took_s / len(asked))

    def _observe_arrival(self, at_s: float) -> None:
        # A long pause says nothing of what comes after it, but that it was long.
        gap_s = min(at_s - self._arrived_s, 1.0)
        self._gap_s += _GAPS * (gap_s - self._gap_s)
        self._arrived_s = at_s

    def _finish(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.done is not None and not job.done.done():
                job.done.set_result(None)


def _learn(job: Job, took_s: float) -> None:
    """Also from one that the model failed on, or answered with no number: that time is spent as well.

    A body that could not be decoded took next to none, and says nothing of the next one.
    """
    if job.request is not None:
        job.wire.learn(job.body, took_s)
