"""Locust users: Locust as it comes, for what it would tell of the same server; users who wait for their answers.

In: the finished steps of a cell. Out: one step of users at a rate, then None.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.records.load import Rung, Step

REQUIRES: tuple[str, ...] = ()

_NAME = "locust_users"


@dataclass(frozen=True, slots=True)
class LocustUsers:
    """`users` of Locust's own, who try together to send `rate_rps` requests a second, each waiting for its answers."""

    users: int = 1
    rate_rps: float = 0.0
    """0: the rate of the last open step before, of which there must be one."""
    step_s: float = 11.0
    warmup_s: float = 1.0

    def __post_init__(self) -> None:
        for wrong, text in (
            (not 0 <= self.rate_rps < math.inf, f"rate_rps ({self.rate_rps}) must not be negative"),
            (self.users < 1, f"users ({self.users}) must be at least 1"),
            (not 0 <= self.warmup_s < self.step_s < math.inf, "warmup_s must be shorter than step_s, and not negative"),
        ):
            if wrong:
                raise ValueError(text)

    def next_step(self, history: Sequence[Rung]) -> Step | None:
        if any(rung.step.shape == _NAME for rung in history):
            return None
        before = [rung.step.rate_rps for rung in history if rung.step.rate_rps is not None]
        if not self.rate_rps and not before:
            raise UsageError(
                "The shape locust_users takes its rate from an open step before it, and there is none: give "
                "load.parameters.locust_users.rate_rps, or put it behind the stairs."
            )
        return Step(
            shape=_NAME,
            number=len(history),
            mode="closed",
            in_flight=self.users,
            users=True,
            pace_rps=self.rate_rps or before[-1],
            duration_s=self.step_s,
            warmup_s=self.warmup_s,
        )
