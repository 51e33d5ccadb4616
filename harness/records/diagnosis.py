"""What a look at the machine found: how it keeps time, what it takes away, and how much load it can send.

In: nothing. Out: `Diagnosis`, with `Gaps` (of a core that spins), `Lag` (of the load generator under one rate),
`Reached` (its throughput with so many requests in flight) and `Listener` (a port that Ray opens).
"""

import ipaddress
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from harness.records.frozen import Frozen
from harness.records.run import Host, Roofline


class Gaps(Frozen):
    """What the machine took from a process that never sleeps: moments in which it did not run."""

    seconds_s: PositiveFloat
    """How long it span."""
    threshold_s: float
    """Shorter ones are not counted."""
    count: int
    longest_s: float
    lost_s: float
    """All of them together."""

    @property
    def lost_share(self) -> float:
        """Of the time."""
        return self.lost_s / self.seconds_s

    @property
    def count_per_s(self) -> float:
        """Gaps per second."""
        return self.count / self.seconds_s


class Lag(Frozen):
    """How late the load generator sent its requests under one rate of Poisson arrivals, and what came of them."""

    rate_rps: PositiveFloat
    requests: int
    p50_s: float
    p99_s: float
    max_s: float
    answered_rps: float
    sustained: bool
    """What was sent and what was answered was within a percent of what was due, and on time."""


class Reached(Frozen):
    """Throughput in closed load."""

    in_flight: PositiveInt
    answered_rps: float


class Listener(Frozen):
    """A port that can be connected to while Ray runs here."""

    process: str
    """As Ray calls it."""
    address: str
    """`0.0.0.0` and `::` stand for every address of the machine."""
    port: PositiveInt

    @property
    def is_open(self) -> bool:
        """Whether other machines reach it, where nothing is in their way."""
        return not ipaddress.ip_address(self.address).is_loopback


class Diagnosis(Frozen):
    """The machine as a place to measure."""

    host: Host
    timer: Literal["timerfd", "spin", "event loop"]
    """What the load generator waits with."""
    priority: Literal["raised", "ordinary"]
    """Whether the system let it go before what else wanted its core."""
    open_files_soft: int | None
    open_files_hard: int | None
    """Limits per process; None: unlimited."""
    gaps: Gaps
    idle: tuple[Lag, ...]
    """At a few fixed rates, the lowest first."""
    closed: tuple[Reached, ...]
    open: tuple[Lag, ...]
    """The climb to the highest rate that was sustained, in the order in which it was made."""
    roofline: Roofline
    listeners: tuple[Listener, ...] = ()
    """What Ray listens on while a search runs, loopback included."""

    @property
    def sustained_rps(self) -> float | None:
        """The highest open rate that was sustained; None where not one was."""
        return max((lag.rate_rps for lag in (*self.idle, *self.open) if lag.sustained), default=None)
