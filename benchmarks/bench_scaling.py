"""What a search costs as it grows: ten thousand trials, one-second trials, and sixty-four workers in virtual time.

The last two for each engine; AutoGluon has its environment and its time of its own, and is not among them.

Run alone with `pytest benchmarks/bench_scaling.py -s`; figures are in the extra info, and printed.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.worker_time import worker_time
from harness.clock import FakeClock, SystemClock
from harness.engines.flaml_blendsearch import FlamlBlendsearch
from harness.engines.flaml_search import FlamlSearch
from harness.engines.halving import Halving
from harness.engines.optuna_search import OptunaSearch
from harness.engines.random_search import RandomSearch
from harness.ports import Engine, Problem, Proposal
from harness.ray_session import ray_session
from harness.records.candidate import Evaluated, Trial
from harness.records.growth import Spent
from harness.records.table import DataPlan
from harness.space.families import families_for, sample
from harness.stages.data import load_table
from harness.stages.fitting import Fitter
from harness.stages.fleet import SearchFleet
from harness.stages.ray_workers import ray_workers
from harness.stages.search import search
from harness.stages.simulated_workers import Recorded, SimulatedFleet, SimulatedWorkers
from harness.stages.split import LabelledRows

FAMILIES = tuple(family.name for family in families_for("binary"))
ROWS = LabelledRows(np.array([0, 1] * 40), "binary", "stratified")
WORKERS = 2


ENGINES: tuple[Engine, ...] = (RandomSearch(), OptunaSearch(), Halving(), FlamlBlendsearch(), FlamlSearch())


class Steady(Fitter):
    """Where a trial takes as long as the environment says, and fitting is all of it."""

    def evaluate(self, proposal: Proposal, folds: Any = None, limit_s: float = math.inf) -> Evaluated:
        seconds = float(os.environ["BENCH_TRIAL_S"])
        began_s = time.perf_counter()
        if seconds:
            time.sleep(seconds)
        took_s = time.perf_counter() - began_s
        return Evaluated(
            configuration=proposal.configuration,
            fold_scores=(0.5,) * 3,
            duration_s=took_s,
            fit_s=took_s,
            worker=self.worker,
            rows_share=proposal.rows_share,
        )


def problem(trials: int, seconds: float = 1e6) -> Problem:
    return Problem("binary", "roc_auc", FAMILIES, 3, trials, seconds, 1)


def searched(trial_s: float, trials: int, engine: Engine, record: Callable[[Trial], None]) -> list[Trial]:
    """On real workers of Ray."""
    table = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parent))
        patched.setenv("BENCH_TRIAL_S", str(trial_s))
        with ray_session(WORKERS), ray_workers(table, WORKERS, SystemClock(), "bench_scaling:Steady") as workers:
            fleet = SearchFleet(workers, table.training)
            return search(engine, problem(trials), fleet, record, "bench")


def told(benchmark: Any, name: str, **figures: float) -> None:
    benchmark.extra_info.update(figures)
    print(f"\n{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()))  # noqa: T201


def test_ten_thousand_trials_that_do_nothing(benchmark: Any, record: Callable[[Trial], None]) -> None:
    """Coordinator cost per trial: p99 within 20 ms, the last thousand within 1.5 times the first.

    Beside it what passes between two trials, whoever is at work: the driver's own stamps might miss some of its work.
    """
    trials = benchmark.pedantic(lambda: searched(0.0, 10_000, RandomSearch(), record), rounds=1)
    cost_s = np.array(worker_time(trials, WORKERS).coordinator_s)
    every_s = np.diff([0.0, *sorted(trial.finished_s for trial in trials)])
    told(
        benchmark,
        "10,000 trials that do nothing, random search",
        p50_s=float(np.quantile(cost_s, 0.5)),
        p99_s=float(np.quantile(cost_s, 0.99)),
        last_to_first_thousand=float(cost_s[-1000:].mean() / cost_s[:1000].mean()),
        wall_per_trial_first_thousand_s=float(every_s[:1000].mean()),
        wall_per_trial_last_thousand_s=float(every_s[-1000:].mean()),
    )
    assert len(trials) == 10_000


@pytest.mark.parametrize("engine", ENGINES, ids=lambda one: type(one).__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # FLAML's own
def test_sixty_trials_of_a_second(benchmark: Any, record: Callable[[Trial], None], engine: Engine) -> None:
    """Utilisation of its workers: 95 % at least."""
    trials = benchmark.pedantic(lambda: searched(1.0, 60, engine, record), rounds=1)
    told(
        benchmark,
        f"60 trials of a second, {type(engine).__name__}, workers: {used(engine)}",
        utilisation=utilisation(trials, used(engine)),
    )


def used(engine: Engine, workers: int = WORKERS) -> int:
    """Workers that an engine has any use for: one loop in one worker is all there is of `flaml_search`."""
    return 1 if isinstance(engine, FlamlSearch) else workers


def utilisation(trials: Sequence[Trial], workers: int) -> float:
    """Share of the workers' time inside fitting."""
    spent_s = worker_time(trials, workers).spent_s
    return spent_s[Spent.FIT] / math.fsum(spent_s.values())


