"""Comparing figures that were measured on the same things.

In: one statistic of each contender, on the same resamples. Out: what the difference of two may be, of two alone or of
all pairs together; and, where contenders were tried with several seeds, their means on each resample.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.stats.quantile import CONFIDENCE


def over_seeds(
    by_seed: Sequence[Sequence[Sequence[float]]],
    scores: Sequence[Sequence[float]],
    failed: Sequence[bool],
    rng: np.random.Generator,
) -> list[tuple[float, ...]]:
    """Of each contender the mean over its seeds on each resample, moved by what other seeds might have found.

    `by_seed[i][k][j]` is of contender i, seed k, resample j, `scores[i][k]` its score on all rows. The luck of seeds is
    added as a draw from Student's t: its variance is pooled over the contenders, as in an analysis of variance, for
    two or three seeds of one say next to nothing; who varies more than that has a variance of its own, and whoever
    failed with a seed says nothing of the others (unless all did). Drawing seeds with replacement instead sees half the
    variance of two, and told one of four equal contenders apart in 61 of 100 cases where luck is ten times the noise of
    the rows; this does in 2 to 5, in 10 where two of the four have no luck at all. A contender with one seed has none
    that could be seen.
    """
    means = [np.asarray(own, dtype=np.float64).mean(axis=0) for own in by_seed]
    spread = [float(np.var(own, ddof=1)) if len(own) > 1 else 0.0 for own in scores]
    telling = [(own, len(each) - 1) for own, each, lost in zip(spread, scores, failed, strict=True) if not lost]
    if not any(count for _, count in telling):
        telling = [(own, len(each) - 1) for own, each in zip(spread, scores, strict=True)]
    degrees = sum(count for _, count in telling)
    if degrees == 0:
        return [tuple(own.tolist()) for own in means]
    pooled = sum(own * count for own, count in telling) / degrees
    # One estimate of the variance serves all, so what it is off by is the same for all in one draw.
    off = np.sqrt(degrees / rng.chisquare(degrees, len(means[0])))
    moved = []
    for mean, own, each in zip(means, spread, scores, strict=True):
        luck = math.sqrt(max(own, pooled) / len(each)) if len(each) > 1 else 0.0
        moved.append(tuple((mean + luck * off * rng.normal(size=len(mean))).tolist()))
    return moved


def difference_interval(left: Sequence[float], right: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of left - right; value i of both is of the same resample i.

    Paired, because two models err on the same hard rows: intervals of each alone overlap where the difference is clear.
    Raises ValueError where the two are not of the same resamples, or of none.
    """
    if len(left) != len(right) or not left:
        raise ValueError(f"{len(left)} and {len(right)} resamples do not pair")
    miss = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.asarray(left) - np.asarray(right), (miss, 1 - miss))
    return float(low), float(high)


def margins(resamples: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """By how much each difference of two contenders may be off, so that with 95 % none of all pairs is off by more.

    `resamples[i][j]` is of contender i, resample j; the result has a row and a column per contender. The largest
    studentised deviation of all pairs is read off the resamples (max-T; Westfall and Young 1993), which know how the
    contenders hang together. Intervals of one pair at a time are no answer to who is worse than the best of several:
    of five contenders that were equal somebody was told apart from the best in 26 of 100 cases by those, in 5 by these.
    """
    values = np.asarray(resamples, dtype=np.float64)
    differences = values[:, None, :] - values[None, :, :]
    deviations = differences - differences.mean(axis=2, keepdims=True)
    errors = deviations.std(axis=2)
    studentised = np.abs(deviations) / np.where(errors > 0, errors, 1.0)[:, :, None]
    return np.asarray(np.quantile(studentised.max(axis=(0, 1)), CONFIDENCE) * errors)
