"""What an engine reaches through the harness, and what its library reaches alone: same time, space, seeds and folds.

Run alone with `pytest benchmarks/bench_engines.py -s`; it takes a quarter of an hour. Alone is the library's own loop
in one process: `Study.optimize` of Optuna with a timeout, `AutoML.fit` of FLAML with a time budget. Through the harness
it is `search` with one worker of Ray, so that both have one core, and every trial stored in `run.db`. What both are
given before the clock starts are the table, the folds and the imports.

A score is the best one of the folds, which is what both search for, on the scale of `stats.ranks.normalised`: 0 the
dummy model, 1 the better of the two. The interval is over tables.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

from harness.clock import SystemClock
from harness.engines import flaml_search, optuna_search
from harness.engines.flaml_search import FlamlSearch
from harness.engines.optuna_search import OptunaSearch
from harness.pipeline.inputs import Searched, read_inputs
from harness.ports import Engine, Problem, Proposal
from harness.ray_session import ray_session
from harness.records.candidate import MINIMISED, Configuration, Evaluated, Trial
from harness.space.build import build_dummy
from harness.space.families import FAMILY, families_for
from harness.space.score import predict, score
from harness.stages.fitting import Fitter
from harness.stages.fleet import SearchFleet
from harness.stages.ray_workers import ray_workers
from harness.stages.search import search
from harness.stages.split import fold_rows
from harness.stats.ranks import mean_interval, normalised
from harness.store.scenarios import read_scenario

SCENARIO = Path(__file__).parents[1] / "scenarios" / "automl-quick.toml"
"""Its six tables are searched."""
SECONDS = 10.0
SEEDS = (1, 2)
UNBOUNDED = 10**6

Reached = tuple[float, int]
"""The best score, the greater the better, and how many trials it took."""


@pytest.fixture(scope="module")
def tables() -> tuple[Searched, ...]:
    scenario, _ = read_scenario(SCENARIO, [f"search.trials={UNBOUNDED}", f"search.seconds={SECONDS}"])
    return read_inputs(scenario, SCENARIO.parent).searched


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with ray_session(1):
        yield


class _TimeIsUpError(Exception):
    """Ends a library's own loop."""


def evaluated_alone(searched: Searched, problem: Problem) -> Callable[[Configuration], Evaluated]:
    """What fits and scores a configuration in this process."""
    table = searched.table
    fitter = Fitter(0, table.frame.iloc[table.train], table.target[table.train], table.signature)
    fitter.start(problem, fold_rows(table.training, problem.folds, problem.seed))
    return lambda configuration: fitter.evaluate(Proposal(configuration))


def optuna_alone(searched: Searched, problem: Problem) -> Reached:
    """`Study.optimize` with a timeout. It lets the last trial run to its end, and that one counts."""
    evaluate = evaluated_alone(searched, problem)
    families = {family.name: family for family in families_for(problem.task, problem.families)}
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        family = families[trial.suggest_categorical(FAMILY, list(families))]
        configuration: Configuration = {FAMILY: family.name}
        for parameter in family.parameters:
            configuration[parameter.name] = optuna_search._suggested(trial, family, parameter)
        found = evaluate(configuration).score
        if found is None:
            raise optuna.TrialPruned
        return found

    direction = "minimize" if problem.metric in MINIMISED else "maximize"
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=problem.seed))
    study.optimize(objective, timeout=problem.seconds)
    return oriented(problem, study.best_value), len(study.trials)


def flaml_alone(searched: Searched, problem: Problem) -> Reached:
    """`AutoML.fit` with its time budget, which it weighs families by."""
    evaluate, found = evaluated_alone(searched, problem), []
    end_s = time.perf_counter() + problem.seconds

    def attempt(configuration: Configuration) -> Evaluated:
        if time.perf_counter() > end_s:
            raise _TimeIsUpError
        found.append(evaluate(configuration))
        return found[-1]

    with contextlib.suppress(_TimeIsUpError):
        flaml_search.fit(problem, searched.table.training.target, attempt, cost_aware=True)
    return max(oriented(problem, one.score) for one in found if one.score is not None), len(found)


def through_the_harness(
    engine: Engine, searched: Searched, problem: Problem, record: Callable[[Trial], None]
) -> Reached:
    with ray_workers(searched.table, 1, SystemClock()) as workers:
        trials = search(engine, problem, SearchFleet(workers, searched.table.training), record, "bench")
    scores = [trial.evaluated.score for trial in trials if trial.evaluated.is_whole]
    return max(oriented(problem, one) for one in scores if one is not None), len(trials)


def dummy(searched: Searched, problem: Problem) -> float:
    """What the model reaches that never looks at the features, on the same folds."""
    table, scores = searched.table, []
    frame, target = table.frame.iloc[table.train], table.target[table.train]
    for fit_rows, score_rows in fold_rows(table.training, problem.folds, problem.seed):
        fitted = build_dummy(problem.task).fit(frame.iloc[fit_rows], target[fit_rows])
        answers = predict(fitted, frame.iloc[score_rows], problem.task)
        scores.append(score(problem.metric, target[score_rows], answers))
    return oriented(problem, float(np.mean(scores)))


def oriented(problem: Problem, value: float) -> float:
    return -value if problem.metric in MINIMISED else value


@pytest.mark.parametrize(
    ("engine", "alone"),
    [(OptunaSearch(), optuna_alone), (FlamlSearch(), flaml_alone), (FlamlSearch(cost_aware=False), flaml_alone)],
    ids=["optuna", "flaml", "flaml-without-costs"],
)
def test_an_engine_reaches_what_it_reaches_alone(
    session: None,
    tables: tuple[Searched, ...],
    record: Callable[[Trial], None],
    engine: Engine,
    alone: Callable[[Searched, Problem], Reached],
) -> None:
    differences = []
    for searched in tables:
        own, counts = [], []
        for seed in SEEDS:
            problem = searched.problem(seed)
            arms: list[Callable[[], Reached]] = [
                lambda searched=searched, problem=problem: through_the_harness(engine, searched, problem, record),
                lambda searched=searched, problem=problem: alone(searched, problem),
            ]
            order = (0, 1) if seed % 2 else (1, 0)  # what the machine does meanwhile is in both
            reached = dict(sorted((arm, arms[arm]()) for arm in order))
            ours, theirs = normalised([reached[0][0], reached[1][0]], dummy(searched, problem))
            own.append(ours - theirs)
            counts.append((reached[0][1], reached[1][1]))
        differences.append(float(np.mean(own)))
        said(f"  {searched.data.name}: {differences[-1]:+.4f}, trials through the harness and alone {counts}")
    interval = mean_interval(differences)
    bounds = "all equal" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
    said(f"{engine}: mean difference {np.mean(differences):+.4f} ({bounds}) over {len(differences)} tables")
    assert len(differences) == 6


def said(line: str) -> None:
    print(line, flush=True)  # noqa: T201
