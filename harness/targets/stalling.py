"""A server that stalls: it computes nothing, and every now and then stands still.

In: a servable, of which only model, replicas, cores and log matter. Out: an endpoint that gives one fixed answer to
every request, at once, but to nobody for `freeze_s` of every `every_s` seconds, as servers do that collect garbage or
write a snapshot. What a client sees that does not wait for its answers is arithmetic: a share freeze_s / every_s of its
requests waits, evenly for anything up to `freeze_s`. With the defaults p90 is 100 ms and p99 is 190 ms, whatever the
rate; a measurement that says less omits what it should have sent meanwhile.
"""

import asyncio
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from harness.clock import SystemClock
from harness.ports import Servable
from harness.records.candidate import Endpoint
from harness.targets.null import answer_until_stopped, parser, served

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stalling:
    """Answers at once, except while it is frozen."""

    bare: ClassVar[bool] = True

    freeze_s: float = 0.2
    """How long it stands still."""
    every_s: float = 1.0
    """From the beginning of one freeze to that of the next; replicas freeze together."""
    port: int = 0
    """0: the system's choice."""

    def __post_init__(self) -> None:
        if not 0 < self.freeze_s < self.every_s < math.inf:
            raise ValueError(f"freeze_s ({self.freeze_s}) must be more than 0 and less than every_s ({self.every_s})")

    def serve(self, servable: Servable) -> AbstractContextManager[Endpoint]:
        note = f"stands still for {self.freeze_s:g} s of every {self.every_s:g} s; computes nothing"
        arguments = ("--freeze-s", str(self.freeze_s), "--every-s", str(self.every_s))
        return served("stalling", servable, self.port, note, arguments)


async def stall(freeze_s: float, every_s: float) -> None:
    """Stop the event loop again and again, where the machine's clock is a multiple of `every_s`.

    A freeze has its end beforehand, or a busy machine would make all of them longer and the arithmetic wrong.
    """
    clock = SystemClock()
    while True:
        begin_s = math.ceil(clock.monotonic_s() / every_s) * every_s
        await asyncio.sleep(begin_s - clock.monotonic_s())
        clock.sleep(max(0.0, begin_s + freeze_s - clock.monotonic_s()))


if __name__ == "__main__":
    options = parser("stalling")
    options.add_argument("--freeze-s", type=float, required=True)
    options.add_argument("--every-s", type=float, required=True)
    given = options.parse_args()
    answer_until_stopped(given, stall(given.freeze_s, given.every_s))
