"""The report's figures for programs: what `summary.json` holds, and the schema that promises it.

In: `Findings`. Out: `Summary`, and `schema`, of which `exporters/summary.schema.json` is the committed copy. A figure
that did not earn its number is null, with the reason beside it.
"""

from collections import Counter
from typing import Literal

from harness.analysis.capacity import throughput_estimate
from harness.analysis.failures import FailureCost, all_failed, failure_costs, of_cells, of_checks
from harness.analysis.findings import Findings
from harness.analysis.recommendation import failed_checks
from harness.analysis.servers import speaking_step
from harness.records.candidate import Configuration
from harness.records.comparison import Ranking
from harness.records.finding import Answer, Capacity, Dissection, Estimate, GateVerdict, Routing
from harness.records.frozen import Frozen
from harness.records.growth import Growth
from harness.records.load import StepResult
from harness.records.words import Metric
from harness.units import Unit, format_bound, format_number

_OF = {"error_share": "requests", "failure_share": "refits"}

VERSION: Literal[1] = 1
"""Rises when a reader of the last version could misread this one; new keys do not raise it."""


class RunSummary(Frozen):
    """Which run this is."""

    id: str
    scenario: str
    question: str
    started_utc: str
    finished_utc: str | None
    harness_version: str
    scenario_sha256: str
    data_sha256: str
    simulated_from: str | None
    """The run whose trials it repeats; None where its trials ran."""


class Headline(Estimate):
    """A figure of the first page."""

    name: str
    """Stable, for programs."""
    label: str
    note: str
    """What `low` and `high` mean here, or why there is no value, in words."""


class CandidateSummary(Frozen):
    """A candidate at its place in the ranking."""

    candidate: str
    family: str
    metric: Metric
    score: Estimate
    cv_score: float | None
    fit_s: float
    configuration: Configuration
    on_front: bool
    cell: str | None
    """Id of its best served cell."""
    failed_checks: tuple[str, ...]
    reason: str | None


class CellSummary(Capacity):
    """A served cell."""

    startup_s: float | None
    notes: tuple[str, ...]
    dissections: tuple[Dissection, ...]
    """Where the time of its requests went; none where the server does not say."""


class SearchSummary(Frozen):
    """One engine with one seed, on one table, by so many workers."""

    table: str | None
    engine: str
    seed: int
    workers: int | None
    metric: Metric | None
    trials: int
    failures: dict[str, int]
    """Failed trials per cause."""
    best: Estimate
    """Best cross-validated score of the trials on all rows and all folds; its sample are those trials."""


class VerdictSummary(Frozen):
    """The gates and what they come to."""

    answer: Answer | None
    """None without gates."""
    gates: tuple[GateVerdict, ...]


class Summary(Frozen):
    """A whole run in figures; candidates best first."""

    version: Literal[1] = VERSION
    run: RunSummary
    recommended: str | None
    recommendation: str
    verdict: VerdictSummary
    headlines: tuple[Headline, ...]
    candidates: tuple[CandidateSummary, ...]
    cells: tuple[CellSummary, ...]
    routings: tuple[Routing, ...]
    """What Ray Serve's routing costs, of each candidate that was also served without it at the same load."""
    searches: tuple[SearchSummary, ...]
    comparison: Ranking | None
    """Of engines, over tables; None where the run has none."""
    growth: Growth
    failures: dict[str, int]
    """Failed cells and checks per cause."""
    failure_costs: tuple[FailureCost, ...]
    """Of all failures, those of trials and conversions too."""
    warnings: tuple[str, ...]


def summary(found: Findings, warnings: tuple[str, ...]) -> Summary:
    """The figures of a run, with the report's warnings."""
    ledger = found.ledger
    return Summary(
        run=RunSummary(
            id=ledger.run.id,
            scenario=ledger.run.scenario,
            question=ledger.scenario.question,
            started_utc=ledger.run.started_utc,
            finished_utc=ledger.run.finished_utc,
            harness_version=ledger.run.harness_version,
            scenario_sha256=ledger.run.scenario_sha256,
            data_sha256=ledger.run.data_sha256,
            simulated_from=ledger.run.simulation.run if ledger.run.simulation else None,
        ),
        recommended=found.recommendation.recommended,
        recommendation=found.sentence,
        verdict=VerdictSummary(answer=found.verdict.answer, gates=found.verdict.gates),
        headlines=_headlines(found),
        candidates=_candidates(found),
        cells=tuple(_cell(found, capacity) for capacity in found.capacities),
        routings=found.routings,
        searches=_searches(found),
        comparison=found.ranking,
        growth=found.growth,
        failures=_failures(found),
        failure_costs=failure_costs(all_failed(found)),
        warnings=warnings,
    )


