"""Child processes that never outlive their purpose.

In: a command, cores, a log file. Out: `child`, a running process that is gone when its block is left, and
`child_servers`, several that share one port; `die_with_parent`, which a child calls in its own main, so that it is gone
too when the parent is killed; `refuse_taken`, for ports; `allow_open_files` and `open_file_limits`; `wait_ready`, for
whatever answers HTTP, and `refuse_gone`, for what did and does no more; `on_cores`; `yield_to_others`; `log_tail` and
`end_of_log`. A child is only ever stopped by its own id.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from harness.clock import SystemClock
from harness.errors import ExitCode, InfrastructureError, IntegrityError, UnansweredError, UsageError
from harness.sweeper import is_swept

STOP_S = 5.0
"""How long a process group has to obey SIGTERM before it gets SIGKILL."""

LOOPBACK = "127.0.0.1"
"""Where everything that is started here listens, and nowhere else."""

BACKLOG = 2048
"""Connections that may wait to be accepted: a load generator opens hundreds at once, and one too many costs it a second
(the retransmission of its first packet), which would pass for the server's latency."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""An environment in which numeric libraries start no threads of their own: a replica is a process of one thread, or
its figures would depend on how many others share its cores."""

SERVER_HEADER = "x-server-process"
"""Header in which a live server says which of several processes answers; its value means nothing else."""

PR_SET_PDEATHSIG = 1
"""From `linux/prctl.h`."""

_PARENT = "HARNESS_PARENT_PID"
_POLL_S = 0.02


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent is gone, however that died; call it first in a child.

    Linux only (`prctl(PR_SET_PDEATHSIG)`); elsewhere it does nothing. The signal follows the *thread* that started the
    child, so a child must be started from a thread that lives as long as it is needed.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise InfrastructureError(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}.")
    # A parent that died before the call above sends no signal any more. Removed, so that a process of our own that is
    # started without `child` does not take our parent for its own.
    parent = os.environ.pop(_PARENT, None)
    if parent is not None and os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def child(
    command: Sequence[str],
    *,
    log: Path,
    cores: tuple[int, ...] = (),
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a session of its own, on `cores` (empty: any), appending what it prints to `log`.

    `environment` is added to ours. On leaving, its whole process group is ended: SIGTERM, at most `STOP_S` seconds,
    SIGKILL. Raises InfrastructureError where it cannot be started.
    """
    process = _started(command, log, cores, environment, pass_fds)
    try:
        yield process
    finally:
        _end_groups([process], STOP_S)


