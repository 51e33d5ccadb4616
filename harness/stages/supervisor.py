"""The supervisor: runs trials in a process of their own, and holds each to its limits from outside.

In: the training rows, a problem, proposals with their limits. Out: `supervised`, and an `Evaluated` per proposal,
whatever it does: sleeps in C, ignores signals, forks, allocates without end, or takes its process along. What is to be
done once and in a process that did nothing before, such as a last fit, is held to limits in the same way: `do`.

Three processes stand one under the other. Who asks (a worker of the fleet) holds a `Supervised`. The supervisor below
it has loaded the table and the libraries once, starts no thread, and forks. The trial process is the fork, which lives
from trial to trial until it breaks a limit; then it is killed with all its descendants, and the next fork takes a few
milliseconds, where a new Python with its libraries takes seconds.
"""

import ctypes
import faulthandler
import math
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import psutil

from harness.clock import SystemClock
from harness.errors import InfrastructureError
from harness.ports import Problem, Proposal
from harness.process import ONE_THREAD, PR_SET_PDEATHSIG, child, log_tail
from harness.records.candidate import Evaluated
from harness.records.run import Cause, Failure
from harness.stages.descendants import (
    cpu_seconds,
    descendants,
    end_descendants,
    forget_peak,
    memory_bytes,
    peak_memory_bytes,
)
from harness.sweeper import swept_place
from harness.units import Unit, format_number

FITTER = "harness.stages.fitting:Fitter"
"""The class that fits, by import path."""

KILL_AFTER_S = 1.0
"""How long a trial whose time is over, and which was told so, has before it is killed."""

MEMORY_SHARE = 0.8
"""Of a machine's free memory that the trials of all its workers may have together, where no limit is given."""

WATCH_S = 0.05
"""How often a trial's memory is looked at."""

START_S = 120.0
_END_S = 5.0
_SET_CHILD_SUBREAPER = 36
"""From `linux/prctl.h`: descendants whose parent has died become children of this process."""


@dataclass(frozen=True, slots=True)
class _Start:
    problem: Problem
    folds: Any
    workers: int


@dataclass(frozen=True, slots=True)
class _Work:
    proposal: Proposal
    folds: Sequence[int] | None
    limit_s: float


@dataclass(frozen=True, slots=True)
class _Job:
    method: str
    given: tuple[Any, ...]
    limit_s: float
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Broken:
    """In place of an answer: what became of the process that was to give it."""

    failure: Failure
    duration_s: float
    cpu_s: float
    peak_bytes: int


