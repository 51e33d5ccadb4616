"""Limits that hold, whatever a trial does: real processes, in seconds."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from harness.errors import InfrastructureError
from harness.ports import Problem, Proposal
from harness.records.candidate import Evaluated
from harness.records.run import Cause
from harness.records.table import DataPlan
from harness.space.families import Family, defaults, families_for
from harness.stages.data import load_table
from harness.stages.fitting import Fitter
from harness.stages.split import fold_rows
from harness.stages.supervisor import KILL_AFTER_S, Supervised, free_memory_bytes, group_free_bytes, supervised

TABLE = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
FRAME = TABLE.frame.iloc[TABLE.train].reset_index(drop=True)
TARGET = TABLE.target[TABLE.train]
ROWS = pickle.dumps((FRAME, TARGET, TABLE.signature))
FOLDS = fold_rows(TABLE.training, 3, 1)
GIB = 2**30
PROBLEM = Problem("binary", "accuracy", ("logistic",), 3, 10, 60.0, 1, memory_bytes=GIB)

Evaluate = Callable[..., Evaluated]


@pytest.fixture(scope="module")
def faulty() -> Iterator[Evaluate]:
    """Has a configuration of a family evaluated by the fitter that does what the family is called."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parent))
        with supervised(0, ROWS, "faulty_fitter:FaultyFitter") as trials:
            trials.start(PROBLEM, FOLDS, 1)

            def evaluate(family: str, limit_s: float = 30.0) -> Evaluated:
                return trials.evaluate(Proposal({"family": family}), (0,), limit_s)

            yield evaluate


def asleep() -> set[int]:
    """Processes called `sleep` that have not ended; one that has may still wait to be reaped."""
    return {
        process.pid
        for process in psutil.process_iter(["name", "status"])
        if process.info["name"] == "sleep" and process.info["status"] != psutil.STATUS_ZOMBIE
    }


@pytest.fixture
def nothing_added() -> Iterator[None]:
    """No process is left that a trial has started."""
    before = asleep()
    yield
    ends_s = time.monotonic() + 5
    while not asleep() <= before and time.monotonic() < ends_s:
        time.sleep(0.02)
    assert asleep() <= before


def most_threads(evaluate: Callable[[], Evaluated]) -> int:
    """The most threads that a trial process of the newest supervisor has, seen while it evaluates and once after."""
    supervisor = max(psutil.Process().children(), key=lambda child: child.create_time())
    with ThreadPoolExecutor(1) as executor:
        evaluating, most, ended = executor.submit(evaluate), 0, False
        while not ended:
            ended = evaluating.done()  # what OpenMP starts stays, and is seen after a short fit too
            with suppress(psutil.NoSuchProcess):
                most = max([most, *(trial.num_threads() for trial in supervisor.children())])
            time.sleep(0.001)
        assert evaluating.result().failure is None
        return most


@pytest.fixture(scope="module")
def sound() -> Iterator[Supervised]:
    with supervised(0, ROWS) as trials:
        yield trials


@pytest.mark.parametrize("family", families_for("binary"), ids=lambda family: family.name)
def test_a_trial_has_one_thread_whatever_its_family_is(sound: Supervised, family: Family) -> None:
    # A new problem is a new process, without the threads of families before it.
    sound.start(Problem("binary", "accuracy", (family.name,), 3, 10, 60.0, 1), FOLDS, 1)
    assert most_threads(lambda: sound.evaluate(Proposal(defaults(family)), (0,))) == 1


def test_threads_that_a_library_starts_in_spite_of_all_are_seen(faulty: Evaluate) -> None:
    assert most_threads(lambda: faulty("share_the_work")) >= 3


