"""The arithmetic of the verdict on a period of load: what was delivered of what was planned, and whether it is steady.

In: times and latencies as columns. Out: single numbers, which `analysis.validity` holds against its limits.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

SLOTS = 20
"""Equal slots of time in which a step is looked at."""

SLOT_SAMPLES = 5
"""Fewest samples of a slot whose median says anything."""

BAND = 2.0
"""The start of a step belongs to its warm-up for as long as a slot's median is further than this factor from that of
the second half."""

DRIFT = 1.5
"""Factor between the first and the last third of what is left that is no longer called steady."""

ALPHA = 0.001
"""Probability with which chance alone makes a distance of gaps, or a trend, look real."""


def gap_distance(planned_ns: ArrayLike, delivered_ns: ArrayLike, resolution_ns: float) -> tuple[float, float] | None:
    """The largest difference between the distributions of two gaps, and what chance makes of it once in `1 / ALPHA`.

    Two-sample Kolmogorov-Smirnov, but gaps that differ by no more than `resolution_ns` are alike: no server could
    notice a few microseconds, and without that allowance equal gaps would be half the world away from equal gaps with
    the least jitter. Both are sorted times; None where either has fewer than two. The bound is that of the limiting
    distribution (Smirnov 1939), which the allowance only lowers.
    """
    planned, delivered = (np.sort(np.diff(np.asarray(times))) for times in (planned_ns, delivered_ns))
    n, m = len(planned), len(delivered)
    if min(n, m) < 1:
        return None
    distance = max(0.0, _ahead(planned, delivered, resolution_ns), _ahead(delivered, planned, resolution_ns))
    return distance, float(stats.kstwobign.isf(ALPHA)) * math.sqrt((n + m) / (n * m))


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Where a step's latency is steady."""

    start: float | None
    """From this time on; None: it never is, or there is too little to tell."""
    drifting: bool
    """There is enough to tell, and it is never steady."""


def steadiness(times: ArrayLike, values: ArrayLike, start: float, end: float) -> Steadiness:
    """From when in [`start`, `end`) on `values` (shape (n,), at `times`) are steady.

    By the medians of `SLOTS` slots of time. Slots at the beginning are cropped while they lie outside a band around the
    median of the second half, at most half of them. What is left is not steady where its first and last third differ by
    more than `DRIFT` and Kendall's test finds a trend too (`ALPHA`); near saturation neither alone would do, since
    queues wander.
    """
    when, seen = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    slot = np.floor((when - start) * (SLOTS / (end - start))).astype(np.int64)
    inside = (slot >= 0) & (slot < SLOTS)
    slot, seen = slot[inside], seen[inside]
    if len(seen) == 0 or np.bincount(slot, minlength=SLOTS).min() < SLOT_SAMPLES:
        return Steadiness(None, drifting=False)
    medians = _medians(slot, seen)
    settled = float(np.median(medians[SLOTS // 2 :]))
    outside = (medians < settled / BAND) | (medians > settled * BAND)
    first = int(np.argmin(outside)) if not outside.all() else SLOTS
    if first > SLOTS // 2:
        return Steadiness(None, drifting=True)
    left = medians[first:]
    third = len(left) // 3
    ratio = float(np.median(left[-third:])) / max(float(np.median(left[:third])), 1e-12)
    trend = stats.kendalltau(np.arange(len(left)), left)
    if max(ratio, 1 / max(ratio, 1e-12)) > DRIFT and trend.pvalue < ALPHA:
        return Steadiness(None, drifting=True)
    return Steadiness(start + first * (end - start) / SLOTS, drifting=False)


def backlog_growth(begun: ArrayLike, ended: ArrayLike, start: float, end: float) -> float:
    """How fast the requests in flight grew over [`start`, `end`), in requests per unit of time; 0: they did not.

    `begun` (shape (n,)) are the times at which requests began, `ended` (shape (m,), m <= n) those at which some of
    them ended. Past the capacity of a server the number grows in a line, by the difference between the two rates, and
    nowhere near as steadily otherwise: the slope is that of Theil and Sen over `SLOTS` looks, 0 unless Kendall's test
    finds a rise (`ALPHA`).
    """
    looks = np.linspace(start, end, SLOTS + 1)[1:]
    in_flight = np.searchsorted(np.sort(np.asarray(begun)), looks, side="right") - np.searchsorted(
        np.sort(np.asarray(ended)), looks, side="right"
    )
    if np.ptp(in_flight) == 0:
        return 0.0
    trend = stats.kendalltau(looks, in_flight, alternative="greater")
    return max(0.0, float(stats.theilslopes(in_flight, looks).slope)) if trend.pvalue < ALPHA else 0.0


def slower(left: ArrayLike, right: ArrayLike) -> float | None:
    """The median of `left` over that of `right`; None where Mann and Whitney find them no larger (`ALPHA`)."""
    one, other = np.asarray(left), np.asarray(right)
    if min(len(one), len(other)) < SLOT_SAMPLES:
        return None
    if stats.mannwhitneyu(one, other, alternative="greater").pvalue >= ALPHA:
        return None
    return float(np.median(one) / np.median(other))


def _ahead(one: NDArray[np.int64], other: NDArray[np.int64], resolution: float) -> float:
    """The most by which the share of `one` up to any value passes that of `other` up to `resolution` more."""
    own = np.searchsorted(one, one, side="right") / len(one)
    return float((own - np.searchsorted(other, one + resolution, side="right") / len(other)).max())


def _medians(slot: NDArray[np.int64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(slot, kind="stable")
    parts = np.split(seen[order], np.flatnonzero(np.diff(slot[order])) + 1)
    return np.array([np.median(part) for part in parts])
