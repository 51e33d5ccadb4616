"""Optuna: a study in the driver's memory is asked for configurations, and told of their scores.

In: a problem and a fleet. Out: evaluations as they finish. Storage in memory and workers that live as long as the
search keep the cost of a trial to a few milliseconds; a study on disk would cost ten times that.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.ports import Fleet, Problem
from harness.records.candidate import MINIMISED, Configuration, Evaluated
from harness.records.scenario import Scalar
from harness.space.families import FAMILY, Choice, Family, FloatRange, IntegerRange, Parameter, families_for

if TYPE_CHECKING:
    import optuna

REQUIRES = ("optuna",)


@dataclass(frozen=True, slots=True)
class OptunaSearch:
    """Optuna's samplers over a tree: the family first, then the parameters of that family alone."""

    sampler: Literal["tpe", "random"] = "tpe"
    startup_trials: int = 10
    """Trials that TPE draws at random before it learns from them."""

    def __post_init__(self) -> None:
        if self.startup_trials < 1:
            raise ValueError("startup_trials must be at least 1")

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Evaluated]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            sampler=self._sampler(problem.seed),
            direction="minimize" if problem.metric in MINIMISED else "maximize",
        )
        families = {family.name: family for family in families_for(problem.task, problem.families)}
        # Two running trials may have the same configuration: whichever finishes first is told of first.
        running: defaultdict[frozenset[tuple[str, Scalar]], list[optuna.trial.Trial]] = defaultdict(list)

        def ask() -> Configuration:
            trial = study.ask()
            family = families[trial.suggest_categorical(FAMILY, list(families))]
            configuration: Configuration = {FAMILY: family.name}
            for parameter in family.parameters:
                configuration[parameter.name] = _suggested(trial, family, parameter)
            running[frozenset(configuration.items())].append(trial)
            return configuration

        for evaluated in fleet.evaluate(ask):
            yield evaluated
            trial = running[frozenset(evaluated.configuration.items())].pop(0)
            if evaluated.score is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, evaluated.score)

    def _sampler(self, seed: int) -> "optuna.samplers.BaseSampler":
        import optuna

        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup_trials)


def _suggested(trial: "optuna.trial.Trial", family: Family, parameter: Parameter) -> Scalar:
    # Families have parameters of the same name and other ranges: to Optuna each is a parameter of its own.
    name = f"{family.name}.{parameter.name}"
    match parameter:
        case FloatRange():
            return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
        case IntegerRange():
            return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
        case Choice():
            return trial.suggest_categorical(name, parameter.choices)
