"""From a configuration to a scikit-learn Pipeline over raw columns.

In: a configuration, a signature and a seed. Out: an unfitted Pipeline of three steps: `columns` (raw columns to numbers
and texts), `features` (holes filled, numbers scaled where the family wants it, texts one-hot encoded, or where a column
has too many of them by the mean target of each) and `model`. What follows `columns` takes two matrices by position,
numbers then texts, and uses only what converts to ONNX.
"""

import math
import pkgutil
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from harness.errors import UsageError
from harness.records.candidate import Configuration, Signature
from harness.records.words import Scalar, Task
from harness.space.families import FAMILY, Choice, Family, FloatRange, IntegerRange, Parameter, family_named
from harness.space.parts import model_columns
from harness.space.preprocess import RawColumns

_CALIBRATION_PARTS = 3
"""Into which the rows are parted, to see margins of rows that a model was not fitted on."""
_ENCODING_FOLDS = 5


class CalibrationParts:
    """Stratified parts of the rows, three or as many as the rarest class has rows.

    A number in its place makes scikit-learn refuse a class of two rows, which a fold may well have.
    """

    def get_n_splits(self, rows: Any, target: NDArray[Any], groups: None = None) -> int:
        """How many. Raises ValueError on a class that would be in one part only."""
        rarest = int(np.unique(target, return_counts=True)[1].min())
        if rarest < 2:
            raise ValueError(
                "a class has a single row here, and probabilities from margins take two: one to fit on, one to see"
            )
        return min(_CALIBRATION_PARTS, rarest)

    def split(self, rows: Any, target: NDArray[Any], groups: None = None) -> Iterator[tuple[Any, Any]]:
        """Positions to fit on, and of whose margins are seen."""
        yield from StratifiedKFold(self.get_n_splits(rows, target)).split(rows, target)


def build(configuration: Configuration, signature: Signature, seed: int) -> Pipeline:
    """The unfitted pipeline of a configuration; a parameter that it leaves out has its default.

    Raises UsageError on an unknown family or parameter, a value that the parameter cannot have, and a family without
    an estimator for the task.
    """
    family, parameters = _resolved(configuration)
    arguments = {**family.fixed, **parameters} | ({"random_state": seed} if family.seeded else {})
    names = [column.name for column in signature.columns]
    kinds = [column.kind for column in signature.columns]
    return Pipeline(
        [
            ("columns", RawColumns(names, kinds)),
            ("features", _features(signature, family.scaled, seed)),
            (
                "model",
                _with_probabilities(estimator_class(family, signature.task)(**arguments), family, signature.task),
            ),
        ]
    )


def build_dummy(task: Task) -> Any:
    """The unfitted model that never looks at the columns: the mean, or the shares of the classes."""
    return DummyRegressor() if task == "regression" else DummyClassifier(strategy="prior")


def estimator_class(family: Family, task: Task) -> Any:
    """The class behind a family; imports its library. Raises UsageError where the family does not fit the task."""
    path = family.estimator_for(task)
    if path is None:
        raise UsageError(f"The model family {family.name!r} has no estimator for a {task} task: choose another family.")
    return pkgutil.resolve_name(path)


def _with_probabilities(model: Any, family: Family, task: Task) -> Any:
    if not family.calibrated or task == "regression":
        return model
    # One model, fitted on all rows: an ensemble of one per part would cost a server three times as much.
    return CalibratedClassifierCV(model, ensemble=False, cv=CalibrationParts())


def _features(signature: Signature, scaled: bool, seed: int) -> ColumnTransformer:
    numbers, texts = model_columns(signature.columns)
    # A column may be all holes in one fold: it is kept as zeros, so that every fold has the same features.
    filled: Any = SimpleImputer(strategy="median", keep_empty_features=True)
    if scaled:
        filled = Pipeline([("holes", filled), ("scale", StandardScaler())])
    crowded = {column.name for column in signature.columns if column.by_target}
    blocks: list[tuple[str, Any, list[int]]] = []
    if numbers:
        blocks.append(("numbers", filled, list(range(len(numbers)))))
    few = [len(numbers) + place for place, name in enumerate(texts) if name not in crowded]
    if few:
        blocks.append(("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), few))
    many = [len(numbers) + place for place, name in enumerate(texts) if name in crowded]
    if many:
        means = _mean_targets(signature.task, seed)
        blocks.append(("means", Pipeline([("means", means), ("scale", StandardScaler())]) if scaled else means, many))
    return ColumnTransformer(blocks)


def _mean_targets(task: Task, seed: int) -> TargetEncoder:
    """What a row is fitted on comes from the targets of other rows, or the model would learn to look up its own."""
    folds = KFold if task == "regression" else StratifiedKFold
    target_type = {"regression": "continuous"}.get(task, task)
    return TargetEncoder(target_type=target_type, cv=folds(_ENCODING_FOLDS, shuffle=True, random_state=seed))


def _resolved(configuration: Configuration) -> tuple[Family, dict[str, Scalar]]:
    name = configuration.get(FAMILY)
    if not isinstance(name, str):
        raise UsageError(f"A configuration names its model under {FAMILY!r}, and this one does not: {configuration}.")
    family = family_named(name)
    known = {parameter.name: parameter for parameter in family.parameters}
    for given in configuration:
        if given != FAMILY and given not in known:
            raise UsageError(f"The model family {name!r} has no parameter {given!r}; it has {', '.join(known)}.")
    return family, {
        parameter.name: _checked(parameter, configuration.get(parameter.name, parameter.default), family)
        for parameter in family.parameters
    }


def _checked(parameter: Parameter, value: Scalar, family: Family) -> Scalar:
    # Ranges are where engines search, not what an estimator can take: only the type is held here.
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    match parameter:
        case FloatRange() if number:
            return float(value)
        case IntegerRange() if number and isinstance(value, int):
            return value
        case Choice() if value in parameter.choices:
            return value
        case Choice():
            wanted = f"one of {', '.join(parameter.choices)}"
        case FloatRange():
            wanted = "a finite number"
        case IntegerRange():
            wanted = "a whole number"
    raise UsageError(f"Parameter {parameter.name!r} of the model family {family.name!r} is {wanted}, not {value!r}.")
