"""Drawing: with `rows` the only room that knows matplotlib.

In: pictures as data (`drawable`). Out: `Chart`, as SVG and PNG. The same picture gives the same bytes. Colours are
those of the Okabe-Ito palette that reach a contrast of 3:1 on white, and nothing is told by colour alone: lines differ
in marker and dash too and carry their name at their end. Text is black and stays text in the SVG.
"""

import html
import io
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from harness.analysis.drawable import (
    GREY,
    PALETTE,
    Axis,
    Bars,
    Line,
    Lines,
    Picture,
    Points,
    Ranks,
    Rows,
    shortened,
)
from harness.analysis.rows import bars_height_in, dots_height_in, draw_bars, draw_dots
from harness.records.finding import Chart
from harness.units import Unit, format_bound, xml_text

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

_WIDTH_IN = 9.0
_DPI = 144

_STYLE: Any = {
    "svg.hashsalt": "harness",
    "svg.fonttype": "none",
    # A candidate's or a column's name may hold a dollar sign.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#000000",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "#000000",
    "ytick.labelcolor": "#000000",
}


def draw(picture: Picture) -> Chart:
    """The picture as a chart."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A name may hold characters that the font lacks: the picture shows boxes, the SVG leaves them to the reader.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        match picture:
            case Lines():
                figure = _draw_lines(picture)
            case Rows():
                figure, top = _figure(picture.title, dots_height_in(picture))
                draw_dots(figure, top, picture)
            case Points():
                figure = _draw_points(picture)
            case Ranks():
                figure = _draw_ranks(picture)
            case Bars():
                figure, top = _figure(picture.title, bars_height_in(picture))
                draw_bars(figure, top, picture)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    return Chart(picture.key, picture.title, picture.description, _own_ids(svg.getvalue(), picture), png.getvalue())


def _own_ids(svg: bytes, picture: Picture) -> bytes:
    """The SVG alone, its ids made unique so that several can stand in one page, named for screen readers."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    prefix = re.sub(r"[^a-z0-9]+", "-", picture.key.lower())

    def inside_a_tag(tag: re.Match[str]) -> str:
        return re.sub(r' id="|href="#|url\(#', lambda found: found[0] + prefix + "-", tag[0])

    head, tag, body = re.sub(r"<[^>]*>", inside_a_tag, text).partition(">")
    head = head.replace("<svg", f'<svg role="img" aria-labelledby="{prefix}-title {prefix}-description"', 1)
    named = f'<title id="{prefix}-title">{html.escape(picture.title)}</title>'
    described = f'<desc id="{prefix}-description">{html.escape(picture.description)}</desc>'
    return xml_text(f"{head}{tag}{named}{described}{body}").encode()


def _figure(title: str, height_in: float) -> tuple[Figure, float]:
    """An empty figure with its title, and the height (0 to 1) below the title."""
    lines = textwrap.wrap(title, 92) or [""]
    height = height_in + 0.22 * len(lines)
    figure = Figure(figsize=(_WIDTH_IN, height))
    FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.1 / height, "\n".join(lines), ha="left", va="top", fontsize=11.5, fontweight="bold")
    return figure, 1 - (0.22 * len(lines) + 0.2) / height


def _draw_lines(picture: Lines) -> Figure:
    figure, top = _figure(picture.title, 4.2)
    axes = figure.add_axes((0.1, 0.14, 0.86, top - 0.14))
    for line in picture.lines:
        _draw_line(axes, line, picture.x)
    if picture.rule is not None:
        value, name = picture.rule
        axes.axhline(value, color="#000000", linewidth=1.2, linestyle=(0, (6, 2)))
        axes.annotate(
            name,
            (0, value),
            xycoords=("axes fraction", "data"),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        )
    _scale(axes, picture.x, "x", [x for line in picture.lines for x in line.x])
    _scale(axes, picture.y, "y", [y for line in picture.lines for y in line.y])
    _name_lines(figure, axes, [line for line in picture.lines if not line.companion], picture.x)
    return figure


