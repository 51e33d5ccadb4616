"""Agreement: how far two answers to the same rows lie apart, and whether they may still be those of one model.

In: two `Prediction`s of the same rows. Out: their largest difference, and the shares of rows that are close and that
got the same label. There is one rule of parity: what chooses a candidate's precision and what checks it ask the same.
"""

import math
from dataclasses import dataclass

import numpy as np

from harness.records.rows import Prediction

PARITY_DIFFERENCE = 1e-3
"""Largest difference of a probability, or of a prediction in units of the predictions' standard deviation, that another
runtime may show on a row. float32 arithmetic differs by about 1e-6, or by far more on a row where a split flips."""

PARITY_ROWS = 0.99
"""Share of rows that must be within that difference."""

PARITY_LABELS = 0.999
"""Share of rows that must get the same label."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was found of two answers to the same rows."""

    largest: float
    """Largest difference of a row: of a probability, or of a prediction in standard deviations of the left ones."""
    within: float
    """Share of rows that differ by no more than was tolerated; one without a finite answer does not."""
    same_labels: float
    """Share of rows with the same label; 1 of a regression."""

    @property
    def is_parity(self) -> bool:
        """Whether another runtime may differ so; not where a single row has no finite answer."""
        close = self.within >= PARITY_ROWS and self.same_labels >= PARITY_LABELS
        return close and math.isfinite(self.largest)


def agreement(left: Prediction, right: Prediction, tolerance: float = PARITY_DIFFERENCE) -> Agreement:
    """How far the right answers lie from the left ones; there is at least one row."""
    if left.probabilities is not None and right.probabilities is not None:
        differences = np.abs(left.probabilities - right.probabilities).max(axis=1)
        same_labels = float(np.mean(left.values == right.values))
    else:
        differences = np.abs(left.values - right.values) / (float(np.std(left.values)) or 1.0)
        same_labels = 1.0
    return Agreement(float(differences.max()), float(np.mean(differences <= tolerance)), same_labels)
