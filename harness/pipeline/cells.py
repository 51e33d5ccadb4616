"""One cell of each kind, from begun to recorded.

In: `Work`, what all cells of a run share, and the cell. Out: records in `run.db` and files in the run folder. A cell
that fails for a reason of its own (nothing found, not convertible, a failed check) raises `CellFailedError`: a row,
not the end of the run. Any other error ends the run, and the cell is begun anew when it is resumed.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.analysis.ranking import failed_checks
from harness.analysis.reduce import reduce_step, rung
from harness.clock import Clock
from harness.errors import InfrastructureError, NotConvertibleError, UsageError
from harness.pipeline.inputs import Inputs, Searched
from harness.pipeline.plan import steps
from harness.plugins import plugin
from harness.ports import Predictor, Problem, Servable, Target
from harness.process import refuse_gone
from harness.records.candidate import Candidate, Check, Configuration, Endpoint, Trial
from harness.records.ledger import Ledger, StepEntry
from harness.records.load import JSON_POST, Beat, Head, Rung, Step
from harness.records.rows import Batch, Prediction
from harness.records.run import Cause, Host
from harness.records.scenario import BASELINE, EXTERNAL, Cell, Metric, Scenario
from harness.serving.protocol import encode_request
from harness.space.families import baseline
from harness.space.preprocess import to_batch
from harness.space.score import predict
from harness.stages.data import Table
from harness.stages.export import exported, loaded
from harness.stages.load import Generator, Recording, generator
from harness.stages.locust_users import LocustUsers
from harness.stages.micro import BATCH_ROWS, micro_benchmarks
from harness.stages.page import Page
from harness.stages.schedule import audit_step
from harness.stages.search import SearchFleet, best, fit_candidate, search
from harness.stages.validate import (
    Connection,
    computed,
    new_bodies,
    parity_check,
    quality_checks,
    reload_check,
    request_bodies,
    unanswered,
    wire_check,
)
from harness.stages.worker import cause_of
from harness.store.bundle import write_bundle
from harness.store.database import Database
from harness.store.exchanges import write_exchanges
from harness.store.runs import RunFolder
from harness.units import Unit, format_number

SERVER = "harness.server"
"""The module of a serving process; targets are told its name, for they stand below it."""

MODEL = "candidate"
"""What every served candidate is called in its URL: the same requests reach all of them."""

PAGE_NOTE = "Locust's page was open (--ui): a process more on the server's cores"

_SAMPLE_ROWS = 10


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
    inputs: Inputs
    clock: Clock
    tell: Callable[[str], None]
    """Says what is going on inside the present cell."""
    page: Page | None = None
    """Shows the steps of served cells, where someone wants to see them."""

    @property
    def searched(self) -> Searched:
        """The table and the search; only for cells that a scenario without a search does not have."""
        if self.inputs.searched is None:
            raise ValueError("the scenario searches nothing")
        return self.inputs.searched


@dataclass(frozen=True, slots=True)
class Told:
    """What a finished cell has to say beside its records."""

    startup_s: float | None = None
    notes: tuple[str, ...] = ()


def search_cell(work: Work, cell: Cell, fleet: SearchFleet, problem: Problem) -> Told:
    """One engine with one seed, on the fleet's workers."""
    engine = plugin("engines", str(cell.engine), work.searched.search.parameters.get(str(cell.engine)))
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
    table, metric, seed = work.searched.table, work.searched.metric, work.searched.data.seed
    configuration, cv_score = (
        (baseline(table.signature.task), None)
        if origin == BASELINE
        else _best_of(work.database.ledger(), origin, metric)
    )
    started_s = work.clock.monotonic_s()
    with _blamed_on_the_model():
        pipeline = fit_candidate(configuration, table, seed)
    fit_s = work.clock.monotonic_s() - started_s
    # Before anything is kept: a candidate without a failed check is one that may be served.
    with _blamed_on_the_model():
        answers = predict(pipeline, table.frame.iloc[table.holdout], table.signature.task)
    batch = holdout_batch(table)
    files, artifacts = exported(pipeline, table.signature, batch.take(slice(_SAMPLE_ROWS)))
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
    work.tell(f"checking {origin}")
    for check in _checks(work, candidate, bundle, batch, answers):
        work.database.record(cell.id, check)
    return Told()


