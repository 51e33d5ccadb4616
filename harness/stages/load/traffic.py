"""Traffic: the requests of one step under way, open or closed, in one process of the load generator.

In: the wire, the timer, what is due when, and the columns to write. Out: those of the step. Locust's users wait for
their answers, so a server that stalls also stops the load, and the stall hardly shows (coordinated omission). Here
every request has its moment beforehand, and one greenlet paces them all.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from harness.records.load import EXCHANGE_COLUMNS, Outcome
from harness.stages.load.answers import Answer, SignedAnswer
from harness.stages.load.columns import BEFORE, Columns, own_columns
from harness.stages.load.generator import WARM_S
from harness.stages.load.timer import Timer
from harness.stages.load.timing import stage_columns
from harness.stages.load.wire import Connection, Wire, now_ns

TICK_NS = 10_000_000
"""How often timeouts are looked for, and a lane of closed load tries a dead server again."""
BURST = 16
"""Slots sent between two looks at the sockets, so that a backlog of slots cannot leave answers unread."""
ROLL_CALL_MAX = 64
"""Connections that are asked which server they lead to: enough to meet each of a few processes several times over."""
ROLL_CALL_NS = 1_000_000_000
"""Longest wait for the names of the servers; one that is still busy with the step before has none to give."""
WARM_AT_ONCE = 16
"""Connections opened at once before a step; asyncio's default listen backlog is 100."""


class Traffic:
    """One step under way: its rows, and the connections that are busy with them. This much is open load."""

    answer: ClassVar[type[Answer]] = Answer

    def __init__(
        self,
        wire: Wire,
        timer: Timer,
        payload: Sequence[int],
        due: Sequence[int] = (),
        columns: Columns | None = None,
        timed: bytes | None = None,
    ) -> None:
        self.payload = payload
        self.timed = bytes(len(payload)) if timed is None else timed
        self._said: dict[int, str] = {}
        """What the answers of timed rows said."""
        self._columns = own_columns(len(payload)) if columns is None else columns
        for name, before in BEFORE.items():
            self._columns[name][:] = before  # also so that no page of that memory is touched first during the step
        if len(due):
            self._columns["due_ns"][:] = due
        # A view's item is read and written in three quarters of an array's time, and a tenth of a NumPy array's.
        self.due, self.dispatch, self.sent, self.done, self.size, self.status, self.outcome = (
            self._columns[name].data for name in BEFORE
        )
        self.epoch_ns = now_ns()
        self.fault: Exception | None = None
        self._wire = wire
        self._timer = timer
        self._open: dict[int, Connection] = {}
        """By row, in order of dispatch: the first one is the first to run out of time."""
        self._tick_ns = self.epoch_ns

    def run(self, epoch_ns: int, duration_s: float) -> None:
        """Send every row when it is due, late ones at once, and none where `in_flight_max` are open."""
        self.epoch_ns = self._tick_ns = epoch_ns
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
        if self.timed[row]:
            self._said[row] = answer.said
        expected = self._wire.expected
        if done_ns - self.epoch_ns - self.dispatch[row] > self._wire.timeout_ns:
            outcome = Outcome.TIMEOUT
        elif not 200 <= answer.status < 300:
            outcome = Outcome.HTTP_ERROR
        elif expected is not None and expected[self.payload[row]] not in (b"", answer.body):
            outcome = Outcome.WRONG_ANSWER
        else:
            outcome = Outcome.OK
        self.finished(row, done_ns, outcome)

    def finished(self, row: int, done_ns: int, outcome: Outcome) -> None:
        """A dispatched row came to its end."""
        del self._open[row]
        self.outcome[row] = outcome
        self.done[row] = done_ns - self.epoch_ns  # last: see `columns.BEFORE`

    def rows(self) -> int:
        """How many rows there are to tell of."""
        return len(self.payload)

    def columns(self) -> Columns:
        """The rows as exchange columns."""
        rows = self.rows()
        found: dict[str, Any] = {**self._columns, "payload": self.payload[:rows], "worker": [self._wire.worker] * rows}
        found |= stage_columns(self._said, rows)
        return {name: np.array(found[name][:rows], dtype=dtype) for name, dtype in EXCHANGE_COLUMNS.items()}