@contextlib.contextmanager
def child_servers(
    command: Sequence[str],
    *,
    what: str,
    log: Path,
    count: int = 1,
    port: int = 0,
    cores: tuple[int, ...] = (),
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    stop_s: float = STOP_S,
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Run `count` children of `command` that share one loopback port (0: the system's choice); yield it and their ids.

    Each child gets `--fd`, its own listening socket, and `--ready-fd`, a pipe to call `announce_ready` on. The block is
    entered when all have; when it is left, all are told to end at once, and have `stop_s` seconds for it. Raises
    UsageError on a port that is taken, and, naming `what` and with the end of the log, InfrastructureError where a
    child ends first (IntegrityError where its status says so) or takes longer than `timeout_s` seconds. A block that is
    left in order raises UnansweredError where a child says by its status that it had not answered everyone, or had to
    be killed.
    """
    clock = SystemClock()
    killed: list[subprocess.Popen[bytes]] = []
    deadline_s = clock.monotonic_s() + timeout_s
    with contextlib.ExitStack() as stack:
        # Sockets that listen before the child runs: no port is chosen twice, and no connection is refused.
        sockets = [stack.enter_context(sock) for sock in _listening(port, count)]
        started: list[subprocess.Popen[bytes]] = []
        stack.callback(lambda: killed.extend(_end_groups(started, stop_s)))
        announced: list[int] = []
        for sock in sockets:
            ready, announce = os.pipe()
            stack.callback(os.close, ready)
            try:
                full = [*command, "--fd", str(sock.fileno()), "--ready-fd", str(announce)]
                started.append(_started(full, log, cores, environment, (sock.fileno(), announce)))
            finally:
                os.close(announce)
            announced.append(ready)
        bound: int = sockets[0].getsockname()[1]
        for sock in sockets:
            sock.close()  # or connections would still be queued here when the children are gone
        for process, ready in zip(started, announced, strict=True):
            _wait_announced(process, ready, deadline_s - clock.monotonic_s(), f"{what} on port {bound}", log)
        yield bound, tuple(process.pid for process in started)
    if killed or any(process.returncode == ExitCode.INFRASTRUCTURE for process in started):
        raise UnansweredError(f"{what} was ended before it had answered everyone whom it had let in.")


def announce_ready(fd: int) -> None:
    """Tell the parent, over the pipe it gave, that requests are answered from now on."""
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, b"1")
    os.close(fd)


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """After the block, SIGINT and SIGTERM do what they did before it; Ray puts in handlers of its own.

    Outside the main thread, where nobody can set handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def on_cores(cores: tuple[int, ...]) -> Iterator[None]:
    """This thread, and what it starts, runs on `cores` (empty: as before) until the block is left.

    Raises InfrastructureError where the machine has no such cores, or forbids them.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        listed = ", ".join(map(str, cores))
        raise InfrastructureError(
            f"Cannot run on cores {listed}: {error}. Cores to be had: {sorted(before)}."
        ) from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def yield_to_others() -> None:
    """This thread runs when nobody else wants its core, from now on. Linux only; elsewhere it does nothing."""
    if sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def log_tail(log: Path, lines: int = 15) -> str:
    """The last `lines` lines of a log; a sentence in their place where there are none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 400 * lines))
            text = file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(it printed nothing)"


def end_of_log(log: Path | None) -> str:
    """The end of a message about who writes a log: its name, unless it is gone before that is read, and last lines."""
    named = "" if log is None or is_swept(log) else f", {log}"
    return "" if log is None else f" The end of its log{named}:\n{log_tail(log)}"


def open_file_limits() -> tuple[int | None, int | None]:
    """How many files and connections this process may have open, and could allow itself; None: no limit."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (None if limit == resource.RLIM_INFINITY else limit for limit in limits)
    return soft, hard


def allow_open_files(wanted: int) -> None:
    """Let this process, and every child of it from now on, have `wanted` files and connections open.

    Raises UsageError where the machine's hard limit does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UsageError(
            f"A process may have {hard:,} files open here, and this load needs {wanted:,}, one for each request in "
            "flight: lower load.in_flight_max (--in-flight), or have the limit raised (`ulimit -Hn`)."
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def refuse_taken(port: int) -> None:
    """Raises UsageError where nobody could listen on a loopback port now; 0 stands for any, which can be had."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except (OSError, OverflowError) as error:
        told = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).rstrip(".")
        raise UsageError(f"Cannot listen on {LOOPBACK}:{port}: {told}. Choose another port, or 0 for any.") from error


def wait_ready(
    url: str,
    *,
    timeout_s: float,
    what: str,
    log: Path | None = None,
) -> None:
    """Ask `url` until it answers 200.

    Raises InfrastructureError, naming `what` and with the end of `log`, when that takes longer than `timeout_s`
    seconds.
    """
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + timeout_s
    last = "no answer"
    while (left_s := deadline_s - clock.monotonic_s()) > 0:
        last = _asked(url, min(2.0, left_s))
        if last == "":
            return
        clock.sleep(_POLL_S)
    raise InfrastructureError(f"{what} was not ready at {url} within {timeout_s:g} s ({last}).{end_of_log(log)}")


def direct() -> urllib.request.OpenerDirector:
    """Asks whom it is told to, and no proxy that the environment names: that one's loopback is another."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urllib.parse.urlsplit(url)
    return str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)


