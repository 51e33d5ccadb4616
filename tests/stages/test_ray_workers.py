"""Workers on a real Ray session: the budget is kept, and workers that die or dawdle cost a trial, not the search."""

import os
import platform
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from harness.clock import SystemClock
from harness.errors import InfrastructureError
from harness.plugins import foreign, installed, plugin
from harness.ports import Finished, Foreign, Problem, Proposal, Workbench
from harness.ray_session import ray_session
from harness.records.candidate import Configuration, Evaluated, Trial
from harness.records.run import Cause
from harness.records.table import DataPlan
from harness.stages import fleet as fleet_room
from harness.stages import ray_workers as ray_workers_room
from harness.stages.data import Table, load_table
from harness.stages.fleet import SearchFleet
from harness.stages.host import fingerprint
from harness.stages.ray_workers import RayWorkers, ray_workers
from harness.stages.search import search

pytestmark = pytest.mark.timeout(300)

LOGISTIC: Configuration = {"family": "logistic", "C": 1.0}


def problem(trials: int = 6, seconds: float = 60.0) -> Problem:
    return Problem("binary", "roc_auc", ("logistic",), 3, trials, seconds, 1)


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table(DataPlan(source="sklearn:breast_cancer"), Path())


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parent))  # where trials find the faulty fitter
        with ray_session(3):  # two for `workers`, and one for those of a test itself
            # This file is no installed module: its functions travel by value.
            pickling: Any = ray.cloudpickle
            pickling.register_pickle_by_value(sys.modules[__name__])
            yield
            pickling.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def workers(session: None, table: Table) -> Iterator[RayWorkers]:
    with ray_workers(table, 2, SystemClock(), "faulty_fitter:FaultyFitter") as made:
        yield made


@pytest.fixture
def fleet(workers: RayWorkers, table: Table) -> SearchFleet:
    return SearchFleet(workers, table.training)


def asked(fleet: SearchFleet, *families: str, trials: int = 6, seconds: float = 60.0) -> list[Finished]:
    fleet.start(problem(trials, seconds))
    left = iter(families)
    return list(fleet.evaluate(lambda: next((Proposal({"family": family}) for family in left), None)))


def causes(found: list[Finished]) -> list[tuple[object, Cause]]:
    failures = [(one.evaluated.configuration["family"], one.evaluated.failure) for one in found]
    return [(family, failure.cause) for family, failure in failures if failure is not None]


def test_real_configurations_are_scored_by_real_workers(session: None, table: Table) -> None:
    with ray_workers(table, 1, SystemClock()) as workers:
        fleet = SearchFleet(workers, table.training)
        start = fleet.start(problem())
        found = list(fleet.evaluate(lambda: Proposal(LOGISTIC)))
        again = fleet.start(problem())
    assert len(found) == 6
    assert all(one.evaluated.failure is None for one in found)
    assert len({one.evaluated.fold_scores for one in found}) == 1
    assert found[0].evaluated.score == pytest.approx(0.99, abs=0.01)
    # The table went through Ray's store once, and what the driver did for a trial lies inside of the trial's time.
    (fetched_s,) = start.fetched_s
    assert 0 < start.put_s < start.put_s + fetched_s < start.took_s
    assert again.fetched_s == (0.0,)
    assert all(0 < one.transport_s < one.finished_s - one.sent_s for one in found)


def test_workers_that_find_no_place_are_waited_for_and_then_told(session: None, table: Table) -> None:
    with ray_workers(table, 4, SystemClock(), patience_s=4.0) as workers:  # one more than the session has CPUs
        fleet = SearchFleet(workers, table.training)
        with pytest.raises(InfrastructureError, match=r"not start 4 search workers within 4 s \(0 CPUs are free\)"):
            fleet.start(problem())


