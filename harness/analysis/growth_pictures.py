"""What the charts of growth show: trials per second and utilisation over workers, and fitting over rows or columns.

In: `Findings`. Out: `Lines` for `charts.draw`; None where there is nothing to draw a line through.
"""

from collections.abc import Sequence
from statistics import median

from harness.analysis.drawable import MOST_LINES, Axis, Line, Lines, shortened
from harness.analysis.findings import Findings
from harness.analysis.growth import AXES, places_along
from harness.records.finding import Estimate
from harness.records.growth import SearchGrowth
from harness.units import Unit, format_number


def rates(found: Findings) -> Lines | None:
    """Trials per second over workers, a line per engine and table."""
    grown = _grown(found)
    if not grown:
        return None
    lines = []
    for style, one in enumerate(grown[:MOST_LINES]):
        known = [scale for scale in one.scales if scale.rate.value]
        lines.append(
            Line(
                label=_name(found, one),
                x=tuple(float(scale.workers) for scale in known),
                y=tuple(scale.rate.value or 0.0 for scale in known),
                style=style,
                low=tuple(_positive(scale.rate.low) for scale in known),
                high=tuple(scale.rate.high for scale in known),
            )
        )
    best = max(grown, key=lambda one: one.scales[-1].rate.value or 0.0)
    first, last = best.scales[0], best.scales[-1]
    times = (last.rate.value or 0.0) / (first.rate.value or 1.0)
    return Lines(
        key="search_rates",
        title=f"{shortened(_name(found, best))} does {times:.1f} times the trials per second with "
        f"{last.workers / first.workers:.3g} times the workers",
        description="Trials per second of a search against its number of workers, a line per engine, with the 95 % "
        f"interval over seeds; both axes logarithmic, so a line that keeps its slope scales.{_more(found, lines)}",
        x=Axis("workers", Unit.COUNT, log=True),
        y=Axis("trials per second", Unit.TRIALS, log=True),
        lines=tuple(lines),
    )


def utilisation(found: Findings) -> Lines | None:
    """Share of the workers' time inside fitting over workers, a line per engine and table."""
    grown = _grown(found)
    if not grown:
        return None
    if len(grown) > MOST_LINES:  # those that waste most are drawn, and the title tells of one of them
        grown = sorted(grown, key=_utilised)
    lines = []
    for style, one in enumerate(grown[:MOST_LINES]):
        x = tuple(float(scale.workers) for scale in one.scales)
        y = tuple(100 * (scale.utilisation.value or 0.0) for scale in one.scales)
        lines.append(Line(_name(found, one), x, y, style))
    worst = min(grown, key=_utilised)
    share = format_number(worst.scales[-1].utilisation.value, Unit.SHARE)
    return Lines(
        key="search_utilisation",
        title=f"With {worst.scales[-1].workers} workers, {shortened(_name(found, worst))} spends {share} of their time "
        "fitting",
        description="Share of the workers' time inside fitting, once they stood, against the number of workers, a line "
        f"per engine; the table says where the rest goes.{_more(found, lines)}",
        x=Axis("workers", Unit.COUNT, log=True),
        y=Axis("time inside fitting (%)", Unit.SCORE),
        lines=tuple(lines),
    )


def fits(found: Findings) -> tuple[Lines, ...]:
    """Time to fit over rows, and over columns, a line per entrant of the comparison."""
    return tuple(picture for axis in AXES if (picture := _fits_along(found, axis)) is not None)


def _fits_along(found: Findings, axis: str) -> Lines | None:
    fitted = [one for one in found.growth.sizes if one.axis == axis and one.measure == "fitting"]
    places = places_along(found.ledger.scenario, axis)
    named: dict[str, list[tuple[float, float]]] = {}
    for one in fitted:
        points: dict[float, list[float]] = {}
        for refit in found.ledger.refits:
            size, beside = places.get(refit.table, (None, ""))
            if size is not None and (refit.entrant, beside) == (one.of, one.beside):
                points.setdefault(float(size), []).append(refit.fit_warm_s)
        name = f"{one.of}, {one.beside}" if one.beside else one.of
        named[name] = sorted((size, median(seconds)) for size, seconds in points.items())
    if not named:
        return None
    lines = [
        Line(name, tuple(size for size, _ in points), tuple(seconds for _, seconds in points), style)
        for style, (name, points) in enumerate(list(named.items())[:MOST_LINES])
    ]
    steepest = max(fitted, key=lambda one: one.exponent.value if one.exponent.value is not None else -1e9)
    told = f"Time to fit over {axis}; too few sizes for an exponent"
    if steepest.exponent.value is not None:
        told = (
            f"Fitting grows fastest with {axis} for {shortened(steepest.of)}: {axis} to the {_power(steepest.exponent)}"
        )
    return Lines(
        key=f"fit_by_{axis}",
        title=told,
        description=f"Time to fit on all training rows, warm, against {axis} of the table, a line per entrant (median "
        "over seeds); both axes logarithmic, so the slope is the exponent.",
        x=Axis(f"{axis} of the table", Unit.COUNT, log=True),
        y=Axis("time to fit", Unit.SECONDS, log=True),
        lines=tuple(lines),
    )


def _power(exponent: Estimate) -> str:
    return f"{exponent.value:.2f} ({exponent.low:.2f} to {exponent.high:.2f})"


def _grown(found: Findings) -> list[SearchGrowth]:
    grown = [one for one in found.growth.searches if len(one.scales) > 1 and one.scales[0].rate.value]
    return sorted(grown, key=lambda one: -(one.scales[-1].rate.value or 0.0))


def _utilised(one: SearchGrowth) -> float:
    return one.scales[-1].utilisation.value or 0.0


def _name(found: Findings, one: SearchGrowth) -> str:
    several = len({grown.table for grown in found.growth.searches}) > 1
    return f"{one.table} {one.engine}" if several else one.engine


def _positive(low: float | None) -> float | None:
    """A lower end that a logarithmic axis can show."""
    return low if low is not None and low > 0 else None


def _more(found: Findings, lines: Sequence[Line]) -> str:
    count = sum(len(one.scales) > 1 for one in found.growth.searches) - len(lines)
    return f" {count} more {'is' if count == 1 else 'are'} in the table alone." if count > 0 else ""
