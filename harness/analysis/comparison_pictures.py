"""What the charts of a comparison show: ranks and what separates them, scores over time, and what a score costs.

In: `Findings`, and its ranking. Out: `Ranks`, `Rows`, `Lines` and `Points` for `charts.draw`. An entrant keeps its
colour and marker from chart to chart.
"""

from collections.abc import Iterator

from harness.analysis.comparison_tables import cost_words
from harness.analysis.drawable import (
    MOST_LINES,
    Axis,
    Dot,
    Line,
    Lines,
    Panel,
    Picture,
    Point,
    Points,
    Ranks,
    Row,
    Rows,
)
from harness.analysis.findings import Findings
from harness.records.comparison import Ranking
from harness.records.finding import Estimate
from harness.units import Unit, counted, format_number, joined

_LEVEL = 0.001
"""Normalised scores that are no further apart end level."""

_NORMALISED = "normalised score (0 dummy, 1 best)"


def of_comparison(found: Findings, ranking: Ranking) -> Iterator[Picture]:
    """All that there is something to show for, in the order in which a reader needs them."""
    for picture in (ranks(ranking), standings(ranking), anytime(found, ranking), trades(ranking)):
        if picture is not None:
            yield picture


def ranks(ranking: Ranking) -> Ranks | None:
    """The critical-difference diagram; None where there is no test over tables."""
    difference = ranking.separation.critical_difference
    if difference is None or ranking.leader is None:
        return None
    groups = ranking.separation.groups
    leading = next((group for group in groups if ranking.leader in group), ())
    apart = format_number(difference, Unit.RANK)
    if not leading:
        title = f"{ranking.leader} leads: its average rank is more than {apart} below every other"
    elif len(leading) == len(ranking.entrants):
        title = f"No difference shown between any two of {len(leading)} entrants on {len(ranking.tables)} tables"
    else:
        title = f"No difference shown between {joined(leading)} on {len(ranking.tables)} tables"
    return Ranks(
        key="critical_difference",
        title=title,
        description="Critical-difference diagram: average rank over the tables, 1 is the best. A bar joins entrants "
        f"between which no difference is shown (Friedman's test, then Nemenyi's at 5 %); CD is {apart}, by how much "
        "two ranks must differ.",
        ranks=tuple((one.entrant, one.average_rank.value or 0.0) for one in ranking.entrants),
        groups=groups,
        difference=difference,
    )


def standings(ranking: Ranking) -> Rows | None:
    """Rank and normalised score over tables, or the score on the only one; None where nobody leads."""
    if ranking.leader is None:
        return None
    if len(ranking.tables) == 1:
        return _on_one_table(ranking)
    rows = tuple(
        Row(
            (one.entrant, f"({counted(one.failures, 'failure')})" if one.failures else ""),
            (_dot(one.average_rank), _dot(one.normalised)),
            filled=one.entrant in _undecided(ranking),
            bold=one.entrant == ranking.leader,
        )
        for one in ranking.entrants
    )
    first = max(ranking.entrants, key=lambda one: one.normalised.value or 0.0)
    score = format_number(first.normalised.value, Unit.SCORE)
    also = " and" if first is ranking.entrants[0] else f", {first.entrant}"
    return Rows(
        key="standings",
        title=f"{ranking.entrants[0].entrant} has the best average rank{also} the best mean score: {score} of the way "
        "from the dummy model to the best on each table",
        description=f"Average rank (1 is the best) and mean normalised score over {len(ranking.tables)} tables, with "
        "95 % intervals where there are any. Filled dots: no difference to the best average rank is shown.",
        columns=("average rank", _NORMALISED),
        rows=rows,
    )


def _on_one_table(ranking: Ranking) -> Rows:
    best = ranking.placings[0]
    alike = sum(not one.apart for one in ranking.placings) - 1
    beside = f"; {counted(alike, 'other')} may be as good" if alike else ", by more than chance"
    return Rows(
        key="standings",
        title=f"{best.entrant} has the best holdout {best.metric}, "
        f"{format_number(best.score.value, Unit.SCORE)}{beside}",
        description=f"Holdout {best.metric} on {best.table} with its 95 % interval, the mean over seeds, and by how "
        "much it is behind the best on the same resampled rows. Filled dots: the difference to the best may be chance.",
        columns=(f"holdout {best.metric}", "behind the best by"),
        rows=tuple(
            Row((one.entrant,), (_dot(one.score), _dot(one.behind)), filled=not one.apart, bold=one is best)
            for one in ranking.placings
        ),
    )