def serve_cell(work: Work, cell: Cell) -> Told:
    """One candidate on one target: deployed, checked over the wire, loaded, and taken down."""
    target: Target = plugin("targets", str(cell.target), cell.parameters)
    candidate, predictor = _to_serve(work, cell)
    servable = Servable(
        entry=SERVER,
        bundle=work.folder.candidate(candidate.id) if candidate is not None else None,
        runtime=cell.runtime,
        model=MODEL,
        replicas=cell.replicas or 1,
        cores=work.host.target_cores,
        log=work.folder.logs / f"{cell.id}.server.log",
    )
    asked = _asked(work, cell)
    expected = None
    work.tell("starting the server")
    with contextlib.ExitStack() as stack:
        with _blamed_on(Cause.TARGET, work):
            endpoint = stack.enter_context(target.serve(servable))

        def refuse_dead() -> None:
            with _blamed_on(Cause.TARGET, work):
                refuse_gone(endpoint.url, endpoint.processes, what=f"The server of {cell.label}", log=servable.log)

        if candidate is not None and predictor is not None:
            work.tell("checking the answers over the wire")
            batch = holdout_batch(work.searched.table)
            check = wire_check(candidate, batch, predictor, str(cell.runtime), str(cell.target), endpoint)
            refuse_dead()
            work.database.record(cell.id, check)
            if not check.passed:
                raise CellFailedError(Cause.CHECK_FAILED, check.detail)
            with _blamed_on(Cause.TARGET, work), Connection(endpoint) as connection:
                expected = [connection.infer(payload) for payload in asked.bodies]
        with _blamed_on(Cause.GENERATOR, work):
            load = stack.enter_context(_load(work, cell, endpoint, asked, expected))
        _drive(work, cell, load, refuse_dead)
    return Told(startup_s=endpoint.startup_s, notes=endpoint.notes + ((PAGE_NOTE,) if work.page else ()))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the server of a cell is asked."""

    bodies: Sequence[bytes]
    new: Sequence[bytes] = ()
    """Bodies that were never sent, for asking whether answers are remembered."""
    head: Head = JSON_POST
    locustfile: Path | None = None
    """Whose users make the requests in place of the bodies."""


@contextlib.contextmanager
def _load(
    work: Work, cell: Cell, endpoint: Endpoint, asked: _Asked, expected: Sequence[bytes] | None
) -> Iterator[Generator | LocustUsers]:
    """What drives the steps of the cell: our generator, or the users of a locustfile."""
    plan, folder, cores = work.scenario.load, work.folder.logs / "load" / cell.id, work.host.generator_cores
    if asked.locustfile is not None:
        yield LocustUsers(asked.locustfile, endpoint, plan, cores, folder)
        return
    trace_s = work.inputs.trace_s
    with generator(
        endpoint, asked.bodies, expected, plan, cores, folder, trace_s, asked.new, asked.head, work.page
    ) as made:
        yield made


def _asked(work: Work, cell: Cell) -> _Asked:
    """Rows of the table, or the user's own requests; a server that answers anything is asked for that."""
    requests = work.inputs.requests
    if requests is not None and cell.target == EXTERNAL:
        return _Asked(requests.bodies, head=requests.head, locustfile=requests.locustfile)
    if work.inputs.searched is None:
        return _Asked((requests and requests.bodies) or [b"{}"])
    plan, table = work.scenario.load, work.searched.table
    batch = holdout_batch(table)
    bodies = request_bodies(batch, table.signature, plan.rows)
    new = new_bodies(batch, table.signature, plan.rows, bodies, plan.seed) if cell.candidate else []
    return _Asked(bodies, new)


def micro_cell(work: Work, cell: Cell) -> Told:
    """One candidate, timed in process."""
    candidate = _checked_candidate(work.database.ledger(), str(cell.candidate))
    bundle, folder = work.folder.candidate(candidate.id), work.folder.logs / "micro"
    rows = encode_request(holdout_batch(work.searched.table).take(slice(max(BATCH_ROWS))), candidate.signature)
    seconds, cores = work.scenario.micro.seconds, work.host.target_cores
    work.tell("timing prediction and encoding")
    with _blamed_on(Cause.BENCHMARK, work):
        results = micro_benchmarks(cell.id, candidate, rows, bundle, seconds, cores, folder)
    for result in results:
        work.database.record(cell.id, result)
    return Told()


def holdout_batch(table: Table) -> Batch:
    """The rows that no search has seen, as they travel to a server."""
    return to_batch(table.frame.iloc[table.holdout], table.signature.columns)


def _drive(work: Work, cell: Cell, load: Generator | LocustUsers, refuse_dead: Callable[[], None]) -> None:
    """Walk the shapes of load, a step at a time, keeping each before the next that the server has outlived."""

    def keep(step: Step, recording: Recording, new_from: int | None = None) -> StepEntry:
        refuse_dead()
        step_id = f"{cell.id}-{step.number:02d}"
        entry = StepEntry(
            id=step_id,
            cell=cell.id,
            step=step,
            planned=recording.planned,
            new_from=new_from,
            plan_sha256=recording.plan_sha256,
            exchanges_sha256=write_exchanges(work.folder.exchanges(step_id), recording.columns),
            generator=recording.health,
        )
        work.database.record(cell.id, entry)
        return entry

    def drive(step: Step) -> Rung:
        step = step.model_copy(update={"users": isinstance(load, LocustUsers)})
        work.tell(f"{step.shape}: {step.label}")
        with _blamed_on(Cause.GENERATOR, work):
            recording = load.drive(step, lambda beat: work.tell(f"{step.shape}: {step.label}; {_told(beat)}"))
        return rung(reduce_step(keep(step, recording), recording.columns))

    number = sum(1 for _ in steps(work.scenario.load, drive))
    if isinstance(load, Generator) and load.new:
        work.tell("asking whether it remembers answers")
        with _blamed_on(Cause.GENERATOR, work):
            audit = load.audit(number)
        keep(audit_step(number), audit, load.payloads)


