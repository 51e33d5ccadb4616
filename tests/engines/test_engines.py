"""What every engine in the folder promises: one contract, run over all of them, with a real worker in this process."""

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast

import pytest

import harness.engines
from harness.clock import SystemClock
from harness.ports import Engine, Problem, Workbench
from harness.records.candidate import Configuration, Evaluated, Trial
from harness.records.run import Cause
from harness.records.scenario import DataPlan, Metric
from harness.space.build import build
from harness.space.families import families_for
from harness.stages.data import fold_rows, load_table
from harness.stages.search import best, search
from harness.stages.worker import Worker

NAMES = sorted(module.name for module in pkgutil.iter_modules(harness.engines.__path__))
TABLE = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
QUICK = ("logistic", "knn", "random_forest")

# FLAML and the libraries it brings have warnings of their own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def engine_named(name: str, **parameters: Any) -> Engine:
    module = importlib.import_module(f"harness.engines.{name}")
    for library in module.REQUIRES:
        pytest.importorskip(library)
    (made_from,) = (
        value
        for key, value in vars(module).items()
        if is_dataclass(value) and isinstance(value, type) and value.__module__ == module.__name__
    )
    return cast(Engine, made_from(**parameters))


class InlineFleet:
    """One real worker, in this process."""

    workers = 1

    def __init__(self, kind: type[Worker] = Worker) -> None:
        target = TABLE.target[TABLE.train]
        self.worker = kind(0, TABLE.frame.iloc[TABLE.train].reset_index(drop=True), target, TABLE.signature)

    def start(self, problem: Problem) -> None:
        self.problem = problem
        self.worker.start(problem, fold_rows(self.worker.target, problem.task, problem.folds, problem.seed))

    def evaluate(self, ask: Callable[[], Configuration | None]) -> Iterator[Evaluated]:
        clock = SystemClock()
        deadline_s = clock.monotonic_s() + self.problem.seconds
        for _ in range(self.problem.trials):
            configuration = ask() if clock.monotonic_s() < deadline_s else None
            if configuration is None:
                return
            yield self.worker.evaluate(configuration)

    def inside(self, loop: Callable[[Workbench, Problem], Iterable[Evaluated]]) -> Iterator[Evaluated]:
        return (evaluated for evaluated in self.worker.inside(loop) if evaluated is not None)


def trials_of(
    name: str,
    *,
    trials: int = 8,
    seconds: float = 120.0,
    seed: int = 1,
    metric: Metric = "roc_auc",
    families: tuple[str, ...] = QUICK,
    kind: type[Worker] = Worker,
    **parameters: Any,
) -> list[Trial]:
    problem = Problem("binary", metric, families, 3, trials, seconds, seed)
    engine = engine_named(name, **parameters)
    return search(engine, problem, InlineFleet(kind), lambda trial: None, "cell", SystemClock())


EACH = pytest.mark.parametrize("name", NAMES)


@EACH
def test_it_beats_guessing_and_stays_within_its_trials(name: str) -> None:
    trials = trials_of(name)
    assert len(trials) == 8
    found = best(trials, "roc_auc")
    assert found is not None
    assert found.evaluated.score is not None
    # Guessing has 0.5; a plain logistic regression more than 0.98.
    assert found.evaluated.score > 0.97


@EACH
def test_every_configuration_can_be_built_again(name: str) -> None:
    allowed = {family.name: family for family in families_for("binary", QUICK)}
    for trial in trials_of(name, trials=5):
        configuration = trial.evaluated.configuration
        family = allowed[str(configuration["family"])]
        assert set(configuration) == {"family", *(parameter.name for parameter in family.parameters)}
        build(configuration, TABLE.signature, 1)
        # What is stored is JSON, and must come back as it was.
        assert Trial.model_validate_json(trial.model_dump_json()) == trial


@EACH
def test_the_same_seed_makes_the_same_search(name: str) -> None:
    first, again = (
        [(trial.evaluated.configuration, trial.evaluated.fold_scores) for trial in trials_of(name, seed=5)]
        for _ in range(2)
    )
    assert first == again


@EACH
def test_it_follows_a_loss_down_and_a_score_up(name: str) -> None:
    for metric in ("log_loss", "accuracy"):
        found = best(trials_of(name, metric=metric), metric)
        assert found is not None
        score = found.evaluated.score
        assert score is not None
        assert score < 0.15 if metric == "log_loss" else score > 0.93


