"""Recorded trials, repeated: the nearest answers, in virtual time, the same on every machine."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from harness.clock import FakeClock
from harness.engines.flaml_blendsearch import FlamlBlendsearch
from harness.engines.flaml_search import FlamlSearch
from harness.engines.halving import Halving
from harness.engines.optuna_search import OptunaSearch
from harness.engines.random_search import RandomSearch
from harness.errors import UsageError
from harness.ports import Engine, Problem, Proposal
from harness.records.candidate import Configuration, Evaluated, Trial
from harness.records.run import Cause, Failure
from harness.space.families import families_for, sample
from harness.stages.search import search
from harness.stages.simulated_workers import Recorded, SimulatedFleet, SimulatedWorkers
from harness.stages.split import LabelledRows

TARGET = np.array([0, 1] * 20)
FAMILIES = ("logistic", "random_forest", "mlp")
PROBLEM = Problem("binary", "roc_auc", FAMILIES, 3, 40, 1e6, 1)


def trial(configuration: Configuration, seconds: float, *scores: float, failure: Failure | None = None) -> Trial:
    evaluated = Evaluated(
        configuration=configuration,
        fold_scores=scores,
        duration_s=seconds,
        fit_s=seconds / 2,
        worker=3,
        failure=failure,
    )
    return Trial(cell="c", number=0, asked=0, asked_s=0.0, sent_s=0.0, finished_s=seconds, evaluated=evaluated)


def made_up(count: int = 60) -> list[Trial]:
    rng = np.random.default_rng(5)
    families = families_for("binary", FAMILIES)
    return [
        trial(sample(families, rng), float(rng.uniform(1, 100)), *map(float, rng.uniform(0.5, 1.0, 3)))
        for _ in range(count)
    ]


def test_the_nearest_recorded_configuration_of_the_family_answers() -> None:
    known = Recorded(
        [
            trial({"family": "logistic", "C": 0.001}, 1.0, 0.5, 0.5, 0.5),
            trial({"family": "logistic", "C": 1.0}, 2.0, 0.9, 0.8, 0.7),
            trial({"family": "knn"}, 9.0, 1.0, 1.0, 1.0),
        ]
    )
    # 0.1 lies nearer to 1 than to 0.001 on the scale of the parameter, which is that of its logarithm.
    asked: Configuration = {"family": "logistic", "C": 0.1}
    found = known.evaluate(Proposal(asked), None, 5)
    assert (found.configuration, found.fold_scores, found.duration_s, found.worker) == (asked, (0.9, 0.8, 0.7), 2.0, 5)
    assert known.evaluate(Proposal({"family": "logistic", "C": 0.01}), None, 0).duration_s == 1.0


def test_folds_and_rows_cost_their_share() -> None:
    known = Recorded([trial({"family": "logistic"}, 6.0, 0.9, 0.8, 0.7)])
    found = known.evaluate(Proposal({"family": "logistic"}, rows_share=0.5), (1,), 0)
    assert (found.fold_scores, found.duration_s, found.fit_s, found.rows_share) == ((0.8,), 1.0, 0.5, 0.5)


def test_failures_of_their_own_are_repeated_and_those_of_the_machine_are_not() -> None:
    own = trial({"family": "logistic"}, 1.0, failure=Failure.of(Cause.MEMORY, "too large"))
    late = trial({"family": "logistic"}, 1.0, failure=Failure.of(Cause.TIME, "stopped"))
    assert Recorded([own]).evaluate(Proposal({"family": "logistic"}), None, 0).failure == own.evaluated.failure
    with pytest.raises(UsageError, match="No recorded trial is of the family 'logistic'"):
        Recorded([late]).evaluate(Proposal({"family": "logistic"}), None, 0)


def test_a_failure_has_no_folds_to_be_asked_for() -> None:
    failed = trial({"family": "logistic"}, 6.0, failure=Failure.of(Cause.MEMORY, "too large"))
    found = Recorded([failed]).evaluate(Proposal({"family": "logistic"}), (1,), 0)
    assert (found.failure, found.fold_scores, found.duration_s) == (failed.evaluated.failure, (), 6.0)


def simulated(workers: int, engine: Engine, problem: Problem = PROBLEM) -> list[Trial]:
    hands = SimulatedWorkers(Recorded(made_up()), workers, FakeClock(), TARGET)
    fleet = SimulatedFleet(hands, LabelledRows(TARGET, "binary", "stratified"), ask_s=0.0, told_s=0.0)
    return search(engine, problem, fleet, lambda made: None, "c")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # FLAML's own
@pytest.mark.parametrize(
    "engine",
    [FlamlBlendsearch(), FlamlSearch(), Halving(), OptunaSearch(), RandomSearch()],
    ids=lambda one: type(one).__name__,
)
def test_every_engine_searches_in_virtual_time(engine: Engine) -> None:
    found = simulated(4, engine)
    assert len(found) == PROBLEM.trials
    ended_s = [one.finished_s for one in found]
    assert ended_s == sorted(ended_s) and len(set(ended_s)) == len(ended_s)
    # One loop in one worker is all there is of `flaml_search`; the others keep four busy.
    busy = sum(one.evaluated.duration_s for one in found) / ended_s[-1]
    assert busy == pytest.approx(1.0) if isinstance(engine, FlamlSearch) else busy > 2.5
    assert [one.model_dump() for one in simulated(4, engine)] == [one.model_dump() for one in found]


def test_more_workers_never_take_longer() -> None:
    lengths_s = [simulated(workers, RandomSearch())[-1].finished_s for workers in (1, 2, 4, 8, 16, 32)]
    assert lengths_s == sorted(lengths_s, reverse=True)
    assert lengths_s[0] == pytest.approx(sum(one.evaluated.duration_s for one in simulated(1, RandomSearch())))


@pytest.mark.parametrize("workers", [1, 2, 4, 16, 64])
def test_trials_a_second_end_where_the_driver_is_busy_all_the_time(workers: int) -> None:
    """A trial takes 8 s and its way a second; the driver is at it for half a second, so no more than two a second."""
    same = Recorded([trial({"family": name}, 8.0, 0.5, 0.6, 0.7) for name in FAMILIES])
    hands = SimulatedWorkers(same, workers, FakeClock(), TARGET, hand_over_s=1.0)
    fleet = SimulatedFleet(hands, LabelledRows(TARGET, "binary", "stratified"), ask_s=0.4, told_s=0.1)
    found = search(
        RandomSearch(), Problem("binary", "roc_auc", FAMILIES, 3, 400, 1e6, 1), fleet, lambda made: None, "c"
    )
    rate = len(found) / found[-1].finished_s
    assert rate == pytest.approx(min(workers / 9.5, 2.0), rel=0.05)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # FLAML's own
def test_a_loop_inside_a_worker_takes_its_time_before_each_trial() -> None:
    same = Recorded([trial({"family": name}, 8.0, 0.5, 0.6, 0.7) for name in FAMILIES])
    hands = SimulatedWorkers(same, 1, FakeClock(), TARGET, hand_over_s=1.0)
    fleet = SimulatedFleet(hands, LabelledRows(TARGET, "binary", "stratified"), ask_s=1.5, told_s=0.5)
    found = search(FlamlSearch(), replace(PROBLEM, seconds=100.0), fleet, lambda made: None, "c")
    # Ten seconds for each, and the last begins before a hundred are over.
    assert [one.finished_s for one in found] == [10.0 * count for count in range(1, 11)]
    assert [one.sent_s - one.asked_s for one in found] == [2.0] * 10


@pytest.mark.parametrize("engine", [RandomSearch(), OptunaSearch()], ids=["random", "tpe"])
def test_a_simulation_is_the_same_to_the_bit_in_another_process(engine: Engine) -> None:
    here = [one.model_dump(mode="json") for one in simulated(7, engine)]
    assert here == [one.model_dump(mode="json") for one in simulated(7, engine)]
    command = (
        "import json, test_simulated_workers as t; "
        f"print(json.dumps([one.model_dump(mode='json') for one in t.simulated(7, t.{engine!r})]))"
    )
    there = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(__import__("pathlib").Path(__file__).parent), "PYTHONHASHSEED": "3"},
    )
    assert json.loads(there.stdout) == here
