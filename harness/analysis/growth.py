"""Growth: what more workers brought to each engine, and what more rows and columns cost.

In: a ledger. Out: `Growth`. A law is fitted over what was measured and asked no further than `stats.scaling` allows;
where too little was measured there is none, with the reason. A search that failed counts with no trials per second, and
one without a score as the dummy model: its holdout score, the only one it has, as in the anytime curves.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from scipy import stats

from harness.analysis.growth_words import once_they_stood, told
from harness.analysis.worker_time import KILLED, WorkerTime, worker_time
from harness.records.candidate import RANGE, Trial, better
from harness.records.cell import Cell
from harness.records.finding import Estimate
from harness.records.growth import Growth, SearchGrowth, SearchScale, SizeGrowth, Spent
from harness.records.ledger import Ledger
from harness.records.refit import Refit
from harness.records.run import Cause, CellResult, CellState
from harness.records.scenario import Scenario
from harness.records.words import DUMMY, Metric
from harness.space.families import FAMILY
from harness.stats.quantile import CONFIDENCE, quantiles
from harness.stats.scaling import NoLaw, UniversalLaw, parameter_intervals, power_law, universal_law
from harness.units import Unit

AXES = ("rows", "columns")
"""Parameters of a made-up table that are its size."""

_OF_TRIALS = "fitting of a trial"

_LIMITS = frozenset({Cause.TIME, Cause.MEMORY})

Searched = tuple[Cell, Sequence[Trial], WorkerTime]


def growth(ledger: Ledger) -> Growth:
    """What a run shows of growth: an entry per table and engine, and per figure that was measured at several sizes."""
    return Growth(searches=tuple(_searches(ledger)), sizes=tuple(_sizes(ledger)))


def _searches(ledger: Ledger) -> Iterator[SearchGrowth]:
    trials: dict[str, list[Trial]] = {}
    for trial in ledger.trials:
        trials.setdefault(trial.cell, []).append(trial)
    results = {result.id: result for result in ledger.results}
    metrics = {table.name: table.metric for table in ledger.tables}
    groups: dict[tuple[str, str], list[Searched]] = {}
    for cell in ledger.plan:
        own, result = trials.get(cell.id, []), results.get(cell.id)
        # One that failed without any trial is a search all the same: left out, it would flatter its engine.
        if cell.kind == "search" and (own or (result is not None and result.state is CellState.FAILED)):
            time = _time(own, cell.workers or 1, result)
            groups.setdefault((str(cell.table), str(cell.engine)), []).append((cell, own, time))
    dummies = {refit.table: refit.score for refit in ledger.refits if refit.entrant == DUMMY}
    for (table, engine), searched in groups.items():
        yield _search_growth(engine, _Beside(table, metrics.get(table), dummies.get(table)), searched)


def _time(trials: Sequence[Trial], workers: int, result: CellResult | None) -> WorkerTime:
    took_s = (result.duration_s if result else None) or 0.0
    if not trials:
        return WorkerTime(took_s, {where: took_s * workers * (where is Spent.UNUSED) for where in Spent}, ())
    last_s = max(trial.finished_s for trial in trials)
    return worker_time(trials, workers, max(0.0, took_s - last_s), result.search_start if result else None)


@dataclass(frozen=True, slots=True)
class _Beside:
    """What else is known where a search ran."""

    table: str
    metric: Metric | None
    dummy: float | None
    """The dummy model's score, where it was fitted: on the holdout, the only one it has."""


def _search_growth(engine: str, beside: _Beside, searched: Sequence[Searched]) -> SearchGrowth:
    # A search that found nothing may have ended at once, and would have all others compared at that moment.
    scored = [time.wall_s for _, trials, time in searched if best_by(trials, beside.metric) is not None]
    wall_s = min(scored or [time.wall_s for _, _, time in searched])
    by_workers: dict[int, list[Searched]] = {}
    for one in searched:
        by_workers.setdefault(one[0].workers or 1, []).append(one)
    scales = tuple(_scale(engine, workers, beside, wall_s, by_workers[workers]) for workers in sorted(by_workers))
    law = universal_law(
        [cell.workers or 1 for cell, _, _ in searched], [_rate(trials, time) for _, trials, time in searched]
    )
    contention, coherence, peak, doubled = _of_law(law)
    return SearchGrowth(
        table=beside.table,
        engine=engine,
        metric=beside.metric or "score",
        wall_s=wall_s,
        scales=scales,
        contention=contention,
        coherence=coherence,
        peak=peak,
        doubled=doubled,
    )