@EACH
def test_a_search_of_one_trial_has_one_trial(name: str) -> None:
    assert len(trials_of(name, trials=1)) == 1


@EACH
def test_no_time_is_no_trial(name: str) -> None:
    assert trials_of(name, seconds=1e-9) == []


class Half(Worker):
    """A worker for which one family always fails."""

    def _build(self, configuration: Configuration) -> Any:
        if configuration["family"] == "logistic":
            raise MemoryError("too big for this worker")
        return super()._build(configuration)


class Broken(Worker):
    """A worker for which every family fails."""

    def _build(self, configuration: Configuration) -> Any:
        raise ValueError("nothing fits this table")


@EACH
def test_a_family_that_fails_costs_trials_and_not_the_search(name: str) -> None:
    trials = trials_of(name, trials=12, kind=Half)
    assert len(trials) == 12
    for trial in trials:
        failure = trial.evaluated.failure
        if trial.evaluated.configuration["family"] == "logistic":
            assert failure is not None
            assert failure.cause is Cause.MEMORY
        else:
            assert failure is None
    assert best(trials, "roc_auc") is not None


@EACH
def test_where_everything_fails_every_failure_is_a_trial(name: str) -> None:
    trials = trials_of(name, trials=6, kind=Broken)
    assert len(trials) == 6
    assert {trial.evaluated.failure.cause for trial in trials if trial.evaluated.failure} == {Cause.DATA}


@EACH
def test_a_search_can_be_left_early(name: str) -> None:
    fleet = InlineFleet()
    problem = Problem("binary", "roc_auc", QUICK, 3, 50, 120.0, 1)
    fleet.start(problem)
    found = engine_named(name).search(problem, fleet)
    assert next(found).failure is None
    found.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@EACH
def test_other_tasks_are_searched_over_all_their_families(name: str, task: str) -> None:
    table = load_table(DataPlan(source="sklearn:iris" if task == "multiclass" else "sklearn:diabetes"), Path())
    families = tuple(family.name for family in families_for(table.signature.task))
    problem = Problem(table.signature.task, "accuracy" if task == "multiclass" else "r2", families, 3, 6, 120.0, 2)
    fleet = InlineFleet()
    fleet.worker = Worker(0, table.frame.iloc[table.train], table.target[table.train], table.signature)
    trials = search(engine_named(name), problem, fleet, lambda trial: None, "cell", SystemClock())
    assert len(trials) == 6
    assert all(trial.evaluated.failure is None for trial in trials)
    scores = [score for trial in trials if (score := trial.evaluated.score) is not None]
    assert max(scores) > (0.9 if task == "multiclass" else 0.3)
    assert all(math.isfinite(score) for score in scores)


def test_optuna_may_sample_at_random() -> None:
    first = [trial.evaluated.configuration for trial in trials_of("optuna_search", sampler="random")]
    assert first != [trial.evaluated.configuration for trial in trials_of("optuna_search", sampler="random", seed=2)]


def test_optuna_learns_from_what_it_is_told() -> None:
    # A landscape with its best point known: the worker answers by C alone, highest at C = 1.
    class Peak(Worker):
        def evaluate(self, configuration: Configuration) -> Evaluated:
            score = -abs(math.log10(float(configuration["C"])))
            return Evaluated(configuration=configuration, fold_scores=(score,), duration_s=0.0, worker=0)

    trials = trials_of("optuna_search", trials=60, families=("logistic",), kind=Peak)
    scores = [trial.evaluated.score or 0.0 for trial in trials]
    assert sum(scores[-20:]) / 20 > sum(scores[:10]) / 10 + 0.3


def test_optuna_refuses_a_search_without_a_start() -> None:
    with pytest.raises(ValueError, match="startup_trials must be at least 1"):
        engine_named("optuna_search", startup_trials=0)


def test_flaml_may_weigh_families_by_their_seconds() -> None:
    assert len(trials_of("flaml_search", trials=4, cost_aware=True)) == 4


def test_a_flaml_that_breaks_is_a_failure_and_not_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flaml")
    from flaml.automl.automl import AutoML

    def broken(*_unused: object, **_more: object) -> None:
        raise RuntimeError("FLAML is broken")

    monkeypatch.setattr(AutoML, "fit", broken)
    (trial,) = trials_of("flaml_search")
    assert trial.evaluated.failure is not None
    assert trial.evaluated.failure.cause is Cause.ENGINE_ERROR
    assert "FLAML is broken" in trial.evaluated.failure.message
