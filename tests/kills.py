"""Kills a search again and again, and counts what is lost: nothing.

    python tests/kills.py --repeats 50 --seed 1

Each repeat starts `harness run` on a small search, sends SIGKILL to one of its processes (the driver, a trial, a
supervisor, an actor of Ray, the raylet; with --together to one after the other) at a moment drawn from the seed, and
resumes it until it is finished. Then: every cell is done; every trial that was recorded before a kill is there
unchanged; numbers and proposals are each there once; no process is left. With one worker, a search proposes what one
proposes that nobody disturbed, in the same order, up to the first trial that a kill cost: of that the engine was told.

What does not hold is printed, and a table of all repeats at the end. The exit status is 1 where something was lost, or
where no kill landed on one of the victims: a search that ends before it is struck shows nothing.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.clock import SystemClock
from harness.pipeline.inputs import Searched, read_inputs
from harness.plugins import plugin
from harness.ports import Problem, Proposal
from harness.records.candidate import Configuration
from harness.records.run import CellState
from harness.stages.fitting import Fitter
from harness.stages.fleet import Done, Ready, SearchFleet
from harness.stages.search import search
from harness.store.database import Database
from harness.store.scenarios import read_scenario

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
seconds = 600
workers = {workers}
families = ["logistic", "random_forest"]
parameters.optuna_search.startup_trials = 5

[micro]
enabled = false
"""

Recorded = dict[tuple[str, int], tuple[str, str, str | None]]
"""Of each trial, by cell and number: its configuration, the digest of its record, and the cause of its failure."""


def module_is(name: str) -> Callable[[psutil.Process], bool]:
    return lambda process: name in process.cmdline()


def title_begins(text: str) -> Callable[[psutil.Process], bool]:
    return lambda process: process.cmdline()[0].startswith(text)


VICTIMS: dict[str, Callable[[psutil.Process], bool]] = {
    "driver": lambda process: "--run-id" in process.cmdline() or "--resume" in process.cmdline(),
    "trial": lambda process: module_is("harness.stages.supervisor")(process) and _is_fork(process),
    "supervisor": lambda process: module_is("harness.stages.supervisor")(process) and not _is_fork(process),
    "actor": title_begins("ray::Worker"),
    "raylet": lambda process: process.name() == "raylet",
}
"""In the order of --together. Without a driver a run is over, without a raylet some seconds later; else it goes on."""


@dataclass
class Tally:
    """What became of the kills of one victim."""

    landed: int = 0
    resumes: int = 0
    lost: int = 0
    duplicated: int = 0
    """Trials, as seen after its kills."""


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
                "SELECT cell, number, record ->> '$.evaluated.configuration', sha256, cause FROM trials ORDER BY rowid"
            ).fetchall()
        return {(cell, number): (configuration, *rest) for cell, number, configuration, *rest in rows}
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


class Here:
    """A worker of `stages.fleet` in this process, which nobody kills."""

    count = 1

    def __init__(self, searched: Searched) -> None:
        table, self.clock = searched.table, SystemClock()
        rows = table.frame.iloc[table.train].reset_index(drop=True)
        self._fitter = Fitter(0, rows, table.target[table.train], table.signature)
        self._answers: list[Done | Ready] = []

    def start(self, problem: Problem, folds: Any) -> None:
        self._fitter.start(problem, folds)

    def send(self, worker: int, number: int, proposal: Proposal, folds: Sequence[int] | None, limit_s: float) -> None:
        self._answers = [Ready(worker), Done(number, self._fitter.evaluate(proposal, folds))]

    def receive(self, timeout_s: float) -> list[Done | Ready]:
        return self._answers


def undisturbed(file: Path) -> list[Configuration]:
    """The configurations of a search with one worker that nobody disturbs, in their order."""
    scenario, _ = read_scenario(file)
    (searched,), plan = read_inputs(scenario, file.parent).searched, scenario.search
    (name,), (seed,) = plan.engines, plan.seeds
    fleet = SearchFleet(Here(searched), searched.table.training)
    engine = plugin("engines", name, plan.parameters.get(name))
    trials = search(engine, searched.problem(seed), fleet, lambda trial: None, "")
    return [trial.evaluated.configuration for trial in trials]


def compared(found: Recorded, whole: Sequence[Configuration]) -> list[str]:
    """What is wrong with the trials of one worker, up to the first that a kill cost."""
    own = [(json.loads(configuration), cause) for _, (configuration, _, cause) in sorted(found.items())]
    same = next((place for place, (_, cause) in enumerate(own) if cause), len(own) - 1) + 1
    for place, ((ours, _), theirs) in enumerate(zip(own[:same], whole, strict=False)):
        if ours != theirs:
            return [f"configuration {place} is {ours}, and {theirs} where nobody disturbed the search"]
    return []


def written(folder: Path, workers: int) -> Path:
    file = folder / f"kills-{workers}.toml"
    file.write_text(SCENARIO.format(trials=TRIALS, workers=workers))
    return file


