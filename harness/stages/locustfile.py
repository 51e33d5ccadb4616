"""The load generator: what Locust runs in the child process that `stages.load` starts. Nothing imports this file.

In: work from the channel that the environment names, one JSON line a step. Out: one `.npz` file of exchange columns a
step, and Locust's own summary at the end. Locust brings the process, its events and its summary; the pacing is ours:
Locust's users wait for their answers, so a server that stalls also stops the load, and the stall hardly shows
(coordinated omission). Here every request has its moment beforehand, and one greenlet paces them all.
"""

import locust  # first, before anything that uses sockets: it patches the interpreter

# isort: split
import ctypes
import gc
import itertools
import json
import os
import socket
import sys
import time
import traceback
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gevent
import numpy as np
from numpy.typing import NDArray

from harness.process import die_with_parent
from harness.records.load import EXCHANGE_COLUMNS, NEVER, NO_STATUS, Outcome
from harness.stages.load import CHANNEL, WARM_S
from harness.stages.wire import READ, Answer, Connection, Wire, now_ns

TICK_NS = 10_000_000
"""How often timeouts are looked for, and a lane of closed load tries a dead server again."""
BURST = 16
"""Slots sent between two looks at the sockets, so that a backlog of slots cannot leave answers unread."""
WARM_AT_ONCE = 16
"""Connections opened at once before a step; asyncio's default listen backlog is 100."""
LEAD_NS = 2_000_000
"""From the end of the preparations to the epoch."""
TFD_TIMER_ABSTIME = 1


