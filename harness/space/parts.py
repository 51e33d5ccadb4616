"""What the steps after a pipeline's first one see of a batch: numbers, with dates taken apart, and texts.

In: a `Batch`. Out: two matrices and the names of their columns. The arithmetic is the same for training and for every
runtime, and needs numpy alone: a server that computes with ONNX starts without pandas and scikit-learn.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.records.candidate import Column
from harness.records.rows import Batch

DATE_PARTS = ("days", "year", "month", "day", "weekday", "hour")
"""What a date column becomes: days since 1970-01-01 with a fraction, and parts of its calendar date (UTC)."""


def model_inputs(batch: Batch, columns: Sequence[Column]) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """What the steps after `RawColumns` see: numbers of shape (n, k) with dates as parts, and texts of shape (n, m)."""
    kinds = [column.kind for column in columns if column.kind != "category"]
    if "date" not in kinds:
        return batch.numbers, batch.texts
    parts = [
        _date_parts(values) if kind == "date" else values[:, None]
        for kind, values in zip(kinds, batch.numbers.T, strict=True)
    ]
    return np.hstack(parts), batch.texts


def model_columns(columns: Sequence[Column]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the columns of both outputs of `model_inputs`."""
    numbers: list[str] = []
    for column in columns:
        if column.kind == "date":
            numbers += [f"{column.name}.{part}" for part in DATE_PARTS]
        elif column.kind != "category":
            numbers.append(column.name)
    return tuple(numbers), tuple(column.name for column in columns if column.kind == "category")


def _date_parts(days: NDArray[np.float64]) -> NDArray[np.float64]:
    missing = np.isnan(days)
    whole = np.floor(np.where(missing, 0.0, days))
    date = whole.astype(np.int64).astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    year = date.astype("datetime64[Y]")
    parts = np.column_stack(
        [
            days,
            year.astype(np.int64) + 1970.0,
            (month - year).astype(np.int64) + 1.0,
            (date - month).astype(np.int64) + 1.0,
            (whole.astype(np.int64) + 3) % 7,  # 1970-01-01 was a Thursday; Monday is 0
            np.floor((days - whole) * 24),
        ]
    )
    parts[missing] = np.nan
    return parts