def _scale(engine: str, workers: int, beside: _Beside, wall_s: float, searched: Sequence[Searched]) -> SearchScale:
    times = [time for _, _, time in searched]
    total_s = math.fsum(math.fsum(time.spent_s.values()) for time in times)
    spent = {where: math.fsum(time.spent_s[where] for time in times) / total_s if total_s else 0.0 for where in Spent}
    shares = [once_they_stood(time.spent_s) for time in times]
    costs = quantiles([cost for time in times for cost in time.coordinator_s], (0.5, 0.99))
    p50, p99 = (
        Estimate(value=one.value, unit=Unit.SECONDS, low=one.low, high=one.high, n=one.n, reason=one.reason)
        for one in costs
    )
    best = [best_by(trials, beside.metric, wall_s) for _, trials, _ in searched]
    without, late = best.count(None), ""
    if without and beside.dummy is not None:
        late = f" {without} of {len(best)} searches had no score by then, which counts as the dummy model's."
    return SearchScale(
        workers=workers,
        searches=len(searched),
        trials=sum(whole(trials) for _, trials, _ in searched),
        rate=_mean(
            [_rate(trials, time) for _, trials, time in searched], Unit.TRIALS, "There was no trial.", (0.0, math.inf)
        ),
        utilisation=_mean(shares, Unit.SHARE, "There was no trial.", (0.0, 1.0)),
        coordinator_p50_s=p50,
        coordinator_p99_s=p99,
        best=_best(best, beside),
        without_score=without,
        spent=spent,
        sentence=f"{told(engine, beside.table, workers, spent)}{late}",
    )


def _best(scores: Sequence[float | None], beside: _Beside) -> Estimate:
    """The mean over seeds; one without a score has found nothing better than the dummy model."""
    taken = [beside.dummy if score is None else score for score in scores]
    known = [score for score in taken if score is not None]
    if len(known) == len(taken):
        bounds = RANGE[beside.metric] if beside.metric else (-math.inf, math.inf)
        return _mean(known, Unit.SCORE, "There was no search.", bounds)
    reason = (
        f"{scores.count(None)} of {len(scores)} searches had no score by then, and without a [compare] there is no "
        "dummy model's to count in their place."
    )
    return Estimate(value=None, unit=Unit.SCORE, reason=reason)


def whole(trials: Iterable[Trial]) -> int:
    """Trials that came to an end of their own."""
    failures = (trial.evaluated.failure for trial in trials)
    return sum(failure is None or failure.cause not in KILLED for failure in failures)


def _rate(trials: Sequence[Trial], time: WorkerTime) -> float:
    return whole(trials) / time.wall_s if time.wall_s > 0 else 0.0


def best_by(trials: Iterable[Trial], metric: Metric | None, wall_s: float = math.inf) -> float | None:
    """The best score of the trials that are whole and had finished by then; None where none had."""
    found: float | None = None
    for trial in trials:
        score = trial.evaluated.score
        if metric is None or score is None or not trial.evaluated.is_whole or trial.finished_s > wall_s:
            continue
        if found is None or better(metric, score, found):
            found = score
    return found


def _mean(values: Sequence[float], unit: Unit, reason: str, bounds: tuple[float, float]) -> Estimate:
    """The mean over seeds; its interval is Student's t within what can be, where there are two at least."""
    if not values:
        return Estimate(value=None, unit=unit, reason=reason)
    mean, count = fmean(values), len(values)
    if count < 2:
        return Estimate(value=mean, unit=unit, n=count)
    half = float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2, count - 1)) * stdev(values) / math.sqrt(count)
    low, high = max(bounds[0], mean - half), min(bounds[1], mean + half)
    return Estimate(value=mean, unit=unit, low=low, high=high, n=count)


def _of_law(law: UniversalLaw | NoLaw) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    """Contention, coherence, peak, and what twice the most workers would bring."""
    units = (Unit.SCORE, Unit.SCORE, Unit.COUNT, Unit.TRIALS)
    if isinstance(law, NoLaw):
        none = [Estimate(value=None, unit=unit, reason=f"No law: {law.reason}.") for unit in units]
        return none[0], none[1], none[2], none[3]
    _, contention, coherence = parameter_intervals(law)
    if math.isinf(law.peak):
        peak = Estimate(value=None, unit=Unit.COUNT, reason="No peak: nothing measured says that more bring less.")
    elif law.peak > law.reach:
        peak = Estimate(
            value=None, unit=Unit.COUNT, reason=f"No peak up to {law.reach:g} workers; further nobody has looked."
        )
    else:
        peak = Estimate(value=law.peak, unit=Unit.COUNT, n=law.n)
    twice = 2 * law.largest
    doubled = Estimate(value=None, unit=Unit.TRIALS, reason=f"{twice:g} workers lie beyond the law's peak.")
    if twice <= law.reach:
        low, high = law.interval(twice)
        doubled = Estimate(value=law.at(twice), unit=Unit.TRIALS, low=low, high=high, n=law.n)
    # Beyond 1 a second worker brings nothing at all: searches that do not exclude that do not bound it.
    most = coherence[1] if coherence[1] < 1 else None
    return (
        Estimate(value=law.contention, unit=Unit.SCORE, low=contention[0], high=contention[1], n=law.n),
        Estimate(value=law.coherence, unit=Unit.SCORE, low=coherence[0], high=most, n=law.n),
        peak,
        doubled,
    )


