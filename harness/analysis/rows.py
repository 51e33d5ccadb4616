"""Rows: drawing what has its names down the page, with dots or with bars beside them; the second room with matplotlib.

In: an empty figure with its title, and `drawable.Rows` or `drawable.Bars`. Out: the same figure, drawn. Parts of bars
differ in hatching where their colours are alike to some eyes; they stand in the same order in every bar and in the
legend, and what has room for it carries its length.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.analysis.drawable import GREY, PALETTE, Bar, Bars, Dot, Rows, shortened
from harness.units import Unit, format_bound, format_number

_BLUE, _VERMILION, _GREEN, _PINK, _BLACK = PALETTE
_WHITE = "#FFFFFF"

FILLS: tuple[dict[str, Any], ...] = (
    {"facecolor": GREY},
    {"facecolor": _BLUE},
    {"facecolor": _PINK, "hatch": "...."},
    {"facecolor": _VERMILION, "hatch": "\\\\\\\\"},
    {"facecolor": _WHITE, "hatch": "////"},
    {"facecolor": _GREEN},
    {"facecolor": _BLACK},
)
"""Of the parts in their order."""


def dots_height_in(picture: Rows) -> float:
    """What it needs below its title."""
    return 1.0 + 0.52 * len(picture.rows)


def draw_dots(figure: Figure, top: float, picture: Rows) -> None:
    """Draw it below `top` (0 to 1)."""
    count = len(picture.rows)
    bottom = 0.62 / figure.get_figheight()
    left, width = 0.27, 0.725 / len(picture.columns)
    for index, title in enumerate(picture.columns):
        axes = figure.add_axes((left + index * width, bottom, width - 0.045, top - bottom - 0.02))
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_xlabel(title, fontsize=9.5)
        axes.set_yticks(range(count))
        axes.tick_params(axis="y", length=0)
        axes.set_yticklabels([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.tick_params(axis="x", labelsize=8.5)
        if index == 0:
            axes.set_yticklabels(["\n".join(shortened(line, 30) for line in row.label) for row in picture.rows])
            for label, row in zip(axes.get_yticklabels(), picture.rows, strict=True):
                label.set_fontweight("bold" if row.bold else "normal")
                label.set_fontsize(9)
        _draw_dots(axes, [(row.dots[index], row.filled) for row in picture.rows])


def _draw_dots(axes: Axes, dots: Sequence[tuple[Dot, bool]]) -> None:
    known = [end for dot, _ in dots for end in (dot.value, dot.low, dot.high) if end is not None]
    if known:
        spread = max(known) - min(known) or abs(max(known)) or 1.0
        axes.set_xlim(min(known) - 0.12 * spread, max(known) + 0.14 * spread)
    else:
        axes.set_xlim(0, 1)
        axes.set_xticks([])
    start, end = axes.get_xlim()
    for place, (dot, filled) in enumerate(dots):
        if dot.value is None:
            axes.text(start + 0.03 * (end - start), place, dot.text, fontsize=8.5, va="center", color=GREY)
            continue
        if dot.low is not None and dot.high is not None:
            axes.plot([dot.low, dot.high], [place, place], color=PALETTE[0], linewidth=1.4, marker="|", markersize=7)
        axes.plot(
            [dot.value],
            [place],
            marker="o",
            markersize=8,
            color=PALETTE[0],
            markerfacecolor=PALETTE[0] if filled else "white",
            markeredgewidth=1.6,
        )
        axes.annotate(
            dot.text, (dot.value, place), xytext=(0, 7), textcoords="offset points", fontsize=8.5, ha="center"
        )


def bars_height_in(picture: Bars) -> float:
    """What it needs below its title."""
    return 1.15 + 0.46 * len(picture.bars)


def draw_bars(figure: Figure, top: float, picture: Bars) -> None:
    """Draw it below `top` (0 to 1)."""
    height = figure.get_figheight()
    legend_in = 0.34
    axes = figure.add_axes((0.27, 0.56 / height, 0.715, top - (0.56 + legend_in) / height))
    axes.set_ylim(len(picture.bars) - 0.5, -0.5)
    # Shares, with the whole beside them: by one scale for all, a cell that queues would leave nothing to see of others.
    axes.set_xlim(0, 1.16)  # with room for the text at the end
    for place, bar in enumerate(picture.bars):
        _draw_bar(axes, place, bar)
        axes.annotate(
            bar.text,
            (1.0, place),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=9,
            va="center",
            fontweight="bold" if bar.bold else "normal",
        )
    axes.set_xlabel(picture.x.title)
    axes.xaxis.set_major_formatter(lambda value, _: "0" if value == 0 else format_bound(value, picture.x.unit))
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(picture.bars)))
    axes.tick_params(axis="y", length=0)
    axes.set_yticklabels(["\n".join(shortened(line, 34) for line in bar.label) for bar in picture.bars])
    for label, bar in zip(axes.get_yticklabels(), picture.bars, strict=True):
        label.set_fontsize(9)
        label.set_fontweight("bold" if bar.bold else "normal")
    _name_parts(figure, top, picture.parts)


def _draw_bar(axes: Axes, place: int, bar: Bar) -> None:
    start = 0.0
    parts = [max(0.0, part) for part in bar.parts]  # rounding may leave a part of nothing a hair below
    for part, fill in zip(parts, FILLS, strict=False):
        share = part / sum(parts)
        axes.barh(place, share, left=start, height=0.62, linewidth=0.6, **_edged(fill))
        text = format_number(part, Unit.SECONDS)
        # As wide as its letters are: known before anything is drawn, and the same on every machine.
        if share > 0.0085 * (len(text) + 1) * axes.get_xlim()[1]:
            # On hatching letters need a ground of their own.
            hatched = "hatch" in fill
            ground = {"facecolor": _WHITE, "edgecolor": "none", "pad": 1.0} if hatched else None
            colour = _BLACK if hatched else _WHITE
            axes.text(start + share / 2, place, text, fontsize=8.5, ha="center", va="center", color=colour, bbox=ground)
        start += share


def _edged(fill: dict[str, Any]) -> dict[str, Any]:
    """Hatching has the colour of the edge."""
    return {**fill, "edgecolor": _BLACK if fill["facecolor"] == _WHITE else _WHITE}


def _name_parts(figure: Figure, top: float, names: Sequence[str]) -> None:
    shown = [Patch(linewidth=0.6, **_edged(fill)) for fill, _ in zip(FILLS, names, strict=False)]
    figure.legend(
        shown,
        list(names),
        loc="upper left",
        bbox_to_anchor=(0.004, top + 0.04 / figure.get_figheight()),
        ncols=len(names),
        frameon=False,
        fontsize=9,
        handlelength=1.6,
        columnspacing=1.3,
    )
