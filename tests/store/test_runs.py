"""A run cannot leave its folder, and two runs cannot write into the same results."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import InfrastructureError, LockedError, UsageError
from harness.store.runs import checked_run_id, disk_failures, find_run, locked, new_run, runs


def recorded(results: Path, run_id: str) -> Path:
    folder = new_run(results, run_id)
    folder.database.touch()
    folder.scenario.touch()
    return folder.path


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


def test_an_id_is_used_once(tmp_path: Path) -> None:
    new_run(tmp_path, "mine")
    with pytest.raises(UsageError, match="exists already"):
        new_run(tmp_path, "mine")
    with pytest.raises(UsageError, match="stands for the newest"):
        new_run(tmp_path, "latest")


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
