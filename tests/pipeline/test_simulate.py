"""A simulation of a recorded run: from which trials, by which rules, and the same on every machine."""

import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest

from harness.clock import FakeClock, SystemClock
from harness.engines.random_search import RandomSearch
from harness.errors import ExitCode, UsageError
from harness.pipeline.inputs import Searched, read_inputs
from harness.pipeline.run import Finished, Surroundings, resume
from harness.pipeline.simulate import simulate
from harness.ports import Problem, Proposal
from harness.records.candidate import Configuration, Evaluated, Trial
from harness.records.cell import Cell, cells
from harness.records.ledger import Ledger
from harness.records.run import Cause, CellResult, CellState, Failure, Run, SearchStart
from harness.space.families import families_for, sample
from harness.stages.fitting import Fitter
from harness.stages.fleet import Done, Ready, SearchFleet
from harness.stages.host import fingerprint
from harness.stages.search import search
from harness.store.database import Database
from harness.store.runs import RunFolder
from harness.store.scenarios import read_scenario
from harness.units import Unit, format_number

SCENARIO = """
question = "What do more workers bring?"
[data]
source = "sklearn:iris"
[search]
engines = ["random_search", "optuna_search"]
families = ["logistic", "knn"]
trials = 60
seconds = 100000
workers = [1]
seeds = [1]
"""

FEATURES = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
"""What NumPy chooses from when it starts: without them it computes as on a machine of 2008."""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "grow.toml"
    path.write_text(SCENARIO)
    return path


class Here:
    """One worker that fits in this process, in real time."""

    count = 1

    def __init__(self, searched: Searched) -> None:
        table = searched.table
        self.clock = SystemClock()
        frame = table.frame.iloc[table.train].reset_index(drop=True)
        self._fitter = Fitter(0, frame, table.target[table.train], table.signature)

    def start(self, problem: Problem, folds: Any) -> SearchStart:
        self._fitter.start(problem, folds)
        return SearchStart(took_s=0.0)

    def send(self, worker: int, number: int, proposal: Proposal, folds: Any, limit_s: float) -> None:
        self._sent = (number, proposal)

    def receive(self, timeout_s: float) -> list[Done | Ready]:
        number, proposal = self._sent
        return [Ready(0), Done(number, self._fitter.evaluate(proposal))]


def really(cell: Cell, searched: Searched, database: Database) -> None:
    """The trials of random search, as they come."""
    fleet = SearchFleet(Here(searched), searched.table.training)  # type: ignore[arg-type]
    problem = searched.problem(cell.seed or 0)
    search(RandomSearch(), problem, fleet, lambda trial: database.record(cell.id, trial), cell.id)


def one_after_the_other(cell: Cell, database: Database, failure: Failure | None) -> None:
    """Trials of a minute each, by a driver that needs no time."""
    seconds = 60.0
    rng, families = np.random.default_rng(3), families_for("multiclass", ("logistic", "knn"))
    for number in range(40):
        own: Configuration = {"family": "autogluon", "portfolio": "light"}
        evaluated = Evaluated(
            configuration=own if cell.engine == "autogluon" else sample(families, rng),
            fold_scores=() if failure else tuple(float(score) for score in rng.uniform(0.5, 1.0, 3)),
            failure=failure,
            duration_s=seconds,
            fit_s=0.9 * seconds,
            worker=0,
        )
        times = {"asked_s": seconds * number, "sent_s": seconds * number, "finished_s": seconds * (number + 1)}
        database.record(cell.id, Trial(cell=cell.id, number=number, asked=number, evaluated=evaluated, **times))


def recorded(
    scenario: Path,
    results: Path,
    run_id: str = "real",
    began: str = "2026-01-01",
    failure: Failure | None = None,
    trials: Callable[[Cell, Searched, Database], None] | None = None,
) -> None:
    """A run as it would have been recorded, with one worker."""
    read, text = read_scenario(scenario)
    (searched,) = read_inputs(read, scenario.parent).searched
    folder = RunFolder(results / run_id)
    folder.path.mkdir(parents=True)
    folder.scenario.write_text(text)
    plan = tuple(cell for cell in cells(read, ()) if cell.kind == "search")
    run = Run(
        id=run_id,
        scenario=scenario.stem,
        data_folder=str(scenario.parent),
        scenario_sha256="0" * 64,
        data_sha256=searched.table.sha256,
        harness_version="0",
        started_utc=f"{began}T00:00:00Z",
    )
    with Database.create(folder.database, run, fingerprint(), read, [searched.checked()], plan) as database:
        for cell in plan:
            database.begin(cell)
            if trials is not None:
                trials(cell, searched, database)
            else:
                one_after_the_other(cell, database, failure)
            database.finish(
                CellResult(id=cell.id, label=cell.label, kind=cell.kind, state=CellState.DONE, duration_s=2400.0)
            )


