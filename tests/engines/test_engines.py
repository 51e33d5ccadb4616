"""What every engine in the folder promises: one contract, run over all of them, with a real fitter in this process."""

import importlib
import math
import pkgutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

import harness.engines
from harness.clock import SystemClock
from harness.ports import Engine, Loop, Problem, Proposal
from harness.records.candidate import Configuration, Evaluated, Trial
from harness.records.run import Cause
from harness.records.table import DataPlan
from harness.records.words import Metric
from harness.space.build import build
from harness.space.families import families_for
from harness.stages.data import Table, load_table
from harness.stages.fitting import Fitter
from harness.stages.fleet import Done, Ready, SearchFleet
from harness.stages.search import best, search

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
        if is_dataclass(value) and value.__module__ == module.__name__ and not key.startswith("_")
    )
    return cast(Engine, made_from(**parameters))


class Fitted(Fitter):
    """A real fitter that fits nothing twice: the tests below make the same searches again and again."""

    _known: ClassVar[dict[object, Evaluated]] = {}

    def evaluate(self, proposal: Proposal, folds: Sequence[int] | None = None, limit_s: float = math.inf) -> Evaluated:
        # Which rows are in a fold follows from the table, known by its signature, and the seed.
        problem = self._asked
        asked = (self._signature, problem.metric, problem.seed, repr(proposal), None if folds is None else tuple(folds))
        if asked not in self._known:
            self._known[asked] = super().evaluate(proposal, folds, limit_s)
        return self._known[asked]


class InlineWorkers:
    """One real fitter, in this process."""

    count = 1

    def __init__(self, table: Table = TABLE, kind: type[Fitter] = Fitted) -> None:
        self.clock = SystemClock()
        self.target = table.target[table.train]
        self._fitter = kind(0, table.frame.iloc[table.train].reset_index(drop=True), self.target, table.signature)
        self._answers: list[Done | Ready] = []

    def start(self, problem: Problem, folds: Any) -> None:
        self._problem = problem
        self._fitter.start(problem, folds)

    def send(self, worker: int, number: int, proposal: Proposal, folds: Any, limit_s: float) -> None:
        self._answers = [Ready(worker), Done(number, self._fitter.evaluate(proposal, folds))]

    def receive(self, timeout_s: float) -> list[Done | Ready]:
        answers, self._answers = self._answers, []
        return answers

    def stop(self, worker: int) -> None:
        pass

    def attempt(self, configuration: Configuration) -> Evaluated | None:
        if self._told:
            known = self._told.pop(0)
            if known.configuration == configuration:
                return known
            self._told = []
        if self._left <= 0 or self.clock.monotonic_s() >= self._end_s:
            return None
        self._left -= 1
        return self._fitter.evaluate(Proposal(configuration))

    def inside(self, loop: Loop, told: Sequence[Evaluated], seconds: float, grace_s: float) -> Iterator[Evaluated]:
        self._told, self._left = list(told), self._problem.trials - len(told)
        self._end_s = self.clock.monotonic_s() + seconds
        yield from loop(self, self._problem)


def fleet_of(table: Table = TABLE, kind: type[Fitter] = Fitted) -> SearchFleet:
    return SearchFleet(InlineWorkers(table, kind), table.training)


def trials_of(
    name: str,
    *,
    trials: int = 8,
    seconds: float = 120.0,
    seed: int = 1,
    metric: Metric = "roc_auc",
    families: tuple[str, ...] = QUICK,
    kind: type[Fitter] = Fitted,
    history: Sequence[Trial] = (),
    **parameters: Any,
) -> list[Trial]:
    problem = Problem("binary", metric, families, 3, trials, seconds, seed)
    engine = engine_named(name, **parameters)
    return search(engine, problem, fleet_of(kind=kind), lambda trial: None, "cell", history)


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


class Half(Fitter):
    """A fitter for which one family always fails."""

    def _build(self, configuration: Configuration) -> Any:
        if configuration["family"] == "logistic":
            raise MemoryError("too big for this worker")
        return super()._build(configuration)


class Broken(Fitter):
    """A fitter for which every family fails."""

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
    fleet = fleet_of()
    problem = Problem("binary", "roc_auc", QUICK, 3, 50, 120.0, 1)
    fleet.start(problem)
    found = engine_named(name).search(problem, fleet)
    assert next(found).evaluated.failure is None
    found.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@EACH
def test_other_tasks_are_searched_over_all_their_families(name: str, task: str) -> None:
    table = load_table(DataPlan(source="sklearn:iris" if task == "multiclass" else "sklearn:diabetes"), Path())
    families = tuple(family.name for family in families_for(table.signature.task))
    problem = Problem(table.signature.task, "accuracy" if task == "multiclass" else "r2", families, 3, 6, 120.0, 2)
    trials = search(engine_named(name), problem, fleet_of(table), lambda trial: None, "cell")
    assert len(trials) == 6
    assert all(trial.evaluated.failure is None for trial in trials)
    scores = [score for trial in trials if (score := trial.evaluated.score) is not None]
    assert max(scores) > (0.9 if task == "multiclass" else 0.3)
    assert all(math.isfinite(score) for score in scores)


