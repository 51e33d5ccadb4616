"""Runs on a cluster of three nodes that is there already, reached by `--ray-address`; one of them is killed."""

import contextlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import FINISHED, harness, started, wait_for_trials

from harness.errors import ExitCode
from harness.ray_session import ray_session
from harness.records.run import Cause, CellState
from harness.store.database import Database

pytestmark = pytest.mark.timeout(300)

TRIALS = 16

SCENARIO = f"""
question = "Does a search survive the loss of a node?"

[data]
source = "sklearn:breast_cancer"

[search]
engines = ["random_search"]
trials = {TRIALS}
seconds = 60
workers = 2
families = ["random_forest"]

[micro]
enabled = false
"""


def supervisors(folder: str) -> set[int]:
    """Those on the nodes of the cluster whose files are in `folder`: nodes inherit its mark, and so do they."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "harness.stages.supervisor" in process.cmdline() and process.environ().get("HARNESS_SWEPT") == folder:
                found[process.pid] = process.ppid()
    return {pid for pid, parent in found.items() if parent not in found}  # a trial is a fork of its supervisor


@pytest.mark.long
def test_a_node_that_is_killed_costs_a_trial_and_the_search_ends_well(
    tmp_path: Path, ray_cluster: Any, nothing_left: Callable[[], list[str]]
) -> None:
    (tmp_path / "three.toml").write_text(SCENARIO)
    arguments = ["--results", str(tmp_path), "--run-id", "three", "--ray-address", ray_cluster.address]
    with started(["run", str(tmp_path / "three.toml"), *arguments]) as run:
        assert run.stderr is not None
        wait_for_trials(run, tmp_path / "three" / "run.db", 6)
        before = supervisors(ray_cluster.folder)
        ray_cluster.lose_a_node()
        told = run.stderr.read()
    assert run.returncode in FINISHED, told
    assert len(before) == 2, "each of the two nodes with a CPU has a worker"
    with Database.read(tmp_path / "three" / "run.db") as database:
        database.check()
        ledger = database.ledger()
    assert {result.state for result in ledger.results} == {CellState.DONE}
    trials = [trial.evaluated for trial in ledger.trials]
    assert [trial.number for trial in ledger.trials] == list(range(TRIALS))
    assert sorted(trial.asked for trial in ledger.trials) == list(range(TRIALS))
    (lost,) = (trial for trial in ledger.trials if trial.evaluated.failure)
    failure, worker = lost.evaluated.failure, lost.evaluated.worker
    assert failure is not None and failure.cause is Cause.NODE_LOST, failure
    # The worker that stood on the node that is left has done all that came after.
    assert {trial.worker for trial in trials} == {0, 1}
    assert {trial.evaluated.worker for trial in ledger.trials if trial.sent_s > lost.sent_s} == {1 - worker}
    assert nothing_left() == []
    assert supervisors(ray_cluster.folder) == set()


@pytest.mark.long
def test_a_search_waits_for_a_cluster_that_grows_and_has_all_its_workers_from_the_first_trial_on(
    tmp_path: Path, ray_cluster: Any
) -> None:
    (tmp_path / "grows.toml").write_text(SCENARIO.replace("workers = 2", "workers = 3"))  # and it has two CPUs
    arguments = ["--results", str(tmp_path), "--run-id", "grows", "--ray-address", ray_cluster.address]
    with started(["run", str(tmp_path / "grows.toml"), *arguments]) as run:
        while run.poll() is None and len(supervisors(ray_cluster.folder)) < 2:
            time.sleep(0.1)
        with Database.read(tmp_path / "grows" / "run.db") as database:
            assert database.ledger().trials == ()
        ray_cluster.gain_a_node()
        assert run.stderr is not None
        told = run.stderr.read()
    assert run.returncode in FINISHED, told
    with Database.read(tmp_path / "grows" / "run.db") as database:
        trials = database.ledger().trials
    assert len(trials) == TRIALS
    assert {trial.evaluated.worker for trial in trials if trial.sent_s < 1.0} == {0, 1, 2}


SERVED = """
question = "What does a cluster of others carry?"

