"""One tensor of the Open Inference Protocol v2: a name, a datatype, a shape, and data in JSON or in bytes behind it.

In: a `Tensor` as a client stated it, with the column it is for; or the values of a column. Out: the values, checked; or
the list that JSON holds. `BadRequestError` names the tensor and what is wrong with it.

Source: https://github.com/kserve/open-inference-protocol (`inference_rest.yaml`), and for bytes Triton's "binary tensor
data extension": little-endian, row by row, and before each text its length in four bytes. A missing value, which the
protocol has no word for, is `null` in JSON, and in bytes NaN or an empty text.
"""

import math
import reprlib
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.records.candidate import Column
from harness.records.rows import LARGEST, MISSING_TEXT
from harness.serving.limits import Limits

_WIDTHS = (8, 16, 32, 64)
_INTEGER_LIMITS = {f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1)) for bits in _WIDTHS} | {
    f"UINT{bits}": (0, 2**bits) for bits in _WIDTHS
}
DATATYPES = {
    "number": ("FP64", "FP32", "FP16", *_INTEGER_LIMITS),
    "boolean": ("BOOL",),
    "category": ("BYTES",),
    "date": ("BYTES",),
}
"""What a column of each kind may travel as; the first is what we send."""

_IN_BYTES = {name: np.dtype(f"<{name[0].lower()}{int(name[-2:]) // 8}") for name in ("FP64", "FP32", "FP16")} | {
    f"{sign}INT{bits}": np.dtype(f"<{kind}{bits // 8}") for sign, kind in (("", "i"), ("U", "u")) for bits in _WIDTHS
}
_LENGTH = struct.Struct("<I")

_NUMBER_TYPES = {float, int, type(None)}
_FLOATS = {float, int}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_MICROSECONDS = np.int64(86_400_000_000)
_SHOWN = 60
_FEW = 64


class _Brief(reprlib.Repr):
    """Python's own `repr` takes time for all of a large value, and fails on one as deep as JSON may be."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxstring = 2, 20, 2 * _SHOWN

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return "{...}" if x else "{}"  # the library's own sorts all keys, to show four


_BRIEF = _Brief()


class BadRequestError(ValueError):
    """A body that is not a request this model can answer; the text is one line for the client."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        """What is wrong: an input's name, or a place such as `inputs`."""


class Tensor(NamedTuple):
    """What a client stated. A tuple: to make a frozen dataclass takes thrice as long, and each request makes some."""

    name: str
    stated: dict[str, Any]
    """The JSON object."""
    raw: memoryview | None = None
    """Its data, where that came behind the JSON."""


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


def row_count(tensor: Tensor, limits: Limits) -> int:
    """The rows that a tensor of one column states, as shape [rows] or [rows, 1]. Raises BadRequestError."""
    shape = _shape(tensor)
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise BadRequestError(tensor.name, f"shape must be [rows] or [rows, 1], not {shown(shape)}")
    return _checked_count(tensor.name, shape[0], limits)


def column_values(column: Column, tensor: Tensor, count: int, limits: Limits) -> NDArray[Any]:
    """The values of one column, shape (count,), as `Batch` holds them. Raises BadRequestError."""
    datatype = _datatype(tensor, column.kind)
    if tensor.raw is not None:
        return _values_in_bytes(column, datatype, tensor.raw, count, limits)
    name, data = column.name, _data(tensor, count, 1)
    match column.kind:
        case "number":
            return _numbers(name, datatype, data)
        case "boolean":
            _check_types(name, data, {bool, type(None)}, "true, false or null")
            return np.array(data, dtype=np.float64)
        case "date":
            return _days(name, _checked_texts(name, data, "ISO 8601 texts or null", limits))
        case "category":
            return _texts(_checked_texts(name, data, "texts or null", limits))


def matrix(tensor: Tensor, width: int, limits: Limits) -> NDArray[np.float64]:
    """The numbers of a tensor of shape [rows, width]. Raises BadRequestError."""
    name, shape = tensor.name, _shape(tensor)
    if len(shape) != 2 or shape[1] != width:
        raise BadRequestError(name, f"shape must be [rows, {width}], not {shown(shape)}")
    count = _checked_count(name, shape[0], limits)
    datatype = _datatype(tensor, "number")
    if tensor.raw is not None:
        return _numbers_in_bytes(name, datatype, tensor.raw, count * width).reshape(count, width)
    return _numbers(name, datatype, _data(tensor, count, width)).reshape(count, width)


def text_in_bytes(text: str) -> bytes:
    """A text as the binary tensor extension has it."""
    encoded_text = text.encode()
    return _LENGTH.pack(len(encoded_text)) + encoded_text


def shown(value: object) -> str:
    """A client's value in a message: one line, and not a long one."""
    text = _BRIEF.repr(value)
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


def _shape(tensor: Tensor) -> list[int]:
    shape = tensor.stated.get("shape")
    if type(shape) is list:
        for size in shape:
            if type(size) is not int or size < 0:
                break
        else:
            return shape
    raise BadRequestError(tensor.name, f"shape must be a list of whole numbers, not {shown(shape)}")


