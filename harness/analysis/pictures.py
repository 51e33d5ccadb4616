"""What the charts show: each states its finding as its title, and shows the intervals behind it.

In: `Findings`. Out: `Lines`, `Rows` and `Bars` for `charts.draw`. Open and closed load never share an axis: a closed
client waits for a slow server, so its latencies and rates answer another question.
"""

from collections.abc import Sequence

from harness.analysis.capacity import Met, met
from harness.analysis.dissection import PART_NAMES
from harness.analysis.drawable import (
    LABEL_LIMIT,
    MOST_BARS,
    MOST_LINES,
    Axis,
    Bar,
    Bars,
    Dot,
    Line,
    Lines,
    Row,
    Rows,
    shortened,
)
from harness.analysis.findings import Findings
from harness.records.candidate import MINIMISED
from harness.records.finding import Capacity, Dissection, Estimate
from harness.records.load import PARTS, StepResult
from harness.stats.quantile import quantiles
from harness.units import Unit, format_bound, format_number

_SCHEDULED = Axis("scheduled latency", Unit.SECONDS, log=True)


def open_load(found: Findings) -> Lines | None:
    """Scheduled p50 and p99 against the rate answered; None without an open step that has a p99."""
    objective = found.ledger.scenario.load.objective
    cells, more = _shown_cells(found, "open")
    lines = []
    for style, cell in enumerate(cells):
        steps = [step for step in found.steps_of(cell, "open") if step.scheduled["p99"].value_s is not None]
        if not steps:
            continue
        x = tuple(step.throughput_rps or 0.0 for step in steps)
        p99 = [step.scheduled["p99"] for step in steps]
        missed = tuple(objective is not None and met(step, objective) is not Met.YES for step in steps)
        lines.append(
            Line(
                label=found.label(cell),
                x=x,
                y=tuple(latency.value_s or 0.0 for latency in p99),
                style=style,
                low=tuple(latency.low_s for latency in p99),
                high=tuple(latency.high_s for latency in p99),
                hollow=missed,
            )
        )
        p50 = tuple(step.scheduled["p50"].value_s or 0.0 for step in steps)
        lines.append(Line(label="p50", x=x, y=p50, style=style, companion=True))
    if not lines:
        return None
    rule = None
    if objective is not None:
        rule = (objective.p99_s, f"objective: p99 within {format_bound(objective.p99_s, Unit.SECONDS)}")
    return Lines(
        key="open_load",
        title=_open_title(found),
        description="Scheduled latency against the rate of answers, a line per served cell: p99 with its 95 % interval "
        "thick, p50 thin and dotted. Hollow markers are steps that did not meet the objective; steps without figures "
        f"are not drawn.{_more(more)}",
        x=Axis("successful answers per second (open load)", Unit.RPS, log=True),
        y=_SCHEDULED,
        lines=tuple(lines),
        rule=rule,
    )


def closed_load(found: Findings) -> Lines | None:
    """Throughput against requests in flight; None without a closed step."""
    cells, more = _shown_cells(found, "closed")
    lines, drawn = [], []
    for style, cell in enumerate(cells):
        # Users with a pace of their own do not show what a cell can compute.
        paced = {step.id for step in found.results if step.step.pace_rps is not None}
        steps = [step for step in found.steps_of(cell, "closed") if step.throughput_rps and step.id not in paced]
        if not steps:
            continue
        drawn.append(cell)
        lines.append(
            Line(
                label=found.label(cell),
                x=tuple(float(step.step.in_flight or 1) for step in steps),
                y=tuple(step.throughput_rps or 0.0 for step in steps),
                style=style,
            )
        )
    if not lines:
        return None
    # What a bare target reaches says something of the generator, and nothing of any candidate.
    ours = {cell.id for cell in found.ledger.plan if cell.candidate is not None}
    of_candidates = [line for line, cell in zip(lines, drawn, strict=True) if cell in ours]
    top = max(of_candidates or lines, key=lambda line: max(line.y))
    peak, at = max(zip(top.y, top.x, strict=True))
    return Lines(
        key="closed_load",
        title=f"{shortened(top.label)} peaks at {format_number(peak, Unit.RPS)} with {at:,.0f} in flight; "
        "no objective holds there",
        description="Throughput against the number of requests in flight, a line per served cell. A closed client "
        f"waits for its answers: this is what a cell can compute, not what it can promise.{_more(more)}",
        x=Axis("requests in flight (closed load)", Unit.COUNT, log=True),
        y=Axis("successful answers per second", Unit.RPS, log=True),
        lines=tuple(lines),
    )


