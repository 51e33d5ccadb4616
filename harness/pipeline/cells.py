"""One cell of each kind, from begun to recorded.

In: `Work`, what all cells of a run share, and the cell. Out: records in `run.db` and files in the run folder. A cell
that fails for a reason of its own (nothing found, not convertible, a failed check) raises `CellFailedError`: a row,
not the end of the run. Any other error ends the run, and the cell is begun anew when it is resumed.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.reduce import reduce_step, rung
from harness.clock import Clock
from harness.errors import InfrastructureError, NotConvertibleError
from harness.pipeline.plan import steps
from harness.plugins import installed, plugin
from harness.ports import Predictor, Problem, Runtime, Servable, Target
from harness.records.candidate import Artifact, Candidate, Check, Configuration, Endpoint, Trial
from harness.records.ledger import Ledger, StepEntry
from harness.records.load import Rung, Step
from harness.records.rows import Batch
from harness.records.run import Cause, Host
from harness.records.scenario import BASELINE, Cell, Metric, Scenario
from harness.serving.protocol import encode_request
from harness.space.families import baseline
from harness.space.preprocess import to_batch
from harness.space.score import default_metric, predict, refuse_unfit
from harness.stages.data import Table
from harness.stages.load import generator
from harness.stages.micro import micro_benchmarks
from harness.stages.search import SearchFleet, best, fit_candidate, search
from harness.stages.validate import (
    Connection,
    Judged,
    parity_check,
    quality_checks,
    reload_check,
    request_bodies,
    wire_check,
)
from harness.store.bundle import artifact_path, read_bundle, write_bundle
from harness.store.database import Database
from harness.store.exchanges import write_exchanges
from harness.store.runs import RunFolder
from harness.units import Unit, format_number

SERVER = "harness.server"
"""The module of a serving process; targets are told its name, for they stand below it."""

MODEL = "candidate"
"""What every served candidate is called in its URL: the same requests reach all of them."""

_SAMPLE_ROWS = 10
_PAYLOADS_AT_MOST = 1000


class CellFailedError(Exception):
    """The cell ended, and not well; its cause belongs in the report."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Work:
    """What the cells of a run share."""

    folder: RunFolder
    database: Database
    scenario: Scenario
    host: Host
    table: Table
    clock: Clock
    tell: Callable[[str], None]
    """Says what is going on inside the present cell."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a finished cell has to say beside its records."""

    startup_s: float | None = None
    notes: tuple[str, ...] = ()


def search_cell(work: Work, cell: Cell, fleet: SearchFleet, problem: Problem) -> Told:
    """One engine with one seed, on the fleet's workers."""
    engine = plugin("engines", str(cell.engine), work.scenario.search.parameters.get(str(cell.engine)))
    trials: list[Trial] = []

    def record(trial: Trial) -> None:
        work.database.record(cell.id, trial)
        trials.append(trial)
        leading = best(trials, problem.metric)
        shown = "" if leading is None else _shown(leading, problem.metric)
        work.tell(f"trial {len(trials)} of at most {problem.trials}{shown}")

    search(engine, problem, fleet, record, cell.id, work.clock)
    if best(trials, problem.metric) is None:
        raise CellFailedError(Cause.ENGINE_NO_MODEL, _no_model(trials))
    return Told()


def candidate_cell(work: Work, cell: Cell) -> Told:
    """The best of an engine (or the baseline): fitted, saved, and checked as far as that goes without a server."""
    origin = str(cell.candidate)
    table, metric = work.table, metric_of(work.scenario, work.table)
    seed = work.scenario.data.seed
    configuration, cv_score = (
        (baseline(table.signature.task), None)
        if origin == BASELINE
        else _best_of(work.database.ledger(), origin, metric)
    )
    started_s = work.clock.monotonic_s()
    pipeline = fit_candidate(configuration, table, seed)
    fit_s = work.clock.monotonic_s() - started_s
    batch = holdout_batch(table)
    files, artifacts = _exported(pipeline, work, _rows(batch, _SAMPLE_ROWS))
    digest = hashlib.sha256(repr((cell.id, table.sha256, sorted(configuration.items()))).encode()).hexdigest()
    candidate = Candidate(
        id=f"{origin}-{digest[:8]}",
        origin=origin,
        configuration=configuration,
        cv_score=cv_score,
        fit_s=fit_s,
        signature=table.signature,
        metric=metric,
        artifacts=artifacts,
    )
    bundle = work.folder.candidate(candidate.id)
    write_bundle(bundle, candidate, files)
    work.database.record(cell.id, candidate)
    judged = Judged(
        origin=origin,
        signature=table.signature,
        metric=metric,
        truth=np.asarray(table.target[table.holdout], dtype=np.float64),
        answers=predict(pipeline, table.frame.iloc[table.holdout], table.signature.task),
        batch=batch,
    )
    work.tell(f"checking {origin}")
    for check in _checks(work, judged, bundle, candidate):
        work.database.record(cell.id, check)
    return Told()