def _checked_count(name: str, count: int, limits: Limits) -> int:
    if count < 1 or count > limits.rows:
        raise BadRequestError(name, f"must have between 1 and {limits.rows:,} rows, not {shown(count)}")
    return count


def _datatype(tensor: Tensor, kind: str) -> str:
    datatype = tensor.stated.get("datatype")
    if type(datatype) is not str or datatype not in DATATYPES[kind]:
        known = DATATYPES[kind]
        told = known[0] if len(known) == 1 else f"{', '.join(known[:-1])} or {known[-1]}"
        raise BadRequestError(tensor.name, f"datatype must be {told}, not {shown(datatype)}")
    return datatype


def _data(tensor: Tensor, count: int, width: int) -> list[Any]:
    """The flat values, row by row; the protocol allows them nested by row too."""
    name, data = tensor.name, tensor.stated.get("data")
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
    if len(data) <= _FEW and datatype not in _INTEGER_LIMITS and _FLOATS.issuperset(map(type, data)):
        # NumPy's way to compare takes some microseconds however few they are.
        if max(data) > LARGEST or min(data) < -LARGEST:
            raise _out_of_range(name)
        return np.array(data, dtype=np.float64)
    _check_types(name, data, _NUMBER_TYPES, "numbers or null")
    if datatype in _INTEGER_LIMITS:
        low, high = _INTEGER_LIMITS[datatype]
        wrong = next(
            (value for value in data if value is not None and (type(value) is not int or not low <= value < high)), None
        )
        if wrong is not None:
            raise BadRequestError(name, f"{shown(wrong)} is no {datatype}")
    return _in_range(name, np.array(data, dtype=np.float64))  # None becomes NaN


def _numbers_in_bytes(name: str, datatype: str, raw: memoryview, count: int) -> NDArray[np.float64]:
    kind = _IN_BYTES[datatype]
    _check_size(name, raw, count * kind.itemsize)
    given = np.frombuffer(raw, kind)
    # In place of a copy where there is nothing to convert; whoever computes on it does not write into it.
    return _in_range(name, given.astype(np.float64, copy=False))


def _in_range(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    # Of holes both comparisons are false, so they are in range.
    if (values > LARGEST).any() or (values < -LARGEST).any():
        raise _out_of_range(name)
    return values


def _out_of_range(name: str) -> BadRequestError:
    return BadRequestError(name, f"has a number beyond ±{LARGEST:.4g}, the range of 32-bit floats")


def _values_in_bytes(column: Column, datatype: str, raw: memoryview, count: int, limits: Limits) -> NDArray[Any]:
    name = column.name
    match column.kind:
        case "number":
            return _numbers_in_bytes(name, datatype, raw, count)
        case "boolean":
            _check_size(name, raw, count)
            values = np.frombuffer(raw, np.uint8)
            if (values > 1).any():
                raise BadRequestError(name, "has a byte that is neither 0 nor 1")
            return values.astype(np.float64)
        case "date":
            texts = list(_read_texts(name, raw, count, limits))
            return _days(name, [text or None for text in texts])
        case "category":
            return _texts(list(_read_texts(name, raw, count, limits)))


def _check_size(name: str, raw: memoryview, size_bytes: int) -> None:
    if len(raw) != size_bytes:
        raise BadRequestError(name, f"has {len(raw):,} bytes of data where shape and datatype say {size_bytes:,}")


def _read_texts(name: str, raw: memoryview, count: int, limits: Limits) -> Iterator[str]:
    at = 0
    for place in range(count):
        begin = at + _LENGTH.size
        length = _LENGTH.unpack_from(raw, at)[0] if begin <= len(raw) else 0
        at = begin + length
        if at > len(raw):
            raise BadRequestError(name, f"its bytes end within text {place} of {count:,}")
        try:
            text = str(raw[begin:at], "utf-8")
        except UnicodeDecodeError:
            raise BadRequestError(name, f"text {place} is not UTF-8") from None
        _check_length(name, text, limits)
        yield text
    if at != len(raw):
        raise BadRequestError(name, f"has {len(raw) - at:,} bytes after the last of {count:,} texts")


def _days(name: str, data: list[Any]) -> NDArray[np.float64]:
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


def _texts(data: list[Any]) -> NDArray[np.object_]:
    values = np.empty(len(data), dtype=object)
    values[:] = [MISSING_TEXT if text is None else text for text in data]
    return values


def _checked_texts(name: str, data: list[Any], words: str, limits: Limits) -> list[Any]:
    _check_types(name, data, {str, type(None)}, words)
    _check_length(name, max((text for text in data if text is not None), key=len, default=""), limits)
    return data


def _check_length(name: str, text: str, limits: Limits) -> None:
    if len(text) > limits.text_characters:
        raise BadRequestError(
            name, f"has a text of {len(text):,} characters, and at most {limits.text_characters:,} are taken"
        )


def _check_types(name: str, data: list[Any], allowed: set[type], words: str) -> None:
    # `bool` is an `int` to isinstance, and NumPy reads "1.5" as a number: the exact types are what counts.
    if not set(map(type, data)) <= allowed:
        place, wrong = next((place, value) for place, value in enumerate(data) if type(value) not in allowed)
        raise BadRequestError(name, f"data must be {words}; value {place} is {shown(wrong)}")