def _draw_line(axes: Axes, line: Line, x_axis: Axis) -> None:
    colour, marker = PALETTE[line.style % len(PALETTE)], MARKERS[line.style % len(MARKERS)]
    x = [_nines(value) for value in line.x] if x_axis.nines else list(line.x)
    every = None if line.markers is None else max(1, len(x) // line.markers)
    axes.plot(
        x,
        line.y,
        color=colour,
        linewidth=1.0 if line.companion else 1.8,
        linestyle=":" if line.companion else DASHES[line.style % len(DASHES)],
        drawstyle="steps-post" if line.stairs else "default",
        marker=None if line.hollow else marker,
        markersize=3.5 if line.companion else 5.5,
        markevery=every,
    )
    for hollow in (False, True):
        points = [(a, b) for a, b, is_hollow in zip(x, line.y, line.hollow, strict=False) if is_hollow is hollow]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                linestyle="none",
                marker=marker,
                markersize=3.5 if line.companion else 6.5,
                color=colour,
                markerfacecolor="white" if hollow else colour,
                zorder=3,
            )
    if line.band:
        least, most = ([end or 0.0 for end in ends] for ends in (line.low, line.high))
        axes.fill_between(x, least, most, step="post" if line.stairs else None, color=colour, alpha=0.13, linewidth=0)
        return
    for a, low, high in zip(x, line.low, line.high, strict=False):
        if low is not None and high is not None:
            axes.plot([a, a], [low, high], color=colour, linewidth=1.1, marker="_", markersize=6)


def _name_lines(figure: Figure, axes: Axes, lines: Sequence[Line], x_axis: Axis) -> None:
    """Write each line's name right of the axes, as close to its end as the other names allow."""
    if not lines:
        return
    texts = [
        figure.text(0, 0, shortened(line.label), fontsize=9, va="center", ha="left", color="#000000") for line in lines
    ]
    widest = max(text.get_window_extent().width for text in texts) / (figure.get_figwidth() * figure.dpi)
    tick_width = max((label.get_window_extent().width for label in axes.get_yticklabels()), default=0.0) / (
        figure.get_figwidth() * figure.dpi
    )
    box = axes.get_position()
    left = tick_width + 0.05
    axes.set_position((left, box.y0, 1 - left - widest - 0.065, box.height))
    box = axes.get_position()
    ends = []
    for line in lines:
        x = _nines(line.x[-1]) if x_axis.nines else line.x[-1]
        shown = figure.transFigure.inverted().transform(axes.transData.transform((x, line.y[-1])))
        ends.append((float(shown[0]), float(shown[1])))
    gap = 0.2 / figure.get_figheight()
    places = _spread([y for _, y in ends], gap, box.y0, box.y1)
    for line, text, (x, y), place in zip(lines, texts, ends, places, strict=True):
        colour = PALETTE[line.style % len(PALETTE)]
        text.set_position((box.x1 + 0.045, place))
        figure.add_artist(Line2D([x, box.x1 + 0.012, box.x1 + 0.026], [y, place, place], color=colour, linewidth=0.6))
        figure.add_artist(
            Line2D([box.x1 + 0.032], [place], color=colour, marker=MARKERS[line.style % len(MARKERS)], markersize=5.5)
        )


