"""Stairs: open load at a few rising rates, up to about the highest throughput that closed load has found.

In: the finished steps of a cell. Out: the next step, or None at the top or where the server falls behind. What an
objective says is read off these steps: their arrivals do not wait for the server. Rates are preferred numbers (1, 1.25,
1.6, 2, ... in every decade): cells whose peaks differ meet at the same rates there, and can be compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.records.load import Rung, Step

REQUIRES: tuple[str, ...] = ()

_NAME = "stairs"

PREFERRED = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
"""The series R10 of ISO 3: ten numbers in a decade, each about a quarter more than the one before."""


@dataclass(frozen=True, slots=True)
class Stairs:
    """`steps` neighbouring preferred numbers, up to the first one that is not below `highest`."""

    steps: int = 6
    highest: float = 1.0
    """Share of the peak throughput."""
    step_s: float = 4.0
    warmup_s: float = 1.0
    peak_rps: float = 0.0
    """The peak where no closed step of this cell has found one; 0: there must be one."""
    error_share: float = 0.05
    """Stop after a step on which more than this share failed."""
    achieved_share: float = 0.8
    """Stop after a step that answered less than this share of the asked rate."""

    def __post_init__(self) -> None:
        for wrong, text in (
            (self.steps < 1, f"steps ({self.steps}) must be at least 1"),
            (not 0 < self.highest < math.inf, f"highest ({self.highest}) must be more than 0"),
            (not 0 <= self.warmup_s < self.step_s < math.inf, "warmup_s must be shorter than step_s, and not negative"),
            (not 0 <= self.peak_rps < math.inf, f"peak_rps ({self.peak_rps}) must not be negative"),
            (not 0 <= self.error_share <= 1, f"error_share ({self.error_share}) must lie in 0 to 1"),
            (not 0 <= self.achieved_share <= 1, f"achieved_share ({self.achieved_share}) must lie in 0 to 1"),
        ):
            if wrong:
                raise ValueError(text)

    def next_step(self, history: Sequence[Rung]) -> Step | None:
        """Raises UsageError where neither a closed step nor `peak_rps` says where to place the rates."""
        climbed = [rung for rung in history if rung.step.shape == _NAME]
        if len(climbed) >= self.steps or (climbed and self._behind(climbed[-1])):
            return None
        peak_rps = self._peak_rps(history)
        if peak_rps <= 0:
            return None  # not one closed request succeeded: that is already on record, and no rate can be placed
        return Step(
            shape=_NAME,
            number=len(history),
            mode="open",
            rate_rps=preferred_rps(self.highest * peak_rps, len(climbed) + 1 - self.steps),
            duration_s=self.step_s,
            warmup_s=self.warmup_s,
        )

    def _behind(self, last: Rung) -> bool:
        asked_rps = last.step.rate_rps or 0.0
        return last.error_share > self.error_share or last.throughput_rps < self.achieved_share * asked_rps

    def _peak_rps(self, history: Sequence[Rung]) -> float:
        closed = [rung.throughput_rps for rung in history if rung.step.mode == "closed"]
        if closed:
            return max(closed)
        if self.peak_rps == 0:
            raise UsageError(
                f"The shape {_NAME} does not know where to place its rates: list the shape ladder before it in "
                f"load.shapes, or give peak_rps in [load.parameters.{_NAME}]."
            )
        return self.peak_rps


def preferred_rps(least_rps: float, further: int = 0) -> float:
    """The first preferred number that is not below `least_rps`, or the one `further` places on from it."""
    # The margin keeps a rate that is a preferred number but for its last binary digit.
    decade = math.floor(math.log10(least_rps))
    place = 10 * decade + next(
        (place for place, number in enumerate(PREFERRED) if number * 10.0**decade >= least_rps * (1 - 1e-9)), 10
    )
    decade, place = divmod(place + further, 10)
    # Divided by a whole number, so that 0.8 is 0.8; 8 times 10 to the power of -1 is not.
    return PREFERRED[place] * 10.0**decade if decade >= 0 else PREFERRED[place] / 10.0**-decade