def minutes(count: int = 200) -> Recorded:
    """Made-up trials of about a minute, over all families."""
    rng, families = np.random.default_rng(5), families_for("binary")
    made = []
    for number in range(count):
        seconds = float(rng.uniform(50, 70))
        evaluated = Evaluated(
            configuration=sample(families, rng),
            fold_scores=tuple(map(float, rng.uniform(0.5, 1.0, 3))),
            duration_s=seconds,
            fit_s=seconds,
            worker=0,
        )
        made.append(
            Trial(
                cell="made up",
                number=number,
                asked=number,
                asked_s=0.0,
                sent_s=0.0,
                finished_s=seconds,
                evaluated=evaluated,
            )
        )
    return Recorded(made)


def hour(workers: int, engine: Engine) -> list[Trial]:
    """An hour of search; the driver is at a trial for 2.5 ms: to ask, to send and fetch, to store, and to tell."""
    hands = SimulatedWorkers(minutes(), workers, FakeClock(), ROWS.target, hand_over_s=0.002, transport_s=0.0005)
    fleet = SimulatedFleet(hands, ROWS, ask_s=0.001, told_s=0.0005, store_s=0.0005)
    return search(engine, problem(10**9, 3600.0), fleet, lambda made: None, "simulated")


@pytest.mark.parametrize("engine", [*ENGINES, OptunaSearch(sampler="random")], ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # FLAML's own
def test_an_hour_of_sixty_four_workers(benchmark: Any, engine: Engine) -> None:
    """Simulated within 10 s."""
    began_s = time.perf_counter()
    trials = benchmark.pedantic(lambda: hour(64, engine), rounds=1)
    told(
        benchmark,
        f"an hour of 64 workers, {engine}",
        seconds=time.perf_counter() - began_s,
        trials=len(trials),
        utilisation=utilisation(trials, used(engine, 64)),
    )


def test_workers_from_one_to_128(benchmark: Any) -> None:
    """Simulated: at 32 workers 90 % of their time is fitting, and trials per second never fall."""

    def rates() -> Sequence[tuple[int, float, float]]:
        found = []
        for workers in (1, 2, 4, 8, 16, 32, 64, 128):
            trials = hour(workers, RandomSearch())
            wall_s = max(trial.finished_s for trial in trials)
            whole = sum(trial.evaluated.is_whole for trial in trials)
            found.append((workers, whole / wall_s, utilisation(trials, workers)))
        return found

    found = benchmark.pedantic(rates, rounds=1)
    assert [rate for _, rate, _ in found] == sorted(rate for _, rate, _ in found)
    for workers, rate, share in found:
        told(benchmark, f"{workers} workers", trials_per_s=rate, utilisation=share)
