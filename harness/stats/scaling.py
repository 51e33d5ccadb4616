"""Laws of growth: what more workers bring, and what more rows cost, fitted to what was measured.

In: scales and what was measured at each, several measurements per scale where there are. Out: `universal_law`, which is
Gunther's Universal Scalability Law, and `power_law`, y = a x**b; or `NoLaw`, with the reason.

Neither law is asked far from where it was measured. Over public data the universal law, asked for twice the largest
measured scale, was off by 14 % at the median and by 31 % at worst; beyond its peak it says what nobody has seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from harness.stats.quantile import CONFIDENCE

SCALES_AT_LEAST = 4
"""The universal law has three parameters: three scales would be met exactly, whatever they are."""

SIZES_AT_LEAST = 3

BEYOND = 2.0
"""Times the largest measured scale: as far as the universal law is asked."""

_DRAWS = 200


@dataclass(frozen=True, slots=True)
class NoLaw:
    """Nothing was fitted."""

    reason: str


@dataclass(frozen=True, slots=True)
class UniversalLaw:
    """X(N) = rate N / (1 + contention (N - 1) + coherence N (N - 1)).

    Gunther, Guerrilla Capacity Planning (2007), where the three are gamma, sigma (alpha) and kappa (beta): the rate of
    one, the share of work that is done one after the other, and the cost of each pair that has to agree.
    """

    rate: float
    contention: float
    coherence: float
    largest: float
    """The largest measured scale."""
    draws: tuple[tuple[float, float, float], ...]
    """The three parameters of every bootstrap sample."""
    n: int
    """Rates that it was fitted to."""

    @property
    def peak(self) -> float:
        """The scale beyond which more brings less: sqrt((1 - contention) / coherence); infinite where nothing says."""
        if self.coherence <= 0:
            return math.inf
        return math.sqrt(max(0.0, 1 - self.contention) / self.coherence)

    @property
    def reach(self) -> float:
        """The largest scale it may be asked for: twice the largest measured, but not beyond the peak; or the largest
        measured, where the peak lies below.
        """
        return max(self.largest, min(BEYOND * self.largest, self.peak))

    def at(self, scale: float) -> float:
        """X at a scale. Raises ValueError outside of what it may be asked for."""
        self._refuse(scale)
        return float(_law(np.asarray(scale), self.rate, self.contention, self.coherence))

    def interval(self, scale: float) -> tuple[float, float]:
        """The 95 % interval of the law at a scale, by bootstrap: of the curve, not of a next measurement."""
        self._refuse(scale)
        drawn = [float(_law(np.asarray(scale), *parameters)) for parameters in self.draws]
        return _middle(drawn)

    def _refuse(self, scale: float) -> None:
        if not 1 <= scale <= self.reach:
            raise ValueError(
                f"the law was measured up to {self.largest:g}, peaks at {self.peak:.3g}, and may be asked for 1 to "
                f"{self.reach:.3g}, not {scale:g}"
            )


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """y = factor x**exponent."""

    factor: float
    exponent: float
    low: float
    high: float
    """95 % interval of the exponent."""
    n: int


def universal_law(scales: ArrayLike, rates: ArrayLike) -> UniversalLaw | NoLaw:
    """The universal law of rates that were measured at scales (1, 2, 4, ... workers); shapes (n,).

    By least squares on the rates, with all three parameters at or above 0, as the R package `usl` fits it. Gunther's
    own way, a parabola through transformed data, trusts the rate of one, which it divides by, beyond all others. The
    bootstrap resamples residuals in proportion to the rate, with a fixed seed, as much wider as Student's t is than a
    normal curve: of four rates, which leave one degree of freedom, intervals held the truth in 28 of 40 cases without.
    """
    at, seen = np.asarray(scales, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    known = len(np.unique(at))
    if known < SCALES_AT_LEAST:
        return NoLaw(f"{known} scale{'' if known == 1 else 's'} measured, and a law takes {SCALES_AT_LEAST} at least")
    if not (np.isfinite(seen).all() and (seen > 0).all() and (at >= 1).all()):
        return NoLaw("a rate of 0 was measured, which no law of growth goes through")
    fitted = _fitted(at, seen)
    curve = _law(at, *fitted)
    free = max(1, len(at) - 3)
    inside = 1 - (1 - CONFIDENCE) / 2
    wider = float(stats.t.ppf(inside, free) / stats.norm.ppf(inside))
    left = (seen / curve - 1) * math.sqrt(len(at) / free) * wider
    rng = np.random.default_rng(0)
    drawn = curve * (1 + rng.choice(left - left.mean(), size=(_DRAWS, len(at))))
    draws = tuple(_fitted(at, np.maximum(rates, 1e-9 * curve), fitted) for rates in drawn)
    return UniversalLaw(*fitted, largest=float(at.max()), draws=draws, n=len(at))


def parameter_intervals(law: UniversalLaw) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """The 95 % bootstrap intervals of rate, contention and coherence."""
    rate, contention, coherence = (_middle(values) for values in zip(*law.draws, strict=True))
    return rate, contention, coherence


def power_law(sizes: ArrayLike, values: ArrayLike) -> PowerLaw | NoLaw:
    """The power law of values that were measured at sizes, by least squares on the logarithms of both; shapes (n,).

    The interval of the exponent is Student's t with n - 2 degrees of freedom.
    """
    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(values, dtype=np.float64)
    known = len(np.unique(x))
    if known < SIZES_AT_LEAST:
        return NoLaw(f"{known} size{'' if known == 1 else 's'} measured, and an exponent takes {SIZES_AT_LEAST}")
    if not ((x > 0).all() and (y > 0).all()):
        return NoLaw("something of 0 was measured, which has no logarithm")
    line = stats.linregress(np.log(x), np.log(y))
    # Of values that are all the same, scipy's error is 0 / 0.
    half = float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2, len(x) - 2)) * float(line.stderr) if np.ptp(y) else 0.0
    exponent = round(float(line.slope), 12) + 0.0  # of values that are all the same it is not quite 0
    return PowerLaw(math.exp(float(line.intercept)), exponent, exponent - half, exponent + half, len(x))


def _law(scale: NDArray[np.float64], rate: float, contention: float, coherence: float) -> NDArray[np.float64]:
    return np.asarray(rate * scale / (1 + contention * (scale - 1) + coherence * scale * (scale - 1)))


def _fitted(
    at: NDArray[np.float64], seen: NDArray[np.float64], start: Sequence[float] | None = None
) -> tuple[float, float, float]:
    scale = float(seen.max())  # of the order of 1 for the solver, whatever the rates are
    first = (seen / at).max() / scale
    # A start on a bound of 0 never leaves it.
    begin = [max(start[0] / scale, 1e-9), max(start[1], 1e-3), max(start[2], 1e-6)] if start else [first, 0.05, 1e-4]

    def missed(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return _law(at, *(float(one) for one in parameters)) - seen / scale

    def slopes(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        rate, contention, coherence = parameters
        per_rate = at / (1 + contention * (at - 1) + coherence * at * (at - 1))
        per_contention = -rate * per_rate**2 * (at - 1) / at
        return np.stack([per_rate, per_contention, per_contention * at], axis=1)

    # The usual method (trf) keeps off its bounds: a law without coherence would get a peak.
    bounds = (0, [np.inf, 1.0, np.inf])
    found = optimize.least_squares(
        missed, begin, slopes, bounds, "dogbox", ftol=1e-12, xtol=1e-10, gtol=1e-12, x_scale=[first, 0.1, 1e-3]
    )
    rate, contention, coherence = (float(one) for one in found.x)
    return rate * scale, contention, coherence


def _middle(drawn: Sequence[float]) -> tuple[float, float]:
    miss = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.asarray(drawn), (miss, 1 - miss))
    return float(low), float(high)
