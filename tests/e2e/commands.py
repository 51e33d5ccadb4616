"""What the end-to-end tests share: the command as a process of its own, and a look at what it left running."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]

MARK = "HARNESS_TESTS"
"""Environment variable by which everything that these tests start is known."""
os.environ[MARK] = uuid.uuid4().hex

SHORT = (
    "search.trials=3",
    "load.parameters.ladder.limit=2",
    "load.parameters.ladder.step_s=0.6",
    "load.parameters.stairs.steps=3",
    "load.parameters.stairs.step_s=1.0",
    "load.parameters.stairs.highest=0.4",
    "micro.seconds=0.05",
)
"""Overrides that make the smoke scenario as short as it can be, with a few easy steps: one may fall into a moment in
which the machine does something else, and then has no figures."""

FINISHED = (0, 4)
"""Every cell was done; whether its figures can be trusted is up to what else the machine did meanwhile."""


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def harness(*arguments: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(arguments), cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


def short(results: Path, run_id: str, *overrides: str) -> list[str]:
    settings = [part for override in (*SHORT, *overrides) for part in ("--set", override)]
    return ["run", "scenarios/smoke.toml", "--results", str(results), "--run-id", run_id, *settings]


@contextlib.contextmanager
def started(arguments: Sequence[str], **added: str) -> Iterator["subprocess.Popen[str]"]:
    """A command under way, whose end is waited for; not by a test that fails meanwhile. `added` to its environment."""
    pipe, full = subprocess.PIPE, {**os.environ, **added}
    with subprocess.Popen(command(arguments), cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=full) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def interrupted(arguments: Sequence[str], said: str, how: signal.Signals) -> tuple[int, str]:
    """Start a command, send it a signal as soon as it says `said`; its exit status and what it said."""
    with started(arguments) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if said in line:
                process.send_signal(how)
                break
        told.append(process.stderr.read())
    assert any(said in line for line in told), "".join(told)
    return process.returncode, "".join(told)


def wait_for_trials(process: "subprocess.Popen[str]", database: Path, count: int) -> None:
    """Until so many trials are in `run.db`; what a terminal is told comes in too seldom for that."""
    while process.poll() is None:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as found,
        ):
            if found.execute("SELECT count(*) FROM trials").fetchone()[0] >= count:
                return
        time.sleep(0.05)
    raise AssertionError(f"it ended with {process.returncode} before there were {count} trials")


def left_running(before: set[int], patience_s: float = 20.0) -> list[str]:
    """What was started by these tests since `before`, however indirectly, and still runs after a moment to die.

    By an environment variable that children inherit, not by names: another run on this machine is none of our business.
    """
    deadline_s = time.perf_counter() + patience_s
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.pid not in before | {os.getpid()} and process.environ().get(MARK) == os.environ[MARK]
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:200])
        if not found or time.perf_counter() > deadline_s:
            return found
        time.sleep(0.2)
