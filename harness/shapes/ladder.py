"""Ladder: closed load in rungs of more and more requests in flight, up to where more of them bring nothing more.

In: the finished steps of a cell. Out: the next rung, or None at the top. The highest throughput on the way is what the
server can do at all; no objective is asked of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records.load import Rung, Step

REQUIRES: tuple[str, ...] = ()

_NAME = "ladder"


@dataclass(frozen=True, slots=True)
class Ladder:
    """Requests in flight multiply by `growth` until throughput stops growing, answers fail, or p99 explodes."""

    start: int = 1
    """Requests in flight on the first rung."""
    growth: float = 2.0
    """From rung to rung, times this; at least one more."""
    limit: int = 64
    """Most requests in flight."""
    step_s: float = 3.0
    warmup_s: float = 0.5
    gain: float = 0.05
    """Stop when a rung brings less than this share of throughput more than those before it, and that is no chance or
    happens twice in a row."""
    error_share: float = 0.05
    """Stop after a rung on which more than this share failed."""
    p99_growth: float = 20.0
    """Stop after a rung whose p99 is this many times that of the rung before: a busy server's grows by `growth`."""

    def __post_init__(self) -> None:
        for wrong, text in (
            (not 1 <= self.start <= self.limit, f"start ({self.start}) must lie in 1 to limit ({self.limit})"),
            (not 1 < self.growth < math.inf, f"growth ({self.growth}) must be more than 1"),
            (not 0 <= self.warmup_s < self.step_s < math.inf, "warmup_s must be shorter than step_s, and not negative"),
            (not 0 <= self.gain < math.inf, f"gain ({self.gain}) must not be negative"),
            (not 0 <= self.error_share <= 1, f"error_share ({self.error_share}) must lie in 0 to 1"),
            (not self.p99_growth > 1, f"p99_growth ({self.p99_growth}) must be more than 1"),
        ):
            if wrong:
                raise ValueError(text)

    def next_step(self, history: Sequence[Rung]) -> Step | None:
        rungs = [rung for rung in history if rung.step.shape == _NAME]
        if not rungs:
            return self._rung(self.start, len(history))
        in_flight = rungs[-1].step.in_flight or self.limit
        if in_flight >= self.limit or self._topped_out(rungs):
            return None
        # Compared before it is made an integer: a large growth makes a float that no integer holds.
        grown = in_flight * self.growth
        return self._rung(self.limit if grown >= self.limit else max(in_flight + 1, int(grown)), len(history))

    def _topped_out(self, rungs: Sequence[Rung]) -> bool:
        last = rungs[-1]
        if last.error_share > self.error_share or last.throughput_rps <= 0:
            return True
        if len(rungs) < 2:
            return False
        before = rungs[-2]
        if last.p99_s is not None and before.p99_s is not None and last.p99_s > self.p99_growth * before.p99_s:
            return True
        gained, at_most = self._gain(rungs)
        again = len(rungs) > 2 and self._gain(rungs[:-1])[0] < self.gain
        return at_most < self.gain or (gained < self.gain and again)

    def _gain(self, rungs: Sequence[Rung]) -> tuple[float, float]:
        """What the last rung brought over the best of those before it, and the most it may have brought (95 %)."""
        *before, last = rungs
        best = max(before, key=lambda rung: rung.throughput_rps)
        ratio = last.throughput_rps / best.throughput_rps
        # Of a ratio of independent figures the relative errors add up as squares.
        error = ratio * math.hypot(*(rung.throughput_error_rps / rung.throughput_rps for rung in (last, best)))
        return ratio - 1, ratio - 1 + error

    def _rung(self, in_flight: int, number: int) -> Step:
        return Step(
            shape=_NAME,
            number=number,
            mode="closed",
            in_flight=in_flight,
            duration_s=self.step_s,
            warmup_s=self.warmup_s,
        )
