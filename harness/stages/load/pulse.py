"""Pulse: a step under way, looked at once a second from outside the load generator.

In: the columns that its processes write. Out: `Window`, what came to pass since the look before, and the `Beat` that is
made of it. Every row that ends is in exactly one window, whatever moment it is looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.clock import Clock
from harness.records.load import NEVER, Beat, Outcome
from harness.stages.load.columns import Columns

EVERY_S = 1.0
"""From one look to the next."""

_BLOCK_ROWS = 65536
"""Rows that are looked at together when counting those that were begun."""


@dataclass(frozen=True, slots=True)
class Window:
    """What came to pass in some processes between two looks; a row in the columns for each request that ended."""

    from_s: float
    until_s: float
    """Since the epoch."""
    due_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    outcome: NDArray[np.int8]
    bytes: NDArray[np.int32]
    lag_ns: NDArray[np.int64]
    """sent - due of the requests that were begun."""
    dropped: int
    in_flight: int
    """At the end of it."""


class Onlooker:
    """Reads the columns that one process writes, each row as often as it is open and no more."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._told = np.zeros(len(columns["done_ns"]), dtype=bool)
        self._low = 0
        """Rows before it have ended, and been told."""
        self._high = 0
        """Rows from it on had not been begun."""

    def look(self, from_s: float, until_s: float) -> Window:
        """What came to pass since the look before."""
        new = slice(self._high, self._begun())
        self._high = new.stop
        span = slice(self._low, self._high)
        # It is being written: the column that is written last is read first, and once. Where the machine shows the
        # writes of another core in another order, the row is left for the next look.
        done = self._columns["done_ns"][span].copy()
        outcome = self._columns["outcome"][span].copy()
        ended = (done != NEVER) & (outcome != Outcome.CENSORED)
        fresh = np.flatnonzero(ended & ~self._told[span])
        self._told[span] |= ended
        waiting = ~(ended | (outcome == Outcome.DROPPED))
        self._low += int(np.argmax(waiting)) if waiting.any() else len(waiting)
        sent = self._columns["sent_ns"][new].copy()
        return Window(
            from_s=from_s,
            until_s=until_s,
            due_ns=self._columns["due_ns"][span][fresh],
            done_ns=done[fresh],
            outcome=outcome[fresh],
            bytes=self._columns["bytes"][span][fresh],
            lag_ns=(sent - self._columns["due_ns"][new])[sent != NEVER],
            dropped=int((self._columns["outcome"][new] == Outcome.DROPPED).sum()),
            in_flight=int(waiting.sum()),
        )

    def _begun(self) -> int:
        """How many rows were begun: they are so in their order, and one that was dropped counts."""
        row, rows = self._high, len(self._told)
        while row < rows:
            block = slice(row, row + _BLOCK_ROWS)
            dropped = self._columns["outcome"][block] == Outcome.DROPPED
            begun = dropped | (self._columns["dispatch_ns"][block] != NEVER)
            if not begun.all():
                return row + int(np.argmin(begun))
            row += len(begun)
        return rows


Look = Callable[[float, float], Window]
"""Looks at one process from one moment to another, in seconds since the epoch; `Onlooker.look` is one."""


class Pulse:
    """All processes of a step, looked at together."""

    def __init__(self, looks: Sequence[Look], clock: Clock, tell: Callable[[Window], object]) -> None:
        self._looks = looks
        self._clock = clock
        self._tell = tell
        self._epoch_s = self._looked_s = 0.0

    def begin(self, epoch_s: float) -> None:
        """Count from this moment of the clock."""
        self._epoch_s = epoch_s

    def look_when_due(self) -> float:
        """Look, where a second has passed since the look before; for how long there is nothing to do."""
        left_s = self._looked_s + EVERY_S - self._elapsed_s()
        if left_s > 0:
            return left_s
        self._tell(self.look())
        return EVERY_S

    def look(self) -> Window:
        """What came to pass since the look before, now."""
        from_s, self._looked_s = self._looked_s, self._elapsed_s()
        return _pooled([look(from_s, self._looked_s) for look in self._looks])

    def _elapsed_s(self) -> float:
        return self._clock.monotonic_s() - self._epoch_s


def beat(window: Window) -> Beat:
    """A window in a few figures."""
    right = window.outcome == Outcome.OK
    latency_s = _quantiles_s((window.done_ns - window.due_ns)[right], 0.5, 0.99)
    return Beat(
        elapsed_s=window.until_s,
        span_s=window.until_s - window.from_s,
        answered=int(right.sum()),
        failed=int((~right).sum()) + window.dropped,
        p50_s=latency_s[0],
        p99_s=latency_s[1],
        in_flight=window.in_flight,
        lag_p99_s=_quantiles_s(window.lag_ns, 0.99)[0],
    )


def _pooled(windows: Sequence[Window]) -> Window:
    def together(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(window, name) for window in windows])

    return Window(
        from_s=windows[0].from_s,
        until_s=windows[0].until_s,
        due_ns=together("due_ns"),
        done_ns=together("done_ns"),
        outcome=together("outcome"),
        bytes=together("bytes"),
        lag_ns=together("lag_ns"),
        dropped=sum(window.dropped for window in windows),
        in_flight=sum(window.in_flight for window in windows),
    )


def _quantiles_s(samples_ns: NDArray[np.int64], *shares: float) -> list[float | None]:
    """Observed values, without an interval: they are to be looked at, not to be reported."""
    if not len(samples_ns):
        return [None] * len(shares)
    return [float(value) / 1e9 for value in np.quantile(samples_ns, shares, method="inverted_cdf")]
