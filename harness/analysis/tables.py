"""The tables of everything but the load and the failures: gates, candidates, searches, micro benchmarks, the machine.

In: `Findings`. Out: `Table` values in base units. A thing that failed has its row too.
"""

from harness.analysis.findings import Findings
from harness.analysis.recommendation import failed_checks
from harness.analysis.validity import known_roofline
from harness.records.candidate import Candidate
from harness.records.finding import Field, GateVerdict, Table, Values
from harness.records.ledger import Ledger
from harness.stats.quantile import quantiles
from harness.units import Unit, format_bound, format_number


def gates(found: Findings) -> Table:
    """A row per gate."""
    return Table(
        key="gates",
        title="Gates",
        fields=(
            Field("gate", "gate"),
            Field("answer", "answer"),
            Field("measured", "measured"),
            Field("asked", "asked for"),
            Field("why", "in words"),
        ),
        rows=tuple(
            (
                gate.name,
                gate.answer.value,
                format_number(gate.value.value, gate.value.unit),
                _asked_for(gate),
                gate.sentence,
            )
            for gate in found.verdict.gates
        ),
    )


def _asked_for(gate: GateVerdict) -> str:
    if (gate.direction, gate.bound, gate.value.unit) == ("at_least", 0.0, Unit.RPS):
        return "any rate"  # which one of 0 is not
    return f"{gate.direction.replace('_', ' ')} {format_bound(gate.bound, gate.value.unit)}"


def candidates(found: Findings) -> Table:
    """A row per candidate, best first, then those that never came to be."""
    by_origin = {candidate.origin: candidate for candidate in found.ledger.candidates}
    front = {standing.candidate for standing in found.recommendation.standings if standing.on_front}
    rows: list[Values] = []
    for standing in found.recommendation.standings:
        candidate = by_origin[standing.candidate]
        best = standing.capacity
        rows.append(
            (
                standing.candidate,
                standing.family,
                standing.score.value,
                standing.score.low,
                standing.score.high,
                candidate.cv_score,
                best.rate.value if best else None,
                best.p99.value if best else None,
                standing.candidate in front,
                standing.tied,
                "; ".join(failed_checks(found.ledger, standing.candidate)) or "passed",
            )
        )
    for cell in found.ledger.plan:
        if cell.kind == "candidate" and cell.candidate not in by_origin:
            rows.append((cell.candidate, *([None] * 9), _why_no_candidate(found, cell.id)))
    return Table(
        key="candidates",
        title="Candidates",
        fields=(
            Field("candidate", "candidate"),
            Field("family", "family"),
            Field("score", f"holdout {found.metric or 'score'}", Unit.SCORE),
            Field("score_low", "95 % from", Unit.SCORE),
            Field("score_high", "to", Unit.SCORE),
            Field("cv_score", "cross-validated", Unit.SCORE),
            Field("capacity_rps", "capacity", Unit.RPS),
            Field("p99_s", "p99 there", Unit.SECONDS),
            Field("on_front", "on the front"),
            Field("tied", "score tied"),
            Field("checks", "checks"),
        ),
        rows=tuple(rows),
        note="On the front: no other candidate is at least as good in score, in capacity, and in p99 at the highest "
        "rate that both were offered (where there is one), and better in one. Score tied: could be recommended too, "
        "and its score cannot be told apart from the best one.",
    )


def configurations(found: Findings) -> Table:
    """A row per candidate: what it is made of."""
    return Table(
        key="configurations",
        title="Configurations",
        fields=(
            Field("candidate", "candidate"),
            Field("family", "family"),
            Field("fit_s", "fitted in", Unit.SECONDS),
            Field("configuration", "parameters"),
        ),
        rows=tuple(
            (one.origin, str(one.configuration.get("family", "")), one.fit_s, _configuration(one))
            for one in found.ledger.candidates
        ),
    )


