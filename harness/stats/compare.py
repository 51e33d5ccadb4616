"""Comparing two figures that were measured on the same things.

In: one statistic of each of two contenders, on the same resamples. Out: what their difference may be; and, where a
contender was tried with several seeds, its mean on each resample.
"""

from collections.abc import Sequence

import numpy as np

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