def candidates(found: Findings) -> Rows | None:
    """Score, capacity and p99 of the candidates, side by side; None without candidates."""
    standings = found.recommendation.standings
    if not standings:
        return None
    metric = found.metric or "score"
    served = any(standing.capacity is not None for standing in standings)
    rows = []
    for standing in standings:
        dots = [_dot(standing.score, "no score")]
        if served:
            capacity = standing.capacity
            dots.append(_rate_dot(capacity) if capacity else Dot(None, "never loaded"))
            dots.append(_dot(capacity.p99, "none") if capacity else Dot(None, "never loaded"))
        recommended = standing.candidate == found.recommendation.recommended
        rows.append(
            Row((standing.candidate, f"({standing.family})"), tuple(dots), filled=standing.on_front, bold=recommended)
        )
    front = sum(standing.on_front for standing in standings)
    return Rows(
        key="candidates",
        title=_candidates_title(found, front),
        description=f"Holdout {metric} with its 95 % interval{', capacity, and p99 there' if served else ''} of every "
        "candidate. Filled dots are on the Pareto front; the recommended candidate's name is bold.",
        columns=(f"holdout {metric}", *(("capacity (req/s)", "p99 at that rate (ms)") if served else ())),
        rows=tuple(rows),
    )


def tail(found: Findings) -> tuple[Lines, list[StepResult]] | None:
    """Latency by share of requests at the recommended cell's open steps, and those steps; None without any."""
    cell = found.recommended_cell
    if cell is None:
        return None
    steps = [step for step in found.steps_of(cell.cell, "open") if step.curve]
    steps = _around(steps, cell.step)
    if not steps:
        return None
    lines = []
    for style, step in enumerate(steps):
        shares, latencies = zip(*step.curve, strict=True)
        lines.append(Line(_step_name(step, cell), shares, latencies, style, markers=8))
    objective = found.ledger.scenario.load.objective
    rule = None
    if objective is not None:
        rule = (objective.p99_s, f"objective: p99 within {format_bound(objective.p99_s, Unit.SECONDS)}")
    picture = Lines(
        key="latency_tail",
        title=_tail_title(found, cell, steps),
        description="Scheduled latency by share of requests answered within it, a line per open step of "
        f"{found.label(cell.cell)}; the axis gives every further nine the same room. Lines end where the sample ends.",
        x=Axis("share of requests answered within", Unit.SHARE, nines=True),
        y=_SCHEDULED,
        lines=tuple(lines),
        rule=rule,
    )
    return picture, steps


def anatomies(found: Findings) -> list[Bars]:
    """Parts of the median request of each cell that tells them, a chart per target."""
    told = [one for one in found.dissections if one.carries and one.anatomy.parts_s]
    targets = dict.fromkeys(found.cells[one.cell].target or "" for one in told)
    return [
        _anatomy(found, target, [one for one in told if found.cells[one.cell].target == target]) for target in targets
    ]


def _anatomy(found: Findings, target: str, told: Sequence[Dissection]) -> Bars:
    recommended = found.recommended_cell
    ordered = sorted(told, key=lambda one: recommended is None or one.cell != recommended.cell)
    first = ordered[0].anatomy
    part, length_s = max(first.parts_s.items(), key=lambda named: named[1])
    length, p50 = (format_number(value, Unit.SECONDS) for value in (length_s, first.p50_s))
    bars = tuple(
        Bar(
            label=(found.label(one.cell), f"at {one.load}"),
            parts=tuple(one.anatomy.parts_s[name] for name in PARTS),
            text=format_number(one.anatomy.total_s, Unit.SECONDS),
            bold=recommended is not None and one.cell == recommended.cell,
        )
        for one in ordered[:MOST_BARS]
    )
    return Bars(
        key=f"anatomy_{target}",
        title=f"{shortened(found.label(ordered[0].cell), LABEL_LIMIT + 10)} at {ordered[0].load}: "
        f"{length} of the {p50} at p50 in {PART_NAMES[part]}",
        description=f"Where the time of the median request to each cell on {target} goes, at the step that carries its "
        "capacity: means over the requests around the median. Network and proxy is what neither the generator nor the "
        f"application saw, the wait in front of a server that is computing included.{_more(len(ordered) - len(bars))}",
        x=Axis("share of the median request, which takes as long as is said at its end", Unit.SHARE),
        parts=tuple(PART_NAMES[name] for name in PARTS),
        bars=bars,
    )