def around(results: Path) -> Surroundings:
    return Surroundings(results, None, lambda folder: None, lambda told: None, FakeClock())


def simulated(scenario: Path, results: Path, workers: tuple[int, ...], run_id: str = "again", **how: Any) -> Finished:
    return simulate(scenario, how.get("overrides", []), workers, how.get("of"), run_id, around(results))


def ledger(finished: Finished) -> Ledger:
    with Database.read(finished.folder.database) as database:
        return database.ledger()


def test_a_simulation_is_a_run_of_its_own_that_says_what_it_is(scenario: Path, tmp_path: Path) -> None:
    recorded(scenario, tmp_path / "results")
    finished = simulated(scenario, tmp_path / "results", (4,))
    told = finished.document
    assert told.title.startswith("Simulated: ")
    assert told.recommendation.startswith("Simulated from real, no trial ran.")
    assert told.exit_code is ExitCode.GOOD
    assert told.summary["run"]["simulated_from"] == "real"  # type: ignore[index]
    assert (finished.folder.report / "report.html").is_file()
    with pytest.raises(UsageError, match="again is a simulation"):
        resume("again", around(tmp_path / "results"))


def test_four_workers_do_four_times_the_trials_and_the_recorded_number_is_simulated_too(
    scenario: Path, tmp_path: Path
) -> None:
    recorded(scenario, tmp_path / "results")
    finished = simulated(scenario, tmp_path / "results", (4,))
    found = ledger(finished)
    assert {cell.workers for cell in found.plan} == {1, 4}
    # Sixty trials of a minute each: an hour alone, a quarter of one for four.
    for cell in found.plan:
        last_s = max(trial.finished_s for trial in found.trials if trial.cell == cell.id)
        assert last_s == pytest.approx(3600.0 / (cell.workers or 1))
    tables = {table.key: table for section in finished.document.sections for table in section.tables}
    # Constant trials and a driver that took no time are simulated without an error.
    assert [row[6] for row in tables["simulation"].rows] == pytest.approx([0.0, 0.0], abs=1e-9)


def test_the_error_that_is_told_is_that_of_real_trials_laid_end_to_end(scenario: Path, tmp_path: Path) -> None:
    """Random search proposes what it proposed, so each trial is answered with itself and takes as long; what the driver
    does for each takes its median, and the way there and back its mean.
    """
    text = SCENARIO.replace(', "optuna_search"', "").replace("trials = 60", "trials = 12")
    scenario.write_text(text)
    recorded(scenario, tmp_path / "results", trials=really)
    finished = simulated(scenario, tmp_path / "results", (3,))
    with Database.read(tmp_path / "results" / "real" / "run.db") as database:
        trials = database.ledger().trials
    own_s = [trial.evaluated.duration_s for trial in trials]
    assert max(own_s) > 1.2 * min(own_s)
    asks_s = [trial.sent_s - trial.asked_s for trial in trials]
    stores_s = [after.last_store_s for after in trials[1:]]
    tells_s = [after.asked_s - trial.finished_s - after.last_store_s for trial, after in itertools.pairwise(trials)]
    # The first of all waits for its own asking only, from the moment that it is asked for.
    ways_s = [trial.finished_s - trial.sent_s - own for trial, own in zip(trials, own_s, strict=True)]
    way_s = fmean([ways_s[0] + trials[0].asked_s, *ways_s[1:]]) - median(trial.transport_s for trial in trials)
    driver_s = len(trials) * (median(asks_s) + median(trial.transport_s for trial in trials))
    driver_s += (len(trials) - 1) * (median(stores_s) + median(tells_s))
    simulated_s = sum(own_s) + driver_s + len(trials) * max(0.0, way_s)
    error = trials[-1].finished_s / simulated_s - 1
    tables = {table.key: table for section in finished.document.sections for table in section.tables}
    (row,) = tables["simulation"].rows
    assert row[4] == pytest.approx(len(trials) / trials[-1].finished_s)
    assert row[5] == pytest.approx(len(trials) / simulated_s)
    assert row[6] == pytest.approx(error, abs=1e-9)
    told = format_number(abs(error), Unit.SHARE)
    assert any(f"off by {told} at the median of 1, and by {told} at worst" in one for one in finished.document.warnings)