[data]
source = "sklearn:breast_cancer"

[search]
engines = ["random_search"]
trials = 3
seconds = 30
workers = 2
families = ["logistic"]

[micro]
enabled = false

[[serve]]
target = "ray_serve"
candidates = ["baseline"]
replicas = [2]

[serve.parameters]
max_replicas_per_node = 1

[load]
placement = "cluster"
shapes = ["steady"]

[load.parameters.steady]
rate_rps = 50
step_s = 2.0
warmup_s = 0.5
"""


@pytest.mark.long
def test_a_run_searches_serves_and_loads_on_one_cluster_and_leaves_it_as_it_was(
    tmp_path: Path, ray_cluster: Any, nothing_left: Callable[[], list[str]]
) -> None:
    ray_cluster.gain_a_node()  # two replicas and who loads them take a CPU each
    (tmp_path / "served.toml").write_text(SERVED)
    arguments = ["--results", str(tmp_path), "--run-id", "served", "--ray-address", ray_cluster.address]
    with started(["run", str(tmp_path / "served.toml"), *arguments]) as run:
        assert run.stderr is not None
        told = run.stderr.read()
    assert run.returncode in FINISHED, told
    with Database.read(tmp_path / "served" / "run.db") as database:
        ledger = database.ledger()
    assert {result.state for result in ledger.results} == {CellState.DONE}
    (served,) = (result for result in ledger.results if result.kind == "serve")
    assert any(note.startswith(f"on the Ray cluster at {ray_cluster.address}, 3 nodes") for note in served.notes)
    assert "RAY_SERVE_ENABLE_HA_PROXY=1" in served.notes
    (wire,) = (check for check in ledger.checks if check.name == "same_over_the_wire")
    assert wire.passed
    assert all(worker.node for entry in ledger.steps for worker in entry.generator.workers)
    assert nothing_left() == []
    with ray_session(0, ray_cluster.address):
        import ray

        assert [one for one in ray._private.state.actors().values() if one["State"] != "DEAD"] == []


@pytest.mark.long
def test_a_node_that_is_killed_costs_a_served_cell_which_is_done_again_when_the_run_is_resumed(
    tmp_path: Path, ray_cluster: Any, nothing_left: Callable[[], list[str]]
) -> None:
    results, there = ["--results", str(tmp_path)], ["--ray-address", ray_cluster.address]
    text = SERVED.replace('placement = "cluster"\n', "").replace("step_s = 2.0", "step_s = 10.0")
    (tmp_path / "lost.toml").write_text(text)
    with started(["run", str(tmp_path / "lost.toml"), "--run-id", "lost", *results, *there]) as run:
        assert run.stderr is not None
        told = list(itertools.takewhile(lambda line: "steady:" not in line, run.stderr))
        ray_cluster.lose_a_node()
        told += run.stderr
    assert run.returncode == ExitCode.INFRASTRUCTURE, told
    (failed,) = (line for line in told if line.startswith("harness: serve "))
    assert "1 of the 2 replicas at http://127.0.0.1:" in failed
    with Database.read(tmp_path / "lost" / "run.db") as database:
        ledger = database.ledger()
    (served,) = (result for result in ledger.results if result.kind == "serve")
    assert served.failure is not None and served.failure.cause is Cause.TARGET
    assert ledger.steps == (), "a step that lost replicas has no figures"
    assert nothing_left() == []

    refused = harness("run", "--resume", "lost", *results)
    assert refused.returncode == ExitCode.USAGE
    assert "was begun on a Ray cluster" in refused.stderr
    ray_cluster.gain_a_node()
    resumed = harness("run", "--resume", "lost", *results, *there)
    assert resumed.returncode in FINISHED, resumed.stderr
    with Database.read(tmp_path / "lost" / "run.db") as database:
        ledger = database.ledger()
    assert {result.state for result in ledger.results} == {CellState.DONE}
    assert {entry.step.shape for entry in ledger.steps} >= {"steady"}
    assert nothing_left() == []