def anytime(found: Findings, ranking: Ranking) -> Lines | None:
    """Best so far against time, a line per engine; None without a trial that counts."""
    if not found.curves:
        return None
    curves = sorted(found.curves, key=lambda curve: -curve.median[-1])
    first = curves[0]
    level = [curve.engine for curve in curves if first.median[-1] - curve.median[-1] <= _LEVEL]
    middle = len(first.after_s) // 2
    early = max(curves, key=lambda curve: curve.median[middle])
    ahead = f"{joined(level)} {'end level' if len(level) > 1 else 'ends ahead'}"
    shown = format_number(first.median[-1], Unit.SCORE)
    tables, seeds = counted(first.tables, "table"), counted(first.seeds, "seed")
    return Lines(
        key="anytime",
        title=f"{ahead} at {shown} of the best known; after {format_number(first.after_s[middle], Unit.SECONDS)} "
        f"{'it' if level == [early.engine] else early.engine} is ahead at "
        f"{format_number(early.median[middle], Unit.SCORE)}{' already' if level == [early.engine] else ''}",
        description="Best cross-validated score so far against the time since the search began, normalised on each "
        f"table (0 the dummy model, 1 the best that any search found) and averaged over {tables}: the median of {seeds}"
        f"{', and from the least to the most of them' if first.seeds > 1 else ''}. Time is logarithmic.",
        x=Axis("since the search began", Unit.SECONDS, log=True),
        y=Axis("best so far (0 dummy, 1 best known)", Unit.SCORE),
        lines=tuple(
            Line(
                curve.engine,
                curve.after_s,
                curve.median,
                _styles(ranking)[curve.engine],
                low=curve.low,
                high=curve.high,
                stairs=True,
                band=True,
                markers=8,
            )
            for curve in curves[:MOST_LINES]
        ),
    )


def trades(ranking: Ranking) -> Points | None:
    """Score against seconds, a panel per cost; None where nothing was timed on a table that all came through."""
    timed = [one for one in ranking.trades if one.ratio.value is not None]
    if not timed:
        return None
    scores = {one.entrant: one.normalised.value or 0.0 for one in ranking.entrants}
    costs = list(dict.fromkeys(cost_words(one) for one in timed))
    panels = tuple(
        Panel(
            Axis(f"{cost}, × fastest", Unit.RATIO, log=True),
            tuple(
                Point(
                    one.entrant,
                    one.ratio.value or 1.0,
                    scores[one.entrant],
                    _styles(ranking)[one.entrant],
                    one.on_front,
                )
                for one in timed
                if cost_words(one) == cost
            ),
        )
        for cost in costs
    )
    own = [one for one in timed if cost_words(one) == costs[0]]
    dearest = max((one for one in own if one.on_front), key=lambda one: scores[one.entrant])
    ratio = format_number(dearest.ratio.value, Unit.RATIO).removesuffix(" ×")
    takes = f"takes {ratio} times as long as" if (dearest.ratio.value or 1.0) > 1.0 else "is also that of"
    return Points(
        key="trades",
        title=f"The best score, {dearest.entrant}'s, {takes} the fastest to {costs[0]}",
        description="Mean normalised score against warm time as a multiple of the fastest entrant's, the geometric "
        "mean over tables, a panel per cost; time is logarithmic. Filled markers are on the front: no other entrant is "
        "at least as fast and as good, and better in one.",
        y=Axis(_NORMALISED, Unit.SCORE),
        panels=panels,
    )


def _undecided(ranking: Ranking) -> set[str]:
    """Entrants to which no difference of the best average rank is shown."""
    if ranking.separation.reason is not None:
        return {one.entrant for one in ranking.entrants}
    leader = ranking.entrants[0].entrant
    return {leader, *(name for group in ranking.separation.groups if leader in group for name in group)}


def _styles(ranking: Ranking) -> dict[str, int]:
    return {name: style for style, name in enumerate(sorted(one.entrant for one in ranking.entrants))}


def _dot(estimate: Estimate) -> Dot:
    return Dot(estimate.value, format_number(estimate.value, estimate.unit), estimate.low, estimate.high)
