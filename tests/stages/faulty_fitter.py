"""A fitter whose configurations do to their process whatever their family is called; it runs in trial processes."""

import ctypes
import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from harness.ports import Proposal
from harness.records.candidate import Configuration, Evaluated
from harness.space.families import families_for
from harness.stages.fitting import Fitter
from harness.stages.refit import Order, Refitter

_C = ctypes.PyDLL(None)  # keeps the interpreter's lock, as code in C does that never gives it back


_RELAY = 100_000
_CROWD = 60
"""Processes that a trial may start, in sequence and at once: a test must end even where nobody ends them."""


class FaultyFitter(Fitter):
    """Its pipelines answer 0.5, after they have done what the family says; those of our own families are sound."""

    def _build(self, configuration: Configuration) -> Any:
        if configuration["family"] in {family.name for family in families_for(self._asked.task)}:
            return super()._build(configuration)
        return _Pipeline(str(configuration["family"]))

    def evaluate(self, proposal: Proposal, folds: Sequence[int] | None = None, limit_s: float = math.inf) -> Evaluated:
        evaluated = super().evaluate(proposal, folds, limit_s)
        if proposal.configuration["family"] == "unreadable":
            return evaluated.model_copy(update={"configuration": _Unreadable()})
        return evaluated


class FaultyRefitter(Refitter):
    """The same, fitted and asked outside a search."""

    def _unfitted(self) -> Any:
        return _Pipeline(str(self._order.configuration["family"]))

    def __init__(self, worker: int, order: Order) -> None:
        # There is no family of these names to import.
        super().__init__(worker, replace(order, configuration={}))
        self._order = order


class _Unreadable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


class _Pipeline:
    def __init__(self, family: str) -> None:
        self._family = family

    def fit(self, frame: Any, target: Any) -> Any:
        getattr(self, f"_{self._family}", lambda: None)()
        return self

    def predict_proba(self, frame: Any) -> Any:
        if self._family == "refuse":
            raise ZeroDivisionError("no answer")
        answers = {"pid": os.getpid() / 2**23, "no_number": np.nan}
        return np.full((len(frame), 2), answers.get(self._family, 0.5))

    def _sleep(self) -> None:
        time.sleep(600)

    def _sleep_in_c(self) -> None:
        _C.sleep(600)

    def _ignore_signals(self) -> None:
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)

    def _swallow(self) -> None:
        while True:
            try:
                time.sleep(600)
            except Exception:
                continue

    def _fork(self) -> None:
        """Leaves processes that do not end: one of a session of its own, one of a shell, and one that returns here."""
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        subprocess.Popen("sleep 600 & sleep 600", shell=True)
        os.fork()

    def _fork_and_sleep(self) -> None:
        self._fork()
        time.sleep(600)

    def _fork_in_a_relay(self) -> None:
        """A process that forks and ends, and so does the one that it forked, until whoever looks is too slow."""
        if os.fork() == 0:
            for _ in range(_RELAY):
                if os.fork() != 0:
                    os._exit(0)
            time.sleep(600)
        time.sleep(600)

    def _fork_in_a_crowd(self) -> None:
        """Processes that all fork, so many at most."""
        free, taken = os.pipe()
        os.write(taken, bytes(_CROWD))
        os.close(taken)
        while os.read(free, 1):
            os.fork()
        time.sleep(600)

    def _allocate(self) -> None:
        held = []
        while True:
            held.append(np.ones(2**20))

    def _allocate_in_a_child(self) -> None:
        if os.fork() == 0:
            self._allocate()
        time.sleep(600)

    def _use_memory(self) -> None:
        np.ones(100 * 2**17).sum()  # 100 MiB, given back

    def _burn(self) -> None:
        ends_s = time.process_time() + 0.3
        while time.process_time() < ends_s:
            pass

    def _share_the_work(self) -> None:
        """With threads that a library starts, whatever the environment and the fitter ask for."""
        with threadpool_limits(limits=3):
            HistGradientBoostingClassifier(max_iter=5).fit(np.arange(600).reshape(-1, 2), np.arange(300) % 2)

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _kill_worker(self) -> None:
        psutil.Process().parents()[1].kill()
        time.sleep(600)

    def _kill_node(self) -> None:
        psutil.Process().parents()[2].kill()
        time.sleep(600)

    def _crash(self) -> None:
        ctypes.string_at(0)

    def _exit(self) -> None:
        os._exit(7)

    def _leave(self) -> None:
        raise SystemExit(3)

    def _fill_disk(self) -> None:
        Path("/dev/full").write_text("a device on which there is never any space")

    def _raise(self) -> None:
        raise RuntimeError("the solver broke")