def schema() -> dict[str, object]:
    """The JSON Schema of `summary.json`."""
    made = Summary.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _headlines(found: Findings) -> tuple[Headline, ...]:
    objective = found.ledger.scenario.load.objective
    cell = found.recommended_cell
    if found.comparison is not None:
        return _comparison_headlines(found, found.comparison)
    if found.ledger.scenario.search is None and objective is None and cell is not None:
        return _step_headlines(speaking_step(found.results, cell.cell))
    recommended = next(
        (one for one in found.recommendation.standings if one.candidate == found.recommendation.recommended),
        None,
    )
    step = next((result for result in found.results if cell is not None and result.id == cell.step), None)
    nothing = "No candidate was recommended." if found.recommendation.standings else "There is no candidate."
    unserved = nothing if recommended is None and cell is None else "Nothing was served."
    figures: list[tuple[str, str, Estimate]] = [
        (
            "score",
            f"holdout {found.metric or 'score'}",
            recommended.score if recommended else Estimate(value=None, unit=Unit.SCORE, reason=nothing),
        ),
        (
            "capacity_rps",
            "capacity",
            cell.rate if cell else Estimate(value=None, unit=Unit.RPS, reason=unserved),
        ),
        (
            "p99_s",
            "p99 at that rate",
            cell.p99 if cell else Estimate(value=None, unit=Unit.SECONDS, reason=unserved),
        ),
        (
            "error_share",
            "errors at that rate",
            Estimate(value=step.error_share, unit=Unit.SHARE, n=step.planned)
            if step
            else Estimate(value=None, unit=Unit.SHARE, reason="No step carries a capacity."),
        ),
        (
            "peak_rps",
            "closed-loop peak",
            cell.peak if cell else Estimate(value=None, unit=Unit.RPS, reason=unserved),
        ),
        (
            "trials",
            "trials",
            Estimate(value=float(len(found.ledger.trials)), unit=Unit.COUNT, n=len(found.ledger.trials)),
        ),
    ]
    return tuple(
        Headline(name=name, label=label, note=_note(name, figure, cell), **dict(figure))
        for name, label, figure in figures
        if (name == "trials" or found.ledger.run.simulation is None)
        and (found.ledger.scenario.search is not None or name not in ("score", "trials"))
    )


def _comparison_headlines(found: Findings, ranking: Ranking) -> tuple[Headline, ...]:
    """Of a run that compares engines and serves nothing."""
    none = "Nothing could be compared."
    first = next((one for one in ranking.entrants if one.entrant == ranking.leader), None)
    best = next((one for one in ranking.placings if one.entrant == ranking.leader), None)
    whose = f" of {first.entrant}" if first else ""
    planned, failures = (sum(getattr(one, what) for one in ranking.entrants) for what in ("planned", "failures"))
    tests = ranking.separation
    figures = [
        (
            "average_rank",
            f"average rank{whose}",
            first.average_rank if first else Estimate(value=None, unit=Unit.RANK, reason=none),
        ),
        (
            "normalised_score",
            f"normalised score{whose}",
            first.normalised if first else Estimate(value=None, unit=Unit.SCORE, reason=none),
        ),
        (
            "critical_difference",
            "critical difference",
            Estimate(value=tests.critical_difference, unit=Unit.RANK, n=len(ranking.tables), reason=tests.reason),
        ),
        (
            "failure_share",
            "refits that failed",
            Estimate(value=failures / planned, unit=Unit.SHARE, n=planned)
            if planned
            else Estimate(value=None, unit=Unit.SHARE, reason=none),
        ),
        ("tables", "tables", Estimate(value=float(len(ranking.tables)), unit=Unit.COUNT, n=len(ranking.tables))),
        (
            "trials",
            "trials",
            Estimate(value=float(len(found.ledger.trials)), unit=Unit.COUNT, n=len(found.ledger.trials)),
        ),
    ]
    if best is not None and len(ranking.tables) == 1:
        # On one table the score itself can be read; ranks of one table are its order and no more.
        figures = [("score", f"holdout {best.metric}{whose}", best.score), *figures[3:]]
    return tuple(
        Headline(name=name, label=label, note=_note(name, figure, None), **dict(figure))
        for name, label, figure in figures
    )