def refuse_gone(url: str, processes: Sequence[int], *, what: str, log: Path | None) -> None:
    """Raises InfrastructureError where a server that was ready has ended since: one of its `processes`, which are
    children of this one, or whoever listened at `url`. Without a `log`, what it printed is not told.

    A server that is slow is not gone, so nothing is asked of it: under overload an answer may take any time.
    """
    for pid in processes if hasattr(os, "waitid") else ():
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            how = f"with status {ended.si_status}"
            if ended.si_code != os.CLD_EXITED:
                how = f"by signal {signal.Signals(ended.si_status).name}"
            raise InfrastructureError(f"{what} at {url} ended {how} while it was in use.{end_of_log(log)}")
    try:
        socket.create_connection(address_of(url), timeout=2.0).close()
    except ConnectionRefusedError:
        raise InfrastructureError(f"{what} at {url} listens no more.{end_of_log(log)}") from None
    except OSError:
        return  # such as a timeout, with a queue of connections that is full


def _listening(port: int, count: int) -> list[socket.socket]:
    """`count` sockets that listen on one loopback port; the kernel spreads connections over them."""
    # Sockets that may share a port may share it with a stranger's too; one that may not finds out.
    refuse_taken(port)
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(socket.create_server((LOOPBACK, port), backlog=BACKLOG, reuse_port=count > 1))
            port = made[0].getsockname()[1]
    except OSError as error:
        for sock in made:
            sock.close()
        raise InfrastructureError(f"Cannot listen on {LOOPBACK}:{port}: {error}.") from error
    return made


def _wait_announced(process: subprocess.Popen[bytes], ready: int, timeout_s: float, what: str, log: Path) -> None:
    readable, _, _ = select.select([ready], [], [], max(0.0, timeout_s))
    if not readable:
        raise InfrastructureError(f"{what} was not ready in time.{end_of_log(log)}")
    if not os.read(ready, 1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        kind = IntegrityError if process.returncode == ExitCode.INTEGRITY else InfrastructureError
        raise kind(f"{what} ended with status {process.returncode} before it was ready.{end_of_log(log)}")


def _asked(url: str, timeout_s: float) -> str:
    """Empty where `url` answers 200, else what it did in a word or two."""
    try:
        with direct().open(url, timeout=timeout_s) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def _started(
    command: Sequence[str],
    log: Path,
    cores: tuple[int, ...],
    environment: Mapping[str, str] | None,
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    surroundings = {**os.environ, **(environment or {}), _PARENT: str(os.getpid())}
    # A child inherits the cores of the thread that starts it; setting them there and back costs nothing, where a
    # preexec_fn is unsafe in a process that has threads, and setting them after the start leaves the child's first
    # threads (a BLAS pool, say) where they were.
    with log.open("ab") as output, on_cores(cores):
        try:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=surroundings,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
        except OSError as error:
            raise InfrastructureError(f"Cannot start {command[0]}: {error}.") from error


def _end_groups(processes: Sequence[subprocess.Popen[bytes]], stop_s: float) -> list[subprocess.Popen[bytes]]:
    """End process groups by their leaders' ids, and reap the leaders. Those that had to be killed for it.

    A leader is reaped last: until then its id cannot be given to another process, so the signals cannot go astray. All
    are told before any is waited for, and each is told once: for a server that drains a second SIGTERM means at once.
    """
    clock, late = SystemClock(), list(processes)
    try:
        for process in processes:
            _signal_group(process, signal.SIGTERM)
        deadline_s = clock.monotonic_s() + stop_s
        while (late := [process for process in processes if not _ended(process)]) and clock.monotonic_s() < deadline_s:
            clock.sleep(_POLL_S)
    finally:
        # Also after a leader's own orderly end, for what it may have left behind; and on a second Ctrl-C.
        for process in processes:
            _signal_group(process, signal.SIGKILL)
        for process in processes:
            process.wait()
    return late


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.returncode is not None and psutil.pid_exists(process.pid):
        return  # someone polled it, so it is reaped, and its id has been given away since
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the leader has ended; unlike `poll`, this leaves it to be reaped."""
    if process.returncode is not None or not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