def _spread(wanted: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Places in the order of `wanted`, at least `gap` apart where there is room, within bottom and top."""
    gap = min(gap, (top - bottom) / max(1, len(wanted)))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = list(wanted)
    lowest = bottom
    for index in order:
        places[index] = max(wanted[index], lowest)
        lowest = places[index] + gap
    highest = top
    for index in reversed(order):
        places[index] = min(places[index], highest)
        highest = places[index] - gap
    return places


def _draw_points(picture: Points) -> Figure:
    figure, top = _figure(picture.title, 3.9)
    height, left, right = figure.get_figheight(), 0.1, 0.80
    width = (right - left) / len(picture.panels)
    names: dict[str, int] = {}
    for index, panel in enumerate(picture.panels):
        axes = figure.add_axes((left + index * width, 0.56 / height, width - 0.025, top - 0.56 / height))
        front = sorted((point.x, point.y) for point in panel.points if point.filled)
        axes.plot(*zip(*front, strict=True), color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), drawstyle="steps-post")
        for point in panel.points:
            names.setdefault(point.label, point.style)
            axes.plot([point.x], [point.y], **_mark(point.style, point.filled), markersize=9, linestyle="none")
        _scale(axes, panel.x, "x", [point.x for point in panel.points])
        axes.xaxis.label.set_fontsize(9)
        _scale(axes, picture.y, "y", [])
        axes.margins(0.12)
        if index:
            axes.set_ylabel("")
            axes.set_yticklabels([])
    low = min(axes.get_ylim()[0] for axes in figure.axes)
    high = max(axes.get_ylim()[1] for axes in figure.axes)
    for axes in figure.axes:
        axes.set_ylim(low, high)
    shown = [Line2D([], [], **_mark(style, True), linestyle="none", markersize=7) for style in names.values()]
    place = (right - 0.01, top)
    figure.legend(shown, [shortened(name, 22) for name in names], loc="upper left", bbox_to_anchor=place, frameon=False)
    return figure


def _mark(style: int, filled: bool) -> dict[str, Any]:
    colour = PALETTE[style % len(PALETTE)]
    face = colour if filled else "white"
    marker = MARKERS[style % len(MARKERS)]
    return {"marker": marker, "color": colour, "markerfacecolor": face, "markeredgewidth": 1.6}


def _draw_ranks(picture: Ranks) -> Figure:
    import pandas
    import scikit_posthocs  # takes seconds: it brings statsmodels and seaborn

    names = [name for name, _ in picture.ranks]
    together = [[any({one, other} <= set(group) for group in picture.groups) for other in names] for one in names]
    names = [shortened(name, 28) for name in names]
    figure, top = _figure(picture.title, 1.0 + 0.24 * ((len(names) + 1) // 2 + len(picture.groups)))
    axes = figure.add_axes((0.28, 0.04, 0.44, top - 0.04 - 0.42 / figure.get_figheight()))
    scikit_posthocs.critical_difference_diagram(
        dict(zip(names, [rank for _, rank in picture.ranks], strict=True)),
        pandas.DataFrame(together, index=names, columns=names).astype(float),
        ax=axes,
        label_fmt_left="{label} ({rank:.2f}) ",
        label_fmt_right=" ({rank:.2f}) {label}",
        label_props={"fontsize": 9.5},
        marker_props={"color": PALETTE[0], "s": 34},
        elbow_props={"linewidth": 1.0},
        color_palette=dict.fromkeys(names, "#000000"),
        crossbar_props={"color": PALETTE[1], "linewidth": 3.5},
        text_h_margin=0.08,
    )
    # Its own bar for the critical difference stands on the numbers of the axis.
    start, length = picture.ranks[0][1], picture.difference
    axes.plot([start, start + length], [2.1, 2.1], color="#000000", linewidth=1.4, marker="|", markersize=8)
    axes.text(start + length / 2, 2.3, f"CD = {length:.2f}", fontsize=9, ha="center", va="bottom")
    axes.set_xlim(0.9, max(len(names), start + length) + 0.1)
    axes.xaxis.set_major_locator(FixedLocator(range(1, len(names) + 1)))
    axes.grid(visible=False)
    axes.spines["top"].set_visible(True)
    return figure


def _scale(axes: Axes, axis: Axis, which: str, values: Sequence[float]) -> None:
    side = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(axis.title)
    if axis.nines:
        most = max([value for value in values if value < 1], default=0.9)
        marks = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999]
        marks = [mark for mark in marks if mark <= most] or [0.0]
        side.set_major_locator(FixedLocator([_nines(mark) for mark in marks]))
        side.set_major_formatter(FixedFormatter([f"{100 * mark:.6g} %" for mark in marks]))
        return
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        if axis.unit is Unit.COUNT:
            _mark_counts(side, values)
            return
        positive = [value for value in values if value > 0]
        spread = max(positive) / min(positive) if positive else math.inf
        if spread < 3:  # where powers of ten and their halves are no marks at all, matplotlib makes too many
            side.set_major_locator(MaxNLocator(4))
            side.set_minor_locator(NullLocator())
        else:
            subs = (1.0, 2.0, 5.0) if spread < 100 else (1.0, 3.0) if spread < 1000 else (1.0,)
            side.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
        side.set_minor_formatter(NullFormatter())
    elif which == "y" and axis.unit is Unit.RPS:
        axes.set_ylim(bottom=0)
    side.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, axis.unit)))


def _mark_counts(side: XAxis | YAxis, values: Sequence[float]) -> None:
    """A mark at each count that was measured: powers of ten mean nothing to requests in flight or to rows."""
    marks = sorted(set(values))
    marks = marks[:: math.ceil(len(marks) / 10)]
    side.set_major_locator(FixedLocator(marks))
    side.set_major_formatter(FixedFormatter([f"{mark:,.0f}" for mark in marks]))
    side.set_minor_locator(NullLocator())


def _tick(value: float, unit: Unit) -> str:
    if value == 0:
        return "0"
    return format_bound(value, unit) if unit is Unit.SECONDS else f"{value:,.6g}"


def _nines(share: float) -> float:
    """Place of a share on an axis of nines: 0.9 at 1, 0.99 at 2."""
    return -math.log10(max(1e-12, 1 - share))
