"""Steady: one step, at a rate or with a number of requests in flight that the user names.

In: the finished steps of a cell. Out: the one step, then None.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records.load import Rung, Step

REQUIRES: tuple[str, ...] = ()

_NAME = "steady"


@dataclass(frozen=True, slots=True)
class Steady:
    """`rate_rps` requests a second by schedule, or without a rate `in_flight` requests at any moment."""

    rate_rps: float = 0.0
    """Of an open step; 0: it is a closed one."""
    in_flight: int = 1
    """Of a closed step."""
    step_s: float = 30.0
    warmup_s: float = 2.0

    def __post_init__(self) -> None:
        for wrong, text in (
            (not 0 <= self.rate_rps < math.inf, f"rate_rps ({self.rate_rps}) must not be negative"),
            (self.in_flight < 1, f"in_flight ({self.in_flight}) must be at least 1"),
            (not 0 <= self.warmup_s < self.step_s < math.inf, "warmup_s must be shorter than step_s, and not negative"),
        ):
            if wrong:
                raise ValueError(text)

    def next_step(self, history: Sequence[Rung]) -> Step | None:
        if any(rung.step.shape == _NAME for rung in history):
            return None
        return Step(
            shape=_NAME,
            number=len(history),
            mode="open" if self.rate_rps else "closed",
            rate_rps=self.rate_rps or None,
            in_flight=None if self.rate_rps else self.in_flight,
            duration_s=self.step_s,
            warmup_s=self.warmup_s,
        )
