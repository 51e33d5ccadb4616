"""One tensor of the Open Inference Protocol v2 in JSON: a name, a datatype, a shape and data.

In: a tensor as a client stated it, with the column it is for; or the values of a column. Out: the values, checked; or
the list that JSON holds. `BadRequestError` names the tensor and what is wrong with it.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records.candidate import Column
from harness.records.rows import LARGEST, MISSING_TEXT, ROWS_LIMIT

_INTEGER_LIMITS = {"INT32": 2**31, "INT64": 2**63}
DATATYPES = {
    "number": ("FP64", "FP32", *_INTEGER_LIMITS),
    "boolean": ("BOOL",),
    "category": ("BYTES",),
    "date": ("BYTES",),
}
"""What a column of each kind may travel as; the first is what we send."""

_NUMBER_TYPES = {float, int, type(None)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_MICROSECONDS = np.int64(86_400_000_000)
_SHOWN = 60


class BadRequestError(ValueError):
    """A body that is not a request this model can answer; the text is one line for the client."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        """What is wrong: an input's name, or a place such as `inputs`."""


def encoded(column: Column, values: NDArray[Any]) -> list[Any]:
    """What JSON holds for the values of one column. Raises ValueError on a date outside the years 1 to 9999."""
    given: list[Any] = values.tolist()
    match column.kind:
        case "number":
            return given
        case "boolean":
            return [None if value != value else bool(value) for value in given]
        case "date":
            return [None if value != value else _iso_8601(column.name, value) for value in given]
        case "category":
            return [None if value == MISSING_TEXT else value for value in given]


def row_count(name: str, given: dict[str, Any]) -> int:
    """The rows that a tensor of one column states, as shape [rows] or [rows, 1]. Raises BadRequestError."""
    shape = _shape(name, given)
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise BadRequestError(name, f"shape must be [rows] or [rows, 1], not {shown(shape)}")
    return _checked_count(name, shape[0])


def column_values(column: Column, given: dict[str, Any], count: int) -> NDArray[Any]:
    """The values of one column, shape (count,), as `Batch` holds them. Raises BadRequestError."""
    name = column.name
    datatype = _datatype(name, given, column.kind)
    data = _data(name, given, count, 1)
    match column.kind:
        case "number":
            return _numbers(name, datatype, data)
        case "boolean":
            _check_types(name, data, {bool, type(None)}, "true, false or null")
            return np.array(data, dtype=np.float64)
        case "date":
            return _days(name, data)
        case "category":
            return _texts(name, data)


def matrix(name: str, given: dict[str, Any], width: int) -> NDArray[np.float64]:
    """The numbers of a tensor of shape [rows, width]. Raises BadRequestError."""
    shape = _shape(name, given)
    if len(shape) != 2 or shape[1] != width:
        raise BadRequestError(name, f"shape must be [rows, {width}], not {shown(shape)}")
    count = _checked_count(name, shape[0])
    datatype = _datatype(name, given, "number")
    return _numbers(name, datatype, _data(name, given, count, width)).reshape(count, width)


def shown(value: object) -> str:
    """A client's value in a message: one line, and not a long one."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _iso_8601(name: str, days: float) -> str:
    # The whole days apart: their product with the length of a day is beyond what a float counts one by one.
    whole = math.floor(days)
    try:
        return (_EPOCH + timedelta(whole, 0, round((days - whole) * int(_DAY_MICROSECONDS)))).isoformat()
    except OverflowError as error:
        raise ValueError(
            f"{name}: day {days:g} since 1970-01-01 has no ISO 8601 form in the years 1 to 9999"
        ) from error


def _shape(name: str, given: dict[str, Any]) -> list[int]:
    shape = given.get("shape")
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise BadRequestError(name, f"shape must be a list of whole numbers, not {shown(shape)}")
    return shape


def _checked_count(name: str, count: int) -> int:
    if not 1 <= count <= ROWS_LIMIT:
        raise BadRequestError(name, f"must have between 1 and {ROWS_LIMIT:,} rows, not {count:,}")
    return count


def _datatype(name: str, given: dict[str, Any], kind: str) -> str:
    datatype = given.get("datatype")
    if type(datatype) is not str or datatype not in DATATYPES[kind]:
        raise BadRequestError(name, f"datatype must be {' or '.join(DATATYPES[kind])}, not {shown(datatype)}")
    return datatype


def _data(name: str, given: dict[str, Any], count: int, width: int) -> list[Any]:
    """The flat values, row by row; the protocol allows them nested by row too."""
    data = given.get("data")
    if type(data) is not list:
        raise BadRequestError(name, f"data must be a list, not {shown(data)}")
    if data and type(data[0]) is list:
        if len(data) != count or not all(type(row) is list and len(row) == width for row in data):
            raise BadRequestError(name, f"data must be {count} rows of {width} values, as its shape says")
        return [value for row in data for value in row]
    if len(data) != count * width:
        raise BadRequestError(name, f"data has {len(data):,} values where its shape says {count * width:,}")
    return data


def _numbers(name: str, datatype: str, data: list[Any]) -> NDArray[np.float64]:
    _check_types(name, data, _NUMBER_TYPES, "numbers or null")
    limit = _INTEGER_LIMITS.get(datatype)
    if limit is not None:
        wrong = next(
            (value for value in data if value is not None and (type(value) is not int or not -limit <= value < limit)),
            None,
        )
        if wrong is not None:
            raise BadRequestError(name, f"{shown(wrong)} is no {datatype}")
    values = np.array(data, dtype=np.float64)  # None becomes NaN
    if (np.abs(values) > LARGEST).any():
        raise BadRequestError(name, f"has a number beyond ±{LARGEST:.4g}, the range of 32-bit floats")
    return values


def _days(name: str, data: list[Any]) -> NDArray[np.float64]:
    _check_types(name, data, {str, type(None)}, "ISO 8601 texts or null")
    microseconds = np.zeros(len(data), dtype=np.int64)
    missing = np.zeros(len(data), dtype=bool)
    for place, text in enumerate(data):
        if text is None:
            missing[place] = True
            continue
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise BadRequestError(name, f"{shown(text)} is no ISO 8601 date") from error
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        microseconds[place] = (moment - _EPOCH) // _MICROSECOND
    return np.where(missing, np.nan, microseconds / _DAY_MICROSECONDS)


def _texts(name: str, data: list[Any]) -> NDArray[np.object_]:
    _check_types(name, data, {str, type(None)}, "texts or null")
    values = np.empty(len(data), dtype=object)
    values[:] = [MISSING_TEXT if text is None else text for text in data]
    return values


def _check_types(name: str, data: list[Any], allowed: set[type], words: str) -> None:
    # `bool` is an `int` to isinstance, and NumPy reads "1.5" as a number: the exact types are what counts.
    if not set(map(type, data)) <= allowed:
        place, wrong = next((place, value) for place, value in enumerate(data) if type(value) not in allowed)
        raise BadRequestError(name, f"data must be {words}; value {place} is {shown(wrong)}")
