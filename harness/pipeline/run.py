"""The run: what is done in which order, what is left after an interruption, and what the end is called.

In: a scenario file, or the id of an unfinished run. Out: a run folder with its report, and the verdict. Cells are the
unit: a finished one is never done again, an unfinished one is begun anew.
"""

import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.analysis.reduce import reduce_step
from harness.analysis.validity import judged, known_roofline, levelled_off
from harness.clock import Clock
from harness.errors import UsageError
from harness.pipeline.cells import candidate_cell, micro_cell, refit_cell, search_cell, serve_cell
from harness.pipeline.inputs import Inputs, Searched, read_inputs
from harness.pipeline.plan import Plan, refuse_outside, refuse_too_many, resolved
from harness.pipeline.refusals import (
    refuse_another,
    refuse_beyond,
    refuse_elsewhere,
    refuse_no_cluster,
    refuse_taken_ports,
)
from harness.pipeline.report import write_report
from harness.pipeline.work import CellFailedError, Told, Work
from harness.process import allow_open_files
from harness.ray_session import ray_session, refuse_silent
from harness.records.cell import Cell
from harness.records.finding import Document
from harness.records.ledger import Ledger
from harness.records.run import INFRASTRUCTURE, CellResult, CellState, Failure, Progress, Run
from harness.records.scenario import Scenario
from harness.records.words import ROOFLINE
from harness.stages.fleet import SearchFleet
from harness.stages.host import fingerprint
from harness.stages.load.page import Page
from harness.stages.ray_workers import GROWTH_S, START_S, ray_workers
from harness.store.database import Database
from harness.store.exchanges import read_exchanges
from harness.store.files import write_atomically
from harness.store.roofline import keep_roofline, read_roofline
from harness.store.runs import RunFolder, disk_failures, find_run, locked, new_run
from harness.store.scenarios import kept_scenario, read_scenario, scenario_name

SPARE_FILES = 256
"""Files that a process has open beside its connections: libraries, logs, the database."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run needs beside its scenario, and whom it tells."""

    results: Path
    ray_address: str | None
    began: Callable[[RunFolder], None]
    """Told of the run's folder as soon as there is something to resume."""
    watch: Callable[[Progress], None]
    clock: Clock
    page: Page | None = None
    """Shows the steps of served cells, where someone wants to see them."""
    isolated: bool = False
    """Nothing but loopback can be reached."""


@dataclass(frozen=True, slots=True)
class Brought:
    """A scenario, and where it comes from."""

    scenario: Scenario
    text: str
    """What the run keeps: a scenario file that gives the same scenario."""
    name: str
    folder: Path
    """What paths in it are relative to."""
    where: str
    """What messages call it."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its end."""

    folder: RunFolder
    document: Document
    failed: tuple[CellResult, ...]
    """Cells that the machine failed: resuming tries them again."""


def start(scenario_file: Path, overrides: Sequence[str], run_id: str | None, around: Surroundings) -> Finished:
    """Run a scenario file from the beginning."""
    scenario, text = read_scenario(scenario_file, overrides)
    brought = Brought(scenario, text, scenario_name(scenario_file), scenario_file.parent, str(scenario_file))
    return begin(brought, run_id, around)


def begin(brought: Brought, run_id: str | None, around: Surroundings) -> Finished:
    """Run a scenario from the beginning."""
    scenario = brought.scenario
    plan = resolved(scenario, brought.where)
    if around.isolated:
        refuse_outside(plan)
    inputs = read_inputs(scenario, brought.folder)
    tables = [searched.checked() for searched in inputs.searched]
    host = fingerprint()
    roofline = read_roofline(around.results, host)
    refuse_beyond(plan, roofline)
    refuse_too_many(scenario.load, host)
    with locked(around.results), disk_failures():
        _prepare_machine(plan, plan.cells, around)
        started_utc = around.clock.utc_label()
        run = Run(
            id=run_id or f"{re.sub('[-:]', '', started_utc)}-{brought.name}"[:100],
            scenario=brought.name,
            data_folder=str(brought.folder.resolve()),
            scenario_sha256=hashlib.sha256(brought.text.encode()).hexdigest(),
            data_sha256=inputs.data_sha256,
            trace_sha256=inputs.trace_sha256,
            harness_version=harness.__version__,
            started_utc=started_utc,
            roofline=roofline,
            is_on_cluster=around.ray_address is not None,
        )

        def fill(made: RunFolder) -> None:
            write_atomically(made.scenario, brought.text.encode())
            Database.create(made.database, run, host, scenario, tables, plan.cells).close()

        folder = new_run(around.results, run.id, fill)
        around.began(folder)
        with Database.open(folder.database) as database:
            return _worked_off(folder, database, plan, inputs, around)