def checks(found: Findings) -> Table:
    """A row per thing that was verified."""
    return Table(
        key="checks",
        title="Checks",
        fields=(
            Field("candidate", "candidate"),
            Field("check", "check"),
            Field("runtime", "runtime"),
            Field("target", "target"),
            Field("passed", "passed"),
            Field("detail", "detail"),
        ),
        rows=tuple(
            (check.candidate, check.name, check.runtime, check.target, check.passed, check.detail)
            for check in found.ledger.checks
        ),
    )


def micro(found: Findings) -> Table:
    """A row per micro benchmark: the median over its rounds."""
    rows: list[Values] = []
    for result in found.ledger.micro:
        median = quantiles(result.rounds_s, (0.5,))[0]
        per_row = median.value / result.rows if median.value is not None and result.rows else None
        rows.append(
            (
                result.candidate,
                result.benchmark,
                result.runtime,
                result.rows,
                median.value,
                median.low,
                median.high,
                per_row,
                median.n,
            )
        )
    return Table(
        key="micro",
        title="Micro benchmarks, in process",
        fields=(
            Field("candidate", "candidate"),
            Field("benchmark", "timed"),
            Field("runtime", "runtime"),
            Field("rows", "rows", Unit.COUNT),
            Field("median_s", "median per call", Unit.SECONDS),
            Field("median_low_s", "95 % from", Unit.SECONDS),
            Field("median_high_s", "to", Unit.SECONDS),
            Field("per_row_s", "per row", Unit.SECONDS),
            Field("rounds", "rounds", Unit.COUNT),
        ),
        rows=tuple(rows),
    )


def search(found: Findings) -> Table:
    """A row per search: an engine with a seed, on a table, by so many workers."""
    rows: list[Values] = []
    for cell in found.ledger.plan:
        if cell.kind != "search":
            continue
        path = found.best_so_far(cell.id)
        causes = found.causes_of(cell.id)
        best = path[-1][1] if path else None
        reached = next((trial.finished_s for trial, score in path if score == best), None) if best is not None else None
        state = found.cell_results.get(cell.id)
        rows.append(
            (
                cell.table,
                cell.engine,
                cell.seed,
                cell.workers,
                len(path),
                sum(causes.values()),
                ", ".join(f"{cause} {count}" for cause, count in causes.items()),
                sum(not trial.evaluated.is_whole and trial.evaluated.failure is None for trial, _ in path),
                found.metric_of(cell.id),
                best,
                reached,
                path[-1][0].finished_s if path else None,
                state.state.value if state else "not begun",
            )
        )
    return Table(
        key="search",
        title="Searches",
        fields=(
            Field("table", "table"),
            Field("engine", "engine"),
            Field("seed", "seed", Unit.COUNT),
            Field("workers", "workers", Unit.COUNT),
            Field("trials", "trials", Unit.COUNT),
            Field("failed", "failed", Unit.COUNT),
            Field("causes", "causes"),
            Field("in_part", "in part", Unit.COUNT),
            Field("metric", "metric"),
            Field("best", "best score", Unit.SCORE),
            Field("best_after_s", "found after", Unit.SECONDS),
            Field("last_after_s", "last trial after", Unit.SECONDS),
            Field("state", "state"),
        ),
        rows=tuple(rows),
        note="Scores are cross-validated means over folds of the training rows; the holdout is not touched here. "
        "Trials in part were fitted on a share of the rows, or left before their last fold, and cannot be the best.",
    )


