"""Comparing figures that were measured on the same things.

In: one statistic of each contender, on the same resamples. Out: what the difference of two may be, of two alone or of
all pairs together; and, where a contender was tried with several seeds, its mean on each resample.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.stats.quantile import CONFIDENCE


def over_seeds(by_seed: Sequence[Sequence[float]], rng: np.random.Generator) -> tuple[float, ...]:
    """The mean over seeds on each resample, of seeds drawn anew for each; `by_seed[i][j]` is of seed i, resample j.

    So an interval over the result knows that other seeds would have found something else, as well as that other rows
    would have scored it otherwise (the pigeonhole bootstrap of Owen, 2007). Of few seeds it sees too little of that:
    of two, half the variance. With one seed it is what came in.
    """
    values = np.asarray(by_seed, dtype=np.float64)
    drawn = rng.integers(len(values), size=values.shape)
    return tuple(np.take_along_axis(values, drawn, axis=0).mean(axis=0).tolist())


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
