"""Resamples: how far the choice of rows may have moved a score.

In: the truth of n rows, their groups where rows of a group err alike, and answers to them. Out: positions of resampled
rows, the same for whoever is scored on these rows with the same seed, and the score on each resample.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records.rows import Prediction
from harness.records.words import Metric, Task
from harness.space.score import score

RESAMPLES = 500
"""Of the bootstrap over holdout rows, or over groups of them."""


def resampled_rows(
    truth: NDArray[Any], task: Task, seed: int, groups: NDArray[np.intp] | None = None
) -> Iterator[NDArray[np.intp]]:
    """Positions of the rows of each resample, one after the other: all at once, they take memory that a table needs.

    Of a classification each class is resampled on its own and keeps its number of rows, so every metric is defined on
    every resample. With `groups` (the number of each row's, shape (n,)) whole groups are drawn, and a class that none
    of those drawn has is brought by one more that has it. A single group says nothing of others: its rows are drawn.
    """
    rng = np.random.default_rng(seed)
    if groups is not None and groups.min() < groups.max():
        yield from _resampled_groups(truth, task, rng, groups)
        return
    strata = [np.arange(len(truth))]
    if task != "regression":
        strata = [np.flatnonzero(truth == index) for index in np.unique(truth)]
    for _ in range(RESAMPLES):
        yield np.concatenate([rows[rng.integers(len(rows), size=len(rows))] for rows in strata])


def _resampled_groups(
    truth: NDArray[Any], task: Task, rng: np.random.Generator, groups: NDArray[np.intp]
) -> Iterator[NDArray[np.intp]]:
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    classes = [] if task == "regression" else np.unique(truth).tolist()
    has = np.array([np.isin(classes, truth[rows]) for rows in members])
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(members), size=len(members)).tolist()
        for place in range(len(classes)):
            if not has[drawn, place].any():
                drawn.append(int(rng.choice(np.flatnonzero(has[:, place]))))
        yield np.concatenate([members[group] for group in drawn])


def resampled_scores(
    metric: Metric, truth: NDArray[Any], answers: Prediction, rows: Iterable[NDArray[np.intp]]
) -> tuple[float, ...]:
    """The metric on each resample of `resampled_rows`."""
    return tuple(score(metric, truth[drawn], answers.take(drawn)) for drawn in rows)
