"""Units: how a number in base units (seconds, bytes, requests per second) is printed, and what a text may hold.

In: floats in base units, or any text. Out: texts with three significant digits and a prefix, or fit for XML; counts of
things, and lists of names. Scaling happens here and nowhere else.
"""

import math
import re
from collections.abc import Sequence
from enum import StrEnum


class Unit(StrEnum):
    """What a number counts. The value is the suffix that field names carry."""

    SECONDS = "s"
    BYTES = "bytes"
    RPS = "rps"
    TRIALS = "trials_per_s"
    SHARE = "share"
    COUNT = "count"
    SCORE = "score"
    RANK = "rank"
    RATIO = "ratio"


MISSING = "n/a"

_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
_SECOND_STEPS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTE_STEPS = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def format_number(value: float | None, unit: Unit) -> str:
    """`value` (in base units, or None where it is not known) for a human reader.

    >>> format_number(0.01234, Unit.SECONDS), format_number(1536, Unit.BYTES), format_number(0.97251, Unit.SCORE)
    ('12.3 ms', '1.50 KiB', '0.9725')
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "-inf" if value < 0 else "inf"
    match unit:
        case Unit.SECONDS:
            return _scaled(value, _SECOND_STEPS)
        case Unit.BYTES:
            return _scaled(value, _BYTE_STEPS)
        case Unit.RPS:
            return f"{_three_digits(value)} req/s"
        case Unit.TRIALS:
            return f"{_three_digits(value)} trials/s"
        case Unit.SHARE:
            return f"{_three_digits(100 * value)} %"
        case Unit.COUNT:
            return f"{value:,.0f}"
        case Unit.RANK:
            return f"{value:.2f}"
        case Unit.RATIO:
            return f"{_three_digits(value)} ×"
        case Unit.SCORE:
            return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 10 else _three_digits(value)


def format_bound(value: float, unit: Unit) -> str:
    """As `format_number`, without the zeros that tell a measured figure's precision: somebody wrote this one down.

    >>> format_bound(0.05, Unit.SECONDS), format_bound(0.9, Unit.SCORE), format_bound(400, Unit.RPS)
    ('50 ms', '0.9', '400 req/s')
    """
    number, space, name = format_number(value, unit).partition(" ")
    if "." in number and "e" not in number:
        number = number.rstrip("0").rstrip(".")
    return number + space + name


def counted(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def joined(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def xml_text(text: str) -> str:
    """`text` without what XML 1.0 has no place for, escaped or not; a server's last words may hold control characters.

    >>> xml_text("over and out\x07") == "over and out\N{REPLACEMENT CHARACTER}"
    True
    """
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    magnitude = abs(value)
    # 0.9995 of a step would print as 1,000 of the smaller one.
    size, name = next((step for step in steps if magnitude >= 0.9995 * step[0]), steps[-1])
    return f"{_three_digits(value / size)} {name}"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    if magnitude == 0:
        return "0"
    if magnitude >= 99.95:
        return f"{value:,.0f}"
    if magnitude >= 9.995:
        return f"{value:.1f}"
    if magnitude >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"