class Timer:
    """Waits to the tenth of a millisecond: a kernel timer (timerfd) that the event loop watches.

    gevent's own timers are rounded up to milliseconds by epoll; they serve where the kernel has no timerfd. Waiting
    always lets the event loop look at the sockets, also for a moment that has passed, which `gevent.sleep(0)` does not.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._specification = (ctypes.c_long * 4)()  # struct itimerspec: interval s, ns; first expiry s, ns
        self._descriptor = self._created()
        self._watcher = gevent.get_hub().loop.io(self._descriptor, READ) if self._descriptor >= 0 else None

    def wait(self, until_ns: int) -> None:
        """Until a moment of the monotonic clock."""
        if self._watcher is None:
            gevent.sleep(max(1e-6, (until_ns - now_ns()) / 1e9))
            return
        # Setting it anew also makes the descriptor unreadable again, so nobody needs to read it.
        self._set(until_ns)
        gevent.get_hub().wait(self._watcher)

    if sys.version_info >= (3, 13):

        def _created(self) -> int:
            if not hasattr(os, "timerfd_create"):
                return -1
            return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

        def _set(self, until_ns: int) -> None:
            os.timerfd_settime_ns(self._descriptor, flags=os.TFD_TIMER_ABSTIME, initial=until_ns)

    else:

        def _created(self) -> int:
            if not hasattr(self._libc, "timerfd_create"):
                return -1
            return int(self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))

        def _set(self, until_ns: int) -> None:
            self._specification[2], self._specification[3] = divmod(until_ns, 1_000_000_000)
            if self._libc.timerfd_settime(self._descriptor, TFD_TIMER_ABSTIME, self._specification, None) != 0:
                raise OSError(ctypes.get_errno(), "timerfd_settime failed")


class Traffic:
    """One step under way: its rows, and the connections that are busy with them. This much is open load."""

    def __init__(self, wire: Wire, timer: Timer, payload: Sequence[int], due: Sequence[int] = ()) -> None:
        rows = len(payload)
        self.payload = payload
        self.due = array("q", due) if len(due) else array("q", [NEVER]) * rows
        self.dispatch, self.sent, self.done = (array("q", [NEVER]) * rows for _ in range(3))
        self.status, self.size = array("h", [NO_STATUS]) * rows, array("i", [0]) * rows
        self.outcome = array("b", [Outcome.CENSORED]) * rows
        self.epoch_ns = now_ns() + LEAD_NS
        self.fault: Exception | None = None
        self._wire = wire
        self._timer = timer
        self._open: dict[int, Connection] = {}
        """By row, in order of dispatch: the first one is the first to run out of time."""
        self._tick_ns = self.epoch_ns

    def run(self, duration_s: float) -> None:
        """Send every row when it is due, late ones at once, and none where `in_flight_max` are open."""
        row, rows = 0, len(self.due)
        while row < rows:
            elapsed_ns = now_ns() - self.epoch_ns
            if self.due[row] > elapsed_ns:
                self.wait(self.epoch_ns + self.due[row])
                continue
            stop = min(rows, row + BURST)
            while row < stop and self.due[row] <= elapsed_ns:
                if len(self._open) >= self._wire.in_flight_max:
                    self.wait(now_ns())  # answers may be there, and only unread
                if len(self._open) >= self._wire.in_flight_max:
                    self.outcome[row] = Outcome.DROPPED
                else:
                    self.start(row)
                row += 1
            if row == stop:
                self.wait(now_ns())
        self.drain(self.epoch_ns + (self.due[-1] if rows else 0) + self._wire.timeout_ns)

    def drain(self, until_ns: int) -> None:
        """Wait for the open exchanges; what is open at the end stays so on record."""
        while self._open and now_ns() < until_ns:
            self.wait(until_ns)
        self.tick()
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def wait(self, until_ns: int) -> None:
        """Let the event loop work until then, at most until the next tick."""
        self._timer.wait(min(until_ns, self._tick_ns))
        if self.fault is not None:
            raise self.fault
        if now_ns() >= self._tick_ns:
            self._tick_ns = now_ns() + TICK_NS
            self.tick()

    def tick(self) -> None:
        """Give up what has been open for longer than the timeout."""
        present_ns = now_ns()
        latest_ns = present_ns - self.epoch_ns - self._wire.timeout_ns
        for row in list(itertools.takewhile(lambda row: self.dispatch[row] <= latest_ns, self._open)):
            self._open[row].close()
            self.finished(row, present_ns, Outcome.TIMEOUT)

    def start(self, row: int, *, fresh: bool = False) -> None:
        """Dispatch a row, on an idle connection where there is one and no `fresh` one is asked for."""
        self.dispatch[row] = now_ns() - self.epoch_ns
        connection = None if fresh else self._wire.idle_connection()
        if connection is None:
            self.connect(row)
        else:
            self._open[row] = connection
            connection.send(self, row)

    def connect(self, row: int) -> None:
        """Give a dispatched row a new connection."""
        self._open[row] = connection = Connection(self._wire)
        connection.connect(self, row)

    def answered(self, row: int, done_ns: int, answer: Answer) -> None:
        """A whole answer came, in time or not, right or not."""
        self.status[row], self.size[row] = answer.status, len(answer.body)
        expected = self._wire.expected
        if done_ns - self.epoch_ns - self.dispatch[row] > self._wire.timeout_ns:
            outcome = Outcome.TIMEOUT
        elif not 200 <= answer.status < 300:
            outcome = Outcome.HTTP_ERROR
        elif expected is not None and answer.body != expected[self.payload[row]]:
            outcome = Outcome.WRONG_ANSWER
        else:
            outcome = Outcome.OK
        self.finished(row, done_ns, outcome)

    def finished(self, row: int, done_ns: int, outcome: Outcome) -> None:
        """A dispatched row came to its end."""
        del self._open[row]
        self.done[row], self.outcome[row] = done_ns - self.epoch_ns, outcome

    def rows(self) -> int:
        """How many rows there are to tell of."""
        return len(self.payload)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The rows as exchange columns."""
        rows = self.rows()
        found: dict[str, Any] = {
            "due_ns": self.due,
            "dispatch_ns": self.dispatch,
            "sent_ns": self.sent,
            "done_ns": self.done,
            "status": self.status,
            "outcome": self.outcome,
            "bytes": self.size,
            "payload": self.payload,
            "worker": array("h", [0]) * rows,
        }
        return {name: np.array(found[name][:rows], dtype=dtype) for name, dtype in EXCHANGE_COLUMNS.items()}