class ClosedTraffic(Traffic):
    """Closed load: a fixed number of lanes, each with one request in flight; a row is due when its lane is free."""

    def __init__(
        self,
        wire: Wire,
        timer: Timer,
        payload: Sequence[int],
        lanes: int,
        columns: Columns | None = None,
        timed: bytes | None = None,
        *,
        every: bool = False,
    ) -> None:
        super().__init__(wire, timer, payload, columns=columns, timed=timed)
        self._every = every
        """It is over as soon as every payload has been sent; else there must be more of them than can be sent."""
        self._next_row = 0
        self._waiting = lanes
        """Lanes that the next tick starts, the first one at the epoch."""
        self._end_ns = self.epoch_ns

    def run(self, epoch_ns: int, duration_s: float) -> None:
        """Keep every lane busy until the end, then wait for the last answers.

        Raises RuntimeError where there are no payloads left before the end: the step would be cut short in silence.
        """
        self.epoch_ns = self._tick_ns = epoch_ns
        self._end_ns = epoch_ns + round(duration_s * 1e9)
        while now_ns() < self._end_ns and not (self._every and self._next_row == len(self.payload)):
            self.wait(self._end_ns)
        self.drain(now_ns() + self._wire.timeout_ns)
        if self._next_row == len(self.payload) and not self._every:
            raise RuntimeError(f"all {len(self.payload):,} requests that were prepared were sent before the step ended")

    def tick(self) -> None:
        """Also give the waiting lanes their next request."""
        super().tick()
        for _ in range(self._waiting):
            self._waiting -= 1
            self._go_on(now_ns())

    def finished(self, row: int, done_ns: int, outcome: Outcome) -> None:
        """Also give its lane the next request."""
        super().finished(row, done_ns, outcome)
        if outcome is Outcome.CONNECTION:
            self._waiting += 1  # until the next tick: refused at once, it would do nothing but be refused
        else:
            self._go_on(done_ns)

    def _go_on(self, free_ns: int) -> None:
        """Start the next request of a lane that has been free since `free_ns`: what passes until it is sent is lag."""
        if free_ns < self._end_ns and self._next_row < len(self.payload):
            row = self._next_row
            self._next_row += 1
            self.due[row] = free_ns - self.epoch_ns
            self.start(row)

    def rows(self) -> int:
        """Those that were started."""
        return self._next_row


class RollCall(Traffic):
    """Asks which server process each idle connection leads to."""

    answer = SignedAnswer

    def __init__(self, wire: Wire, timer: Timer, roll_call: int, connections: int) -> None:
        super().__init__(wire, timer, [roll_call] * connections)
        self.servers: Counter[str] = Counter()
        for row in range(connections):
            self.start(row)
        self.drain(now_ns() + min(wire.timeout_ns, ROLL_CALL_NS))

    def answered(self, row: int, done_ns: int, answer: Answer) -> None:
        """A server that does not say who it is stays unnamed."""
        if answer.said:
            self.servers[answer.said] += 1
        self.finished(row, done_ns, Outcome.OK)


def roll_call(wire: Wire, timer: Timer) -> dict[str, int]:
    """How many of some idle connections lead to which server process; empty where the servers do not say."""
    if wire.roll_call is None:
        return {}
    # One is asked first: a server that knows no such path may close the connection, and then only this one.
    first = RollCall(wire, timer, wire.roll_call, min(1, len(wire.idle))).servers
    connections = min(ROLL_CALL_MAX, len(wire.idle))
    return dict(RollCall(wire, timer, wire.roll_call, connections).servers) if first else {}


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
        traffic = Traffic(wire, timer, [row % wire.repeated for row in range(batch)])
        for row in range(batch):
            traffic.start(row, fresh=True)
        traffic.drain(min(deadline_ns, now_ns() + wire.timeout_ns))
        if len(wire.idle) < idle + batch:
            return
