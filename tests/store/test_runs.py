"""A run cannot leave its folder, and two runs cannot write into the same results."""

import argparse
import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.main import _parser
from harness.errors import InfrastructureError, LockedError, UsageError
from harness.records.cell import Cell, cells
from harness.records.run import Host, Run
from harness.records.scenario import Scenario
from harness.store.database import Database
from harness.store.runs import RESULTS, RunFolder, checked_run_id, disk_failures, find_run, locked, new_run, runs

SCENARIO = Scenario.model_validate(
    {
        "question": "Which?",
        "data": [{"source": "sklearn:iris"}],
        "search": {"engines": ["random_search"]},
        "serve": [{"target": "null", "replicas": [1, 2]}],
    }
)
PLAN = cells(SCENARIO, ("null",))


def recorded(results: Path, run_id: str, started_utc: str = "2026-01-01T00:00:00Z") -> Path:
    host = Host(
        system="",
        machine="",
        cpu="",
        cores=1,
        memory_bytes=1,
        python="",
        versions={},
        generator_cores=(0,),
        target_cores=(0,),
    )
    run = Run(
        id=run_id,
        scenario="s",
        data_folder="/",
        scenario_sha256="",
        data_sha256="",
        harness_version="0",
        started_utc=started_utc,
    )

    def fill(made: RunFolder) -> None:
        made.scenario.touch()
        Database.create(made.database, run, host, SCENARIO, (), PLAN).close()

    return new_run(results, run_id, fill).path


def nothing(made: RunFolder) -> None:
    """Fills a run's folder with nothing."""


@pytest.mark.parametrize(
    "run_id", ["", "a/b", "..", "../x", "/etc", ".hidden", "a\x00b", "x" * 101, "a b", "é", "-x", "a\nb", "C:\\x"]
)
def test_what_is_not_a_plain_name_is_no_run_id(run_id: str) -> None:
    with pytest.raises(UsageError, match="is not a run id"):
        checked_run_id(run_id)


def test_a_link_is_no_run(tmp_path: Path) -> None:
    path = recorded(tmp_path, "real")
    (tmp_path / "linked").symlink_to(path)
    with pytest.raises(UsageError, match="is a link"):
        find_run(tmp_path, "linked")
    assert [folder.id for folder in runs(tmp_path)] == ["real"]


def test_an_unknown_run_is_told_with_the_latest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no run in"):
        find_run(tmp_path, "latest")
    recorded(tmp_path, "first")
    recorded(tmp_path, "second")
    assert find_run(tmp_path, "latest").id == "second"
    with pytest.raises(UsageError, match="The latest there: first, second"):
        find_run(tmp_path, "third")


def test_the_latest_run_is_the_one_that_began_last_whatever_was_copied_since(tmp_path: Path) -> None:
    recorded(tmp_path, "zeta", "2026-01-01T00:00:00Z")
    recorded(tmp_path, "beta", "2026-03-01T00:00:00Z")
    recorded(tmp_path, "alpha", "2026-02-01T00:00:00Z")
    for age_s, name in enumerate(["beta", "alpha", "zeta"]):
        for path in (tmp_path / name).iterdir():
            os.utime(path, (2_000_000_000 + age_s, 2_000_000_000 + age_s))
    assert [folder.id for folder in runs(tmp_path)] == ["zeta", "alpha", "beta"]
    assert find_run(tmp_path, "latest").id == "beta"


