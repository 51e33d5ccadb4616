"""Nothing stays behind: a folder of our own, and every process that was started for it, are gone when we are.

In: the beginning of a folder's name. Out: `swept`, a block with a new temporary folder; `swept_place`, where who is
inside puts what is to go with it; and `is_swept`, of a path that does. However the block ends, also by SIGKILL, a small
process of ours outlives it, ends what was started inside (known by a mark in its environment, which children inherit,
or by writing to a file of the folder), and removes the folder. Ray needs it: its agents idle for a minute after their
driver was killed.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from harness.clock import SystemClock

GRACE_S = 5.0
"""How long those processes have to end by themselves, after which they are killed."""

_ROUNDS_AT_MOST = 20
_POLL_S = 0.05
_MARK = "HARNESS_SWEPT"
_open: list[Path] = []
"""The folders of the blocks that this process is inside of."""
_PATH_LENGTH = 40
"""Ray puts sockets some 66 characters below its folder, and a socket's path must stay under 108."""


@contextlib.contextmanager
def swept(prefix: str) -> Iterator[Path]:
    """A new, short temporary folder; what is started inside the block ends with it.

    Inside another such block a process belongs to the inner one, and each block sweeps its own.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_short_place(prefix)))
    sweeper = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C at the terminal is for the run; the sweeper ends when its input does
        # Without the mark of a block around this one, whose own sweeper would end this one before its work is done.
        env={name: value for name, value in os.environ.items() if name != _MARK},
    )
    before = os.environ.get(_MARK)
    os.environ[_MARK] = str(folder)
    _open.append(folder)
    try:
        yield folder
    finally:
        _open.remove(folder)
        if before is None:
            del os.environ[_MARK]
        else:
            os.environ[_MARK] = before
        assert sweeper.stdin is not None
        sweeper.stdin.close()
        sweeper.wait()


def swept_place() -> str:
    """The folder of the block that this process was started inside; the system's temporary one where there is none."""
    return os.environ.get(_MARK) or tempfile.gettempdir()


def is_swept(path: Path) -> bool:
    """Whether a path is gone when a block that this process is inside of is left."""
    return any(path.is_relative_to(folder) for folder in _open)


def sweep(folder: Path) -> None:
    """End every process that belongs to `folder`, and remove it."""
    grace_s = GRACE_S
    for _ in range(_ROUNDS_AT_MOST):
        # Looked for again after each round: a proxy that was starting its successor has one more by now.
        ours = [process for process in psutil.process_iter() if _belongs(process, folder)]
        if not ours:
            break
        # psutil knows a process by its id and the time it began: one that merely got the same id is never touched.
        for process in _still_running(ours, grace_s):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _still_running(ours, GRACE_S)
        grace_s = 0.0
    shutil.rmtree(folder, ignore_errors=True)


def _still_running(processes: list[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Those that run on for so long; one that is dead and waits to be reaped does not."""
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + patience_s
    while True:
        running = [process for process in processes if _runs(process)]
        if not running or clock.monotonic_s() >= deadline_s:
            return running
        clock.sleep(_POLL_S)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _belongs(process: psutil.Process, folder: Path) -> bool:
    """Whether it carries the mark in its environment, or writes to a file of the folder.

    The second, because a process that gives itself a long title, as Ray's agents do, writes it over its environment.
    """
    if process.pid in (os.getpid(), os.getppid()):
        return False  # the owner writes there too, and goes on
    try:
        if process.environ().get(_MARK) == str(folder):
            return True
        written = (file.path for file in process.open_files() if getattr(file, "mode", "r") != "r")
        return any(Path(path).is_relative_to(folder) for path in written)
    except psutil.Error:
        return False


def _short_place(prefix: str) -> str:
    place = tempfile.gettempdir()
    return place if len(place) + len(prefix) + len("/12345678") <= _PATH_LENGTH else "/tmp"


if __name__ == "__main__":
    sys.stdin.buffer.read()  # until the other end is closed: the block was left, or its process is no more
    sweep(Path(sys.argv[1]))
