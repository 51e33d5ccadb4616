"""The simulation: the searches of a scenario once more, in virtual time, with as many workers as anyone likes.

In: a scenario file, numbers of workers, and an earlier run of that scenario with its trials. Out: a run folder of its
own, marked as simulated. Engines, table, folds, seeds and budget are the same; a proposal is answered with the recorded
trial that is nearest to it, and costs the driver what a trial cost it there. The numbers of workers that were recorded
are simulated too, for that says what the simulation is off by.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.analysis.growth import best_by, whole
from harness.analysis.worker_time import Costs, costs
from harness.clock import FakeClock
from harness.errors import UsageError
from harness.pipeline.inputs import Searched, read_inputs
from harness.pipeline.plan import resolved
from harness.pipeline.report import write_report
from harness.pipeline.run import Finished, Surroundings
from harness.plugins import foreign, names, plugin
from harness.records.candidate import Trial
from harness.records.cell import Cell
from harness.records.ledger import Ledger
from harness.records.run import CellResult, CellState, Progress, RecordedSearch, Run, Simulation
from harness.records.scenario import Scenario
from harness.stages.host import fingerprint
from harness.stages.search import search
from harness.stages.simulated_workers import Recorded, SimulatedFleet, SimulatedWorkers
from harness.store.database import Database, scenario_of
from harness.store.files import write_atomically
from harness.store.runs import LATEST, RunFolder, disk_failures, find_run, locked, new_run, runs
from harness.store.scenarios import read_scenario, scenario_name


@dataclass(frozen=True, slots=True)
class _Recording:
    """What one search cell is simulated from: searches on its table by the nearest number of workers."""

    searched: Searched
    recorded: Recorded
    costs: Costs
    """What the driver's work took, in the searches of the same engine."""


def simulate(
    scenario_file: Path,
    overrides: Sequence[str],
    workers: Sequence[int],
    of: str | None,
    run_id: str | None,
    around: Surroundings,
) -> Finished:
    """Simulate the searches of a scenario file with these numbers of workers, from the run `of` (None: its latest).

    Raises UsageError where there is nothing to simulate from.
    """
    scenario, text = read_scenario(scenario_file, overrides)
    if scenario.search is None:
        raise UsageError(f"{scenario_file} has no [search], and a simulation is of searches.")
    with locked(around.results), disk_failures(then="simulate again"):
        source = _recorded(around.results, of, scenario_name(scenario_file))
        known = tuple(sorted({cell.workers or 1 for cell in source.plan if cell.kind == "search"}))
        every = ", ".join(str(count) for count in sorted({*workers, *known}))
        scenario, text = read_scenario(scenario_file, [*overrides, f"search.workers=[{every}]"])
        scenario, left_out = _searching(scenario)
        plan = tuple(cell for cell in resolved(scenario, str(scenario_file)).cells if cell.kind == "search")
        searched = read_inputs(scenario, scenario_file.parent).searched
        _refuse_other_searches(source, searched)
        # All of it before there is a run: what cannot be simulated leaves none behind.
        recordings = [_recording(source, cell, searched) for cell in plan]
        simulation = Simulation(run=source.run.id, recorded=_searches(source), left_out=left_out)
        run = _run(run_id, scenario_file, text, source, simulation, around.clock.utc_label())

        def fill(made: RunFolder) -> None:
            write_atomically(made.scenario, text.encode())
            entries = [entry for entry in source.tables if entry.name in {one.data.name for one in searched}]
            Database.create(made.database, run, fingerprint(), scenario, entries, plan).close()

        folder = new_run(around.results, run.id, fill)
        around.began(folder)
        with Database.open(folder.database) as database:
            for position, (cell, recording) in enumerate(zip(plan, recordings, strict=True)):
                around.watch(Progress("simulated search", position + 1, len(plan), cell.label, "in virtual time", 0.0))
                _cell(database, cell, recording)
            database.replace_run(run.model_copy(update={"finished_utc": around.clock.utc_label()}))
    return Finished(folder=folder, document=write_report(folder), failed=())


def _searching(scenario: Scenario) -> tuple[Scenario, tuple[str, ...]]:
    """What of a scenario is simulated, and the engines that are not. Raises UsageError where none is."""
    assert scenario.search is not None
    left_out = tuple(name for name in scenario.search.engines if _is_foreign(name))
    engines = tuple(name for name in scenario.search.engines if name not in left_out)
    if not engines:
        raise UsageError(
            f"{', '.join(left_out)} cannot be simulated: configurations of an engine with an environment of its own "
            "are not points of the shared space. Name another engine in `search.engines`."
        )
    parameters = {name: given for name, given in scenario.search.parameters.items() if name not in left_out}
    search = scenario.search.model_copy(update={"engines": engines, "parameters": parameters})
    # A simulation has no candidates, so there is nothing to serve, to check or to gate.
    return Scenario(question=scenario.question, data=scenario.data, search=search), left_out


def _is_foreign(engine: str) -> bool:
    return engine in names("engines") and foreign(engine) is not None


def _run(
    run_id: str | None, scenario_file: Path, text: str, source: Ledger, simulation: Simulation, started_utc: str
) -> Run:
    name = scenario_name(scenario_file)
    return Run(
        id=run_id or f"{re.sub('[-:]', '', started_utc)}-{name}-simulated"[-100:],
        scenario=name,
        data_folder=str(scenario_file.parent.resolve()),
        scenario_sha256=hashlib.sha256(text.encode()).hexdigest(),
        data_sha256=source.run.data_sha256,
        harness_version=harness.__version__,
        started_utc=started_utc,
        simulation=simulation,
    )