def resume(run_id: str, around: Surroundings) -> Finished:
    """Go on with a run that did not come to its end; finished cells stay as they are.

    Raises UsageError where this is another machine or another version, IntegrityError where scenario or table changed.
    """
    with locked(around.results), disk_failures():
        folder = find_run(around.results, run_id)
        around.began(folder)
        with Database.open(folder.database) as database:
            ledger = database.ledger()
            if ledger.run.simulation is not None:
                raise UsageError(f"{folder.id} is a simulation, which takes seconds: simulate anew.")
            plan = resolved(kept_scenario(folder.scenario, ledger.run.scenario_sha256), str(folder.scenario))
            if around.isolated:
                refuse_outside(plan)
            refuse_elsewhere(ledger.run, around.ray_address)
            inputs = read_inputs(plan.scenario, Path(ledger.run.data_folder))
            refuse_another(ledger, plan, inputs)
            _prepare_machine(plan, _left(plan, ledger), around)
            return _worked_off(folder, database, plan, inputs, around)


def _prepare_machine(plan: Plan, cells: Iterable[Cell], around: Surroundings) -> None:
    """Whatever a run needs of the machine and can be had, or refused, before it begins."""
    if plan.scenario.load.placement == "cluster":
        refuse_no_cluster(around.ray_address, has_page=around.page is not None)
    if around.ray_address is not None:
        refuse_silent(around.ray_address)
    allow_open_files(plan.scenario.load.in_flight_max + SPARE_FILES)
    refuse_taken_ports(cells, around.ray_address)


def _worked_off(
    folder: RunFolder,
    database: Database,
    plan: Plan,
    inputs: Inputs,
    around: Surroundings,
) -> Finished:
    ledger = database.ledger()
    left = _left(plan, ledger)
    if left:  # or a run that was finished, resumed and killed would go on saying that it is finished
        database.replace_run(ledger.run.model_copy(update={"finished_utc": None}))
    teller = _Teller(plan, around, left)

    def work(cell: Cell) -> Work:
        return Work(
            folder=folder,
            database=database,
            scenario=plan.scenario,
            host=ledger.host,
            inputs=inputs,
            clock=around.clock,
            tell=teller.of(cell),
            page=around.page,
            ray_address=around.ray_address,
        )

    _search(inputs.searched, [cell for cell in left if cell.kind == "search"], work, around)
    _refuse_nothing_found(database.ledger())
    for cell in left:
        match cell.kind:
            case "refit":
                _done(work(cell), cell, refit_cell)
            case "candidate":
                _done(work(cell), cell, candidate_cell)
            case "serve":
                _done(work(cell), cell, serve_cell)
            case "micro":
                _done(work(cell), cell, micro_cell)
    if left or ledger.run.finished_utc is None:
        database.replace_run(ledger.run.model_copy(update={"finished_utc": around.clock.utc_label()}))
    ledger = database.ledger()
    if any(cell.target == ROOFLINE for cell in left):
        _keep_roofline(folder, ledger, around)
    return Finished(folder=folder, document=write_report(folder), failed=ledger.failed_by_the_machine)


def _keep_roofline(folder: RunFolder, ledger: Ledger, around: Surroundings) -> None:
    """Keep what the run found out of its generator, for the runs to come; a ladder that was cut short found nothing."""
    null = {cell.id for cell in ledger.plan if cell.target == ROOFLINE}
    entries = [entry for entry in ledger.steps if entry.cell in null]
    seen = judged(ledger, [reduce_step(entry, read_exchanges(folder.exchanges(entry.id))) for entry in entries])
    found, before = known_roofline(ledger, seen), read_roofline(around.results, ledger.host)
    load = ledger.scenario.load
    # The most that was ever reached here: with few in flight the two sides may fall into step, at half of it.
    if found is None or not found.holds_for(load) or not levelled_off(ledger, seen):
        return
    if before is None or not before.holds_for(load) or before.rate_rps < found.rate_rps:
        keep_roofline(around.results, found)