def serve_cell(work: Work, cell: Cell) -> Told:
    """One candidate on one target: deployed, checked over the wire, loaded, and taken down."""
    plan = work.scenario.load
    log = work.folder.logs / f"{cell.id}.server.log"
    target: Target = plugin("targets", str(cell.target), cell.parameters)
    ledger = work.database.ledger()
    bundle, candidate, loaded = _servable(work, ledger, cell)
    servable = Servable(
        entry=SERVER,
        bundle=bundle,
        runtime=cell.runtime,
        model=MODEL,
        replicas=cell.replicas or 1,
        cores=work.host.target_cores,
        log=log,
    )
    batch = holdout_batch(work.table)
    work.tell("starting the server")
    with target.serve(servable) as endpoint:
        expected = None
        payloads = request_bodies(batch, work.table.signature, plan.rows)[:_PAYLOADS_AT_MOST]
        if candidate is not None and loaded is not None:
            work.tell("checking the answers over the wire")
            _check_wire(work, cell, candidate, batch, endpoint, loaded)
            with Connection(endpoint) as connection:
                expected = [connection.infer(payload) for payload in payloads]
        _drive(work, cell, endpoint, payloads, expected)
    return Told(startup_s=endpoint.startup_s, notes=endpoint.notes)


def micro_cell(work: Work, cell: Cell) -> Told:
    """One candidate, timed in process."""
    candidate = _checked_candidate(work.database.ledger(), str(cell.candidate))
    bundle, folder = work.folder.candidate(candidate.id), work.folder.logs / "micro"
    rows = encode_request(holdout_batch(work.table), candidate.signature)
    seconds, cores = work.scenario.micro.seconds, work.host.target_cores
    work.tell("timing prediction and encoding")
    try:
        results = micro_benchmarks(cell.id, candidate, rows, bundle, seconds, cores, folder)
    except InfrastructureError as error:
        raise CellFailedError(Cause.BENCHMARK, str(error)) from error
    for result in results:
        work.database.record(cell.id, result)
    return Told()


def metric_of(scenario: Scenario, table: Table) -> Metric:
    """The scenario's metric, or its task's own. Raises UsageError where the task has no such metric."""
    metric = scenario.search.metric or default_metric(table.signature.task)
    refuse_unfit(metric, table.signature.task)
    return metric


def holdout_batch(table: Table) -> Batch:
    """The rows that no search has seen, as they travel to a server."""
    return to_batch(table.frame.iloc[table.holdout], table.signature.columns)


def load_runtime(bundle: Path, runtime: str) -> Predictor:
    """A candidate of a bundle, loaded in this process, its digests verified."""
    candidate = read_bundle(bundle)
    made: Runtime = plugin("runtimes", runtime)
    return made.load(artifact_path(bundle, candidate, runtime), candidate.signature)


def _drive(
    work: Work, cell: Cell, endpoint: Endpoint, payloads: Sequence[bytes], expected: Sequence[bytes] | None
) -> None:
    """Walk the shapes of load, a step at a time, keeping each before the next."""
    plan, cores = work.scenario.load, work.host.generator_cores
    folder = work.folder.logs / "load" / cell.id
    with generator(endpoint, payloads, expected, plan, cores, folder) as load:

        def drive(step: Step) -> Rung:
            work.tell(f"{step.shape}: {step.label}")
            columns = load.drive(step)
            step_id = f"{cell.id}-{step.number:02d}"
            digest = write_exchanges(work.folder.exchanges(step_id), columns)
            entry = StepEntry(id=step_id, cell=cell.id, step=step, exchanges_sha256=digest)
            work.database.record(cell.id, entry)
            return rung(reduce_step(entry, columns))

        for _ in steps(plan, drive):
            pass


def _checks(work: Work, judged: Judged, bundle: Path, candidate: Candidate) -> list[Check]:
    """Everything that can be checked without a server; the fresh processes start up while this one resamples rows."""
    runtimes = [artifact.runtime for artifact in candidate.artifacts if artifact.file is not None]
    answers = {runtime: load_runtime(bundle, runtime)(judged.batch) for runtime in runtimes}
    with ThreadPoolExecutor() as pool:
        reloaded = [pool.submit(reload_check, judged, SERVER, bundle, name, answers[name]) for name in runtimes]
        train_truth = np.asarray(work.table.target[work.table.train], dtype=np.float64)
        checks = quality_checks(judged, train_truth, work.scenario.expect, work.scenario.data.seed)
        checks += [parity_check(judged, name, answers[name]) for name in runtimes]
        return checks + [check.result() for check in reloaded]