def trials(found: Findings) -> Table:
    """A row per trial, failed ones too."""
    rows: list[Values] = []
    for cell in found.ledger.plan:
        for trial, best in found.best_so_far(cell.id) if cell.kind == "search" else ():
            failure = trial.evaluated.failure
            family = trial.evaluated.configuration.get("family")
            rows.append(
                (
                    cell.label,
                    trial.number,
                    trial.finished_s,
                    trial.evaluated.duration_s,
                    None if family is None else str(family),
                    trial.evaluated.rows_share,
                    len(trial.evaluated.fold_scores),
                    found.metric_of(cell.id),
                    trial.evaluated.score,
                    best,
                    failure.cause.value if failure else None,
                )
            )
    return Table(
        key="trials",
        title="Trials",
        fields=(
            Field("search", "search"),
            Field("number", "number", Unit.COUNT),
            Field("finished_s", "finished after", Unit.SECONDS),
            Field("duration_s", "took", Unit.SECONDS),
            Field("family", "family"),
            Field("rows_share", "of the rows", Unit.SHARE),
            Field("folds", "folds", Unit.COUNT),
            Field("metric", "metric"),
            Field("score", "score", Unit.SCORE),
            Field("best", "best so far", Unit.SCORE),
            Field("cause", "failed of"),
        ),
        rows=tuple(rows),
    )


def host(found: Findings) -> Table:
    """The machine, and the versions that can change a figure."""
    ledger, machine = found.ledger, found.ledger.host
    pairs: list[tuple[str, str]] = [
        ("run", ledger.run.id),
        *([("simulated from", ledger.run.simulation.run)] if ledger.run.simulation else []),
        ("scenario", ledger.run.scenario),
        ("scenario, SHA-256", ledger.run.scenario_sha256),
        ("data, SHA-256", ledger.run.data_sha256),
        ("harness", ledger.run.harness_version),
        ("started", ledger.run.started_utc),
        ("finished", ledger.run.finished_utc or "not finished"),
        ("system", f"{machine.system}, {machine.machine}"),
        ("processor", f"{machine.cpu}, {machine.cores} cores"),
        ("memory", format_number(machine.memory_bytes, Unit.BYTES)),
        ("the generator runs on", _generator_place(ledger)),
        ("the generator's timers and priority", _timing(ledger)),
        ("the generator's roofline", _roofline(found)),
        ("servers of this machine run on", _cores(machine.target_cores)),
        *([("Ray", "a cluster that was there already")] if ledger.run.is_on_cluster else []),
        ("Python", machine.python),
        *sorted(machine.versions.items()),
    ]
    return Table("host", "Machine and versions", (Field("what", "what"), Field("value", "value")), tuple(pairs))


def _configuration(candidate: Candidate) -> str:
    parameters = sorted(item for item in candidate.configuration.items() if item[0] != "family")
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in parameters
    )


def _why_no_candidate(found: Findings, cell_id: str) -> str:
    result = found.cell_results.get(cell_id)
    if result is not None and result.failure is not None:
        return f"{result.failure.cause}: {result.failure.message}"
    return "The run did not come to it."


def _generator_place(ledger: Ledger) -> str:
    if ledger.scenario.load.placement == "host":
        return _cores(ledger.host.generator_cores)
    workers = [worker for entry in ledger.steps for worker in entry.generator.workers]
    nodes = sorted({worker.node for worker in workers if worker.node})
    if not nodes:
        return "nodes of the cluster"
    apart_s = max(worker.clock_error_s for worker in workers)
    return f"{', '.join(nodes)}; their clocks agree to {format_number(apart_s, Unit.SECONDS)}"


def _timing(ledger: Ledger) -> str:
    seen = {f"{worker.timer}, {worker.priority}" for entry in ledger.steps for worker in entry.generator.workers}
    return "; ".join(sorted(seen)) or "no step was recorded"


def _roofline(found: Findings) -> str:
    known, load = known_roofline(found.ledger, found.results), found.ledger.scenario.load
    if known is not None:
        here = known.measured_by == found.ledger.run.id
        by = "in this run" if here else f"by {known.measured_by} at {known.measured_utc}"
        return f"{format_number(known.rate_rps, Unit.RPS)}, measured {by}"
    if (load.workers, load.rows) == (1, 1):
        return "not known: `harness doctor` measures it"
    return f"not known where load.workers = {load.workers} and load.rows = {load.rows}: the target `null` measures it"


def _cores(cores: tuple[int, ...]) -> str:
    return ", ".join(f"core {number}" for number in cores) if cores else "any"
