"""The fleet, on a real Ray session: the budget is kept, and workers that die or dawdle cost a trial, not the search."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from harness.clock import SystemClock
from harness.errors import InfrastructureError, UsageError
from harness.ports import Problem, Workbench
from harness.ray_session import ray_session
from harness.records.candidate import Configuration, Evaluated
from harness.records.run import Cause
from harness.records.scenario import DataPlan
from harness.stages import fleet as fleet_room
from harness.stages.data import Table, load_table
from harness.stages.fleet import RayFleet
from harness.stages.worker import Worker

pytestmark = pytest.mark.timeout(300)

PROBLEM = Problem("binary", "roc_auc", ("logistic",), folds=3, trials=6, seconds=60.0, seed=1)
LOGISTIC: Configuration = {"family": "logistic", "C": 1.0}


class Scripted(Worker):
    """A worker that does what the family of its configuration is called."""

    def evaluate(self, configuration: Configuration) -> Evaluated:
        self._running = configuration
        match configuration["family"]:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "dawdle":
                time.sleep(60.0)
        pid = float(os.getpid())
        return Evaluated(configuration=configuration, fold_scores=(pid,), duration_s=0.0, worker=self.worker)


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table(DataPlan(source="sklearn:breast_cancer"), Path())


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with ray_session(2):
        # This file is no installed module: its class travels by value.
        pickling: Any = ray.cloudpickle
        pickling.register_pickle_by_value(sys.modules[__name__])
        yield
        pickling.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def fleet(session: None, table: Table) -> Iterator[RayFleet]:
    with RayFleet(table, 2, SystemClock(), Scripted) as made:
        yield made


def asked(fleet: RayFleet, *families: str, trials: int = 6, seconds: float = 60.0) -> list[Evaluated]:
    fleet.start(Problem("binary", "roc_auc", ("logistic",), 3, trials, seconds, 1))
    left: Iterator[Configuration] = ({"family": family} for family in families)
    return list(fleet.evaluate(lambda: next(left, None)))


def test_real_configurations_are_scored_by_real_workers(session: None, table: Table) -> None:
    with RayFleet(table, 1, SystemClock()) as fleet:
        fleet.start(PROBLEM)
        found = list(fleet.evaluate(lambda: LOGISTIC))
    assert len(found) == PROBLEM.trials
    assert all(evaluated.failure is None for evaluated in found)
    assert len({evaluated.fold_scores for evaluated in found}) == 1
    assert found[0].score == pytest.approx(0.99, abs=0.01)


def test_trials_are_bounded_and_all_workers_take_part(fleet: RayFleet) -> None:
    found = asked(fleet, *["quick"] * 40, trials=20)
    assert len(found) == 20
    assert {evaluated.worker for evaluated in found} == {0, 1}


def test_workers_live_on_from_one_search_to_the_next(fleet: RayFleet) -> None:
    first, second = (
        {evaluated.fold_scores for evaluated in asked(fleet, *["quick"] * 12, trials=12)} for _ in range(2)
    )
    assert first == second


def test_a_worker_that_is_killed_costs_its_trial_and_the_search_goes_on(fleet: RayFleet) -> None:
    found = asked(fleet, "quick", "die", "quick", "quick", "quick", "quick")
    lost = [evaluated for evaluated in found if evaluated.failure is not None]
    assert len(found) == 6
    assert [evaluated.configuration for evaluated in lost] == [{"family": "die"}]
    assert lost[0].failure is not None
    assert lost[0].failure.cause is Cause.WORKER_LOST


def test_workers_that_keep_dying_end_the_search_with_every_loss_recorded(
    fleet: RayFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_room, "LOST_PER_WORKER", 1)
    found: list[Evaluated] = []
    fleet.start(Problem("binary", "roc_auc", ("logistic",), 3, 100, 60.0, 1))
    with pytest.raises(InfrastructureError, match=r"Search workers died \d+ times"):
        for evaluated in fleet.evaluate(lambda: {"family": "die"}):
            found.append(evaluated)
    assert len(found) >= 3
    assert {evaluated.failure.cause for evaluated in found if evaluated.failure} == {Cause.WORKER_LOST}


def test_a_trial_beyond_the_deadline_and_its_grace_is_stopped(fleet: RayFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_room, "GRACE_S", 0.3)
    found = asked(fleet, "dawdle", "quick", seconds=0.5)
    late = [evaluated for evaluated in found if evaluated.failure is not None]
    assert [evaluated.configuration for evaluated in late] == [{"family": "dawdle"}]
    assert late[0].failure is not None
    assert late[0].failure.cause is Cause.TIME
    assert 0.5 <= late[0].duration_s < 30.0


def test_nothing_is_asked_for_after_the_deadline(fleet: RayFleet) -> None:
    assert asked(fleet, "quick", seconds=1e-9) == []


def test_a_search_that_is_left_early_leaves_no_worker_busy(fleet: RayFleet) -> None:
    fleet.start(PROBLEM)
    families = iter(["quick", "dawdle"])
    running = fleet.evaluate(lambda: {"family": next(families, "dawdle")})
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert len(asked(fleet, "quick", "quick")) == 2


def quick_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    while (evaluated := workbench.attempt({"family": "quick"})) is not None:
        yield evaluated


def slow_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    for family in ("quick", "dawdle"):
        evaluated = workbench.attempt({"family": family})
        assert evaluated is not None
        yield evaluated


def deadly_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    yield next(iter(quick_loop(workbench, problem)))
    time.sleep(1)  # what a worker gave may be lost where it dies in the same moment
    os.kill(os.getpid(), signal.SIGKILL)


def broken_loop(workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
    raise ValueError("this engine is broken")
    yield


def test_an_engines_own_loop_runs_in_one_worker_within_the_trials(fleet: RayFleet) -> None:
    fleet.start(PROBLEM)
    found = list(fleet.inside(quick_loop))
    assert len(found) == PROBLEM.trials
    assert {evaluated.worker for evaluated in found} == {0}


def test_a_loop_beyond_the_deadline_is_stopped_with_the_trial_it_was_at(
    fleet: RayFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_room, "GRACE_S", 0.3)
    fleet.start(Problem("binary", "roc_auc", ("logistic",), 3, 6, 0.5, 1))
    first, late = fleet.inside(slow_loop)
    assert first.failure is None
    assert late.failure is not None
    assert late.failure.cause is Cause.TIME
    assert late.configuration == {"family": "dawdle"}


def test_a_loop_whose_worker_dies_or_that_raises_ends_with_a_failure(fleet: RayFleet) -> None:
    fleet.start(Problem("binary", "roc_auc", ("logistic",), 3, 6, 60.0, 1))
    _, lost = fleet.inside(deadly_loop)
    assert lost.failure is not None
    assert lost.failure.cause is Cause.WORKER_LOST
    (broken,) = fleet.inside(broken_loop)
    assert broken.failure is not None
    assert broken.failure.cause is Cause.ENGINE_ERROR
    assert "this engine is broken" in broken.failure.message


def test_a_table_too_thin_for_the_folds_is_refused_before_any_work(fleet: RayFleet) -> None:
    with pytest.raises(UsageError, match=r"lower `search\.folds`"):
        fleet.start(Problem("binary", "roc_auc", ("logistic",), 400, 6, 60.0, 1))