def search(found: Findings) -> Lines | None:
    """Best score so far against the time since the search began, per engine and seed; None without a whole trial.

    On one table, by the largest number of workers: searches on several have no axis in common but the comparison's.
    """
    paths: dict[str, list[list[tuple[float, float]]]] = {}
    if len(found.ledger.scenario.tables) > 1:
        return None
    searching = found.ledger.scenario.search
    for cell in found.ledger.plan:
        if searching is None or cell.workers not in {None, max(searching.workers)}:
            continue
        path = [(trial.finished_s, best) for trial, best in found.best_so_far(cell.id) if best is not None]
        if cell.kind == "search" and path:
            paths.setdefault(str(cell.engine), []).append(path)
    if not paths:
        return None
    metric = found.metric or "score"
    sign = -1.0 if metric in MINIMISED else 1.0
    lines = []
    for style, (engine, searches) in enumerate(list(paths.items())[:MOST_LINES]):
        searches.sort(key=lambda path: -sign * path[-1][1])
        for place, path in enumerate(searches):
            x, y = zip(*_improvements(path), strict=True)
            label = engine if len(searches) == 1 else f"{engine}, best of {len(searches)} seeds"
            lines.append(Line(label, x, y, style, companion=place > 0, stairs=True))
    engine, best = max(((name, searches[0]) for name, searches in paths.items()), key=lambda one: sign * one[1][-1][1])
    score = best[-1][1]
    after = next(time for time, reached in best if reached == score)
    return Lines(
        key="search",
        title=f"{shortened(engine)} found the best cross-validated {metric}, {format_number(score, Unit.SCORE)}, "
        f"after {format_number(after, Unit.SECONDS)}",
        description=f"Best cross-validated {metric} so far against the time since the search began, a line per engine; "
        "thin and dotted: its other seeds. Markers are improvements; trials on some of the rows or folds do not count."
        f"{_more(len(paths) - MOST_LINES)}",
        x=Axis("since the search began", Unit.SECONDS),
        y=Axis(f"best {metric} so far", Unit.SCORE),
        lines=tuple(lines),
    )


