"""Quantiles that were observed, with intervals they can stand behind.

In: raw samples, and when each was due. Out: `Quantile` per asked share: an observed value with a 95 % interval, or no
value and the reason. Requests of one step are autocorrelated (one pause delays many of them), so the interval for
independent samples is only the narrower bound of the truth: a bootstrap over slots of time is taken beside it, and the
wider end of both is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95

SLOTS = 30
"""Equal slots of time whose samples the bootstrap moves together: long against a pause, and enough of them to draw."""

RESAMPLES = 500

_GRID = 4096
"""Order statistics among which the bootstrap looks; samples no larger than this are searched whole."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantile:
    """The value that `share` of the samples do not exceed, in the unit of the samples."""

    share: float
    n: int
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    """Why `value` is None."""


def sample_floor(share: float, confidence: float = CONFIDENCE) -> int:
    """The smallest sample whose order statistics enclose the quantile with `confidence`, both ends finite.

    The largest of n independent samples lies below the quantile with probability share**n, the smallest above it with
    (1 - share)**n; each may happen in (1 - confidence) / 2 of all cases. 72 for p95, 368 for p99, 3,688 for p99.9.
    """
    miss = (1 - confidence) / 2
    return math.ceil(math.log(miss) / math.log(max(share, 1 - share)))


def rank_interval(n: int, share: float, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """Ranks (from 1) of the order statistics that enclose a quantile with at least `confidence`, None at an open end.

    Exact and distribution-free for independent samples: the number of samples below the quantile is binomial
    (David and Nagaraja, Order Statistics, 3rd edition, section 7.1).
    """
    miss = (1 - confidence) / 2
    low = int(stats.binom.ppf(miss, n, share))
    high = int(stats.binom.ppf(1 - miss, n, share)) + 1
    return (low if low >= 1 else None), (high if high <= n else None)


def quantiles(
    samples: ArrayLike, shares: Sequence[float], *, times: ArrayLike | None = None, seed: int = 0
) -> tuple[Quantile, ...]:
    """Quantiles of `samples` (shape (n,)), one per share.

    The definition is the inverse of the empirical distribution function, so a quantile is always an observed value:
    numpy's method `inverted_cdf`, type 1 of Hyndman and Fan (1996). With `times` (shape (n,), any unit) the interval
    is the wider of the exact one and a seeded bootstrap over `SLOTS` slots of time. Below `sample_floor` there is no
    value.
    """
    values = np.asarray(samples)
    if values.ndim != 1:
        raise ValueError(f"samples must have one axis, not {values.ndim}")
    order = np.sort(values)
    n = len(order)
    drawn: dict[float, tuple[float, float]] = {}
    answerable = [share for share in shares if n >= sample_floor(share)]
    if times is not None and answerable:
        drawn = _time_bootstrap(values, order, np.asarray(times), answerable, seed)
    return tuple(_quantile(order, share, drawn.get(share)) for share in shares)


def _quantile(order: NDArray[np.generic], share: float, drawn: tuple[float, float] | None) -> Quantile:
    n = len(order)
    floor = sample_floor(share)
    if n < floor:
        return Quantile(share, n, None, reason=f"{n:,} samples are too few: a 95 % interval needs {floor:,}")
    low_rank, high_rank = rank_interval(n, share)
    low = None if low_rank is None else float(order[low_rank - 1])
    high = None if high_rank is None else float(order[high_rank - 1])
    if drawn is not None:
        low = None if low is None else min(low, drawn[0])
        high = None if high is None else max(high, drawn[1])
    return Quantile(share, n, float(order[_rank(n, share) - 1]), low, high)


def _rank(n: int, share: float) -> int:
    """Rank (from 1) of the smallest order statistic that `share` of n samples do not exceed."""
    # 0.07 * 100 is 7.000000000000001 in binary, and the eighth value is not what anybody means by it.
    return min(n, max(1, math.ceil(round(n * share, 9))))


def _time_bootstrap(
    values: NDArray[np.generic],
    order: NDArray[np.generic],
    times: NDArray[np.generic],
    shares: Sequence[float],
    seed: int,
) -> dict[float, tuple[float, float]]:
    """Ends of the percentile bootstrap per share, slots of time drawn with replacement.

    A resample is never built: the count of samples at or below each value of a grid is kept per slot, and the counts
    of the drawn slots add up. Between two values of the grid the ends are rounded outwards.
    """
    if len(times) != len(values):
        raise ValueError(f"{len(values)} samples but {len(times)} times")
    slot = _slots(times.astype(np.float64))
    grid = order[_grid_ranks(len(order), shares)]
    position = np.searchsorted(grid, values, side="left")
    counts = np.bincount(slot * len(grid) + position, minlength=SLOTS * len(grid)).reshape(SLOTS, len(grid))
    below = np.cumsum(counts, axis=1).astype(np.float64)
    used = below[:, -1] > 0
    below = below[used]
    # One slot holds everything where all times are equal: there is nothing to draw from.
    if len(below) < 2:
        return {}
    draws = np.random.default_rng(seed).multinomial(len(below), np.full(len(below), 1 / len(below)), size=RESAMPLES)
    resampled = draws.astype(np.float64) @ below
    ends = {}
    miss = (1 - CONFIDENCE) / 2
    for share in shares:
        needed = np.ceil(np.round(resampled[:, -1:] * share, 9))
        found = np.argmax(resampled >= needed, axis=1)
        low = int(np.quantile(found, miss, method="inverted_cdf"))
        high = int(np.quantile(found, 1 - miss, method="inverted_cdf"))
        ends[share] = float(grid[max(0, low - 1) if len(order) > len(grid) else low]), float(grid[high])
    return ends


def _slots(times: FloatArray) -> NDArray[np.int64]:
    start, end = float(times.min()), float(times.max())
    if end == start:
        return np.zeros(len(times), dtype=np.int64)
    return np.minimum((times - start) * (SLOTS / (end - start)), SLOTS - 1).astype(np.int64)


def _grid_ranks(n: int, shares: Sequence[float]) -> NDArray[np.int64]:
    """Positions (from 0) of the order statistics to look among: all, or dense around the asked quantiles."""
    if n <= _GRID:
        return np.arange(n)
    per_share = _GRID // (len(shares) + 1)
    parts = [np.linspace(0, n - 1, per_share)]
    for share in shares:
        # Slots that differ a lot spread a bootstrap quantile over several binomial deviations; the logistic scale
        # keeps both tails resolved however far that is.
        centre = math.log(share / (1 - share))
        parts.append(n / (1 + np.exp(-(centre + np.linspace(-3.0, 3.0, per_share)))))
    return np.unique(np.clip(np.concatenate(parts).round(), 0, n - 1).astype(np.int64))
