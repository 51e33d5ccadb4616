"""A disk that is full in the middle of a search costs no trial that was finished before."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import FINISHED, ROOT

TRIALS = 60

SCENARIO = f"""
question = "What if the disk is full?"

[data]
source = "sklearn:iris"

[search]
engines = ["optuna_search"]
trials = {TRIALS}
seconds = 60
workers = 1
families = ["logistic"]

[micro]
enabled = false
"""

STORY = """
import contextlib, json, sqlite3, subprocess, sys
place, scenario = sys.argv[1:]

def harness(*arguments):
    command = [sys.executable, "-m", "harness", "run", *arguments, "--results", place]
    done = subprocess.run(command, capture_output=True, text=True)
    # As the command does, from a copy: a log that has no writer is not to be played back here.
    from harness.store.connections import reading
    from pathlib import Path
    with reading(Path(place) / "full" / "run.db") as connection:
        trials = connection.execute("SELECT number, record ->> '$.asked', sha256 FROM trials ORDER BY rowid").fetchall()
    return {"status": done.returncode, "told": done.stderr, "trials": trials}

full = harness(scenario, "--run-id", "full")
subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
print(json.dumps([full, harness("--resume", "full")]))
"""


SEARCH = """
import json, subprocess, sys
from pathlib import Path
from harness.clock import FakeClock
from harness.engines.optuna_search import OptunaSearch
from harness.errors import InfrastructureError
from harness.ports import Problem
from harness.stages.fleet import SearchFleet
from harness.stages.search import search
from harness.stages.simulated_workers import SimulatedWorkers
from harness.stages.split import LabelledRows
from harness.store.database import Database
from tests.engines.landscape import TARGET, Landscape
from tests.ledgers import Story
place, trials = sys.argv[1], int(sys.argv[2])
path, made = Path(place) / "run.db", Story().ledger()
(cell, *_) = made.plan
Database.create(path, made.run, made.host, made.scenario, made.tables, made.plan).close()

def searched():
    workers = SimulatedWorkers(Landscape(), 1, FakeClock(), TARGET)
    fleet = SearchFleet(workers, LabelledRows(TARGET, "binary", "stratified"))
    problem = Problem("binary", "roc_auc", ("logistic",), 3, trials, 1e6, 1)
    told = ""
    try:
        with Database.open(path) as database:
            known = database.ledger().trials
            search(OptunaSearch(), problem, fleet, lambda trial: database.record(cell.id, trial), cell.id, known)
    except InfrastructureError as error:
        told = str(error)
    with Database.read(path) as database:
        database.check()
        kept = [(trial.number, trial.asked, trial.model_dump_json()) for trial in database.ledger().trials]
    return {"told": told, "trials": kept}

full = searched()
subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
print(json.dumps([full, searched()]))
"""


@pytest.fixture
def on_a_small_disk(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """Runs a story, with a folder and more, on a disk of its own: memory, in a mount namespace of its own."""
    if sys.platform != "linux" or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    place = tmp_path / "disk"
    place.mkdir()

    def run(story: str, size: str, *given: str) -> tuple[dict[str, Any], dict[str, Any]]:
        mounted = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
        asked = [sys.executable, "-c", story, str(place), *given]
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, str(place), *asked]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        full, resumed = json.loads(done.stdout)
        return full, resumed

    return run


def goes_on(before: list[Any], after: list[Any]) -> None:
    """Nothing that was finished is lost or changed, nothing is missing, and nothing was done twice."""
    assert 0 < len(before) < TRIALS
    assert after[: len(before)] == before
    assert [number for number, _, _ in after] == list(range(TRIALS))
    assert sorted(asked for _, asked, _ in after) == list(range(TRIALS))


def test_a_disk_that_is_full_in_the_middle_of_a_search_is_told_and_costs_no_finished_trial(
    on_a_small_disk: Callable[..., tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    """The engine and the database of a run, with trials in virtual time: the next test has the whole command."""
    full, resumed = on_a_small_disk(SEARCH, "256k", str(TRIALS))
    assert "database or disk is full" in full["told"]
    assert "see to the disk and resume the run" in full["told"]
    assert resumed["told"] == ""
    goes_on(full["trials"], resumed["trials"])


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_full_disk_is_told_and_the_search_goes_on_when_there_is_space(
    tmp_path: Path,
    nothing_left: Callable[[], list[str]],
    on_a_small_disk: Callable[..., tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    (tmp_path / "full.toml").write_text(SCENARIO)
    full, resumed = on_a_small_disk(STORY, "512k", str(tmp_path / "full.toml"))
    assert full["status"] == 5, full["told"]
    assert "Traceback" not in full["told"] and "resume the run" in full["told"]
    assert resumed["status"] in FINISHED, resumed["told"]
    goes_on(full["trials"], resumed["trials"])
    assert nothing_left() == []
