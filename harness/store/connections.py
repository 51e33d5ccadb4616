"""How `run.db` is opened: by its one writer, or by whoever reads and must not write anything, not even beside it.

In: the path of a SQLite file. Out: `writing` and `closed`, which leave one plain file; `reading`, which works in
archives and on disks that cannot be written; and `told`, which says what SQLite refuses as one of our errors.
"""

import contextlib
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import InfrastructureError, IntegrityError, UsageError

_LOG, _INDEX, _JOURNAL = "-wal", "-shm", "-journal"
"""What SQLite puts beside a file: commits that are not in it yet, an index of these, and what is to be taken back."""

_WRITE_VERSION = 18
"""Offset in the file's header of the byte that is 2 where commits go to a log."""


def writing(path: Path, *, new: bool = False) -> sqlite3.Connection:
    """A connection for the one writer of a file. Raises InfrastructureError or IntegrityError."""
    with told(path):
        connection = _connected(path, "rwc" if new else "rw")
        try:
            # Write-ahead: a commit costs no wait for the disk, and a killed process loses nothing that was committed.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def closed(connection: sqlite3.Connection) -> None:
    """Close a writer's connection; what it leaves is one file, which SQLite reads without writing."""
    with contextlib.suppress(sqlite3.Error):  # as when someone reads at this moment: then the log stays beside it
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, and needs no place to write to beside the file.

    Not with SQLite's `immutable=1`, which would leave the log of a killed writer unread. Raises UsageError where there
    is no such file, InfrastructureError or IntegrityError where it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        with told(path):
            if _left_by_the_dead(path):
                copies = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-read-")))
                for beside in ("", _LOG, _JOURNAL):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copyfile(f"{path}{beside}", copies / f"{path.name}{beside}")
                connection = _connected(copies / path.name, "rw")
            else:
                connection = _connected(path, "ro")
        yield stack.enter_context(contextlib.closing(connection))


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """What SQLite refuses inside the block, as one of our errors: the disk's failure, or the file's."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the second, of the text of SQLite's own complaint
        # Of what SQLite calls operational, a missing table or column is the file's fault: its schema was looked at.
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise InfrastructureError(
                f"{path} cannot be written or read: {error}. What was finished before is kept; "
                "see to the disk and resume the run."
            ) from error
        raise IntegrityError(f"{path} is not a run's database, or is damaged: {error}.") from error


def _left_by_the_dead(path: Path) -> bool:
    """Whether SQLite would write beside a file in order to read it, and no writer lives who could be in a copy's way.

    A log is read by way of an index of it, which a living writer keeps there; a journal is played back first.
    """
    with path.open("rb") as file:
        logs = file.read(_WRITE_VERSION + 1)[_WRITE_VERSION:] == b"\x02"
    if Path(f"{path}{_JOURNAL}").exists():
        return True
    return logs and not (Path(f"{path}{_LOG}").exists() and Path(f"{path}{_INDEX}").exists())


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
    # A damaged text is still to be read, for its digest to tell.
    connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
    return connection
