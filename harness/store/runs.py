"""Where runs live: the results folder, the folder of each run, and the lock that keeps two writers apart.

In: a results folder and a run's id. Out: `RunFolder`, which knows the place of every file of a run, and the lock.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import InfrastructureError, LockedError, UsageError

LATEST = "latest"
"""Stands for the newest run of a results folder, wherever a run's id is asked for."""

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG})
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, and the places inside it."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id: the folder's name."""
        return self.path.name

    @property
    def database(self) -> Path:
        """Everything but the raw exchanges."""
        return self.path / "run.db"

    @property
    def scenario(self) -> Path:
        """The scenario's text, as it was run."""
        return self.path / "scenario.toml"

    @property
    def report(self) -> Path:
        """Derived: may be deleted at any time."""
        return self.path / "report"

    @property
    def logs(self) -> Path:
        """What servers, generators and benchmarks printed."""
        return self.path / "logs"

    def exchanges(self, step: str) -> Path:
        """The raw exchanges of a step."""
        return self.path / "exchanges" / f"{step}.parquet"

    def candidate(self, candidate_id: str) -> Path:
        """A candidate's bundle."""
        return self.path / "candidates" / candidate_id


def checked_run_id(text: str) -> str:
    """`text`, if it can name a run; else UsageError. A path or `..` is no id: a run cannot leave its folder."""
    if not _RUN_ID.fullmatch(text):
        raise UsageError(
            f"{text!r} is not a run id: use letters, digits, dots, dashes and underscores, starting with a letter or "
            "digit (the name of a folder inside the results folder, not a path)."
        )
    return text


def find_run(results: Path, run_id: str) -> RunFolder:
    """The folder of a finished or unfinished run. Raises UsageError where there is none."""
    if run_id == LATEST:
        known = runs(results)
        if not known:
            raise UsageError(f"There is no run in {results} yet; `harness run scenarios/smoke.toml` makes one.")
        return known[-1]
    folder = RunFolder(results / checked_run_id(run_id))
    if folder.path.is_symlink():
        raise UsageError(f"{folder.path} is a link; a run is a plain folder inside the results folder.")
    if not folder.database.is_file():
        names = ", ".join(known.id for known in runs(results)[-3:]) or "none"
        raise UsageError(f"There is no run {run_id} in {results}. The latest there: {names}.")
    return folder


def runs(results: Path) -> list[RunFolder]:
    """The runs of a results folder, oldest first (ids begin with their time, and the file's time breaks ties)."""
    found = [RunFolder(path) for path in results.iterdir() if not path.is_symlink()] if results.is_dir() else []
    return sorted(
        (folder for folder in found if folder.database.is_file() and _RUN_ID.fullmatch(folder.id)),
        key=lambda folder: (folder.scenario.stat().st_mtime_ns if folder.scenario.exists() else 0, folder.id),
    )


def new_run(results: Path, run_id: str) -> RunFolder:
    """A new, empty run folder. Raises UsageError where the id is taken or nothing can be written."""
    folder = RunFolder(results / checked_run_id(run_id))
    if run_id == LATEST:
        raise UsageError(f"{LATEST!r} stands for the newest run and cannot be the id of one.")
    try:
        folder.path.mkdir()
    except FileExistsError:
        raise UsageError(
            f"{folder.path} exists already; choose another id, or go on with `harness run --resume {run_id}`."
        ) from None
    except OSError as error:
        raise UsageError(f"No run can be written to {results}: {error.strerror}. Choose --results.") from None
    return folder


@contextlib.contextmanager
def locked(results: Path) -> Iterator[None]:
    """Hold the results folder, making it where needed: one run measures at a time, or both would be wrong.

    Raises LockedError where another run holds it, UsageError where it cannot be written.
    """
    lock = FileLock(results / ".lock", timeout=0)
    try:
        results.mkdir(parents=True, exist_ok=True)
        if not os.access(results, os.W_OK):
            raise PermissionError(13, "Permission denied")
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"Another run is writing into {results}. Wait for it to end, or give this one --results of its own "
            "(on the same machine both would measure each other)."
        ) from None
    except OSError as error:
        raise UsageError(
            f"The results folder {results} cannot be written: {error.strerror}. Choose --results."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def disk_failures() -> Iterator[None]:
    """Turn a full or failing disk inside the block into InfrastructureError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise InfrastructureError(
            f"Writing failed: {error}. What was finished before is kept; free some space and resume the run."
        ) from error