def _cell(database: Database, cell: Cell, recording: _Recording) -> None:
    """One search, simulated and recorded."""
    searched, recorded, taken = recording.searched, recording.recorded, recording.costs
    families = tuple(name for name in searched.families if name in recorded.families)
    rows, clock = searched.table.training, FakeClock()
    hands = SimulatedWorkers(recorded, cell.workers or 1, clock, rows.target, taken.hand_over_s, taken.transport_s)
    problem = dataclasses.replace(searched.problem(cell.seed or 0), families=families)
    database.begin(cell)
    engine = plugin("engines", str(cell.engine), searched.search.parameters.get(str(cell.engine)))
    fleet = SimulatedFleet(hands, rows, taken.ask_s, taken.told_s, taken.store_s)
    trials = search(engine, problem, fleet, lambda trial: database.record(cell.id, trial), cell.id)
    left_out = [name for name in searched.families if name not in recorded.families]
    note = f"nothing was recorded of {', '.join(left_out)}, so the engine was not offered them"
    database.finish(
        CellResult(
            id=cell.id,
            label=cell.label,
            kind=cell.kind,
            state=CellState.DONE,
            duration_s=max((trial.finished_s for trial in trials), default=0.0),
            notes=(note,) if left_out else (),
        )
    )


def _recorded(results: Path, of: str | None, name: str) -> Ledger:
    """The ledger that is simulated from: of the run that is named, or of the scenario's latest that has trials."""
    named = of is not None and of != LATEST
    asked_for = [find_run(results, of)] if of is not None else []  # raises where there is none
    for folder in asked_for if named else reversed(runs(results)):
        if of is None and scenario_of(folder.database) != name:
            continue  # of another scenario: whether it can be read is no matter here
        with Database.read(folder.database) as database:
            simulation = database.run().simulation
            if simulation is not None and named:
                raise UsageError(f"{of} is a simulation itself: name the run that it was made from, {simulation.run}.")
            if simulation is not None:
                continue
            ledger = database.ledger()
        if ledger.trials:
            return ledger
        if of is not None:
            break
    what = f"The run {of} has no trials that ran" if of is not None else f"No run of {name} with trials is in {results}"
    raise UsageError(
        f"{what}, and a simulation repeats recorded ones: run the scenario first, or name a run by --simulate from=RUN."
    )


def _refuse_other_searches(source: Ledger, searched: Sequence[Searched]) -> None:
    """Raise UsageError where the recorded trials are of other tables, or their scores of another kind."""
    known = {table.name: table for table in source.tables}
    recorded = {cell.table for trial in source.trials for cell in source.plan if cell.id == trial.cell}
    for one in searched:
        if one.data.name not in recorded:
            raise UsageError(f"{source.run.id} has no trials on the table {one.data.name}: nothing is known of it.")
        entry = known.get(str(one.data.name))
        if entry is None or entry.sha256 != one.table.sha256:
            raise UsageError(
                f"The table {one.data.name} is not the one that {source.run.id} searched on: its trials say nothing of "
                "this one. Run the scenario anew, and simulate from that run."
            )
        folds = source.scenario.search.folds if source.scenario.search else None
        if (entry.metric, folds) != (one.metric, one.search.folds):
            raise UsageError(
                f"{source.run.id} scored its trials on {one.data.name} by {entry.metric} on {folds} folds, and this "
                f"scenario asks for {one.metric} on {one.search.folds}: what a trial would have scored there was not "
                "recorded. Set `search.metric` and `search.folds` to those, or run the scenario anew."
            )


def _searches(source: Ledger) -> tuple[RecordedSearch, ...]:
    """What every recorded search came to."""
    metrics = {table.name: table.metric for table in source.tables}
    found = []
    for cell in source.plan:
        trials = [trial for trial in source.trials if trial.cell == cell.id]
        if cell.kind != "search" or not trials:
            continue
        wall_s = max(trial.finished_s for trial in trials)
        found.append(
            RecordedSearch(
                table=str(cell.table),
                engine=str(cell.engine),
                seed=cell.seed or 0,
                workers=cell.workers or 1,
                trials=whole(trials),
                wall_s=wall_s,
                rate_trials_per_s=whole(trials) / wall_s if wall_s > 0 else 0.0,
                best=best_by(trials, metrics.get(str(cell.table))),
            )
        )
    return tuple(found)


def _recording(source: Ledger, cell: Cell, searched: Sequence[Searched]) -> _Recording:
    """What ran on the cell's table with the most workers that are no more than its own; with the fewest, where all are.

    Trials of more workers are longer where workers share a machine, so those of all numbers are not pooled. Raises
    UsageError where none of them can be repeated.
    """
    (on,) = (one for one in searched if one.data.name == cell.table)
    by_cell: dict[str, list[Trial]] = {}
    for trial in source.trials:
        by_cell.setdefault(trial.cell, []).append(trial)
    on_table = [
        one for one in source.plan if one.table == cell.table and one.id in by_cell and not _is_foreign(str(one.engine))
    ]
    counts = sorted({one.workers or 1 for one in on_table})
    count = max((one for one in counts if one <= (cell.workers or 1)), default=min(counts, default=1))
    alike = [one for one in on_table if (one.workers or 1) == count]
    own = [one for one in alike if one.engine == cell.engine] or alike
    recorded = Recorded([trial for one in alike for trial in by_cell[one.id]])
    if recorded.families.isdisjoint(on.families):
        raise UsageError(
            f"{source.run.id} has no trial on the table {cell.table} that can be repeated: none of "
            f"{', '.join(on.families)} that no limit ended. Record more, or simulate from another run by "
            "--simulate from=RUN."
        )
    return _Recording(on, recorded, costs([(by_cell[one.id], count) for one in own]))
