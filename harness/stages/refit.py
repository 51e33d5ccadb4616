"""Refit: what a search found, fitted on all training rows and timed, in processes that did nothing before.

In: a table and a configuration (none: the dummy). Out: `refitted`: its answers to the holdout, and how long fitting,
loading and predicting took, cold and warm; or the failure.

A child loads the table and the libraries, and forks twice: one fork fits, the other one is given the fitted pipeline
and asked. So imports and reads are outside every timer, what is asked has never fitted, and what is cold is the first
of its kind in its process. Two new Pythons would show the same, and take seconds each to come to that point.
"""

import ctypes
import gc
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from harness.clock import SystemClock
from harness.errors import InfrastructureError
from harness.process import ONE_THREAD, child, log_tail
from harness.records.candidate import Configuration
from harness.records.refit import PredictTime
from harness.records.rows import Prediction
from harness.records.run import Cause, Failure
from harness.records.scenario import ComparePlan
from harness.space.build import build, build_dummy, estimator_class
from harness.space.families import FAMILY, family_named
from harness.space.score import predict
from harness.stages.data import Table
from harness.stages.fitting import cause_of

THREADS = 1
"""That fitting and predicting may use, as in a trial."""

_END_S = 5.0

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be fitted, and how it is asked."""

    table: Table
    configuration: Configuration
    """Empty: the dummy."""
    seed: int
    plan: ComparePlan


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the first process has to say."""

    answers: Prediction
    """To the holdout rows."""
    pipeline: bytes
    """Pickled."""
    fit_cold_s: float
    fit_warm_s: float
    peak_memory_bytes: int
    fit_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the second process has to say."""

    load_s: float
    predict_cold_s: float
    predict: tuple[PredictTime, ...]


def refitted(order: Order, cores: tuple[int, ...], limit_s: float) -> tuple[Fitted, Asked] | Failure:
    """Fit and ask as ordered, on `cores` (empty: any), within `limit_s` seconds.

    Raises InfrastructureError where the child does not start, or is gone.
    """
    ours, theirs = Pipe()
    with tempfile.NamedTemporaryFile() as file, ExitStack() as stack:
        log = Path(file.name)
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        process = stack.enter_context(
            child(command, log=log, cores=cores, environment=ONE_THREAD, pass_fds=[theirs.fileno()])
        )
        stack.enter_context(ours)
        theirs.close()
        try:
            ours.send(order)
            if not ours.poll(limit_s):
                return Failure.of(Cause.TIME, f"fitting and asking it once more took longer than {limit_s:.3g} s")
            answer: tuple[Fitted, Asked] | Failure = ours.recv()
        except (EOFError, OSError) as error:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            raise InfrastructureError(f"The process of a refit is gone. It said last:\n{log_tail(log)}") from error
        return answer


# What follows runs in the child and its forks.


def answered(order: Order) -> tuple[Fitted, Asked] | Failure:
    """Fit in one fork, ask in the next."""
    if order.configuration:
        estimator_class(family_named(str(order.configuration[FAMILY])), order.table.signature.task)
    fitted = _in_a_fork(lambda: _fit(order))
    if isinstance(fitted, Failure):
        return fitted
    asked = _in_a_fork(lambda: _ask(order, fitted.pipeline))
    return asked if isinstance(asked, Failure) else (fitted, asked)


def _fit(order: Order) -> Fitted:
    table, task = order.table, order.table.signature.task
    rows, target = table.frame.iloc[table.train], table.target[table.train]

    def fit() -> tuple[Any, float]:
        unfitted = build(order.configuration, table.signature, order.seed) if order.configuration else build_dummy(task)
        with _timed() as elapsed_s:
            pipeline = unfitted.fit(rows, target)
        return pipeline, elapsed_s()

    # The cold one is gone before the warm one: its memory is of one model then, without what is imported at first use.
    cold_s = fit()[1]
    before_bytes, base_bytes = _peak_bytes(), _base_bytes()
    pipeline, warm_s = fit()
    peak_bytes = _peak_bytes()
    return Fitted(
        answers=predict(pipeline, table.frame.iloc[table.holdout], task),
        pipeline=pickle.dumps(pipeline, protocol=5),
        fit_cold_s=cold_s,
        fit_warm_s=warm_s,
        peak_memory_bytes=max(before_bytes, peak_bytes),
        fit_memory_bytes=max(0, peak_bytes - base_bytes),
    )


def _ask(order: Order, pickled: bytes) -> Asked:
    table, task = order.table, order.table.signature.task
    holdout = table.frame.iloc[table.holdout]
    with _timed() as load_s:
        pipeline = pickle.loads(pickled)  # noqa: S301 - from the fork before
    one = holdout.iloc[:1]
    with _timed() as cold_s:
        predict(pipeline, one, task)
    clock, found = SystemClock(), []
    for count in order.plan.rows:
        rows = holdout.take(np.arange(count) % len(holdout))
        predict(pipeline, rows, task)
        calls_s: list[float] = []
        end_s = clock.monotonic_s() + order.plan.seconds
        while len(calls_s) < order.plan.repeats and (not calls_s or clock.monotonic_s() < end_s):
            with _timed() as elapsed_s:
                predict(pipeline, rows, task)
            calls_s.append(elapsed_s())
        found.append(PredictTime(rows=count, calls_s=tuple(calls_s)))
    return Asked(load_s=load_s(), predict_cold_s=cold_s(), predict=tuple(found))


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    """Gives, once its block is left, the seconds spent in it."""
    clock, elapsed_s = SystemClock(), math.nan
    began_s = clock.monotonic_s()
    yield lambda: elapsed_s
    elapsed_s = clock.monotonic_s() - began_s


def _in_a_fork(do: Callable[[], _Value]) -> _Value | Failure:
    """What `do` returns in a fork of this process, or why it did not."""
    ours, theirs = Pipe()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            # Where memory runs out, it is this process that goes, and not the run.
            with suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text("1000")
            with warnings.catch_warnings(), threadpool_limits(limits=THREADS):
                warnings.simplefilter("ignore")
                theirs.send(do())
        except Exception as error:
            theirs.send(Failure.of(cause_of(error), error))
        finally:
            os._exit(0)
    theirs.close()
    found: _Value | Failure | None = None
    with ours, suppress(EOFError):
        found = ours.recv()
    _, status = os.waitpid(pid, 0)
    if found is not None:
        return found
    ended = os.waitstatus_to_exitcode(status)
    if ended == -signal.SIGKILL:
        return Failure.of(Cause.MEMORY, "its process was ended by SIGKILL, as the kernel does where memory runs out")
    if ended < 0:
        return Failure.of(Cause.WORKER_LOST, f"its process was ended by {signal.Signals(-ended).name}")
    return Failure.of(Cause.UNKNOWN, f"its process ended itself without an answer, with status {ended}")


def _base_bytes() -> int:
    """Memory that is held now, from which on the peak counts anew.

    What was freed is given back first: a fit that takes it again would seem to need nothing. Where the kernel does not
    let a peak be begun anew, the old one is the base, and what a fit needs is told too low rather than too high.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    # By its real name: what is pickled on the other side must be the same classes here.
    from harness.stages.refit import answered as _answered

    with Connection(int(sys.argv[1])) as _connection:
        _connection.send(_answered(_connection.recv()))
