"""From raw columns to what an estimator sees, and from a table to the batches that travel to a server.

In: a DataFrame of raw columns, or a `Batch`. Out: the other of the two, and `RawColumns`, the first step of every
pipeline, which takes dates apart. What follows it (imputing, scaling, encoding, the model) converts to ONNX whole.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from harness.records.candidate import Column
from harness.records.rows import MISSING_TEXT, Batch
from harness.records.words import ColumnKind
from harness.space.parts import microseconds, model_columns, model_inputs

_DAY = np.timedelta64(86_400_000_000, "us")


def to_batch(frame: pd.DataFrame, columns: Sequence[Column]) -> Batch:
    """The rows of a frame that holds the raw `columns` (others are ignored), in signature order."""
    numbers = [_number(frame[column.name], column) for column in columns if column.kind != "category"]
    texts = [_text(frame[column.name]) for column in columns if column.kind == "category"]
    return Batch(
        numbers=np.column_stack(numbers) if numbers else np.empty((len(frame), 0)),
        texts=np.column_stack(texts) if texts else np.empty((len(frame), 0), dtype=object),
    )


def to_frame(batch: Batch, columns: Sequence[Column]) -> pd.DataFrame:
    """The raw columns of a batch, as `to_batch` would take them."""
    numbers = iter(batch.numbers.T)
    texts = iter(batch.texts.T)
    return pd.DataFrame(
        {column.name: next(texts) if column.kind == "category" else _raw(next(numbers), column) for column in columns}
    )


class RawColumns(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """First step of every pipeline: raw columns in, a frame of numbers, then texts, out.

    `names` and `kinds` are the columns of the signature, as plain lists: skops stores them without our classes.
    """

    def __init__(self, names: Sequence[str], kinds: Sequence[ColumnKind]) -> None:
        self.names = names
        self.kinds = kinds

    def fit(self, frame: pd.DataFrame, target: Any = None) -> Self:
        """Nothing is learned here; what learns comes after."""
        self.fitted_ = True
        return self

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The model's columns of a frame of raw ones."""
        columns = [
            Column.model_construct(name=name, kind=kind) for name, kind in zip(self.names, self.kinds, strict=True)
        ]
        number_names, text_names = model_columns(columns)
        numbers, texts = model_inputs(columns)(to_batch(frame, columns))
        # Side by side, not column by column: the part of a date may be called as another column is.
        return pd.concat(
            [
                pd.DataFrame(numbers, columns=list(number_names), index=frame.index),
                pd.DataFrame(texts, columns=list(text_names), index=frame.index, dtype=object),
            ],
            axis=1,
        )


def _number(series: "pd.Series[Any]", column: Column) -> NDArray[np.float64]:
    if column.kind == "date":
        dates = pd.to_datetime(series, utc=True, format=None if series.dtype.kind == "M" else "ISO8601").to_numpy(
            dtype="datetime64[us]"
        )
        days = dates.astype(np.int64) / _DAY.astype(np.int64)
        return np.where(np.isnat(dates), np.nan, days)
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _text(series: "pd.Series[Any]") -> NDArray[np.object_]:
    return series.astype(object).where(series.notna(), MISSING_TEXT).map(str).to_numpy(dtype=object)


def _raw(values: NDArray[Any], column: Column) -> Any:
    if column.kind == "date":
        moments = microseconds(values).astype("datetime64[us]")
        return pd.to_datetime(np.where(np.isnan(values), np.datetime64("NaT", "us"), moments))
    return values
