"""The tables of a comparison of engines: standings, duels, tests, scores, and every time that was measured.

In: `Findings`. Out: `Table` values in base units. What failed has its row too, as the dummy model that it is scored as.
"""

import statistics
from collections.abc import Sequence

from harness.analysis.findings import Findings
from harness.analysis.ranking_words import order
from harness.records.comparison import Placing, Ranking, Trade
from harness.records.finding import Field, Table, Values
from harness.records.words import DUMMY
from harness.stats.quantile import quantiles
from harness.units import Unit, format_number

_WAYS = {
    "dummy": "as the dummy model",
    "left_out": "not at all, with the tables they are on",
    "worst": "as the worst entrant on the table",
}


def standings(ranking: Ranking) -> Table:
    """A row per entrant, best average rank first."""
    return Table(
        key="standings",
        title=f"Engines over {len(ranking.tables)} table{'' if len(ranking.tables) == 1 else 's'}",
        fields=(
            Field("entrant", "entrant"),
            Field("average_rank", "average rank", Unit.RANK),
            Field("rank_low", "95 % from", Unit.RANK),
            Field("rank_high", "to", Unit.RANK),
            Field("normalised", "normalised score", Unit.SCORE),
            Field("normalised_low", "95 % from", Unit.SCORE),
            Field("normalised_high", "to", Unit.SCORE),
            Field("best_on", "best, or as good, on tables", Unit.COUNT),
            Field("failures", "failed", Unit.COUNT),
            Field("planned", "of", Unit.COUNT),
            Field("failure_share", "share failed", Unit.SHARE),
        ),
        rows=tuple(
            (
                one.entrant,
                one.average_rank.value,
                one.average_rank.low,
                one.average_rank.high,
                one.normalised.value,
                one.normalised.low,
                one.normalised.high,
                one.best_on,
                one.failures,
                one.planned,
                one.failure_share,
            )
            for one in ranking.entrants
        ),
        note="Normalised: 0 is the dummy model, 1 the best entrant on the table; what failed counts as the dummy "
        "model. Intervals are bootstrapped over tables (BCa): none below 6 tables, or where all tables say the same. "
        "As good: nothing of it failed, and the difference to the best on the table may be chance.",
    )


def duels(ranking: Ranking) -> Table:
    """A row per pair of entrants."""
    return Table(
        key="duels",
        title="One against the other",
        fields=(
            Field("entrant", "entrant"),
            Field("other", "against"),
            Field("win_rate", "tables won", Unit.SHARE),
            Field("win_low", "95 % from", Unit.SHARE),
            Field("win_high", "to", Unit.SHARE),
            Field("tables", "of tables", Unit.COUNT),
            Field("p", "p", Unit.SCORE),
        ),
        rows=tuple(
            (one.entrant, one.other, one.win_rate.value, one.win_rate.low, one.win_rate.high, one.win_rate.n, one.p)
            for one in ranking.duels
        ),
        note="Ties are half a win each. The interval is the exact one for a share of tables. p is Nemenyi's, which "
        "allows for all pairs, and stands only where Friedman's test finds that not all are alike; of two entrants it "
        "is the sign test's.",
    )


def tests(ranking: Ranking) -> Table:
    """What the tests over tables say, a row per figure."""
    found = ranking.separation
    figures = (
        ("Friedman's chi-squared, corrected for ties", found.friedman_chi2, Unit.SCORE),
        ("its p", found.friedman_p, Unit.SCORE),
        ("F of Iman and Davenport", found.iman_davenport_f, Unit.SCORE),
        ("its p", found.iman_davenport_p, Unit.SCORE),
        ("critical difference of average ranks, 5 %", found.critical_difference, Unit.RANK),
        ("p of the sign test", found.sign_p, Unit.SCORE),
    )
    rows = [(name, format_number(value, unit)) for name, value, unit in figures if value is not None]
    rows += [("no difference shown between", ", ".join(group)) for group in found.groups]
    if found.reason is not None:
        rows.append(("not tested", found.reason))
    return Table("tests", "Tests over tables", (Field("figure", "figure"), Field("value", "value")), tuple(rows))