@contextlib.contextmanager
def _blamed_on(cause: Cause, work: Work) -> Iterator[None]:
    """What the machine does not do in here is the cell's failure, for this cause, and not the end of the run.

    One target that does not start, or whose port was taken meanwhile, must not cost all that was measured before. What
    the run itself stands on, its database and its disk, is written outside such blocks.
    """
    try:
        yield
    except (InfrastructureError, UsageError) as error:
        raise CellFailedError(cause, str(error).replace(f"{work.folder.path}/", "")) from error


@contextlib.contextmanager
def _blamed_on_the_model() -> Iterator[None]:
    """What fitting or predicting raises, whatever it is, is the cell's failure."""
    try:
        yield
    except Exception as error:
        raise CellFailedError(cause_of(error), f"{type(error).__name__}: {error}") from error


def _checks(work: Work, candidate: Candidate, bundle: Path, batch: Batch, answers: Prediction) -> list[Check]:
    """Everything that can be checked without a server; the fresh processes start up while this one resamples rows."""
    table, scenario = work.searched.table, work.scenario
    again, raised = {}, []
    for runtime in (artifact.runtime for artifact in candidate.artifacts if artifact.file is not None):
        _, compute = loaded(bundle, runtime)
        try:
            again[runtime] = computed(compute, batch)
        except Exception as error:  # a runtime's library may raise anything, and another runtime may do better
            raised.append(unanswered(candidate, runtime, error))
    with ThreadPoolExecutor() as pool:
        reloaded = [
            pool.submit(reload_check, candidate, batch, answered, runtime, SERVER, bundle)
            for runtime, answered in again.items()
        ]
        truth, train_truth = (np.asarray(table.target[rows], dtype=np.float64) for rows in (table.holdout, table.train))
        checks = quality_checks(candidate, truth, answers, train_truth, scenario.expect, work.searched.data.seed)
        checks += [parity_check(candidate, answers, answered, runtime) for runtime, answered in again.items()]
        return checks + raised + [check.result() for check in reloaded]


def _to_serve(work: Work, cell: Cell) -> tuple[Candidate, Predictor] | tuple[None, None]:
    """The candidate of a cell, loaded here too; nothing for a target that serves its own."""
    if cell.candidate is None:
        return None, None
    candidate = _checked_candidate(work.database.ledger(), cell.candidate, cell.runtime)
    try:
        return loaded(work.folder.candidate(candidate.id), str(cell.runtime))
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
    failed = failed_checks(ledger, origin, runtime)
    if failed:
        raise CellFailedError(Cause.CHECK_FAILED, f"{origin} failed {failed[0]}")
    return found


def _best_of(ledger: Ledger, engine: str, metric: Metric) -> tuple[Configuration, float | None]:
    mine = {cell.id for cell in ledger.plan if cell.kind == "search" and cell.engine == engine}
    leading = best((trial for trial in ledger.trials if trial.cell in mine), metric)
    if leading is None:
        raise CellFailedError(Cause.ENGINE_NO_MODEL, f"no trial of {engine} succeeded")
    return leading.evaluated.configuration, leading.evaluated.score


def _told(beat: Beat) -> str:
    """How a step is going, in a line."""
    rate = f"{beat.answered / beat.span_s:,.0f} answered/s"
    failed = f"{beat.failed:,} failed" if beat.failed else ""
    p50, p99 = (
        "" if value_s is None else f"{name} {format_number(value_s, Unit.SECONDS)}"
        for name, value_s in (("p50", beat.p50_s), ("p99", beat.p99_s))
    )
    lag = "" if beat.lag_p99_s is None else f"lag p99 {format_number(beat.lag_p99_s, Unit.SECONDS)}"
    return ", ".join(part for part in (rate, failed, p50, p99, f"{beat.in_flight:,} in flight", lag) if part)


def _shown(trial: Trial, metric: Metric) -> str:
    score = format_number(trial.evaluated.score, Unit.SCORE)
    return f", best {metric} {score} ({trial.evaluated.configuration['family']})"


def _no_model(trials: Sequence[Trial]) -> str:
    causes = [trial.evaluated.failure for trial in trials if trial.evaluated.failure is not None]
    if not causes:
        return "no trial ended within the time given"
    return f"none of {len(trials)} trials succeeded; the first failed by {causes[0].cause}: {causes[0].message}"
