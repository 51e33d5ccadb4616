"""One cell of each kind, from begun to recorded.

In: `Work`, what all cells of a run share, and the cell. Out: records in `run.db` and files in the run folder. A cell
that fails for a reason of its own (nothing found, not convertible, a failed check) raises `CellFailedError`: a row,
not the end of the run. Any other error ends the run, and the cell is begun anew when it is resumed.
"""

import contextlib
import hashlib
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.analysis.recommendation import failed_checks
from harness.errors import NotConvertibleError, UnansweredError
from harness.pipeline.inputs import Searched
from harness.pipeline.under_load import asked, walked_under_load
from harness.pipeline.work import CellFailedError, Told, Work, blamed_on
from harness.plugins import foreign, plugin
from harness.ports import Predictor, Problem, Servable, Target
from harness.process import refuse_gone
from harness.records.candidate import Candidate, Check, Configuration, Trial
from harness.records.cell import Cell
from harness.records.ledger import Ledger
from harness.records.refit import Refit
from harness.records.rows import Batch, Prediction
from harness.records.run import Cause, Failure, SearchStart
from harness.records.scenario import ComparePlan, Scenario
from harness.records.server import SERVER, ServerSettings
from harness.records.words import BASELINE, DUMMY, Metric
from harness.serving.protocol import encode_request
from harness.space.families import baseline
from harness.space.resamples import resampled_rows, resampled_scores
from harness.space.score import score
from harness.stages.data import holdout_batch
from harness.stages.export import exported, loaded
from harness.stages.fitting import THREADS
from harness.stages.fleet import SearchFleet
from harness.stages.micro import BATCH_ROWS, micro_benchmarks
from harness.stages.refit import Order, fitted, order, refitted
from harness.stages.search import best, search
from harness.stages.validate import (
    Connection,
    computed,
    parity_check,
    quality_checks,
    reload_check,
    unanswered,
    wire_check,
)
from harness.store.bundle import write_bundle
from harness.units import Unit, format_number

MODEL = "candidate"
"""What every served candidate is called in its URL: the same requests reach all of them."""

PAGE_NOTE = "Locust's page was open (--ui): a process more on the server's cores"

LAST_FIT_S = 120.0
LAST_FIT_SEARCHES = 4.0
"""A fit on all training rows may take so long, and so many times as long as a search: it is on more rows than a fold
has, and a refit fits twice."""

_SAMPLE_ROWS = 1000
"""Most rows on which a form is compared with the pipeline before it is written; all of them are checked afterwards."""

_FOREIGN = (
    "the models of {} exist in its own environment only, so there is none to serve; its scores are on the same folds "
    "as those of the other engines"
)


def search_cell(work: Work, cell: Cell, fleet: SearchFleet, problem: Problem) -> Told:
    """One engine with one seed, on the fleet's workers."""
    engine = plugin("engines", str(cell.engine), work.searched(cell).search.parameters.get(str(cell.engine)))
    # Its own trials alone: getting ready takes as long in the last search of a long run as in the first.
    history = sorted(work.database.trials(cell.id), key=lambda trial: trial.number)
    leading = best(history, problem.metric)
    started: list[SearchStart] = []

    def record(trial: Trial) -> None:
        nonlocal leading
        work.database.record(cell.id, trial)
        leading = best([trial] if leading is None else [leading, trial], problem.metric)
        shown = "" if leading is None else _shown(leading, problem.metric)
        work.tell(f"trial {trial.number + 1} of at most {problem.trials}{shown}")

    trials = search(engine, problem, fleet, record, cell.id, history, started.append)
    if leading is None:
        raise CellFailedError(Cause.ENGINE_NO_MODEL, _no_model(trials))
    return Told(search_start=started[0])