def test_without_a_run_to_repeat_it_says_what_to_do(scenario: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No run of grow with trials is in .*run the scenario first"):
        simulated(scenario, tmp_path / "results", (4,))
    recorded(scenario, tmp_path / "results")
    simulated(scenario, tmp_path / "results", (2,), "again")
    with pytest.raises(UsageError, match="again is a simulation itself: name the run that it was made from, real"):
        simulated(scenario, tmp_path / "results", (2,), "third", of="again")
    # The latest run is the simulation, and what is repeated is the run before it.
    finished = simulated(scenario, tmp_path / "results", (2,), "third", of="latest")
    assert ledger(finished).run.simulation.run == "real"  # type: ignore[union-attr]


def test_another_table_is_refused(scenario: Path, tmp_path: Path) -> None:
    recorded(scenario, tmp_path / "results")
    with pytest.raises(UsageError, match="iris is not the one that real searched on"):
        simulated(scenario, tmp_path / "results", (2,), overrides=["data.seed=8"])
    with pytest.raises(UsageError, match="no trials on the table wine"):
        simulated(scenario, tmp_path / "results", (2,), overrides=["data.source=sklearn:wine"])


@pytest.mark.parametrize("override", ['search.metric="log_loss"', "search.folds=5"])
def test_scores_of_another_kind_are_refused(scenario: Path, tmp_path: Path, override: str) -> None:
    recorded(scenario, tmp_path / "results")
    with pytest.raises(UsageError, match="real scored its trials on iris by accuracy on 3 folds, and this"):
        simulated(scenario, tmp_path / "results", (2,), overrides=[override])


def test_an_engine_with_an_environment_of_its_own_is_left_out_and_told(scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(SCENARIO.replace('"optuna_search"', '"autogluon"'))
    recorded(scenario, tmp_path / "results")
    finished = simulated(scenario, tmp_path / "results", (2,))
    assert {cell.engine for cell in ledger(finished).plan} == {"random_search"}
    assert any(warning.startswith("Not simulated: autogluon.") for warning in finished.document.warnings)
    with pytest.raises(UsageError, match=r"autogluon cannot be simulated.*Name another engine"):
        simulated(scenario, tmp_path / "results", (2,), "third", overrides=['search.engines=["autogluon"]'])


def test_what_cannot_be_simulated_leaves_no_run_behind(scenario: Path, tmp_path: Path) -> None:
    recorded(scenario, tmp_path / "results", failure=Failure.of(Cause.TIME, "stopped"))
    with pytest.raises(UsageError, match="real has no trial on the table iris that can be repeated"):
        simulated(scenario, tmp_path / "results", (2,))
    assert [path.name for path in (tmp_path / "results").iterdir() if path.is_dir()] == ["real"]


def test_runs_of_other_scenarios_need_not_be_readable(scenario: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    recorded(scenario, results)
    other = scenario.with_name("other.toml")
    other.write_text(SCENARIO)
    for name, damage in (("old", "PRAGMA user_version = 99"), ("torn", "UPDATE trials SET sha256 = ''")):
        recorded(other, results, name, began="2026-02-02")
        with contextlib.closing(sqlite3.connect(results / name / "run.db")) as connection, connection:
            connection.execute(damage)
    assert ledger(simulated(scenario, results, (2,))).run.simulation.run == "real"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="has schema 99"):
        simulated(scenario, results, (2,), "third", of="old")


def test_families_that_were_never_recorded_are_left_out_and_told(scenario: Path, tmp_path: Path) -> None:
    recorded(scenario, tmp_path / "results")
    finished = simulated(
        scenario, tmp_path / "results", (2,), overrides=['search.families=["logistic", "knn", "random_forest"]']
    )
    assert any("nothing was recorded of random_forest" in warning for warning in finished.document.warnings)
    assert {trial.evaluated.configuration["family"] for trial in ledger(finished).trials} == {"logistic", "knn"}


def test_it_is_the_same_to_the_bit_on_a_machine_with_other_vector_instructions(scenario: Path, tmp_path: Path) -> None:
    """NumPy computes with other instructions there, and hashes begin elsewhere: as another host would."""
    recorded(scenario, tmp_path / "results")
    here = [trial.model_dump(mode="json") for trial in ledger(simulated(scenario, tmp_path / "results", (7,))).trials]
    command = (
        "import json, pathlib, test_simulate as t; "
        f"found = t.ledger(t.simulated(pathlib.Path({str(scenario)!r}), pathlib.Path({str(tmp_path / 'results')!r}), "
        "(7,), 'there')); print(json.dumps([trial.model_dump(mode='json') for trial in found.trials]))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}",
        "PYTHONHASHSEED": "3",
        "NPY_DISABLE_CPU_FEATURES": FEATURES,
    }
    there = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command], capture_output=True, text=True, check=True, env=environment
    )
    assert json.loads(there.stdout.splitlines()[-1]) == here
