"""Optuna: a study in the driver's memory is asked for configurations, and told of their scores.

In: a problem and a fleet. Out: what finishes, as it does. Storage in memory and workers that live as long as the
search keep the cost of a trial to a few milliseconds; a study on disk would cost ten times that. What is on disk are
the trials of `run.db`, and a study that was interrupted comes to be again by being told of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.ports import Finished, Fleet, Problem, Proposal
from harness.records.candidate import MINIMISED, Configuration
from harness.records.words import Scalar
from harness.space.families import FAMILY, Choice, Family, FloatRange, IntegerRange, Parameter, families_for

if TYPE_CHECKING:
    import optuna

REQUIRES = ("optuna",)


@dataclass(frozen=True, slots=True)
class OptunaSearch:
    """Optuna's samplers over a tree: the family first, then the parameters of that family alone."""

    sampler: Literal["tpe", "random", "nsgaii"] = "tpe"
    startup_trials: int = 10
    """Trials that TPE draws at random before it learns from them."""
    pruner: Literal["none", "median", "halving", "hyperband"] = "none"
    """Who decides after each fold whether a trial is worth the next one."""
    also_minimise: Literal["nothing", "seconds"] = "nothing"
    """A second objective beside the metric: how long a trial took. What is shipped still has the best score."""

    def __post_init__(self) -> None:
        if self.startup_trials < 1:
            raise ValueError("startup_trials must be at least 1")
        if self.pruner != "none" and self.also_minimise != "nothing":
            raise ValueError("Optuna prunes a study of one objective only: leave out pruner or also_minimise")

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions: list[Literal["minimize", "maximize"]] = ["maximize"]
        if problem.metric in MINIMISED:
            directions = ["minimize"]
        if self.also_minimise == "seconds":
            directions.append("minimize")
        study = optuna.create_study(
            study_name="search",  # Hyperband derives its brackets from the name
            sampler=self._sampler(problem.seed),
            pruner=self._pruner(problem.folds),
            directions=directions,
        )
        families = {family.name: family for family in families_for(problem.task, problem.families)}
        asked: list[optuna.trial.Trial] = []

        def ask() -> Proposal:
            trial = study.ask()
            asked.append(trial)
            family = families[trial.suggest_categorical(FAMILY, list(families))]
            configuration: Configuration = {FAMILY: family.name}
            for parameter in family.parameters:
                configuration[parameter.name] = _suggested(trial, family, parameter)
            return Proposal(configuration)

        def go_on(number: int, scores: tuple[float, ...]) -> bool:
            asked[number].report(sum(scores) / len(scores), step=len(scores))
            return not asked[number].should_prune()

        for finished in fleet.evaluate(ask, None if self.pruner == "none" else go_on):
            yield finished
            evaluated, trial = finished.evaluated, asked[finished.asked]
            if evaluated.score is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif evaluated.pruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            elif self.also_minimise == "seconds":
                study.tell(trial, (evaluated.score, evaluated.duration_s))
            else:
                study.tell(trial, evaluated.score)

    def _sampler(self, seed: int) -> "optuna.samplers.BaseSampler":
        import optuna

        match self.sampler:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup_trials)
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "nsgaii":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, self.startup_trials))

    def _pruner(self, folds: int) -> "optuna.pruners.BasePruner":
        import optuna

        match self.pruner:
            case "none":
                return optuna.pruners.NopPruner()
            case "median":
                return optuna.pruners.MedianPruner(n_startup_trials=self.startup_trials)
            case "halving":
                return optuna.pruners.SuccessiveHalvingPruner(reduction_factor=2)
            case "hyperband":
                return optuna.pruners.HyperbandPruner(max_resource=folds, reduction_factor=2)


def _suggested(trial: "optuna.trial.Trial", family: Family, parameter: Parameter) -> Scalar:
    # Families have parameters of the same name and other ranges: to Optuna each is a parameter of its own.
    name = f"{family.name}.{parameter.name}"
    match parameter:
        case FloatRange():
            return _rounded(trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log))
        case IntegerRange():
            return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
        case Choice():
            return trial.suggest_categorical(name, parameter.choices)


def _rounded(value: float) -> float:
    """To ten significant digits: exponentials and logarithms of two processors differ in their last one."""
    return float(f"{value:.10g}")
