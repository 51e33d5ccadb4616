"""Rows on their way through a served model: two matrices in the order of a signature's columns.

In: nothing. Out: `Batch`, what every runtime computes on, and `Prediction`, what it answers. The form was chosen for
the hot path: a request of numbers becomes one matrix without a DataFrame, and ONNX takes exactly two inputs.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = slice | NDArray[np.intp]

ROWS_LIMIT = 10_000
"""Most rows in one request."""

UNLEARNED_ROWS = 4_096
"""At least so many are in what is sent or timed again and again. A processor learns which way the trees of a forest
branch on a hundred rows that it meets again in the same order, and then computes twice as many; of a thousand that
differ it remembers nothing."""

LARGEST = float(np.finfo(np.float32).max)
"""Largest number in a row: trees and ONNX compute in single precision, and have no answer beyond it."""

MISSING_TEXT = ""
"""What a hole in a category column becomes; an empty text is a hole too."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The raw columns of n rows.

    `numbers` is float64 of shape (n, number of numeric, boolean and date columns), in signature order, NaN where a
    value is missing; booleans are 0 and 1, dates are days since 1970-01-01 (UTC) with a fraction. `texts` is object of
    shape (n, number of category columns), holding `str`, `MISSING_TEXT` where a value is missing.
    """

    numbers: NDArray[np.float64]
    texts: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Rows) -> "Batch":
        """Some of the rows: a slice, or their positions, of which any may come again."""
        return Batch(self.numbers[rows], self.texts[rows])


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answers to n rows.

    For classification `probabilities` is float64 of shape (n, classes) in the order of the signature's classes, and
    `values` the index of the likeliest class; for regression `probabilities` is None and `values` the predictions.
    """

    values: NDArray[np.float64]
    probabilities: NDArray[np.float64] | None

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Of each row, whether its answer is a number; shape (n,)."""
        answers = self.values[:, None] if self.probabilities is None else self.probabilities
        return np.asarray(np.isfinite(answers).all(axis=1))

    def take(self, rows: Rows) -> "Prediction":
        """The answers to some of the rows."""
        return Prediction(self.values[rows], None if self.probabilities is None else self.probabilities[rows])