def scores(found: Findings, ranking: Ranking) -> Table:
    """A row per table and entrant, best first, after the table's dummy model."""
    rows: list[Values] = []
    for table in ranking.tables:
        own = [one for one in ranking.placings if one.table == table]
        dummy = next(one for one in found.ledger.refits if (one.table, one.entrant) == (table, DUMMY))
        rows += [_score(one) for one in own]
        rows.append((table, DUMMY, own[0].metric, dummy.score, *([None] * 4), 0.0, *([None] * 7)))
    return Table(
        key="scores",
        title="Scores by table",
        fields=(
            Field("table", "table"),
            Field("entrant", "entrant"),
            Field("metric", "metric"),
            Field("score", "holdout score", Unit.SCORE),
            Field("score_low", "95 % from", Unit.SCORE),
            Field("score_high", "to", Unit.SCORE),
            Field("seed_low", "seeds from", Unit.SCORE),
            Field("seed_high", "to", Unit.SCORE),
            Field("normalised", "normalised", Unit.SCORE),
            Field("rank", "rank", Unit.RANK),
            Field("behind", "behind the best by", Unit.SCORE),
            Field("behind_low", "95 % from", Unit.SCORE),
            Field("behind_high", "to", Unit.SCORE),
            Field("apart", "more than chance"),
            Field("failures", "failed", Unit.COUNT),
            Field("planned", "of", Unit.COUNT),
        ),
        rows=tuple(rows),
        note="Mean over seeds, each that failed as the dummy model. Intervals are over holdout rows and seeds; that of "
        "a difference takes the same rows for both, and those of all pairs on a table hold together. The dummy model "
        "never looks at the features; it has no rank.",
    )


def _score(one: Placing) -> Values:
    return (
        one.table,
        one.entrant,
        one.metric,
        one.score.value,
        one.score.low,
        one.score.high,
        one.seed_low,
        one.seed_high,
        one.normalised,
        one.rank,
        one.behind.value,
        one.behind.low,
        one.behind.high,
        one.apart,
        one.failures,
        one.planned,
    )


def trades(ranking: Ranking) -> Table:
    """A row per cost and entrant, cheapest first."""
    normalised = {one.entrant: one.normalised.value for one in ranking.entrants}
    return Table(
        key="trades",
        title="What a score costs",
        fields=(
            Field("cost", "time to"),
            Field("entrant", "entrant"),
            Field("ratio", "times the fastest", Unit.RATIO),
            Field("ratio_low", "95 % from", Unit.RATIO),
            Field("ratio_high", "to", Unit.RATIO),
            Field("tables", "tables", Unit.COUNT),
            Field("normalised", "normalised score", Unit.SCORE),
            Field("on_front", "on the front"),
        ),
        rows=tuple(
            (
                cost_words(one),
                one.entrant,
                one.ratio.value,
                one.ratio.low,
                one.ratio.high,
                one.ratio.n,
                normalised[one.entrant],
                one.on_front,
            )
            for one in ranking.trades
        ),
        note="Warm seconds over those of the fastest entrant on the same table, the geometric mean over the tables on "
        "which all have a model. On the front: no other is at least as fast and as good, and better in one.",
    )


def cost_words(one: Trade) -> str:
    """`fit`, `predict 1 row`, `predict 1,000 rows`."""
    return "fit" if one.rows is None else f"predict {one.rows:,} row{'' if one.rows == 1 else 's'}"


def imputations(ranking: Ranking) -> Table:
    """A row per way to score failures; none where nothing failed."""
    return Table(
        key="imputations",
        title="Who leads, if failures are scored otherwise",
        fields=(Field("way", "failures are scored"), Field("tables", "tables", Unit.COUNT), Field("order", "order")),
        rows=tuple((_WAYS[one.way], one.tables, order(one)) for one in ranking.imputations),
        note="By average rank, best first; entrants that share one are joined by =.",
    )


