"""Comparing two figures that were measured on the same things.

In: one statistic of each of two contenders, on the same resamples. Out: what their difference may be.
"""

from collections.abc import Sequence

import numpy as np

from harness.stats.quantile import CONFIDENCE


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