def test_runs_of_the_same_second_go_by_their_ids(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        recorded(tmp_path, name)
    assert [folder.id for folder in runs(tmp_path)] == ["a", "b", "c"]


def test_a_damaged_run_goes_by_its_files_time_and_does_not_make_an_older_one_the_latest(tmp_path: Path) -> None:
    recorded(tmp_path, "first")
    damaged = recorded(tmp_path, "second", "2026-02-01T00:00:00Z") / "run.db"
    damaged.write_bytes(b"noise" * 1000)
    assert find_run(tmp_path, "latest").id == "second"
    os.utime(damaged, (0, 0))
    assert find_run(tmp_path, "latest").id == "first"


def test_an_id_is_used_once(tmp_path: Path) -> None:
    recorded(tmp_path, "mine")
    with pytest.raises(UsageError, match=f"exists already.*--resume mine --results {tmp_path}"):
        new_run(tmp_path, "mine", nothing)
    with pytest.raises(UsageError, match="stands for the newest"):
        new_run(tmp_path, "latest", nothing)


def test_a_folder_that_is_no_run_is_not_to_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match=r"exists already; choose another id\.$"):
        new_run(tmp_path, "mine", nothing)


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(made: RunFolder) -> None:
        made.scenario.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        new_run(tmp_path, "mine", full)
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_is_killed_is_no_run_and_is_in_nobodys_way(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from harness.store.connections import writing\n"
        "from harness.store.runs import new_run\n"
        "def fill(made):\n"
        "    writing(made.database, new=True).execute('CREATE TABLE run (record TEXT)')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "new_run(Path(sys.argv[1]), 'mine', fill)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1, "what was begun lies there"
    assert runs(tmp_path) == []
    with pytest.raises(UsageError, match="There is no run"):
        find_run(tmp_path, "mine")
    recorded(tmp_path, "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_run_is_found_only_when_it_is_whole(tmp_path: Path) -> None:
    seen = []

    def fill(made: RunFolder) -> None:
        made.database.touch()
        seen.extend(runs(tmp_path))

    assert new_run(tmp_path, "mine", fill).database.is_file()
    assert seen == []
    assert [folder.id for folder in runs(tmp_path)] == ["mine"]


@pytest.mark.parametrize("results", ["results", "elsewhere", "/a b/c"])
def test_the_command_that_goes_on_with_a_run_names_it_from_where_it_is_pasted(results: str) -> None:
    harness, *arguments = shlex.split(RunFolder(Path(results) / "mine").resume_command)
    options: argparse.Namespace = _parser().parse_args(arguments)
    assert (harness, options.name, options.resume, options.results) == ("harness", "run", "mine", Path(results))
    assert ("--results" in arguments) == (Path(results) != RESULTS)


def test_a_cell_that_is_begun_anew_loses_its_own_files_and_no_other(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    again, other = (cell for cell in PLAN if cell.kind == "serve")
    fitted = next(cell for cell in PLAN if cell.kind == "candidate" and cell.candidate == "baseline")
    kept = [folder.exchanges(f"{other.id}-00"), folder.candidate("random_search-01"), folder.candidate("baseline-02")]
    gone = [folder.exchanges(f"{again.id}-00"), folder.exchanges(f"{again.id}-17"), folder.exchanges(f".{again.id}-18")]
    for path in (*kept, *gone):
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if path.parent.name == "candidates" else path.touch()
    folder.forget(again)
    assert folder.raw() == sorted(kept)
    folder.forget(fitted)
    assert folder.raw() == sorted(kept[:2])


def test_a_cell_without_files_has_none_to_lose(tmp_path: Path) -> None:
    cell: Cell = PLAN[0]
    RunFolder(tmp_path).forget(cell)
    assert RunFolder(tmp_path).raw() == []


def test_a_results_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), locked(tmp_path / "file" / "results"):
        pass


def test_a_second_run_in_the_same_results_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    holding = "import sys; from pathlib import Path; from harness.store.runs import locked\n" + (
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holding, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match="Another run"), locked(tmp_path):
            pass
        other.kill()  # the system gives the lock back, however the holder ended
        other.wait()
    with locked(tmp_path):
        pass


def test_a_full_disk_is_told_as_such_and_other_errors_are_not_hidden() -> None:
    with pytest.raises(InfrastructureError, match="free some space"), disk_failures():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConnectionResetError), disk_failures():
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset")
