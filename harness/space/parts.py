"""What the steps after a pipeline's first one see of a batch: numbers, with dates taken apart, and texts.

In: a `Batch`. Out: two matrices and the names of their columns. The arithmetic is the same for training and for every
runtime, and needs numpy alone: a server that computes with ONNX starts without pandas and scikit-learn.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.records.candidate import Column
from harness.records.rows import Batch

DATE_PARTS = ("days", "year", "month", "day", "weekday", "hour")
"""What a date column becomes: days since 1970-01-01 with a fraction, and parts of its calendar date (UTC)."""

_DAY = 86_400_000_000
_HOUR = _DAY // 24
"""In microseconds."""


def model_inputs(columns: Sequence[Column]) -> Callable[[Batch], tuple[NDArray[np.float64], NDArray[np.object_]]]:
    """What the steps after `RawColumns` see of a batch of these columns: numbers of shape (n, k), with dates as parts,
    and texts of shape (n, m).
    """
    kinds = [column.kind for column in columns if column.kind != "category"]

    def as_they_are(batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
        return batch.numbers, batch.texts

    def with_parts(batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
        parts = [
            _date_parts(values) if kind == "date" else values[:, None]
            for kind, values in zip(kinds, batch.numbers.T, strict=True)
        ]
        return np.hstack(parts), batch.texts

    return with_parts if "date" in kinds else as_they_are


def model_columns(columns: Sequence[Column]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the columns of both outputs of `model_inputs`."""
    numbers: list[str] = []
    for column in columns:
        if column.kind == "date":
            numbers += [f"{column.name}.{part}" for part in DATE_PARTS]
        elif column.kind != "category":
            numbers.append(column.name)
    return tuple(numbers), tuple(column.name for column in columns if column.kind == "category")


def microseconds(days: NDArray[np.float64]) -> NDArray[np.int64]:
    """Days since 1970-01-01 as whole microseconds; 0 where they are missing."""
    given = np.where(np.isnan(days), 0.0, days)
    # The whole days apart: their product with the length of a day is beyond what a float counts one by one.
    whole = np.floor(given)
    past_midnight: NDArray[np.int64] = np.rint((given - whole) * _DAY).astype(np.int64)
    return whole.astype(np.int64) * _DAY + past_midnight


def _date_parts(days: NDArray[np.float64]) -> NDArray[np.float64]:
    missing = np.isnan(days)
    # Before 1790 and after 2149 neighbouring floats are more than a microsecond apart, and a full hour may be the float
    # below itself: half that distance later it is the hour that was meant.
    doubt = np.rint(np.spacing(np.abs(np.where(missing, 0.0, days))) / 2 * _DAY).astype(np.int64)
    whole, rest = np.divmod(microseconds(days) + doubt, _DAY)
    date = whole.astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    year = date.astype("datetime64[Y]")
    parts = np.column_stack(
        [
            days,
            year.astype(np.int64) + 1970,
            (month - year).astype(np.int64) + 1,
            (date - month).astype(np.int64) + 1,
            (whole + 3) % 7,  # 1970-01-01 was a Thursday; Monday is 0
            rest // _HOUR,
        ]
    )
    parts[missing] = np.nan
    return parts