def refit_cell(work: Work, cell: Cell) -> Told:
    """What an engine found with a seed (or the baseline, or the dummy): fitted on all training rows, and timed."""
    searched, entrant = work.searched(cell), str(cell.engine)
    table, task, seed = searched.table, searched.table.signature.task, searched.data.seed
    configuration, cv_score = _entrant(work.database.ledger(), cell, searched)
    plan = work.scenario.comparison or ComparePlan()
    work.tell("fitting and timing")
    with blamed_on(Cause.WORKER_LOST, work):
        answer = refitted(_order(searched, configuration, entrant), plan, work.host.target_cores)
    if isinstance(answer, Failure):
        raise CellFailedError(answer.cause, answer.message)
    found, asked = answer
    fit_cold_s, fit_warm_s = found.fits_s
    truth = table.target[table.holdout]
    drawn = resampled_rows(truth, task, seed, table.holdout_groups)
    value = score(searched.metric, truth, found.answers)
    resamples = resampled_scores(searched.metric, truth, found.answers, drawn)
    if not np.isfinite([value, *resamples]).all():
        raise CellFailedError(Cause.NONFINITE_METRIC, f"{searched.metric} on the holdout, or a resample, is not finite")
    work.database.record(
        cell.id,
        Refit(
            cell=cell.id,
            table=str(cell.table),
            entrant=entrant,
            seed=cell.seed,
            configuration=configuration,
            cv_score=cv_score,
            score=value,
            resamples=resamples,
            fit_cold_s=fit_cold_s,
            fit_warm_s=fit_warm_s,
            load_s=asked.load_s,
            predict_cold_s=asked.predict_cold_s,
            predict=asked.predict,
            threads=THREADS,
            size_bytes=len(found.pipeline),
            peak_memory_bytes=found.peak_memory_bytes,
            fit_memory_bytes=found.fit_memory_bytes,
        ),
    )
    return Told()


def candidate_cell(work: Work, cell: Cell) -> Told:
    """The best of an engine (or the baseline): fitted, saved, and checked as far as that goes without a server."""
    origin = str(cell.candidate)
    searched = work.searched(cell)
    table, metric = searched.table, searched.metric
    configuration, cv_score = (
        (baseline(table.signature.task), None)
        if origin == BASELINE
        else _best_of(work.database.ledger(), metric, engine=origin)
    )
    if origin != BASELINE and foreign(origin) is not None:
        raise CellFailedError(Cause.NOT_CONVERTIBLE, _FOREIGN.format(origin))
    with blamed_on(Cause.WORKER_LOST, work):
        answer = fitted(_order(searched, configuration, origin), work.host.target_cores)
    # Before anything is kept: a candidate without a failed check is one that may be served.
    if isinstance(answer, Failure):
        raise CellFailedError(answer.cause, answer.message)
    pipeline = pickle.loads(answer.pipeline)  # noqa: S301 - from our own child
    batch = holdout_batch(table)
    # Spread over the holdout: where it is in the order of time, its beginning is not like its end.
    spread = np.linspace(0, len(batch) - 1, min(len(batch), _SAMPLE_ROWS)).astype(np.intp)
    files, artifacts = exported(pipeline, table.signature, batch.take(spread))
    digest = hashlib.sha256(repr((cell.id, table.sha256, sorted(configuration.items()))).encode()).hexdigest()
    candidate = Candidate(
        id=f"{origin}-{digest[:8]}",
        origin=origin,
        configuration=configuration,
        cv_score=cv_score,
        fit_s=sum(answer.fits_s),
        signature=table.signature,
        metric=metric,
        artifacts=artifacts,
    )
    bundle = work.folder.candidate(candidate.id)
    write_bundle(bundle, candidate, files, encode_request(batch.take(slice(1)), candidate.signature))
    work.database.record(cell.id, candidate)
    work.tell(f"checking {origin}")
    for check in _checks(searched, work.scenario, candidate, bundle, batch, answer.answers):
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
        settings=cell.settings or ServerSettings(),
        ray_address=work.ray_address,
    )
    refuse_changed = getattr(target, "refuse_changed", None)
    questions = asked(work, cell)
    expected = None
    work.tell("starting the server")
    late: list[str] = []
    with _noted(late), contextlib.ExitStack() as stack:
        with blamed_on(Cause.TARGET, work):
            endpoint = stack.enter_context(target.serve(servable))

        def refuse_dead() -> None:
            with blamed_on(Cause.TARGET, work):
                refuse_gone(endpoint.url, endpoint.processes, what=f"The server of {cell.label}", log=servable.log)
                if refuse_changed is not None:
                    refuse_changed(endpoint)

        if candidate is not None and predictor is not None:
            work.tell("checking the answers over the wire")
            batch = holdout_batch(work.searched(cell).table)
            check = wire_check(candidate, batch, predictor, str(cell.runtime), str(cell.target), endpoint)
            refuse_dead()
            work.database.record(cell.id, check)
            if not check.passed:
                raise CellFailedError(Cause.CHECK_FAILED, check.detail)
            with blamed_on(Cause.TARGET, work), Connection(endpoint) as connection:
                expected = [connection.infer(payload) for payload in questions.bodies]
        walked_under_load(work, cell, endpoint, questions, expected, refuse_dead)
    return Told(startup_s=endpoint.startup_s, notes=(*endpoint.notes, *((PAGE_NOTE,) if work.page else ()), *late))