class ClosedTraffic(Traffic):
    """Closed load: a fixed number of lanes, each with one request in flight; a row is due when its lane is free."""

    def __init__(self, wire: Wire, timer: Timer, payload: Sequence[int], lanes: int) -> None:
        super().__init__(wire, timer, payload)
        self._next_row = 0
        self._waiting = lanes
        """Lanes that the next tick starts, the first one at the epoch."""
        self._end_ns = self.epoch_ns

    def run(self, duration_s: float) -> None:
        """Keep every lane busy until the end, then wait for the last answers."""
        self._end_ns = self.epoch_ns + round(duration_s * 1e9)
        while now_ns() < self._end_ns:
            self.wait(self._end_ns)
        self.drain(self._end_ns + self._wire.timeout_ns)

    def tick(self) -> None:
        """Also give the waiting lanes their next request."""
        super().tick()
        for _ in range(self._waiting):
            self._waiting -= 1
            self._go_on()

    def finished(self, row: int, done_ns: int, outcome: Outcome) -> None:
        """Also give its lane the next request."""
        super().finished(row, done_ns, outcome)
        if outcome is Outcome.CONNECTION:
            self._waiting += 1  # until the next tick: refused at once, it would do nothing but be refused
        else:
            self._go_on()

    def _go_on(self) -> None:
        if now_ns() < self._end_ns and self._next_row < len(self.payload):
            row = self._next_row
            self._next_row += 1
            self.start(row)
            self.due[row] = self.dispatch[row]

    def rows(self) -> int:
        """Those that were started."""
        return self._next_row


def warm(wire: Wire, timer: Timer, count: int) -> None:
    """Have exactly `count` idle connections, each new one after one exchange, which is not recorded.

    Opened on first use they would put 10 to 20 ms into the tail; left over from a step before, they would make this
    one depend on it. A server that does not answer or does not keep connections ends it: the step will show that.
    """
    while len(wire.idle) > count:
        wire.idle.popleft().close()
    deadline_ns = now_ns() + round(WARM_S * 1e9)
    while (idle := len(wire.idle)) < count and now_ns() < deadline_ns:
        batch = min(WARM_AT_ONCE, count - idle)
        traffic = Traffic(wire, timer, [row % len(wire.requests) for row in range(batch)])
        for row in range(batch):
            traffic.start(row, fresh=True)
        traffic.drain(min(deadline_ns, now_ns() + wire.timeout_ns))
        if len(wire.idle) < idle + batch:
            return


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection: a full one takes tens of milliseconds, just when a request is due."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def walk(wire: Wire, timer: Timer, asked: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Run one step and leave its columns in the file that was asked for."""
    with np.load(asked["plan"]) as file:
        payload, due = file["payload"].tolist(), file["due_ns"].tolist()
    warm(wire, timer, asked["connections"])
    with quiet():
        traffic = (
            Traffic(wire, timer, payload, due)
            if asked["mode"] == "open"
            else ClosedTraffic(wire, timer, payload, asked["connections"])
        )
        traffic.run(asked["duration_s"])
    columns = traffic.columns()
    np.savez(asked["spool"], allow_pickle=False, **columns)
    return columns


def report(environment: Any, path: str, columns: dict[str, NDArray[Any]]) -> None:
    """Tell Locust of a step's exchanges, after the step: during it every event would cost as much as a request."""
    failures = {int(outcome): RuntimeError(outcome.name.lower()) for outcome in Outcome if outcome != Outcome.OK}
    ended = columns["done_ns"] != NEVER
    latency_ms = (columns["done_ns"] - columns["due_ns"])[ended] / 1e6
    for latency, size, outcome in zip(
        latency_ms.tolist(), columns["bytes"][ended].tolist(), columns["outcome"][ended].tolist(), strict=True
    ):
        environment.events.request.fire(
            request_type="POST",
            name=path,
            response_time=latency,
            response_length=size,
            exception=failures.get(outcome),
            context={},
        )


class Walker(locust.User):
    """Locust's one user: walks the steps of a cell for as long as the channel is open."""

    fixed_count = 1
    wait_time = locust.constant(0)

    @locust.task
    def work(self) -> None:
        """Everything; Locust's own loop around it goes round once."""
        channel = socket.socket(fileno=int(os.environ[CHANNEL]))
        try:
            lines = channel.makefile("rb")
            wire, timer = Wire(json.loads(lines.readline())), Timer()
            channel.sendall(b"{}\n")
            for line in lines:
                columns = walk(wire, timer, json.loads(line))
                channel.sendall(b"{}\n")
                report(self.environment, wire.path, columns)
        except Exception as error:
            traceback.print_exc()
            channel.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        finally:
            # From a greenlet of its own: quitting ends this one.
            gevent.spawn(self.environment.runner.quit)
            gevent.sleep(60)


die_with_parent()
