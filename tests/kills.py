"""Kills a search again and again, and counts what is lost: nothing.

    python tests/kills.py --repeats 50 --seed 1

Each repeat starts `harness run` on a small search, sends SIGKILL to one of its processes (the driver, an actor of Ray,
a supervisor, a trial, the raylet) at a moment drawn from the seed, and resumes it until it is finished. Then: every
cell is done; every trial that was recorded before a kill is there unchanged; numbers and proposals are each there once;
no process is left. With one worker, a search whose driver was killed proposes what one proposes that nobody disturbed,
in the same order. What does not hold is printed, and the exit status is 1.
"""

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]

MARK = "HARNESS_TESTS"
"""Environment variable by which everything that is started here is known."""

FINISHED = (0, 4)
KILLED_BY_US = -signal.SIGKILL
RESUMED_AT_MOST = 4
TRIALS = 14

SCENARIO = """
question = "What does a kill cost?"

[data]
source = "sklearn:breast_cancer"

[search]
engines = ["optuna_search"]
trials = {trials}
seconds = 120
workers = {workers}
families = ["logistic", "random_forest"]
parameters.optuna_search.startup_trials = 5

[micro]
enabled = false
"""

Recorded = dict[tuple[str, int], tuple[str, str]]
"""Of each trial, by cell and number: its configuration, and the digest of its record."""


def module_is(name: str) -> Callable[[psutil.Process], bool]:
    return lambda process: name in process.cmdline()


def title_begins(text: str) -> Callable[[psutil.Process], bool]:
    return lambda process: process.cmdline()[0].startswith(text)


VICTIMS: dict[str, Callable[[psutil.Process], bool]] = {
    "driver": lambda process: "--run-id" in process.cmdline() or "--resume" in process.cmdline(),
    "actor": title_begins("ray::Worker"),
    "supervisor": lambda process: module_is("harness.stages.supervisor")(process) and not _is_fork(process),
    "trial": lambda process: module_is("harness.stages.supervisor")(process) and _is_fork(process),
    "raylet": lambda process: process.name() == "raylet",
}


def _is_fork(process: psutil.Process) -> bool:
    parent = process.parent()
    return parent is not None and parent.cmdline() == process.cmdline()


def below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def kill_one(pid: int, victim: str, draw: random.Random) -> bool:
    """SIGKILL to a process of the run that answers the description; whether there was one."""
    found = []
    for process in below(pid):
        with contextlib.suppress(psutil.Error, IndexError):
            if VICTIMS[victim](process):
                found.append(process)
    with contextlib.suppress(psutil.NoSuchProcess):
        if found:
            draw.choice(found).kill()
            return True
    return False


def recorded(database: Path) -> Recorded:
    """What is in `run.db` now; nothing where there is none yet."""
    with contextlib.suppress(sqlite3.OperationalError):
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT cell, number, record ->> '$.evaluated.configuration', sha256 FROM trials ORDER BY rowid"
            ).fetchall()
        return {(cell, number): (configuration, sha256) for cell, number, configuration, sha256 in rows}
    return {}


def left_running(patience_s: float = 30.0) -> list[str]:
    deadline_s = time.perf_counter() + patience_s
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:120])
        if not found or time.perf_counter() > deadline_s:
            return found
        time.sleep(0.1)