def _improvements(path: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points at which a best-so-far path moved, and its end."""
    moved = [
        point for point, before in zip(path, [None, *path], strict=False) if before is None or point[1] != before[1]
    ]
    return moved if moved[-1] == path[-1] else [*moved, path[-1]]


def micro(found: Findings) -> Lines | None:
    """Time per prediction by rows, per candidate and runtime; None where nothing was timed at two sizes."""
    timed: dict[str, list[tuple[float, float, float | None, float | None]]] = {}
    for result in found.ledger.micro:
        if result.benchmark != "predict" or result.rows is None:
            continue
        median = quantiles(result.rounds_s, (0.5,))[0]
        if median.value is not None:
            label = " ".join(part for part in (result.candidate, result.runtime) if part)
            timed.setdefault(label, []).append((float(result.rows), median.value, median.low, median.high))
    named = {label: sorted(points) for label, points in timed.items() if len(points) > 1}
    if not named:
        return None
    lines = []
    for style, (label, points) in enumerate(list(named.items())[:MOST_LINES]):
        rows, medians, lows, highs = zip(*points, strict=True)
        lines.append(Line(label, rows, medians, style, low=lows, high=highs))
    one_row = {label: points[0] for label, points in named.items()}
    quickest = min(one_row, key=lambda label: one_row[label][1] / one_row[label][0])
    size, value = one_row[quickest][:2]
    return Lines(
        key="micro",
        title=f"{shortened(quickest)} is quickest: {format_number(value, Unit.SECONDS)} for "
        f"{size:,.0f} row{'' if size == 1 else 's'}, in process",
        description="Median time per call of a prediction in process by rows per call, a line per candidate and "
        f"runtime, with 95 % intervals; both axes logarithmic.{_more(len(named) - len(lines))}",
        x=Axis("rows per call", Unit.COUNT, log=True),
        y=Axis("median time per call", Unit.SECONDS, log=True),
        lines=tuple(lines),
    )


def _shown_cells(found: Findings, mode: str) -> tuple[list[str], int]:
    """Cells with steps of a mode, and how many are left out: recommended first, each candidate's best, by rate."""
    own = [one for one in found.capacities if found.steps_of(one.cell, mode)]
    best = {standing.capacity.cell for standing in found.recommendation.standings if standing.capacity is not None}
    recommended = found.recommended_cell

    def place(one: Capacity) -> tuple[bool, bool, float]:
        is_first = recommended is not None and one.cell == recommended.cell
        return (not is_first, one.cell not in best, -(one.rate.value or one.peak.value or 0.0))

    ordered = [one.cell for one in sorted(own, key=place)]
    return ordered[:MOST_LINES], max(0, len(ordered) - MOST_LINES)


def _around(steps: Sequence[StepResult], centre: str | None) -> list[StepResult]:
    """At most `MOST_LINES` - 2 steps, the one that carries the capacity among them, and the first that missed it."""
    most = MOST_LINES - 2
    if len(steps) <= most:
        return list(steps)
    place = next((index for index, step in enumerate(steps) if step.id == centre), len(steps) - 1)
    start = max(0, min(place - most + 2, len(steps) - most))
    return list(steps[start : start + most])


def _open_title(found: Findings) -> str:
    cell, objective = found.recommended_cell, found.ledger.scenario.load.objective
    if objective is None:
        return "Scheduled latency under open load; the scenario has no objective to hold it against"
    bound = format_bound(objective.p99_s, Unit.SECONDS)
    if cell is None or cell.rate.value is None:
        known = [one.rate.value for one in found.capacities if one.rate.value is not None]
        if known and max(known) == 0:
            return f"No cell kept p99 within {bound} at any rate that was tried"
        return f"No recommended cell; the objective is a p99 within {bound}"
    name = shortened(found.label(cell.cell), LABEL_LIMIT + 10)
    if cell.rate.value == 0:
        return f"{name} kept p99 within {bound} at no rate that was tried"
    rate = format_number(cell.rate.value, Unit.RPS)
    if cell.missed_below_rps is not None:
        missed = format_number(cell.missed_below_rps, Unit.RPS)
        return f"{name} kept p99 within {bound} at {rate}, and missed it at {missed}"
    if cell.is_least:
        return f"{name} keeps p99 within {bound} up to {rate}, the highest rate tried"
    return f"{name} keeps p99 within {bound} up to {rate}, and misses it at {format_number(cell.rate.high, Unit.RPS)}"


def _candidates_title(found: Findings, front: int) -> str:
    total = len(found.recommendation.standings)
    on_front = f"{front} of {total} candidates {'is' if front == 1 else 'are'} on the front"
    if found.recommendation.recommended is None:
        return f"No candidate can be recommended; {on_front}"
    return f"{shortened(found.recommendation.recommended)} is recommended; {on_front}"


def _tail_title(found: Findings, cell: Capacity, steps: Sequence[StepResult]) -> str:
    step = next((step for step in steps if step.id == cell.step), steps[-1])
    name = shortened(found.label(cell.cell))
    for share, words in (("p99.9", "999 of 1,000"), ("p99", "99 of 100"), ("p90", "9 of 10"), ("p50", "half of all")):
        value = step.scheduled[share].value_s
        if value is not None:
            within = format_number(value, Unit.SECONDS)
            return f"At {step.step.label}, {name} answers {words} requests within {within}"
    return f"Latency of {name} by share of requests"


def _step_name(step: StepResult, cell: Capacity) -> str:
    return f"{step.step.label} (capacity)" if step.id == cell.step else step.step.label


def _rate_dot(capacity: Capacity) -> Dot:
    # Without ends: what stands in `low` and `high` of a rate is a bracket of what was tried, and no interval.
    rate = capacity.rate.value
    if rate is None:
        return Dot(None, "none")
    return Dot(rate, f"{'≥ ' if capacity.is_least else ''}{format_number(rate, Unit.RPS)}")


def _dot(estimate: Estimate, missing: str) -> Dot:
    if estimate.value is None:
        return Dot(None, missing)
    # Ticks of the seconds axis count milliseconds; what stands beside the dot has its own unit.
    scale = 1e3 if estimate.unit is Unit.SECONDS else 1.0
    text = format_number(estimate.value, estimate.unit)
    ends = [None if end is None else scale * end for end in (estimate.low, estimate.high)]
    return Dot(scale * estimate.value, text, ends[0], ends[1])


def _more(count: int) -> str:
    return f" {count} more {'is' if count == 1 else 'are'} in the table alone." if count > 0 else ""
