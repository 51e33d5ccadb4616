"""A run that is stopped, however rudely, leaves nothing running, and goes on where it was."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import FINISHED, harness, interrupted, left_running, short, started

from harness.records.run import Cause, CellState
from harness.store.database import Database


def done_once_each(folder: Path) -> None:
    with Database.read(folder / "run.db") as database:
        database.check()
        ledger = database.ledger()
    assert [result.id for result in ledger.results] == [cell.id for cell in ledger.plan]
    assert {result.state for result in ledger.results} == {CellState.DONE}
    numbers = [(trial.cell, trial.number) for trial in ledger.trials]
    assert len(numbers) == len(set(numbers)) == 3
    steps = [entry.id for entry in ledger.steps]
    assert len(steps) == len(set(steps))
    assert {path.stem for path in (folder / "exchanges").iterdir()} == set(steps)
    assert len(ledger.candidates) == len({candidate.origin for candidate in ledger.candidates}) == 2
    assert {path.name for path in (folder / "candidates").iterdir()} == {found.id for found in ledger.candidates}
    checks = [(check.candidate, check.name, check.runtime, check.target) for check in ledger.checks]
    assert len(checks) == len(set(checks))
    assert (folder / "report" / "report.html").is_file()


def child_of(pid: int, module: str) -> psutil.Process:
    """The child that runs a module, as soon as there is one."""
    for _ in range(1000):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.Error):
                if module in child.cmdline():
                    return child
        time.sleep(0.02)
    raise AssertionError(f"no child ran {module} within 20 s")


def test_what_is_left_running_is_found_and_what_others_run_is_not() -> None:
    before = set(psutil.pids())
    command = [sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"]
    stranger = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"]})
    with subprocess.Popen(command) as process:
        sleep = child_of(process.pid, "60")
        assert [line.split()[-1] for line in left_running(before, patience_s=0.0)].count("60") == 1
        for each in (process, sleep, stranger):
            each.kill()
    stranger.wait()
    assert left_running(before) == []


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("search iris random_search seed 1 x2: begun", marks=pytest.mark.long),
        pytest.param("candidate baseline: begun", marks=pytest.mark.long),
        pytest.param("serve null x1: begun", marks=pytest.mark.long),
        pytest.param("serve random_search onnx asgi x1: begun", marks=pytest.mark.long),
        pytest.param("micro random_search: begun", marks=pytest.mark.long),
    ],
)
def test_killed_in_a_stage_and_resumed_each_cell_is_done_once(
    tmp_path: Path, stage: str, nothing_left: Callable[[], list[str]]
) -> None:
    status, _ = interrupted(short(tmp_path, "killed"), stage, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert nothing_left() == []
    resumed = harness("run", "--resume", "killed", "--results", str(tmp_path))
    assert resumed.returncode in FINISHED, resumed.stderr
    assert nothing_left() == []
    done_once_each(tmp_path / "killed")


@pytest.mark.long
@pytest.mark.parametrize("target", ["asgi", "ray_serve"])
def test_killed_under_load_nothing_of_its_server_is_left(
    tmp_path: Path, target: str, nothing_left: Callable[[], list[str]]
) -> None:
    shared = set(Path("/dev/shm").iterdir())
    # Longer than what is said is apart where nobody sits at a terminal.
    slowly = "load.parameters.ladder.step_s=8.0"
    overrides = (f"serve.1.target={target}", "serve.1.replicas=[2]", slowly)
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as temporary:  # short, as Ray needs it
        with started(short(tmp_path, "killed", *overrides), TMPDIR=temporary) as run:
            assert run.stderr is not None
            step = f"serve random_search onnx {target} x2: ladder"
            told = list(itertools.takewhile(lambda line: step not in line, run.stderr))
            assert list(Path(temporary).iterdir()), told
            run.kill()
            run.stderr.read()
        assert nothing_left() == []
        assert list(Path(temporary).iterdir()) == []
    assert set(Path("/dev/shm").iterdir()) <= shared


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on(
    tmp_path: Path, how: signal.Signals, nothing_left: Callable[[], list[str]]
) -> None:
    status, told = interrupted(short(tmp_path, "stopped"), "candidate baseline: begun", how)
    assert status == 130, told
    assert "harness run --resume stopped" in told
    assert "Traceback" not in told
    assert nothing_left() == []


@pytest.mark.long
def test_a_second_run_in_the_same_results_is_refused(tmp_path: Path, nothing_left: Callable[[], list[str]]) -> None:
    with started(short(tmp_path, "first")) as first:
        assert first.stderr is not None
        first.stderr.readline()
        second = harness(*short(tmp_path, "second"))
        assert second.returncode == 6, second.stderr
        assert "Another run is writing" in second.stderr
        same = harness("run", "--resume", "latest", "--results", str(tmp_path))
        assert same.returncode == 6, same.stderr
        first.send_signal(signal.SIGTERM)
        first.stderr.read()
    assert not (tmp_path / "second").exists()
    assert nothing_left() == []


def test_a_taken_port_is_refused_before_anything_begins(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = harness(*short(tmp_path, "crowded", f"serve.0.parameters.port={port}"))
    assert refused.returncode == 2, refused.stderr
    assert f"Cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert not (tmp_path / "crowded").exists()


@pytest.mark.long
def test_a_server_that_dies_under_load_is_a_row_and_resuming_tries_it_again(
    tmp_path: Path, nothing_left: Callable[[], list[str]]
) -> None:
    with started(short(tmp_path, "died")) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "serve random_search onnx asgi x1: begun" in line:
                break
        child_of(run.pid, "locust")
        child_of(run.pid, "harness.server").kill()
        told = run.stderr.read()
    assert run.returncode == 5, told
    assert "ended by signal SIGKILL while it was in use" in told
    with Database.read(tmp_path / "died" / "run.db") as database:
        ledger = database.ledger()
    (failed,) = (result for result in ledger.results if result.failure)
    assert (failed.kind, failed.failure and failed.failure.cause) == ("serve", Cause.TARGET)
    again = harness("run", "--resume", "died", "--results", str(tmp_path))
    assert again.returncode in FINISHED, again.stderr
    assert again.stderr.count(": begun") == 1
    assert nothing_left() == []
    done_once_each(tmp_path / "died")


@pytest.mark.long
def test_a_server_that_is_never_ready_is_a_row_and_resuming_tries_it_again(
    tmp_path: Path, nothing_left: Callable[[], list[str]]
) -> None:
    done = harness(*short(tmp_path, "late", "serve.1.parameters.ready_timeout_s=0.001"))
    assert done.returncode == 5, done.stderr
    assert "was not ready" in (tmp_path / "late" / "report" / "report.md").read_text()
    with Database.read(tmp_path / "late" / "run.db") as database:
        results = database.ledger().results
    assert [(result.kind, result.failure.cause) for result in results if result.failure] == [("serve", Cause.TARGET)]
    again = harness("run", "--resume", "late", "--results", str(tmp_path))
    assert again.returncode == 5, again.stderr
    assert again.stderr.count(": begun") == 1
    assert nothing_left() == []