def _step_headlines(step: StepResult | None) -> tuple[Headline, ...]:
    """Of a server that nothing was asked of but a load: what its step says."""
    if step is None:
        none = Estimate(value=None, unit=Unit.RPS, reason="No step has figures.")
        return (Headline(name="throughput_rps", label="answered", note=_note("", none, None), **dict(none)),)
    latency = step.scheduled if step.step.mode == "open" else step.service
    figures = [
        ("throughput_rps", "answered", throughput_estimate(step)),
        *(
            (
                f"{name.replace('.', '')}_s",
                name,
                Estimate(
                    value=latency[name].value_s,
                    unit=Unit.SECONDS,
                    low=latency[name].low_s,
                    high=latency[name].high_s,
                    n=step.succeeded,
                    reason=latency[name].reason,
                ),
            )
            for name in ("p50", "p99", "p99.9")
        ),
        ("error_share", "errors", Estimate(value=step.error_share, unit=Unit.SHARE, n=step.planned)),
    ]
    return tuple(
        Headline(name=name, label=label, note=_note(name, figure, None), **dict(figure))
        for name, label, figure in figures
    )


def _note(name: str, figure: Estimate, cell: Capacity | None) -> str:
    if figure.value is None:
        return figure.reason or ""
    if name == "capacity_rps" and cell is not None:
        if cell.is_least:
            return "at least: no step above it missed the objective"
        if cell.missed_below_rps is not None:
            return f"not steadily: missed at {format_bound(cell.missed_below_rps, figure.unit)}"
        if figure.high is None:
            return ""
        return f"met here, missed at {format_bound(figure.high, figure.unit)}"
    if name == "critical_difference":
        return "average ranks must differ by it, at 5 %"
    told = []
    if figure.low is not None and figure.high is not None:
        told.append(f"95 %: {format_number(figure.low, figure.unit)} to {format_number(figure.high, figure.unit)}")
    if name == "peak_rps":
        told.append("a fixed number in flight; no objective holds there")
    if told:
        return "; ".join(told)
    return f"of {figure.n:,} {_OF[name]}" if name in _OF else ""


def _candidates(found: Findings) -> tuple[CandidateSummary, ...]:
    by_origin = {candidate.origin: candidate for candidate in found.ledger.candidates}
    rows = []
    for standing in found.recommendation.standings:
        candidate = by_origin[standing.candidate]
        rows.append(
            CandidateSummary(
                candidate=standing.candidate,
                family=standing.family,
                metric=candidate.metric,
                score=standing.score,
                cv_score=candidate.cv_score,
                fit_s=candidate.fit_s,
                configuration=candidate.configuration,
                on_front=standing.on_front,
                cell=standing.capacity.cell if standing.capacity else None,
                failed_checks=tuple(failed_checks(found.ledger, standing.candidate)),
                reason=standing.reason,
            )
        )
    return tuple(rows)


def _cell(found: Findings, capacity: Capacity) -> CellSummary:
    result = found.cell_results.get(capacity.cell)
    return CellSummary(
        **dict(capacity),
        startup_s=result.startup_s if result else None,
        notes=result.notes if result else (),
        dissections=tuple(one for one in found.dissections if one.cell == capacity.cell),
    )


def _searches(found: Findings) -> tuple[SearchSummary, ...]:
    rows = []
    for cell in found.ledger.plan:
        if cell.kind != "search":
            continue
        path = found.best_so_far(cell.id)
        failed = found.causes_of(cell.id)
        whole = sum(trial.evaluated.is_whole for trial, _ in path)
        value = path[-1][1] if path else None
        reason = None if value is not None else "No trial has a score on all rows and all folds."
        best = Estimate(value=value, unit=Unit.SCORE, n=whole, reason=reason)
        rows.append(
            SearchSummary(
                table=cell.table,
                engine=cell.engine or "",
                seed=cell.seed or 0,
                workers=cell.workers,
                metric=found.metric_of(cell.id),
                trials=len(path),
                failures=failed,
                best=best,
            )
        )
    return tuple(rows)


def _failures(found: Findings) -> dict[str, int]:
    causes = (one.cause.value for one in (*of_cells(found), *of_checks(found)) if one.cause is not None)
    return dict(sorted(Counter(causes).items()))
