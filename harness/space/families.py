"""Families of models: what can be searched, as plain values.

In: a task, and names from a scenario. Out: `Family` with its parameters and their ranges, random configurations, and
the baseline's. An estimator is named by its import path and imported only when it is built, so that engines may read
the space without loading the libraries behind it. Ranges keep one fit of a table of a few thousand rows to seconds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from harness.errors import UsageError, did_you_mean
from harness.records.candidate import Configuration
from harness.records.words import Scalar, Task

FAMILY = "family"
"""The key of a configuration that names its family; all others are parameters of that family."""


@dataclass(frozen=True, slots=True)
class FloatRange:
    """A real parameter; `high` belongs to the range."""

    name: str
    low: float
    high: float
    default: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class IntegerRange:
    """A whole parameter; `high` belongs to the range."""

    name: str
    low: int
    high: int
    default: int
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A parameter with a few values."""

    name: str
    choices: tuple[str, ...]
    default: str


Parameter: TypeAlias = FloatRange | IntegerRange | Choice


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model. A classifier, a regressor, or both, by import path (`module:class`)."""

    name: str
    parameters: tuple[Parameter, ...]
    classifier: str | None = None
    regressor: str | None = None
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    """Arguments that are not searched: one thread, no log output, and bounds on the time of a fit."""
    seeded: bool = True
    """The estimator takes `random_state`."""
    scaled: bool = False
    """The estimator wants numbers of like size."""
    calibrated: bool = False
    """The classifier knows margins only: probabilities are learned from those it gives rows it was not fitted on."""

    def estimator_for(self, task: Task) -> str | None:
        """Import path of the estimator for a task; None where the family has none."""
        return self.regressor if task == "regression" else self.classifier


_LEARNING_RATE = FloatRange("learning_rate", 0.02, 0.3, 0.1, log=True)
_FOREST = (
    IntegerRange("n_estimators", 20, 150, 100, log=True),
    IntegerRange("max_depth", 2, 20, 12),
    IntegerRange("min_samples_leaf", 1, 20, 1, log=True),
    FloatRange("max_features", 0.1, 1.0, 0.5),
)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="logistic",
        classifier="sklearn.linear_model:LogisticRegression",
        parameters=(FloatRange("C", 1e-3, 1e2, 1.0, log=True),),
        fixed={"max_iter": 1000},
        scaled=True,
    ),
    Family(
        name="ridge",
        regressor="sklearn.linear_model:Ridge",
        parameters=(FloatRange("alpha", 1e-3, 1e3, 1.0, log=True),),
        scaled=True,
    ),
    Family(
        name="random_forest",
        classifier="sklearn.ensemble:RandomForestClassifier",
        regressor="sklearn.ensemble:RandomForestRegressor",
        parameters=_FOREST,
        fixed={"n_jobs": 1},
    ),
    Family(
        name="extra_trees",
        classifier="sklearn.ensemble:ExtraTreesClassifier",
        regressor="sklearn.ensemble:ExtraTreesRegressor",
        parameters=_FOREST,
        fixed={"n_jobs": 1},
    ),
    Family(
        name="gradient_boosting",
        classifier="sklearn.ensemble:GradientBoostingClassifier",
        regressor="sklearn.ensemble:GradientBoostingRegressor",
        parameters=(
            IntegerRange("n_estimators", 20, 100, 60, log=True),
            _LEARNING_RATE,
            IntegerRange("max_depth", 2, 4, 3),
            FloatRange("subsample", 0.5, 1.0, 1.0),
            FloatRange("max_features", 0.1, 1.0, 0.5),
        ),
    ),
    Family(
        name="hist_gradient_boosting",
        classifier="sklearn.ensemble:HistGradientBoostingClassifier",
        regressor="sklearn.ensemble:HistGradientBoostingRegressor",
        parameters=(
            IntegerRange("max_iter", 20, 150, 100, log=True),
            _LEARNING_RATE,
            IntegerRange("max_leaf_nodes", 4, 31, 31, log=True),
            IntegerRange("min_samples_leaf", 5, 40, 20, log=True),
            FloatRange("l2_regularization", 1e-6, 10.0, 1e-6, log=True),
        ),
        fixed={"early_stopping": False},
    ),
    Family(
        name="knn",
        classifier="sklearn.neighbors:KNeighborsClassifier",
        regressor="sklearn.neighbors:KNeighborsRegressor",
        parameters=(
            IntegerRange("n_neighbors", 1, 30, 5, log=True),
            Choice("weights", ("uniform", "distance"), "uniform"),
        ),
        fixed={"n_jobs": 1},
        seeded=False,
        scaled=True,
    ),
    Family(
        name="svc",
        classifier="sklearn.svm:SVC",
        regressor="sklearn.svm:SVR",
        parameters=(
            FloatRange("C", 1e-2, 1e2, 1.0, log=True),
            FloatRange("gamma", 1e-3, 1.0, 5e-2, log=True),
        ),
        # The time of a fit grows with the square of the rows: here is its bound, where a table will not be separated.
        fixed={"max_iter": 50_000},
        seeded=False,
        scaled=True,
        calibrated=True,
    ),
    Family(
        name="mlp",
        classifier="sklearn.neural_network:MLPClassifier",
        regressor="sklearn.neural_network:MLPRegressor",
        parameters=(
            IntegerRange("hidden_layer_sizes", 8, 64, 32, log=True),
            FloatRange("alpha", 1e-6, 1e-1, 1e-4, log=True),
            FloatRange("learning_rate_init", 1e-3, 3e-2, 1e-2, log=True),
        ),
        fixed={"max_iter": 100},
        scaled=True,
    ),
    Family(
        name="lightgbm",
        classifier="lightgbm:LGBMClassifier",
        regressor="lightgbm:LGBMRegressor",
        parameters=(
            IntegerRange("n_estimators", 20, 150, 100, log=True),
            _LEARNING_RATE,
            IntegerRange("num_leaves", 4, 63, 31, log=True),
            IntegerRange("min_child_samples", 5, 40, 20, log=True),
            FloatRange("reg_lambda", 1e-6, 10.0, 1e-6, log=True),
        ),
        # Left to itself, LightGBM times two ways of building histograms and takes the faster: two answers to one seed.
        fixed={"n_jobs": 1, "verbosity": -1, "force_row_wise": True},
    ),
    Family(
        name="xgboost",
        classifier="xgboost:XGBClassifier",
        regressor="xgboost:XGBRegressor",
        parameters=(
            IntegerRange("n_estimators", 20, 150, 100, log=True),
            _LEARNING_RATE,
            IntegerRange("max_depth", 2, 8, 6),
            FloatRange("subsample", 0.5, 1.0, 1.0),
            FloatRange("colsample_bytree", 0.3, 1.0, 1.0),
            FloatRange("reg_lambda", 1e-3, 10.0, 1.0, log=True),
        ),
        fixed={"n_jobs": 1, "verbosity": 0, "tree_method": "hist"},
    ),
)

_BASELINE: Mapping[Task, str] = {"binary": "logistic", "multiclass": "logistic", "regression": "ridge"}


def family_named(name: str) -> Family:
    """The family of that name. Raises UsageError where there is none, with the nearest name."""
    for family in FAMILIES:
        if family.name == name:
            return family
    known = [family.name for family in FAMILIES]
    hint = did_you_mean(name, known, f"known are {', '.join(known)}.")
    raise UsageError(f"There is no model family {name!r}; {hint}")


def families_for(task: Task, names: Sequence[str] = ()) -> tuple[Family, ...]:
    """The families that fit a task: those of the given names, or all. Raises UsageError on a name that does not fit."""
    fitting = tuple(family for family in FAMILIES if family.estimator_for(task) is not None)
    if not names:
        return fitting
    for name in names:
        if family_named(name) not in fitting:
            raise UsageError(
                f"The model family {name!r} has no estimator for a {task} task: remove it from `search.families`. "
                f"Those that fit are {', '.join(family.name for family in fitting)}."
            )
    return tuple(family for family in fitting if family.name in names)


def sample(families: Sequence[Family], rng: np.random.Generator) -> Configuration:
    """A configuration drawn at random: the family evenly, then each parameter evenly on its (linear or log) range."""
    family = families[int(rng.integers(len(families)))]
    return {FAMILY: family.name} | {parameter.name: _drawn(parameter, rng) for parameter in family.parameters}


def defaults(family: Family) -> Configuration:
    """The configuration of a family with every parameter at its default."""
    return {FAMILY: family.name} | {parameter.name: parameter.default for parameter in family.parameters}


def baseline(task: Task) -> Configuration:
    """The plain model that every search is compared with: logistic or ridge regression, at its defaults."""
    return defaults(family_named(_BASELINE[task]))


def _drawn(parameter: Parameter, rng: np.random.Generator) -> Scalar:
    match parameter:
        case Choice():
            return parameter.choices[int(rng.integers(len(parameter.choices)))]
        case IntegerRange() if not parameter.log:
            return int(rng.integers(parameter.low, parameter.high, endpoint=True))
        case IntegerRange():
            # Half a step on both sides, so that the two ends are as likely as their size on the log scale says.
            drawn = math.exp(rng.uniform(math.log(parameter.low - 0.5), math.log(parameter.high + 0.5)))
            return min(parameter.high, max(parameter.low, round(drawn)))
        case FloatRange() if not parameter.log:
            return float(rng.uniform(parameter.low, parameter.high))
        case FloatRange():
            drawn = math.exp(rng.uniform(math.log(parameter.low), math.log(parameter.high)))
            return min(parameter.high, max(parameter.low, drawn))
