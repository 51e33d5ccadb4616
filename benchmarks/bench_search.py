"""What the search itself costs: 100 trials that do nothing, on two Ray workers, each committed to SQLite as it ends.

Run alone with `pytest benchmarks/bench_search.py`. Ray and its actors are up before the clock starts. The goal is 1 s;
`trials_per_s` is in the extra info. The floor under it is a bare `ray.get` per trial, also timed here.
"""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clock import SystemClock
from harness.engines.optuna_search import OptunaSearch
from harness.engines.random_search import RandomSearch
from harness.ports import Engine, Problem, Proposal
from harness.ray_session import ray_session
from harness.records.candidate import Evaluated, Trial
from harness.records.table import DataPlan
from harness.space.families import families_for
from harness.stages.data import load_table
from harness.stages.fitting import Fitter
from harness.stages.fleet import SearchFleet
from harness.stages.ray_workers import ray_workers
from harness.stages.search import search

WORKERS = 2
TRIALS = 100
PROBLEM = Problem(
    task="binary",
    metric="roc_auc",
    families=tuple(family.name for family in families_for("binary")),
    folds=3,
    trials=TRIALS,
    seconds=600.0,
    seed=1,
)


class Idle(Fitter):
    """Where every configuration is as good as any other, and no work."""

    def evaluate(self, proposal: Proposal, folds: Any = None, limit_s: float = math.inf) -> Evaluated:
        return Evaluated(
            configuration=proposal.configuration, fold_scores=(0.5,) * 3, duration_s=0.0, worker=self.worker
        )


@pytest.fixture(scope="module")
def fleet() -> Iterator[SearchFleet]:
    table = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parent))  # where trial processes find this file
        with ray_session(WORKERS), ray_workers(table, WORKERS, SystemClock(), "bench_search:Idle") as workers:
            made = SearchFleet(workers, table.training)
            made.start(PROBLEM)
            yield made


@pytest.mark.parametrize(
    "engine",
    [RandomSearch(), OptunaSearch(sampler="random"), OptunaSearch()],
    ids=["random", "optuna-random", "optuna-tpe"],
)
def test_a_hundred_trials_that_do_nothing(
    benchmark: Any, fleet: SearchFleet, record: Callable[[Trial], None], engine: Engine
) -> None:
    def run() -> list[Trial]:
        return search(engine, PROBLEM, fleet, record, "bench")

    trials = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    assert len(trials) == TRIALS
    assert {trial.evaluated.worker for trial in trials} == set(range(WORKERS))
    if benchmark.stats is not None:
        benchmark.extra_info["trials_per_s"] = TRIALS / benchmark.stats.stats.median


class Echo:
    """An actor that gives back what it is given."""

    def answer(self, proposal: Proposal) -> Proposal:
        return proposal


def test_a_hundred_bare_calls_of_an_actor(benchmark: Any, fleet: SearchFleet) -> None:
    import ray

    options: dict[str, Any] = {"num_cpus": 0}
    pickling: Any = ray.cloudpickle
    pickling.register_pickle_by_value(sys.modules[__name__])
    actor: Any = ray.remote(**options)(Echo).remote()  # type: ignore[attr-defined]
    pickling.unregister_pickle_by_value(sys.modules[__name__])
    proposal = Proposal({"family": "logistic", "C": 1.0})

    def run() -> int:
        return len([ray.get(actor.answer.remote(proposal)) for _ in range(TRIALS)])

    assert benchmark.pedantic(run, rounds=5, warmup_rounds=1) == TRIALS