@contextlib.contextmanager
def _noted(late: list[str]) -> Iterator[None]:
    """Note that a server ended before it had answered everyone: its steps are measured and recorded by then."""
    try:
        yield
    except UnansweredError as error:
        late.append(str(error).rstrip("."))


def micro_cell(work: Work, cell: Cell) -> Told:
    """One candidate, timed in process."""
    candidate = _checked_candidate(work.database.ledger(), str(cell.candidate))
    bundle, folder = work.folder.candidate(candidate.id), work.folder.logs / "micro"
    rows = encode_request(holdout_batch(work.searched(cell).table).take(slice(max(BATCH_ROWS))), candidate.signature)
    seconds, cores = work.scenario.micro.seconds, work.host.target_cores
    work.tell("timing prediction and encoding")
    with blamed_on(Cause.BENCHMARK, work):
        results = micro_benchmarks(cell.id, candidate, rows, bundle, seconds, cores, folder)
    for result in results:
        work.database.record(cell.id, result)
    return Told()


def _order(searched: Searched, configuration: Configuration, engine: str) -> Order:
    """A fit on all training rows of what an engine found (or the baseline, or the dummy), and what it may take."""
    limit_s = LAST_FIT_S + LAST_FIT_SEARCHES * searched.search.seconds
    own = None if engine in (BASELINE, DUMMY) else foreign(engine)
    asked = None if own is None else replace(searched.problem(searched.data.seed), foreign=own)
    return order(
        searched.table, configuration, searched.data.seed, limit_s, searched.search.memory_bytes, foreign=asked
    )


def _checks(
    searched: Searched, scenario: Scenario, candidate: Candidate, bundle: Path, batch: Batch, answers: Prediction
) -> list[Check]:
    """Everything that can be checked without a server; the fresh processes start up while this one resamples rows."""
    table = searched.table
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
        seed, groups = searched.data.seed, table.holdout_groups
        checks = quality_checks(candidate, truth, answers, train_truth, scenario.expect, seed, groups)
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


def _entrant(ledger: Ledger, cell: Cell, searched: Searched) -> tuple[Configuration, float | None]:
    """What a refit is of, and its cross-validated score where it was searched for."""
    if cell.engine == DUMMY:
        return {}, None
    if cell.engine == BASELINE:
        return baseline(searched.table.signature.task), None
    # Where several numbers of workers searched, what engines can do is what they do with the most.
    asked = {"table": cell.table, "engine": cell.engine, "seed": cell.seed, "workers": max(searched.search.workers)}
    return _best_of(ledger, searched.metric, **asked)


def _best_of(ledger: Ledger, metric: Metric, **asked: object) -> tuple[Configuration, float | None]:
    """The best configuration of the search cells whose fields are as `asked`, and its score."""
    searches = [cell for cell in ledger.plan if cell.kind == "search"]
    mine = {cell.id for cell in searches if all(getattr(cell, name) == value for name, value in asked.items())}
    leading = best((trial for trial in ledger.trials if trial.cell in mine), metric)
    if leading is None:
        raise CellFailedError(Cause.ENGINE_NO_MODEL, f"no trial of {asked['engine']} succeeded")
    return leading.evaluated.configuration, leading.evaluated.score


def _shown(trial: Trial, metric: Metric) -> str:
    score = format_number(trial.evaluated.score, Unit.SCORE)
    return f", best {metric} {score} ({trial.evaluated.configuration['family']})"


def _no_model(trials: Sequence[Trial]) -> str:
    causes = [trial.evaluated.failure for trial in trials if trial.evaluated.failure is not None]
    if not causes:
        return "no trial ended within the time given"
    return f"none of {len(trials)} trials succeeded; the first failed by {causes[0].cause}: {causes[0].message}"