def test_a_trial_gets_the_scores_that_it_has_without_a_supervisor() -> None:
    proposal = Proposal({"family": "logistic", "C": 0.5})
    fitter = Fitter(3, FRAME, TARGET, TABLE.signature)
    fitter.start(PROBLEM, FOLDS)
    with supervised(3, ROWS) as trials:
        trials.start(PROBLEM, FOLDS, 1)
        first, again = trials.evaluate(proposal), trials.evaluate(proposal)
        second_fold = trials.evaluate(proposal, (1,))
    expected = fitter.evaluate(proposal)
    assert first.fold_scores == again.fold_scores == expected.fold_scores
    assert second_fold.fold_scores == expected.fold_scores[1:2]
    assert first.worker == 3
    assert 0 < first.fit_s < first.duration_s


@pytest.mark.parametrize("family", ["sleep", "sleep_in_c", "ignore_signals", "swallow", "fork_and_sleep"])
def test_a_trial_ends_in_time_whatever_it_does(faulty: Evaluate, nothing_added: None, family: str) -> None:
    began_s = time.monotonic()
    failure = faulty(family, 0.5).failure
    assert time.monotonic() - began_s < 0.5 + KILL_AFTER_S + 2.0
    assert failure is not None
    assert failure.cause is Cause.TIME
    assert faulty("quick").failure is None


@pytest.mark.parametrize("family", ["fork_in_a_relay", "fork_in_a_crowd"])
def test_processes_that_go_on_forking_are_ended_all_the_same(faulty: Evaluate, family: str) -> None:
    failure = faulty(family, 0.2).failure
    assert failure is not None
    assert failure.cause is Cause.TIME
    (supervisor,) = (child for child in psutil.Process().children() if child.cmdline()[-1].startswith("faulty"))
    assert supervisor.children(recursive=True) == []


def test_a_trial_that_heeds_its_limit_keeps_its_process(faulty: Evaluate) -> None:
    before = faulty("pid").fold_scores
    failure = faulty("sleep", 0.2).failure
    assert failure is not None
    assert failure.message == "TimeoutError: stopped after its limit of 0.2 s"
    assert faulty("pid").fold_scores == before


@pytest.mark.parametrize("family", ["allocate", "allocate_in_a_child"])
def test_memory_is_held_to_its_limit(faulty: Evaluate, family: str) -> None:
    found = faulty(family)
    assert found.failure is not None
    assert found.failure.cause is Cause.MEMORY
    assert found.failure.message.endswith("and its limit is 1.00 GiB")
    assert found.peak_memory_bytes is not None
    assert GIB < found.peak_memory_bytes < 3 * GIB
    assert faulty("quick").failure is None


def test_memory_and_processor_time_of_a_trial_are_its_own(faulty: Evaluate) -> None:
    idle, busy, heavy = faulty("quick"), faulty("burn"), faulty("use_memory")
    assert idle.cpu_s is not None and busy.cpu_s is not None
    assert busy.cpu_s > idle.cpu_s + 0.25
    assert idle.peak_memory_bytes is not None and heavy.peak_memory_bytes is not None
    assert heavy.peak_memory_bytes > idle.peak_memory_bytes + 90 * 2**20
    after = faulty("quick").peak_memory_bytes
    assert after is not None
    assert after < idle.peak_memory_bytes + 30 * 2**20


@pytest.mark.parametrize(
    ("family", "cause", "said"),
    [
        ("die", Cause.WORKER_LOST, "the process of the trial was ended by SIGKILL"),
        ("crash", Cause.WORKER_LOST, "the process of the trial was ended by SIGSEGV"),
        ("exit", Cause.UNKNOWN, "the process of the trial ended itself, with status 7"),
        ("leave", Cause.UNKNOWN, "the process of the trial ended itself, with status 1"),
        ("unreadable", Cause.UNKNOWN, "the process of the trial sent an answer that cannot be read: ValueError("),
    ],
)
def test_a_trial_that_takes_its_process_along_is_lost_to_a_signal_or_for_reasons_of_its_own(
    faulty: Evaluate, family: str, cause: Cause, said: str
) -> None:
    failure = faulty(family).failure
    assert failure is not None
    assert failure.cause is cause
    assert failure.message.startswith(said)
    assert faulty("quick").failure is None


