"""Resamples: how far the choice of rows may have moved a score.

In: the truth of n rows, and answers to them. Out: positions of resampled rows, the same for whoever is scored on these
rows with the same seed, and the score on each resample.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records.rows import Prediction
from harness.records.words import Metric, Task
from harness.space.score import score

RESAMPLES = 500
"""Of the bootstrap over holdout rows."""


def resampled_rows(truth: NDArray[Any], task: Task, seed: int) -> NDArray[np.intp]:
    """Positions of the rows of each resample, shape (RESAMPLES, n).

    Of a classification each class is resampled on its own and keeps its number of rows, so every metric is defined on
    every resample.
    """
    rng = np.random.default_rng(seed)
    strata = [np.arange(len(truth))]
    if task != "regression":
        strata = [np.flatnonzero(truth == index) for index in np.unique(truth)]
    return np.hstack([rng.choice(rows, (RESAMPLES, len(rows))) for rows in strata])


def resampled_scores(
    metric: Metric, truth: NDArray[Any], answers: Prediction, rows: NDArray[np.intp]
) -> tuple[float, ...]:
    """The metric on each resample of `resampled_rows`."""
    return tuple(score(metric, truth[drawn], answers.take(drawn)) for drawn in rows)
