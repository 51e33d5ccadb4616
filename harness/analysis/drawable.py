"""Drawables: what a chart can be made of, as plain values.

In: nothing. Out: `Lines`, `Rows`, `Points`, `Ranks` and `Bars`, which `charts.draw` draws; and `shortened`, for names.
"""

from dataclasses import dataclass
from typing import TypeAlias

from harness.units import Unit

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")
GREY = "#595959"
"""Colours that reach a contrast of 3:1 on white."""

MOST_LINES = 8
"""More named lines on one axis cannot be told apart."""

MOST_BARS = 12
"""More do not fit a page beside their names."""

LABEL_LIMIT = 36


@dataclass(frozen=True, slots=True)
class Axis:
    """What runs along an axis, in base units."""

    title: str
    unit: Unit
    log: bool = False
    nines: bool = False
    """Values are shares, spaced by their distance to 1."""


@dataclass(frozen=True, slots=True)
class Line:
    """A named line through measured points; intervals and hollow points are given per point, or not at all."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: int
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    hollow: tuple[bool, ...] = ()
    companion: bool = False
    """Belongs to the named line of the same style: drawn thin, without a name."""
    stairs: bool = False
    """Holds its value until the next point."""
    band: bool = False
    """The intervals are one band, not a bar at each point."""
    markers: int | None = None
    """Markers on about this many points; None: on each."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines on one pair of axes; `rule` is a named horizontal line."""

    key: str
    title: str
    description: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    rule: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval; `text` stands beside it, alone where there is no value."""

    value: float | None
    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One name, in lines, with a dot per column."""

    label: tuple[str, ...]
    dots: tuple[Dot, ...]
    filled: bool
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Names down, columns across: several measures of the same things, each on its own axis."""

    key: str
    title: str
    description: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A named point of a panel; the name is told once for all panels, by `style`."""

    label: str
    x: float
    y: float
    style: int
    filled: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Points over one axis: those that are filled are joined."""

    x: Axis
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Points:
    """Panels side by side that share the axis upwards."""

    key: str
    title: str
    description: str
    y: Axis
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Ranks:
    """Average ranks on a line, bars below it over those that nothing separates, and how far apart would be enough."""

    key: str
    title: str
    description: str
    ranks: tuple[tuple[str, float], ...]
    groups: tuple[tuple[str, ...], ...]
    difference: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One name, in lines, with the lengths of its parts and the text at its end."""

    label: tuple[str, ...]
    parts: tuple[float, ...]
    text: str
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars below one another, each of the same parts in the same order, drawn as shares of it."""

    key: str
    title: str
    description: str
    x: Axis
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]


Picture: TypeAlias = Lines | Rows | Points | Ranks | Bars


def shortened(text: str, limit: int = LABEL_LIMIT) -> str:
    """A name that fits its place: what is too long loses its middle, for names differ at their ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"
