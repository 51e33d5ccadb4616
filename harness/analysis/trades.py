"""What a better score costs: seconds to fit and to predict, beside the score, and who is on the front of both.

In: the entries of a comparison, and each entrant's score over all tables. Out: `trades`, one `Trade` per entrant and
cost.

Seconds of unlike tables have no mean, so they are divided by those of the fastest entrant on the same table, and the
geometric mean is taken over tables: twice as slow here and half as slow there is as fast. Only tables on which every
entrant has a refit count, for a failure takes no time at all. All times are warm, and with the same threads.
"""

import math
import statistics
from collections.abc import Mapping

from harness.analysis.entries import Entries
from harness.records.comparison import Cost, Trade
from harness.records.finding import Estimate
from harness.records.refit import Refit
from harness.stats.ranks import mean_interval
from harness.units import Unit


def trades(compared: Entries, scores: Mapping[str, float]) -> tuple[Trade, ...]:
    """Per cost (fitting, predicting a row at a time, predicting the most rows at a time) every entrant, cheapest first.

    Empty where nothing was timed.
    """
    refits = [refit for entry in compared.of.values() for refit in entry.refits]
    if not refits:
        return ()
    sizes = set.intersection(*({one.rows for one in refit.predict} for refit in refits))
    asked: list[tuple[Cost, int | None]] = [("predict", rows) for rows in sorted({*_ends(sizes)})]
    return tuple(trade for cost, rows in [*asked, ("fit", None)] for trade in _of(compared, scores, cost, rows))


def call_s(refit: Refit, rows: int) -> float:
    """Median seconds of a warm call of so many rows."""
    return next(statistics.median(one.calls_s) for one in refit.predict if one.rows == rows)


def _ends(sizes: set[int]) -> set[int]:
    return {min(sizes), max(sizes)} if sizes else set()


def _of(compared: Entries, scores: Mapping[str, float], cost: Cost, rows: int | None) -> list[Trade]:
    logs: dict[str, list[float]] = {
        entrant: []
        for entrant in compared.entrants
        # One that never came through would leave no table on which all did.
        if any(compared.of[table, entrant].refits for table in compared.tables)
    }
    for table in compared.tables:
        took = {entrant: _log_s(compared.of[table, entrant].refits, rows) for entrant in logs}
        known = [value for value in took.values() if value is not None]
        if len(known) == len(took):
            for entrant, value in took.items():
                logs[entrant].append((value or 0.0) - min(known))
    ratios = {entrant: _ratio(values) for entrant, values in logs.items()}
    front = _front({entrant: one.value for entrant, one in ratios.items() if one.value is not None}, scores)
    found = [
        Trade(entrant=entrant, cost=cost, rows=rows, ratio=ratio, on_front=entrant in front)
        for entrant, ratio in ratios.items()
    ]
    return sorted(found, key=lambda one: math.inf if one.ratio.value is None else one.ratio.value)


def _log_s(refits: tuple[Refit, ...], rows: int | None) -> float | None:
    """Logarithm of the seconds: the mean over seeds, which find models of unlike cost; None without a refit."""
    if not refits:
        return None
    return statistics.fmean(math.log(refit.fit_warm_s if rows is None else call_s(refit, rows)) for refit in refits)


def _ratio(logs: list[float]) -> Estimate:
    if not logs:
        return Estimate(value=None, unit=Unit.RATIO, reason="On no table do all entrants have a model that was timed.")
    low, high = (math.exp(end) for end in mean_interval(logs) or (math.nan, math.nan))
    bounded = not math.isnan(low)
    return Estimate(
        value=math.exp(statistics.fmean(logs)),
        unit=Unit.RATIO,
        low=low if bounded else None,
        high=high if bounded else None,
        n=len(logs),
    )


def _front(costs: Mapping[str, float], scores: Mapping[str, float]) -> set[str]:
    """Those that no other beats in one of cost and score and equals or beats in the other."""

    def beaten(one: str) -> bool:
        return any(
            costs[other] <= costs[one]
            and scores[other] >= scores[one]
            and (costs[other], scores[other]) != (costs[one], scores[one])
            for other in costs
        )

    return {one for one in costs if not beaten(one)}