def test_a_node_with_another_harness_is_told(fleet: SearchFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.__version__", "0.0.9")  # here; the workers have theirs
    with pytest.raises(InfrastructureError, match=r"has harness .*, and this is 0\.0\.9: install the same everywhere"):
        fleet.start(problem())


def here_is_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = fingerprint()  # the workers have theirs, which is what we really have
    monkeypatch.setattr(ray_workers_room, "fingerprint", lambda: ours.model_copy(update={"cpu": "Abacus"}))


def test_nodes_unlike_this_machine_are_refused_and_named_with_what_differs(
    fleet: SearchFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    here_is_another_processor(monkeypatch)
    told = f"{platform.node()} has cpu {fingerprint().cpu} and not Abacus. Times of unlike machines are never pooled"
    with pytest.raises(InfrastructureError, match=re.escape(told)):
        fleet.start(problem())


@pytest.mark.long
def test_a_worker_that_is_replaced_must_stand_on_a_like_node_too(
    fleet: SearchFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.start(problem())
    here_is_another_processor(monkeypatch)
    with pytest.raises(InfrastructureError, match="and not Abacus"):
        list(fleet.evaluate(lambda: Proposal({"family": "kill_worker"})))


def test_an_environment_of_its_own_is_where_its_models_are_made_and_nowhere_else(
    session: None, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "environments" / "other" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nFOREIGN_ENVIRONMENT=1 exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with ray_workers(table, 1, SystemClock()) as workers:
        fleet = SearchFleet(workers, table.training)
        for foreign, expected in ((Foreign("foreign_models:build", "other"), 0.5), (None, 0.99)):
            fleet.start(replace(problem(1), foreign=foreign))
            (found,) = fleet.evaluate(lambda: Proposal(LOGISTIC))
            assert found.evaluated.failure is None
            assert found.evaluated.score == pytest.approx(expected, abs=0.01)


def test_trials_are_bounded_and_all_workers_take_part(fleet: SearchFleet) -> None:
    found = asked(fleet, *["quick"] * 40, trials=20)
    assert len(found) == 20
    assert {one.evaluated.worker for one in found} == {0, 1}


def test_a_trial_that_is_killed_costs_its_trial_and_the_search_goes_on(fleet: SearchFleet) -> None:
    found = asked(fleet, "quick", "die", "quick", "crash", "quick", "quick")
    assert len(found) == 6
    assert sorted(causes(found)) == [("crash", Cause.WORKER_LOST), ("die", Cause.WORKER_LOST)]


def holds_the_search_up(trials: int) -> Problem:
    """One second of search, and a memory limit for those who look for it."""
    return replace(problem(trials, 1.0), memory_bytes=2**30)


def overrun_allowed_s(seconds: float) -> float:
    return max(0.05 * seconds, 5.0)


@pytest.mark.parametrize("does", [("sleep_in_c", "ignore_signals"), ("fork_and_sleep", "allocate")], ids=" ".join)
def test_a_whole_search_is_over_in_time_whatever_its_trials_do(fleet: SearchFleet, does: tuple[str, str]) -> None:
    fleet.start(holds_the_search_up(10))
    families = iter(does)
    began_s = time.monotonic()
    found = list(fleet.evaluate(lambda: Proposal({"family": next(families, "quick")})))
    assert time.monotonic() - began_s < 1.0 + overrun_allowed_s(1.0)
    failed = dict(causes(found))
    assert set(failed) == set(does)
    # Where memory comes slowly the time is over first.
    assert failed.pop("allocate", Cause.MEMORY) in (Cause.MEMORY, Cause.TIME)
    assert set(failed.values()) == {Cause.TIME}


def test_a_search_is_over_in_time_where_a_trial_of_an_engines_own_loop_hangs(fleet: SearchFleet) -> None:
    fleet.start(holds_the_search_up(10))
    began_s = time.monotonic()
    found = list(fleet.inside(hanging_loop))
    assert time.monotonic() - began_s < 1.0 + overrun_allowed_s(1.0)
    assert causes(found) == [("sleep_in_c", Cause.TIME)]


def test_an_actor_that_is_killed_is_replaced_and_the_others_go_on(fleet: SearchFleet) -> None:
    found = asked(fleet, "quick", "kill_worker", *["burn"] * 12, "quick", trials=15)
    assert len(found) == 15
    assert causes(found) == [("kill_worker", Cause.WORKER_LOST)]


def test_workers_that_keep_dying_end_the_search_with_every_loss_recorded(
    fleet: SearchFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers_room, "LOST_PER_WORKER", 1)
    fleet.start(problem(100))
    found: list[Finished] = []
    with pytest.raises(InfrastructureError, match=r"Search workers died \d+ times"):
        for one in fleet.evaluate(lambda: Proposal({"family": "kill_worker"})):
            found.append(one)
    assert len(found) >= 3
    assert {cause for _, cause in causes(found)} == {Cause.WORKER_LOST}


def test_a_search_that_is_left_early_leaves_no_worker_busy(fleet: SearchFleet) -> None:
    fleet.start(problem())
    families = iter(["quick", "sleep"])
    running = fleet.evaluate(lambda: Proposal({"family": next(families, "sleep")}))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert len(asked(fleet, "quick", "quick")) == 2


ENGINES = [name for name in installed("engines") if foreign(name) is None]
SEARCH = Problem("binary", "roc_auc", ("logistic", "knn"), 3, 6, 120.0, 1)


# FLAML and the libraries it brings have warnings of their own.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_searches_with_real_workers(fleet: SearchFleet, name: str) -> None:
    kept: list[Trial] = []
    trials = search(plugin("engines", name), SEARCH, fleet, kept.append, "cell")
    assert kept == trials
    assert len(trials) == 6
    assert all(trial.evaluated.failure is None for trial in trials)
    assert {trial.evaluated.worker for trial in trials} == ({0} if name == "flaml_search" else {0, 1})
    if name == "halving":
        assert {trial.evaluated.rows_share for trial in trials} > {1 / 9}
    found = [score for trial in trials if (score := trial.evaluated.score) is not None]
    assert max(found) > 0.9  # a guess has 0.5


def test_real_workers_stop_after_the_fold_at_which_optuna_prunes(fleet: SearchFleet) -> None:
    pytest.importorskip("optuna")
    engine = plugin("engines", "optuna_search", {"sampler": "random", "pruner": "median", "startup_trials": 2})
    trials = search(engine, replace(SEARCH, trials=20), fleet, lambda trial: None, "cell")
    pruned = [trial.evaluated for trial in trials if trial.evaluated.pruned]
    whole = [trial.evaluated for trial in trials if not trial.evaluated.pruned]
    assert len(trials) == 20
    assert pruned and whole
    assert all(len(one.fold_scores) < 3 for one in pruned)
    assert all(len(one.fold_scores) == 3 for one in whole)


def quick_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    while (evaluated := workbench.attempt({"family": "quick"})) is not None:
        yield evaluated


def faulty_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    for family in ("quick", "die", "sleep", "quick"):
        evaluated = workbench.attempt({"family": family})
        if evaluated is not None:
            yield evaluated


def hanging_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    for family in ("quick", "sleep_in_c", "quick"):
        evaluated = workbench.attempt({"family": family})
        if evaluated is not None:
            yield evaluated


def deadly_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    yield next(iter(quick_loop(workbench, problem)))
    time.sleep(1)  # what a worker gave may be lost where it dies in the same moment
    os.kill(os.getpid(), signal.SIGKILL)


def endless_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    yield next(iter(quick_loop(workbench, problem)))
    time.sleep(600)


def broken_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    raise ValueError("this engine is broken")
    yield


def test_an_engines_own_loop_runs_in_one_worker_within_the_trials(fleet: SearchFleet) -> None:
    fleet.start(problem())
    found = list(fleet.inside(quick_loop))
    assert len(found) == 6
    assert [one.asked for one in found] == list(range(6))
    assert {one.evaluated.worker for one in found} == {0}


def slow_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    for family in ("quick", "burn", "burn"):
        evaluated = workbench.attempt({"family": family})
        assert evaluated is not None and evaluated.configuration == {"family": family}
        yield evaluated


def test_a_loop_is_given_recorded_answers_as_long_as_it_attempts_the_same(fleet: SearchFleet) -> None:
    fleet.start(problem())
    once = list(fleet.inside(quick_loop))[:3]
    history = [
        Trial(
            cell="c",
            number=one.asked,
            asked=one.asked,
            asked_s=one.asked_s,
            sent_s=one.sent_s,
            finished_s=one.finished_s,
            evaluated=one.evaluated,
        )
        for one in once
    ]
    fleet.start(problem(), history)
    again = list(fleet.inside(slow_loop))
    assert [(one.asked, one.is_known) for one in again] == [(0, True), (3, False), (4, False)]
    assert again[0].evaluated == once[0].evaluated
    assert again[1].asked_s == once[0].finished_s


def test_a_trial_that_is_killed_or_out_of_time_costs_an_engines_loop_that_trial_only(fleet: SearchFleet) -> None:
    fleet.start(Problem("binary", "roc_auc", ("logistic",), 3, 6, 60.0, 1, trial_seconds=0.5))
    found = list(fleet.inside(faulty_loop))
    assert len(found) == 4
    assert causes(found) == [("die", Cause.WORKER_LOST), ("sleep", Cause.TIME)]


def test_a_loop_that_dies_dawdles_or_raises_ends_with_a_failure(
    fleet: SearchFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.start(problem())
    _, lost = fleet.inside(deadly_loop)
    assert lost.evaluated.failure is not None
    assert lost.evaluated.failure.cause is Cause.WORKER_LOST
    monkeypatch.setattr(fleet_room, "GRACE_S", 0.2)
    fleet.start(problem(seconds=0.5))
    _, late = fleet.inside(endless_loop)
    assert late.evaluated.failure is not None
    assert late.evaluated.failure.cause is Cause.TIME
    fleet.start(problem())
    (broken,) = fleet.inside(broken_loop)
    assert broken.evaluated.failure is not None
    assert broken.evaluated.failure.cause is Cause.ENGINE_ERROR
    assert "this engine is broken" in broken.evaluated.failure.message


@pytest.mark.long
def test_replacements_that_die_at_the_start_are_replaced_too_until_that_is_no_cure(
    workers: RayWorkers, fleet: SearchFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, dying = workers._actor, 0

    def mortal(worker: int) -> Any:
        nonlocal dying
        actor, dying = make(worker), dying - 1
        if dying >= 0:
            ray.kill(actor)
        return actor

    monkeypatch.setattr(workers, "_actor", mortal)
    fleet.start(problem())
    dying = 2
    # Both are killed at once, and nothing runs while others come in their place.
    families = iter(["kill_worker", "kill_worker"])
    found = list(fleet.evaluate(lambda: Proposal({"family": next(families, "quick")})))
    assert len(found) == 6
    assert len(causes(found)) == 2
    monkeypatch.setattr(ray_workers_room, "LOST_PER_WORKER", 1)
    fleet.start(problem())
    dying = 99
    with pytest.raises(InfrastructureError, match=r"(?s)died \d times.*The last one did not start again: .*killed"):
        list(fleet.evaluate(lambda: Proposal({"family": "kill_worker"})))
