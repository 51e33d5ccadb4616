"""Where runs live: the results folder, the folder of each run, and the lock that keeps two writers apart.

In: a results folder and a run's id. Out: `RunFolder`, which knows the place of every file of a run, and the lock. A run
is begun under a name that no run can have, and put in its place when it can be resumed: what was killed before that is
in nobody's way.
"""

import contextlib
import datetime
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import DISK_ERRORS, InfrastructureError, LockedError, UsageError
from harness.records.cell import Cell
from harness.store.database import started_utc

LATEST = "latest"
"""Stands for the run of a results folder that began last, wherever a run's id is asked for."""

RESULTS = Path("results")
"""Where runs are kept unless another folder is named."""

ROOFLINE_NAME = "roofline.json"
"""A file among the folders of the runs: what the load generator can do here; see `store.roofline`."""

_BEGINNING = ".new-run-"
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

    @property
    def resume_command(self) -> str:
        """What goes on with the run, to be pasted as it is."""
        return f"harness run --resume {self.id}{_results_option(self.path.parent)}"

    def raw(self) -> list[Path]:
        """Everything that lies in `exchanges/` and `candidates/`, whoever put it there."""
        folders = (self.path / "exchanges", self.path / "candidates")
        return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir())

    def forget(self, cell: Cell) -> None:
        """Remove the raw files of a cell that is begun anew, those that it was still writing included."""
        begins = f"{cell.candidate}-" if cell.kind == "candidate" else f"{cell.id}-"
        where = "candidates" if cell.kind == "candidate" else "exchanges"
        for path in self.raw():
            if path.parent.name == where and path.name.removeprefix(".").startswith(begins):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


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
            command = f"harness run scenarios/smoke.toml{_results_option(results)}"
            raise UsageError(f"There is no run in {results} yet; `{command}` makes one.")
        return known[-1]
    folder = RunFolder(results / checked_run_id(run_id))
    if folder.path.is_symlink():
        raise UsageError(f"{folder.path} is a link; a run is a plain folder inside the results folder.")
    if not folder.database.is_file():
        names = ", ".join(known.id for known in runs(results)[-3:]) or "none"
        raise UsageError(f"There is no run {run_id} in {results}. The latest there: {names}.")
    return folder


def runs(results: Path) -> list[RunFolder]:
    """The runs of a results folder in the order in which they began, by their own records; ids break ties.

    Not by the times of files, which a copy does not keep. Only a run that cannot say when it began goes by its file's:
    a damaged one must not make an older one `latest` in silence.
    """
    found = [RunFolder(path) for path in results.iterdir() if not path.is_symlink()] if results.is_dir() else []
    return sorted(
        (folder for folder in found if folder.database.is_file() and _RUN_ID.fullmatch(folder.id)),
        key=lambda folder: (started_utc(folder.database) or _changed_utc(folder.database), folder.id),
    )


def new_run(results: Path, run_id: str, fill: Callable[[RunFolder], None]) -> RunFolder:
    """A new run folder with what `fill` wrote into it: whole, or not there. For the holder of the lock.

    Raises UsageError where the id is taken or nothing can be written.
    """
    folder = RunFolder(results / checked_run_id(run_id))
    if run_id == LATEST:
        raise UsageError(f"{LATEST!r} stands for the newest run and cannot be the id of one.")
    if run_id == ROOFLINE_NAME:
        raise UsageError(f"{ROOFLINE_NAME!r} is a file of the results folder and cannot be the id of a run.")
    if os.path.lexists(folder.path):
        going_on = f", or go on with `{folder.resume_command}`" if folder.database.is_file() else ""
        raise UsageError(f"{folder.path} exists already; choose another id{going_on}.")
    try:
        for left in results.glob(f"{_BEGINNING}*"):  # by a start that was killed: whoever lives holds the lock
            shutil.rmtree(left)
        made = Path(tempfile.mkdtemp(prefix=_BEGINNING, dir=results))
    except OSError as error:
        raise UsageError(f"No run can be written to {results}: {error.strerror}. Choose --results.") from None
    try:
        made.chmod(0o755)
        fill(RunFolder(made))
        made.rename(folder.path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return folder


def _results_option(results: Path) -> str:
    return "" if results == RESULTS else f" --results {shlex.quote(str(results))}"


def _changed_utc(path: Path) -> str:
    changed = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return changed.strftime("%Y-%m-%dT%H:%M:%SZ")


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
def disk_failures(then: str = "resume the run") -> Iterator[None]:
    """Turn a full or failing disk inside the block into InfrastructureError; `then` is what to do when it is not."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise InfrastructureError(
            f"Writing failed: {error}. What was finished before is kept; free some space and {then}."
        ) from error