def _check_wire(
    work: Work, cell: Cell, candidate: Candidate, batch: Batch, endpoint: Endpoint, loaded: Predictor
) -> None:
    table = work.table
    judged = Judged(
        origin=candidate.origin,
        signature=table.signature,
        metric=candidate.metric,
        truth=np.asarray(table.target[table.holdout], dtype=np.float64),
        answers=loaded(batch),
        batch=batch,
    )
    check = wire_check(judged, endpoint, str(cell.runtime), str(cell.target), loaded)
    work.database.record(cell.id, check)
    if not check.passed:
        raise CellFailedError(Cause.CHECK_FAILED, check.detail)


def _servable(work: Work, ledger: Ledger, cell: Cell) -> tuple[Path | None, Candidate | None, Predictor | None]:
    """The bundle to serve, its candidate, and the same loaded here; nothing for a target that serves its own."""
    if cell.candidate is None:
        return None, None, None
    candidate = _checked_candidate(ledger, cell.candidate, str(cell.runtime))
    bundle = work.folder.candidate(candidate.id)
    try:
        return bundle, candidate, load_runtime(bundle, str(cell.runtime))
    except NotConvertibleError as error:
        raise CellFailedError(Cause.NOT_CONVERTIBLE, str(error)) from error


def _checked_candidate(ledger: Ledger, origin: str, runtime: str | None = None) -> Candidate:
    """The candidate of an origin that passed its checks (those of other runtimes aside). Raises CellFailedError."""
    found = next((candidate for candidate in ledger.candidates if candidate.origin == origin), None)
    if found is None:
        ours = {cell.id for cell in ledger.plan if cell.kind == "candidate" and cell.candidate == origin}
        failures = [result.failure for result in ledger.results if result.id in ours and result.failure]
        reason = failures[0].message if failures else "it was not made"
        raise CellFailedError(Cause.ENGINE_NO_MODEL, f"there is no candidate {origin}: {reason}")
    broken = [check for check in ledger.checks if _speaks_of(check, origin, runtime) and not check.passed]
    if broken:
        raise CellFailedError(Cause.CHECK_FAILED, f"{origin} failed {broken[0].name}: {broken[0].detail}")
    return found


def _speaks_of(check: Check, origin: str, runtime: str | None) -> bool:
    return (
        check.candidate == origin
        and check.target is None
        and (check.runtime is None or (runtime is not None and check.runtime == runtime))
    )


def _best_of(ledger: Ledger, engine: str, metric: Metric) -> tuple[Configuration, float | None]:
    mine = {cell.id for cell in ledger.plan if cell.kind == "search" and cell.engine == engine}
    leading = best((trial for trial in ledger.trials if trial.cell in mine), metric)
    if leading is None:
        raise CellFailedError(Cause.ENGINE_NO_MODEL, f"no trial of {engine} succeeded")
    return leading.evaluated.configuration, leading.evaluated.score


def _exported(pipeline: Any, work: Work, sample: Batch) -> tuple[dict[str, bytes], tuple[Artifact, ...]]:
    """The candidate's form in every runtime that is installed, or the reason why it has none."""
    files: dict[str, bytes] = {}
    artifacts = []
    for name in installed("runtimes"):
        runtime: Runtime = plugin("runtimes", name)
        try:
            data = runtime.export(pipeline, work.table.signature, sample)
        except NotConvertibleError as error:
            artifacts.append(Artifact(runtime=name, reason=str(error)))
            continue
        files[runtime.artifact] = data
        digest = hashlib.sha256(data).hexdigest()
        artifacts.append(Artifact(runtime=name, file=runtime.artifact, sha256=digest, size_bytes=len(data)))
    return files, tuple(artifacts)


def _shown(trial: Trial, metric: Metric) -> str:
    score = format_number(trial.evaluated.score, Unit.SCORE)
    return f", best {metric} {score} ({trial.evaluated.configuration['family']})"


def _no_model(trials: Sequence[Trial]) -> str:
    causes = [trial.evaluated.failure for trial in trials if trial.evaluated.failure is not None]
    if not causes:
        return "no trial ended within the time given"
    return f"none of {len(trials)} trials succeeded; the first failed by {causes[0].cause}: {causes[0].message}"


def _rows(batch: Batch, count: int) -> Batch:
    return Batch(batch.numbers[:count], batch.texts[:count])