@EACH
def test_a_search_that_was_interrupted_goes_on_as_if_it_had_not_been(name: str) -> None:
    whole = trials_of(name, trials=14)
    configurations = [trial.evaluated.configuration for trial in whole]
    for done in (1, 9):
        resumed = trials_of(name, trials=14, history=whole[:done])
        assert resumed[:done] == whole[:done]
        assert [trial.evaluated.configuration for trial in resumed] == configurations


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii"])
def test_each_of_optunas_samplers_searches_and_repeats(sampler: str) -> None:
    first, again = (trials_of("optuna_search", sampler=sampler, trials=6) for _ in range(2))
    assert [one.evaluated.configuration for one in first] == [one.evaluated.configuration for one in again]


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_each_of_optunas_pruners_leaves_out_folds_of_bad_trials(pruner: str) -> None:
    trials = trials_of("optuna_search", pruner=pruner, trials=25, startup_trials=2, sampler="random")
    pruned = [trial for trial in trials if trial.evaluated.pruned]
    assert len(trials) == 25
    assert 0 < len(pruned) < 25
    assert all(0 < len(trial.evaluated.fold_scores) < 3 for trial in pruned)
    assert all(len(trial.evaluated.fold_scores) == 3 for trial in trials if trial not in pruned)
    found = best(trials, "roc_auc")
    assert found is not None
    assert not found.evaluated.pruned


@pytest.mark.parametrize(("metric", "direction"), [("roc_auc", "MAXIMIZE"), ("log_loss", "MINIMIZE")])
def test_optuna_may_have_a_second_objective_and_is_told_scores_and_seconds(
    monkeypatch: pytest.MonkeyPatch, metric: Metric, direction: str
) -> None:
    optuna = pytest.importorskip("optuna")
    studies: list[Any] = []
    create = optuna.create_study
    monkeypatch.setattr(optuna, "create_study", lambda **how: studies.append(create(**how)) or studies[-1])
    trials = trials_of(
        "optuna_search", also_minimise="seconds", sampler="nsgaii", trials=12, startup_trials=4, metric=metric
    )
    (study,) = studies
    assert [one.name for one in study.directions] == [direction, "MINIMIZE"]
    told = [one.values for one in study.trials if one.state.name == "COMPLETE"]
    assert told == [[trial.evaluated.score, trial.evaluated.duration_s] for trial in trials]


def test_optuna_prunes_a_study_of_one_objective_only() -> None:
    with pytest.raises(ValueError, match="one objective only"):
        engine_named("optuna_search", also_minimise="seconds", pruner="median")


def test_optuna_may_sample_at_random() -> None:
    first = [trial.evaluated.configuration for trial in trials_of("optuna_search", sampler="random")]
    assert first != [trial.evaluated.configuration for trial in trials_of("optuna_search", sampler="random", seed=2)]


def test_optuna_learns_from_what_it_is_told() -> None:
    # A landscape with its best point known: the worker answers by C alone, highest at C = 1.
    class Peak(Fitter):
        def evaluate(self, proposal: Proposal, folds: Any = None, limit_s: float = math.inf) -> Evaluated:
            score = -abs(math.log10(float(proposal.configuration["C"])))
            return Evaluated(configuration=proposal.configuration, fold_scores=(score,), duration_s=0.0, worker=0)

    trials = trials_of("optuna_search", trials=60, families=("logistic",), kind=Peak)
    scores = [trial.evaluated.score or 0.0 for trial in trials]
    assert sum(scores[-20:]) / 20 > sum(scores[:10]) / 10 + 0.3


def test_optuna_refuses_a_search_without_a_start() -> None:
    with pytest.raises(ValueError, match="startup_trials must be at least 1"):
        engine_named("optuna_search", startup_trials=0)


class Slow(Fitter):
    """A fitter by whose own account one family takes a hundred times as long, in no time at all."""

    slow: ClassVar[str]

    def evaluate(self, proposal: Proposal, folds: Any = None, limit_s: float = math.inf) -> Evaluated:
        family = str(proposal.configuration["family"])
        score = 0.9 if family == "logistic" else 0.89
        seconds = 10.0 if family == self.slow else 0.1
        return Evaluated(configuration=proposal.configuration, fold_scores=(score,), duration_s=seconds, worker=0)


class SlowForest(Slow):
    slow = "random_forest"


class SlowNeighbours(Slow):
    slow = "knn"


def families_by_flaml(kind: type[Fitter], cost_aware: bool) -> list[object]:
    trials = trials_of("flaml_search", trials=30, seconds=1e6, kind=kind, cost_aware=cost_aware)
    return [trial.evaluated.configuration["family"] for trial in trials]


def test_flaml_weighs_families_by_the_seconds_that_it_is_told() -> None:
    # By the clock of this machine none of these trials takes any time.
    forest, neighbours = (families_by_flaml(kind, cost_aware=True) for kind in (SlowForest, SlowNeighbours))
    assert forest.count("random_forest") < neighbours.count("random_forest")
    assert forest.count("knn") > neighbours.count("knn")
    assert forest == families_by_flaml(SlowForest, cost_aware=True)


def test_flaml_may_take_each_trial_for_one() -> None:
    assert families_by_flaml(SlowForest, cost_aware=False) == families_by_flaml(SlowNeighbours, cost_aware=False)


def test_flaml_gives_the_clock_back() -> None:
    trials_of("flaml_search", trials=2)
    from flaml.automl import automl

    assert automl.time.time() == pytest.approx(time.time(), abs=60)  # noqa: TID251 - FLAML's own word


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