def _search(
    tables: Sequence[Searched], cells: Sequence[Cell], work: Callable[[Cell], Work], around: Surroundings
) -> None:
    """All search cells on one Ray session, which is gone before anything is measured under load."""
    if not cells:
        return
    work(cells[0]).tell("starting Ray")
    with ray_session(max(cell.workers or 1 for cell in cells), around.ray_address):
        for searched in tables:
            own = [cell for cell in cells if cell.table == searched.data.name]
            for workers, alike in itertools.groupby(own, key=lambda cell: cell.workers or 1):
                _search_with(workers, searched, list(alike), work, around)


def _search_with(
    count: int, searched: Searched, cells: Sequence[Cell], work: Callable[[Cell], Work], around: Surroundings
) -> None:
    """Search cells on one table, with the same workers."""
    table = searched.table
    patience_s = START_S if around.ray_address is None else GROWTH_S
    work(cells[0]).tell(f"waiting for {count} workers, for {patience_s:g} s at most")
    with ray_workers(table, count, around.clock, patience_s=patience_s) as workers:
        fleet = SearchFleet(workers, table.training)
        for cell in cells:
            problem = searched.problem(cell.seed or 0)
            _done(work(cell), cell, functools.partial(search_cell, fleet=fleet, problem=problem))


def _done(work: Work, cell: Cell, do: Callable[[Work, Cell], Told]) -> None:
    """Do a cell, and keep what became of it."""
    work.database.begin(cell)
    # After its records: a file without a record is left over, a record without a file is damage.
    work.folder.forget(cell)
    work.tell("begun")
    started_s = work.clock.monotonic_s()
    told, failure = Told(), None
    try:
        told = do(work, cell)
    except CellFailedError as error:
        failure = Failure.of(error.cause, str(error))
    work.database.finish(
        CellResult(
            id=cell.id,
            label=cell.label,
            kind=cell.kind,
            state=CellState.FAILED if failure else CellState.DONE,
            duration_s=work.clock.monotonic_s() - started_s,
            failure=failure,
            startup_s=told.startup_s,
            search_start=told.search_start,
            notes=told.notes,
        )
    )
    work.tell(f"failed: {failure.message}" if failure else "done")


def _left(plan: Plan, ledger: Ledger) -> list[Cell]:
    """The cells that are still to be done."""
    ended = {result.id for result in ledger.results if _has_ended(result)}
    return [cell for cell in plan.cells if cell.id not in ended]


def _has_ended(result: CellResult) -> bool:
    return result.state is not CellState.OPEN and not (result.failure and result.failure.cause in INFRASTRUCTURE)


def _refuse_nothing_found(ledger: Ledger) -> None:
    searched = [result for result in ledger.results if result.kind == "search"]
    if searched and all(result.failure for result in searched):
        told = "; ".join(f"{result.label}: {result.failure.message}" for result in searched if result.failure)
        raise UsageError(
            f"No trial succeeded in any search, so there is nothing to serve. {told}. Give the search more seconds or "
            "trials, other families, or look at the table; every failed trial is in run.db."
        )


class _Teller:
    """Says how far a run is, and how long it may still take."""

    def __init__(self, plan: Plan, around: Surroundings, left: Sequence[Cell]) -> None:
        self._around = around
        self._cells = len(plan.cells)
        self._positions = {cell.id: position for position, cell in enumerate(plan.cells)}
        self._left_s: dict[str, float] = {}
        ahead, left_s = {cell.id for cell in left}, 0.0
        for cell, estimate_s in reversed(list(zip(plan.cells, plan.estimates_s, strict=True))):
            left_s += estimate_s if cell.id in ahead else 0.0
            self._left_s[cell.id] = left_s

    def of(self, cell: Cell) -> Callable[[str], None]:
        """What the cell's work calls with a message."""
        began_s = self._around.clock.monotonic_s()

        def tell(message: str) -> None:
            spent_s = self._around.clock.monotonic_s() - began_s
            self._around.watch(
                Progress(
                    stage=cell.kind,
                    cell=self._positions[cell.id] + 1,
                    cells=self._cells,
                    label=cell.label,
                    message=message,
                    left_s=max(0.0, self._left_s[cell.id] - spent_s),
                )
            )

        return tell