class Supervised:
    """The way to a supervisor; made by `supervised`. Raises InfrastructureError where the supervisor itself is gone."""

    def __init__(self, connection: "Connection[Any, Any]", process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._connection = connection
        self._process = process
        self._log = log

    def start(self, problem: Problem, folds: Any, workers: int) -> None:
        """Make it ready for a problem; `workers` share the memory of this machine."""
        self._ask(_Start(problem, folds, workers), START_S)

    def evaluate(self, proposal: Proposal, folds: Sequence[int] | None = None, limit_s: float = math.inf) -> Evaluated:
        """Fit and score a proposal on the folds of these numbers (None: all), within `limit_s` seconds."""
        evaluated: Evaluated = self._ask(_Work(proposal, folds, limit_s), limit_s + KILL_AFTER_S + START_S)
        return evaluated

    def do(self, method: str, *given: Any, limit_s: float, memory_bytes: int | None = None) -> Any:
        """What a method of the fitter returns in a fork of its own, which is gone afterwards; a Failure where it breaks
        a limit, or its process. It is told `limit_s` after what it is `given`; no limit of memory is the usual one.
        """
        return self._ask(_Job(method, given, limit_s, memory_bytes), limit_s + KILL_AFTER_S + START_S)

    def _ask(self, message: _Start | _Work | _Job, patience_s: float) -> Any:
        try:
            self._connection.send(message)
            if not self._connection.poll(None if math.isinf(patience_s) else patience_s):
                raise self._gone("does not answer")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            # Its last words come after its end of the way was closed.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            raise self._gone("is gone") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _gone(self, how: str) -> InfrastructureError:
        return InfrastructureError(f"The supervisor of the trials {how}. It said last:\n{log_tail(self._log)}")


@contextmanager
def supervised(
    worker: int, table: bytes, fitter: str = FITTER, cores: tuple[int, ...] = (), python: Path | None = None
) -> Iterator[Supervised]:
    """A supervisor for the trials of a worker on a table (pickled: frame, target, signature), or for a fitter that is
    made of something else; gone with the block. It runs on `cores` (empty: any), by the interpreter `python` (None:
    the one that runs here).

    It ends by itself, and all that it started, as soon as this process is gone, however that ended.
    """
    ours, theirs = Pipe()
    # In the place that is swept: a supervisor that is swept together with its worker does not come to remove its log.
    with tempfile.NamedTemporaryFile(dir=swept_place(), delete=False) as file, ExitStack() as stack:
        log = Path(file.name)
        stack.callback(log.unlink, missing_ok=True)
        command = [str(python or sys.executable), "-m", __name__, str(theirs.fileno()), fitter]
        started = child(command, log=log, cores=cores, environment=ONE_THREAD, pass_fds=[theirs.fileno()])
        process = stack.enter_context(started)
        # Closed first: its sign to end in order, and not by a signal, which a trial's descendants would survive.
        stack.enter_context(ours)
        theirs.close()
        with suppress(OSError):  # it did not start; whoever asks it first is told
            ours.send((worker, table))
        yield Supervised(ours, process, log)


# What follows runs in the supervisor and, below `_work`, in the trial process.


def supervise(connection: "Connection[Any, Any]", fitter: str) -> None:
    """Answer until the other end is closed; then nothing is left that was started here."""
    import pickle

    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # It ends when the other end is closed, and ends what it started first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent, trials = os.getppid(), None
    try:
        with suppress(EOFError, OSError):
            worker, table = connection.recv()
            trials = _Trials(pkgutil.resolve_name(fitter)(worker, *pickle.loads(table)), connection)  # noqa: S301 - our own
            del table
            while True:
                connection.send(_answer(trials, connection.recv()))
    finally:
        if trials is not None:
            trials.end()
        if os.getppid() != parent:  # nobody else removes its log
            Path("/proc/self/fd/1").readlink().unlink(missing_ok=True)


def _answer(trials: "_Trials", asked: _Start | _Work | _Job) -> Any:
    match asked:
        case _Start() as start:
            try:
                return trials.start(start)
            except Exception as error:
                return error
        case _Work() as work:
            return trials.run(work)
        case _Job() as job:
            return trials.do(job)


class _Trials:
    """The trial process of a supervisor, forked when there is none."""

    def __init__(self, fitter: Any, control: "Connection[Any, Any]") -> None:
        self._fitter = fitter
        self._control = control
        self._clock = SystemClock()
        self._most_bytes = math.inf
        self._pid = 0
        self._pidfd = -1
        self._way: Connection[Any, Any] | None = None
        self._cpu_s = 0.0

    def start(self, start: _Start) -> None:
        self.end()  # it has the folds of the problem before
        self._fitter.start(start.problem, start.folds)
        self._most_bytes = _limit_bytes(start.problem.memory_bytes, start.workers)

    def run(self, work: _Work) -> Evaluated:
        answer: Evaluated | _Broken = self._held(work, self._most_bytes)
        if not isinstance(answer, _Broken):
            return answer
        return Evaluated(
            configuration=work.proposal.configuration,
            duration_s=answer.duration_s,
            worker=self._fitter.worker,
            cpu_s=answer.cpu_s,
            peak_memory_bytes=answer.peak_bytes or None,
            rows_share=work.proposal.rows_share,
            failure=answer.failure,
        )

    def do(self, job: _Job) -> Any:
        self.end()  # it did something before
        answer = self._held(job, _limit_bytes(job.memory_bytes, 1))
        self.end()
        return answer.failure if isinstance(answer, _Broken) else answer

    def _held(self, work: _Work | _Job, most_bytes: float) -> Any:
        """What the trial process answers; `_Broken` where it breaks a limit, and then it is gone."""
        if self._way is None or wait([self._pidfd], 0):
            self.end()  # it may have gone after its last answer
            self._fork()
        assert self._way is not None
        began_s, peak_bytes, cpu_s = self._clock.monotonic_s(), 0, self._cpu_s
        failure: Failure | None = None
        with suppress(BrokenPipeError):  # it has gone just now, which is seen below
            self._way.send(work)
        while failure is None:
            left_s = work.limit_s + KILL_AFTER_S - (self._clock.monotonic_s() - began_s)
            ready = wait([self._way, self._pidfd, self._control], max(0.0, min(WATCH_S, left_s)))
            if self._control in ready:
                raise EOFError  # nobody is told anything while a trial runs: the other end is gone
            if self._way in ready:
                try:
                    answer = self._way.recv()
                    self._cpu_s = cpu_seconds(self._pid)
                    if descendants(os.getpid()) != [self._pid]:
                        self.end()  # what it left running would take time and memory from the next one
                    return answer
                except (EOFError, OSError):
                    pass
                except Exception as error:  # whatever it takes to read a pickle
                    told = f"the process of the trial sent an answer that cannot be read: {error!r}"
                    failure = Failure.of(Cause.UNKNOWN, told)
            if ready:
                failure = failure or self._how_it_ended()
                continue
            used_bytes = memory_bytes(os.getpid(), self._pid)
            peak_bytes, self._cpu_s = max(peak_bytes, used_bytes), max(self._cpu_s, cpu_seconds(self._pid))
            if used_bytes > most_bytes:
                failure = Failure.of(Cause.MEMORY, _too_much(used_bytes, most_bytes))
            elif left_s <= 0:
                late = f"killed {KILL_AFTER_S:g} s after its limit of {work.limit_s:.3g} s, which it did not heed"
                failure = Failure.of(Cause.TIME, late)
        spent_cpu_s = self._cpu_s - cpu_s
        self.end()
        return _Broken(failure, self._clock.monotonic_s() - began_s, spent_cpu_s, peak_bytes)

    def end(self) -> None:
        """Kill the trial process and every descendant, and reap them."""
        end_descendants(_END_S)
        if self._way is not None:
            self._way.close()
            os.close(self._pidfd)
        self._way, self._pid, self._pidfd, self._cpu_s = None, 0, -1, 0.0

    def _fork(self) -> None:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._control.close()
            _work(self._fitter, theirs)
        theirs.close()
        self._way, self._pid, self._pidfd = ours, pid, os.pidfd_open(pid)

    def _how_it_ended(self) -> Failure:
        # Its end of the way is closed before it is gone: a large process takes a while to give its memory back.
        wait([self._pidfd], KILL_AFTER_S)
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return Failure.of(Cause.UNKNOWN, "the process of the trial closed the way to it")
        if ended.si_code == os.CLD_EXITED:
            # Whether a library gave up in it or somebody's code had enough, a status does not tell.
            return Failure.of(Cause.UNKNOWN, f"the process of the trial ended itself, with status {ended.si_status}")
        hint = ", as the kernel does where memory runs out" if ended.si_status == signal.SIGKILL else ""
        how = f"was ended by {signal.Signals(ended.si_status).name}{hint}"
        return Failure.of(Cause.WORKER_LOST, f"the process of the trial {how}")


def _work(fitter: Any, way: "Connection[Any, Any]") -> None:
    """The life of a trial process; it never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        faulthandler.enable()
        # Where memory runs out in spite of all, it is this process that goes, and not the run.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        own = os.getpid()
        while True:
            work: _Work | _Job = way.recv()
            forget_peak()
            if isinstance(work, _Work):
                evaluated = fitter.evaluate(work.proposal, work.folds, work.limit_s)
                answer = evaluated.model_copy(update={"peak_memory_bytes": peak_memory_bytes()})
            else:
                answer = getattr(fitter, work.method)(*work.given, work.limit_s)
            if os.getpid() != own:
                os._exit(0)  # a trial that forked, and returned twice
            way.send(answer)
    except EOFError:
        os._exit(0)
    except BaseException:
        faulthandler.dump_traceback()
        os._exit(1)


def free_memory_bytes() -> int:
    """What processes may still take here: of the machine, or of the control group (version 2) that this runs in."""
    free: int = psutil.virtual_memory().available
    with suppress(OSError, ValueError, StopIteration):
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
        free = min(free, group_free_bytes(Path("/sys/fs/cgroup") / own))
    return free


def _limit_bytes(given: int | None, workers: int) -> float:
    """`given`, or a share of what is free, beside what a fork begins with, which is no longer free."""
    return given or memory_bytes(os.getpid(), os.getpid()) + MEMORY_SHARE * free_memory_bytes() / workers


def group_free_bytes(group: Path) -> int:
    """What the processes of a control group may still take; `group` is its folder.

    Files that were read and are kept in memory count as used, and are given up for whoever needs room: a group that has
    read a large table would have next to nothing free for ever. Raises OSError, ValueError (no limit) or StopIteration
    where the kernel does not tell.
    """
    most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    lines = (group / "memory.stat").read_text().splitlines()
    kept = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, most - used + kept)


def _too_much(used_bytes: float, most_bytes: float) -> str:
    used, most = (format_number(size, Unit.BYTES) for size in (used_bytes, most_bytes))
    return f"killed: it had {used} of memory, and its limit is {most}"


if __name__ == "__main__":
    # By its real name: what is pickled on the other side must be the same classes here.
    from harness.stages.supervisor import supervise as _supervise

    with Connection(int(sys.argv[1])) as _connection:
        _supervise(_connection, sys.argv[2])