def struck(
    run: "subprocess.Popen[str]", database: Path, victim: str, last: int, draw: random.Random
) -> tuple[bool, str]:
    """SIGKILL at a moment that is drawn, some time before there are `last` trials: whether it landed, and when."""
    known = len(recorded(database))
    if draw.random() < 0.8:
        after = draw.randint(known, max(known, last))
        words, over = f"after {after} trials", lambda: len(recorded(database)) >= after
    else:
        after_s, began_s = draw.uniform(0.0, 8.0), time.perf_counter()
        words, over = f"after {after_s:.1f} s", lambda: time.perf_counter() - began_s >= after_s
    while run.poll() is None and not over():
        time.sleep(0.02)
    time.sleep(0.1 * draw.random())
    # Where it is too early for one of these, as before Ray has started, it is the first that comes.
    while run.poll() is None:
        if kill_one(run.pid, victim, draw):
            return True, f"{victim} {words}"
        time.sleep(0.02)
    return False, ""


def killed_and_resumed(
    folder: Path, name: str, workers: int, victims: Sequence[str], draw: random.Random, tallies: dict[str, Tally]
) -> tuple[str, list[str], Recorded]:
    """One repeat: what was done in words, what is wrong, and the trials at its end."""
    database, seen = folder / name / "run.db", Recorded()
    begin = (str(written(folder, workers)), "--run-id", name)
    wrong, done = [], []
    run = command(folder, *begin)
    left, tally = list(victims), tallies[victims[-1]]
    for _ in range(RESUMED_AT_MOST + len(victims)):
        while left:
            last = len(recorded(database)) + (TRIALS - 2) // len(victims)
            landed, words = struck(run, database, left[0], last, draw)
            if not landed:
                break  # it ended of the kill before, and its victim comes when it was resumed; or it has finished
            tally = tallies[left[0]]
            tally.landed += 1
            done.append(words)
            if left.pop(0) == "driver":
                break
        _, told = run.communicate()
        now = recorded(database)
        gone = [f"trial {key} is gone or changed" for key, what in seen.items() if now.get(key) != what]
        tally.lost += len(gone)
        wrong, seen = wrong + gone, now
        if run.returncode in FINISHED:
            break
        if run.returncode not in (KILLED_BY_US, 5):
            wrong.append(f"it ended with {run.returncode}: {told[-600:]}")
        if still := left_running():
            wrong.append(f"left running: {still}")
        tally.resumes += 1
        run = command(folder, *(("--resume", name) if database.is_file() else begin))
    else:
        run.kill()
        run.communicate()
        wrong.append(f"not finished after {RESUMED_AT_MOST} resumptions: {told[-600:]}")
        return ", ".join(done), wrong, seen
    done += [f"{victim} not, for it had finished" for victim in left]
    return ", ".join(done), wrong + checked(folder / name, tally), seen


def checked(folder: Path, tally: Tally) -> list[str]:
    """What is wrong with a run that is finished."""
    with Database.read(folder / "run.db") as database:
        database.check()
        ledger = database.ledger()
    wrong = [f"cell {one.label} is {one.state}" for one in ledger.results if one.state is not CellState.DONE]
    for cell in (cell for cell in ledger.plan if cell.kind == "search"):
        own = [trial for trial in ledger.trials if trial.cell == cell.id]
        numbers, proposals = [trial.number for trial in own], [trial.asked for trial in own]
        tally.lost += len(set(range(TRIALS)) - set(numbers))
        tally.duplicated += len(own) - min(len(set(numbers)), len(set(proposals)))
        if numbers != list(range(TRIALS)):
            wrong.append(f"{cell.label}: numbers {numbers}")
        if len(set(proposals)) != len(own):
            wrong.append(f"{cell.label}: a proposal was done twice: {sorted(proposals)}")
    return wrong + ([f"left running: {left}"] if (left := left_running()) else [])


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    os.environ[MARK] = uuid.uuid4().hex
    draw, began_s, failed, made = random.Random(options.seed), time.perf_counter(), 0, 0
    tallies = {victim: Tally() for victim in options.victims}
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        folder = Path(place)
        whole = undisturbed(written(folder, 1)) if 1 in options.workers else []
        for number in range(options.repeats):
            if time.perf_counter() - began_s > options.seconds:
                break
            # With one worker answers come in the order of proposals, so it can be held against a whole search.
            workers = draw.choice(options.workers)
            one = options.victims[number % len(options.victims)]
            victims = options.victims if options.together else [one] * draw.choice((1, 1, 2))
            done, wrong, found = killed_and_resumed(folder, f"run-{number}", workers, victims, draw, tallies)
            wrong += compared(found, whole) if workers == 1 else []
            made, failed = made + 1, failed + bool(wrong)
            say(f"{number + 1}: {workers} workers, {done}: {'; '.join(wrong) or 'nothing lost'}")
    say(f"{made} repeats, {failed} with something lost, seed {options.seed}, {time.perf_counter() - began_s:.0f} s")
    say(_LINE.format("victim", "kills that landed", "resumes", "trials lost", "duplicated"))
    for victim, tally in tallies.items():
        say(_LINE.format(victim, tally.landed, tally.resumes, tally.lost, tally.duplicated))
    missed = [victim for victim, tally in tallies.items() if not tally.landed]
    if missed:
        say(f"No kill landed on: {', '.join(missed)}. So nothing is shown of it; give it more repeats or another seed.")
    return 1 if failed or missed else 0


_LINE = "{:<10}  {:>17}  {:>7}  {:>11}  {:>10}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no repeat after so many")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--together", action="store_true", help="kill all of the victims in every repeat, in turn")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], help="of the search, drawn for each repeat")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