def command(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    asked = [sys.executable, "-m", "harness", "run", *arguments, "--results", str(folder)]
    return subprocess.Popen(
        asked, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def undisturbed(folder: Path) -> list[tuple[str, str]]:
    """Cells and configurations of a search with one worker, in their order."""
    run = command(folder, str(written(folder, 1)), "--run-id", "whole")
    _, told = run.communicate()
    if run.returncode not in FINISHED:
        raise SystemExit(f"the search that nobody disturbed ended with {run.returncode}: {told}")
    return in_order(recorded(folder / "whole" / "run.db"))


def in_order(found: Recorded) -> list[tuple[str, str]]:
    return [(cell, configuration) for (cell, _), (configuration, _) in sorted(found.items())]


def written(folder: Path, workers: int) -> Path:
    file = folder / f"kills-{workers}.toml"
    file.write_text(SCENARIO.format(trials=TRIALS, workers=workers))
    return file


def struck(run: "subprocess.Popen[str]", database: Path, victim: str, known: int, draw: random.Random) -> str:
    """SIGKILL at a moment that is drawn: some time after so many trials, or after so many seconds; told in words."""
    if draw.random() < 0.7:
        after = draw.randint(known, max(known, TRIALS - 2))
        words, over = f"after {after} trials", lambda: len(recorded(database)) >= after
    else:
        after_s, began_s = draw.uniform(0.0, 20.0), time.perf_counter()
        words, over = f"after {after_s:.1f} s", lambda: time.perf_counter() - began_s >= after_s
    while run.poll() is None and not over():
        time.sleep(0.02)
    time.sleep(0.3 * draw.random())
    # Where it is too early for one of these, as before Ray has started, it is the first that comes.
    for _ in range(600):
        if run.poll() is not None or kill_one(run.pid, victim, draw):
            break
        time.sleep(0.05)
    return words if run.poll() is None or run.returncode == KILLED_BY_US else f"{words} (it had ended)"


def killed_and_resumed(
    folder: Path, name: str, workers: int, victim: str, kills: int, draw: random.Random
) -> tuple[str, list[str], Recorded]:
    """One repeat: what was done in words, what is wrong, and the trials at its end."""
    database, seen = folder / name / "run.db", Recorded()
    wrong, done = [], []
    run = command(folder, str(written(folder, workers)), "--run-id", name)
    for turn in range(RESUMED_AT_MOST + kills):
        if turn < kills:
            done.append(struck(run, database, victim, len(seen), draw))
        _, told = run.communicate()
        now = recorded(database)
        wrong += [f"trial {key} is gone or changed" for key, what in seen.items() if now.get(key) != what]
        seen = now
        if run.returncode in FINISHED and turn >= kills - 1:
            break
        if run.returncode not in (*FINISHED, KILLED_BY_US, 5):
            wrong.append(f"it ended with {run.returncode}: {told[-600:]}")
        if left := left_running():
            wrong.append(f"left running: {left}")
        begun = database.is_file()
        run = command(folder, *(("--resume", name) if begun else (str(written(folder, workers)), "--run-id", name)))
    else:
        run.kill()
        run.communicate()
        wrong.append(f"not finished after {RESUMED_AT_MOST} resumptions: {told[-600:]}")
    return ", ".join(done), wrong + checked(folder / name), seen


def checked(folder: Path) -> list[str]:
    """What is wrong with a run that is finished."""
    from harness.records.run import CellState
    from harness.store.database import Database

    with Database.read(folder / "run.db") as database:
        database.check()
        ledger = database.ledger()
    wrong = [f"cell {one.label} is {one.state}" for one in ledger.results if one.state is not CellState.DONE]
    for cell in (cell for cell in ledger.plan if cell.kind == "search"):
        own = [trial for trial in ledger.trials if trial.cell == cell.id]
        if [trial.number for trial in own] != list(range(TRIALS)):
            wrong.append(f"{cell.label}: numbers {[trial.number for trial in own]}")
        if len({trial.asked for trial in own}) != len(own):
            wrong.append(f"{cell.label}: a proposal was done twice: {sorted(trial.asked for trial in own)}")
    return wrong + ([f"left running: {left}"] if (left := left_running()) else [])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no repeat after so many")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    options = parser.parse_args(arguments)
    os.environ[MARK] = uuid.uuid4().hex
    draw, began_s, failed, made = random.Random(options.seed), time.perf_counter(), 0, 0
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        folder = Path(place)
        whole: list[tuple[str, str]] = []
        for number in range(options.repeats):
            if time.perf_counter() - began_s > options.seconds:
                break
            victim = options.victims[number % len(options.victims)]
            # With one worker answers come in the order of proposals, so it can be held against a whole search.
            workers, kills = draw.choice((1, 2)), draw.choice((1, 1, 2))
            done, wrong, found = killed_and_resumed(folder, f"run-{number}", workers, victim, kills, draw)
            # A trial that was killed is recorded as lost, and the engine was told so: its next proposals may differ.
            if workers == 1 and victim == "driver":
                whole = whole or undisturbed(folder)
                if in_order(found) != whole:
                    wrong.append("its configurations are not those of a search that nobody disturbed")
            made, failed = made + 1, failed + bool(wrong)
            say(f"{number + 1}: {victim}, {workers} workers, {done}: {'; '.join(wrong) or 'nothing lost'}")
    say(f"{made} repeats, {failed} with something lost, seed {options.seed}, {time.perf_counter() - began_s:.0f} s")
    return 1 if failed or not made else 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
