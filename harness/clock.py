"""The one place where time is read.

In: nothing. Out: `Clock`, what the rest of the harness may ask of time; `SystemClock`, the machine's; `FakeClock`,
for tests. Lengths come from a monotonic counter; the calendar serves only as a label.
"""

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """What may be asked of time."""

    def monotonic_s(self) -> float:
        """Seconds on a counter that never goes back; only differences mean anything."""
        ...

    def utc_label(self) -> str:
        """The present moment in UTC, as `2026-11-22T14:03:07Z`."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; a length of zero or less returns at once."""
        ...


class SystemClock:
    """The machine's own clocks."""

    # The function itself: a method around it takes twice as long, and a server asks some ten times a request.
    monotonic_s = staticmethod(time.perf_counter)

    def utc_label(self) -> str:
        return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


class FakeClock:
    """A clock that moves only when it is told to, or slept on."""

    def __init__(self, start_s: float = 0.0, label: str = "2026-01-01T00:00:00Z") -> None:
        self._now_s = start_s
        self._label = label

    def monotonic_s(self) -> float:
        return self._now_s

    def utc_label(self) -> str:
        return self._label

    def sleep(self, seconds: float) -> None:
        self._now_s += max(0.0, seconds)