def _sizes(ledger: Ledger) -> Iterator[SizeGrowth]:
    """Exponents along each axis that a table of the scenario was given several sizes on."""
    searched_on = {cell.id: str(cell.table) for cell in ledger.plan if cell.kind == "search"}
    batch = _rows_in_common(ledger.refits)
    measured: list[tuple[str, str, str, float]] = [
        (refit.entrant, name, refit.table, value) for refit in ledger.refits for name, value in _figures(refit, batch)
    ]
    measured += [
        (str(trial.evaluated.configuration.get(FAMILY)), _OF_TRIALS, searched_on[trial.cell], fit_s)
        for trial in ledger.trials
        if trial.evaluated.is_whole and trial.cell in searched_on and (fit_s := trial.evaluated.fit_s) > 0
    ]
    cut_off = Counter(
        (str(trial.evaluated.configuration.get(FAMILY)), searched_on[trial.cell])
        for trial in ledger.trials
        if trial.cell in searched_on and (failure := trial.evaluated.failure) is not None and failure.cause in _LIMITS
    )
    for axis in AXES:
        places = places_along(ledger.scenario, axis)
        groups: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
        for of, name, table, value in measured:
            if table in places:
                size, beside = places[table]
                groups.setdefault((of, name, beside), []).append((size, value))
        for (of, name, beside), points in sorted(groups.items()):
            sizes = tuple(sorted({size for size, _ in points}))
            if len(sizes) > 1:
                lost = sum(
                    cut_off[of, table] for table, place in places.items() if name == _OF_TRIALS and place[1] == beside
                )
                exponent = _too_low(lost, len(points)) if lost else _exponent(points)
                yield SizeGrowth(of=of, measure=name, axis=axis, beside=beside, sizes=sizes, exponent=exponent)


def places_along(scenario: Scenario, axis: str) -> dict[str, tuple[int, str]]:
    """Tables that were made alike but for their size along an axis: of each that size, and what else tells it from
    tables that were not.

    Two tables of other origins are no growth, whatever their sizes.
    """
    grown = [plan for plan in scenario.data if isinstance(plan.parameters.get(axis), tuple)]
    found = {}
    for plan in grown:
        others = [key for key, value in plan.parameters.items() if key != axis and isinstance(value, tuple)]
        for table in plan.along_axes():
            told = [_told_place(key, table.parameters[key]) for key in others]
            origin = [str(plan.name or plan.source)] if len(grown) > 1 else []
            found[str(table.name)] = (int(str(table.parameters[axis])), ", ".join([*origin, *told]))
    return found


def _told_place(key: str, value: object) -> str:
    return f"{value:,} {key}" if key in AXES else f"{key} {value}"


def _rows_in_common(refits: Sequence[Refit]) -> int | None:
    """The largest batch at which every refit was timed."""
    if not refits:
        return None
    return max(set.intersection(*({timed.rows for timed in refit.predict} for refit in refits)), default=None)


def _figures(refit: Refit, batch: int | None) -> Iterator[tuple[str, float]]:
    yield "fitting", refit.fit_warm_s
    # Not the peak of the process: libraries and the table would be most of it, whatever is fitted.
    if refit.fit_memory_bytes is not None:
        yield "memory of fitting", float(refit.fit_memory_bytes)
    for timed in refit.predict:
        if timed.rows == batch and timed.calls_s:
            yield f"predicting {timed.rows:,} row{'' if timed.rows == 1 else 's'}", median(timed.calls_s)


def _too_low(lost: int, known: int) -> Estimate:
    reason = (
        f"No exponent: {lost:,} trials beside these {known:,} were ended by their limits. The dearest are missing, "
        "most of them where the table is largest, and an exponent of the others would be too low."
    )
    return Estimate(value=None, unit=Unit.SCORE, reason=reason, n=known)


def _exponent(points: Sequence[tuple[int, float]]) -> Estimate:
    law = power_law(*zip(*points, strict=True))
    if isinstance(law, NoLaw):
        return Estimate(value=None, unit=Unit.SCORE, reason=f"No exponent: {law.reason}.", n=len(points))
    return Estimate(value=law.exponent, unit=Unit.SCORE, low=law.low, high=law.high, n=law.n)
