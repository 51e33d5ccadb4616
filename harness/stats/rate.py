"""A rate of events, and how far chance may have moved it.

In: the times of events, and the window they are counted in. Out: half of the 95 % interval of their rate.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from harness.stats.quantile import CONFIDENCE, SLOTS


def rate_error(times: ArrayLike, start: float, end: float) -> float | None:
    """Half the width of the interval of the rate of events in [`start`, `end`), in events per unit of `times`.

    By Student's t over `SLOTS` equal slots of time, taken as independent of one another: events follow no law that is
    known beforehand, since a server's answers come in bursts. None for a window without length or events.
    """
    if end <= start:
        return None
    counts, _ = np.histogram(np.asarray(times, dtype=np.float64), bins=SLOTS, range=(start, end))
    if not counts.any():
        return None
    rates = counts * (SLOTS / (end - start))
    return float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2, SLOTS - 1) * rates.std(ddof=1)) / math.sqrt(SLOTS)