def test_files_that_are_kept_in_memory_are_free_memory_of_a_control_group(tmp_path: Path) -> None:
    told = {"max": "1000", "current": "900", "stat": "anon 250\nfile 650\ninactive_file 600\nactive_file 50\n"}
    for name, text in told.items():
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert group_free_bytes(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    with pytest.raises(ValueError, match="max"):
        group_free_bytes(tmp_path)


def test_a_trial_may_have_its_share_of_what_is_free_beside_what_it_begins_with(sound: Supervised) -> None:
    """So many workers that what was loaded before the fork would alone be more than a share."""
    workers = free_memory_bytes() // (80 * 2**20)
    sound.start(Problem("binary", "accuracy", ("random_forest",), 3, 10, 60.0, 1), FOLDS, workers)
    found = sound.evaluate(Proposal({"family": "random_forest"}))
    assert found.failure is None
    assert found.peak_memory_bytes is not None and found.peak_memory_bytes > 80 * 2**20


def test_what_a_fit_raises_is_its_failure_and_no_more(faulty: Evaluate) -> None:
    before = faulty("pid").fold_scores
    failure = faulty("raise").failure
    assert failure is not None
    assert failure.cause is Cause.ENGINE_ERROR
    assert faulty("pid").fold_scores == before


def test_what_a_trial_leaves_running_is_ended_with_it(faulty: Evaluate, nothing_added: None) -> None:
    assert faulty("fork").failure is None
    # One of each answer reaches us, however many processes returned from the fit.
    assert [faulty("quick").fold_scores for _ in range(3)] == [faulty("quick").fold_scores] * 3


def test_a_new_process_is_there_in_no_time(faulty: Evaluate) -> None:
    faulty("die")
    began_s = time.monotonic()
    faulty("quick")
    assert time.monotonic() - began_s < 2.0  # a Python with its libraries takes longer


def test_a_supervisor_that_cannot_start_says_why() -> None:
    with supervised(0, ROWS, "nowhere:Fitter") as trials, pytest.raises(InfrastructureError, match="No module named"):
        trials.start(PROBLEM, FOLDS, 1)


def test_what_cannot_be_taken_up_is_raised_here() -> None:
    with supervised(0, ROWS) as trials, pytest.raises(Exception, match="There is no model family 'nothing'"):
        trials.start(Problem("binary", "accuracy", ("nothing",), 3, 10, 60.0, 1), FOLDS, 1)


def test_nothing_is_left_of_one_whose_owner_is_killed(nothing_added: None, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(pickle.dumps((ROWS, PROBLEM, FOLDS)))
    command = [sys.executable, "-c", _OWNER, str(tmp_path / "rows")]
    surroundings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings) as owner:
        assert owner.stdout is not None
        supervisor = psutil.Process(int(owner.stdout.readline()))
        while not any("sleep" in process.name() for process in supervisor.children(recursive=True)):
            time.sleep(0.05)
        below = supervisor.children(recursive=True)
        owner.send_signal(signal.SIGKILL)
    gone, left = psutil.wait_procs([supervisor, *below], timeout=10)
    assert len(gone) >= 4
    assert left == []


_OWNER = """
import pickle, sys, psutil
from harness.ports import Proposal
from harness.stages.supervisor import supervised
rows, problem, folds = pickle.loads(open(sys.argv[1], "rb").read())
with supervised(0, rows, "faulty_fitter:FaultyFitter") as trials:
    trials.start(problem, folds, 1)
    print(psutil.Process().children()[0].pid, flush=True)
    trials.evaluate(Proposal({"family": "fork_and_sleep"}))
"""


def test_a_limit_of_no_time_is_kept_too(faulty: Evaluate) -> None:
    failure = faulty("sleep", 0.0).failure
    assert failure is not None
    assert failure.cause is Cause.TIME