def timings(found: Findings) -> Table:
    """A row per refit: what was timed once."""
    return Table(
        key="timings",
        title="Fitting and loading, cold and warm",
        fields=(
            Field("table", "table"),
            Field("entrant", "entrant"),
            Field("seed", "seed", Unit.COUNT),
            Field("family", "family"),
            Field("threads", "threads", Unit.COUNT),
            Field("fit_cold_s", "fitted cold", Unit.SECONDS),
            Field("fit_warm_s", "fitted warm", Unit.SECONDS),
            Field("load_s", "loaded in", Unit.SECONDS),
            Field("predict_cold_s", "first row, cold", Unit.SECONDS),
            Field("size_bytes", "pickled", Unit.BYTES),
            Field("peak_memory_bytes", "most memory", Unit.BYTES),
            Field("fit_memory_bytes", "of that, fitting", Unit.BYTES),
        ),
        rows=tuple(
            (
                one.table,
                one.entrant,
                one.seed,
                str(one.configuration.get("family", "")) or None,
                one.threads,
                one.fit_cold_s,
                one.fit_warm_s,
                one.load_s,
                one.predict_cold_s,
                one.size_bytes,
                one.peak_memory_bytes,
                one.fit_memory_bytes,
            )
            for one in found.ledger.refits
        ),
        note="Cold is the first time in a process that did nothing before, warm the second; imports and reads are in "
        "neither. Prediction is timed in another process than fitting, which loads the pickled model. Both are forks "
        "of one that has imported and read, and has neither fitted nor predicted. Most memory is that of the process, "
        "libraries and table included; of fitting is what the warm fit took beyond them.",
    )


def predictions(found: Findings) -> Table:
    """A row per refit and rows per call: warm calls."""
    rows: list[Values] = []
    for refit in found.ledger.refits:
        for one in refit.predict:
            median = quantiles(one.calls_s, (0.5,))[0]
            value = statistics.median(one.calls_s)
            rows.append(
                (
                    refit.table,
                    refit.entrant,
                    refit.seed,
                    refit.threads,
                    one.rows,
                    value,
                    median.low,
                    median.high,
                    value / one.rows,
                    len(one.calls_s),
                )
            )
    return Table(
        key="predictions",
        title="Predicting, warm",
        fields=(
            Field("table", "table"),
            Field("entrant", "entrant"),
            Field("seed", "seed", Unit.COUNT),
            Field("threads", "threads", Unit.COUNT),
            Field("rows", "rows", Unit.COUNT),
            Field("median_s", "median per call", Unit.SECONDS),
            Field("median_low_s", "95 % from", Unit.SECONDS),
            Field("median_high_s", "to", Unit.SECONDS),
            Field("per_row_s", "per row", Unit.SECONDS),
            Field("calls", "calls", Unit.COUNT),
        ),
        rows=tuple(rows),
    )


def anytime(found: Findings) -> Table:
    """The points of the anytime curves."""
    return Table(
        key="anytime",
        title="Best so far, over time",
        fields=(
            Field("engine", "engine"),
            Field("after_s", "after", Unit.SECONDS),
            Field("median", "median of seeds", Unit.SCORE),
            Field("low", "least", Unit.SCORE),
            Field("high", "most", Unit.SCORE),
            Field("tables", "tables", Unit.COUNT),
            Field("seeds", "seeds", Unit.COUNT),
        ),
        rows=tuple(
            (one.engine, *point, one.tables, one.seeds)
            for one in found.curves
            for point in zip(one.after_s, one.median, one.low, one.high, strict=True)
        ),
        note="Best cross-validated score so far, normalised: 0 is the dummy model, 1 the best that any search found on "
        "the table; the mean over tables, for each seed.",
    )


def of_comparison(found: Findings, ranking: Ranking) -> Sequence[Table]:
    """All of them, in the order in which a reader needs them."""
    return (
        standings(ranking),
        duels(ranking),
        tests(ranking),
        imputations(ranking),
        scores(found, ranking),
        trades(ranking),
        timings(found),
        predictions(found),
        anytime(found),
    )
