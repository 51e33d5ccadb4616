"""Converters: what skl2onnx is taught so that every family of the space becomes a graph, in float32 and in double.

In: the precision of the next graph. Out: nothing; skl2onnx has one register per process, and it is changed. The graph
itself is the runtime's.
"""

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from harness.records.candidate import Precision

_FLOAT, _INTEGER, _DOUBLE = 1, 7, 11
"""Numbers of 32 bits, whole ones of 64, and numbers of 64, as ONNX counts its types."""

_FORESTS = (
    "SklearnRandomForestClassifier",
    "SklearnExtraTreesClassifier",
    "SklearnHistGradientBoostingClassifier",
)

_IN_FLOATS = ("XGBoostXGBClassifier", "XGBoostXGBRegressor", "SklearnSVR")
"""XGBoost itself rounds what it is given; and ONNX Runtime has support vectors in floats only."""

_TREES = (
    *_FORESTS,
    *_IN_FLOATS,
    "SklearnRandomForestRegressor",
    "SklearnExtraTreesRegressor",
    "SklearnHistGradientBoostingRegressor",
    "SklearnGradientBoostingClassifier",
    "SklearnGradientBoostingRegressor",
    "LightGbmLGBMClassifier",
    "LightGbmLGBMRegressor",
)
"""What skl2onnx calls the models whose converters are mended."""

_ANSWERS_IN_FLOATS = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "SVMRegressor")
"""Operators that answer in floats whatever they are given."""


def teach(precision: Precision) -> None:
    """Have the next conversion go well. skl2onnx keeps what it is taught for the whole process."""
    _teach_once()
    _teach_target_encoder(precision)


@cache
def _teach_once() -> None:
    """A mended converter is not to be mended again."""
    _register_boosters()
    _mend_trees()
    _mend_imputer()


def _register_boosters() -> None:
    """Teach skl2onnx the two libraries whose converters live in onnxmltools; where one is absent, so are its models."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    both = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    with contextlib.suppress(ImportError):
        from lightgbm import LGBMClassifier, LGBMRegressor
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        update_registered_converter(
            LGBMClassifier,
            "LightGbmLGBMClassifier",
            calculate_linear_classifier_output_shapes,
            convert_lightgbm,
            options=both,
        )
        update_registered_converter(
            LGBMRegressor,
            "LightGbmLGBMRegressor",
            calculate_linear_regressor_output_shapes,
            convert_lightgbm,
            options={"split": None},
        )
    with contextlib.suppress(ImportError):
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
        from xgboost import XGBClassifier, XGBRegressor

        update_registered_converter(
            XGBClassifier,
            "XGBoostXGBClassifier",
            calculate_linear_classifier_output_shapes,
            convert_xgboost,
            options=both,
        )
        update_registered_converter(
            XGBRegressor, "XGBoostXGBRegressor", calculate_linear_regressor_output_shapes, convert_xgboost
        )


def _mend_imputer() -> None:
    """Have medians fill holes in double too: ONNX Runtime has no such Imputer, and its medians are floats."""
    from skl2onnx.common._registration import get_converter, register_converter
    from skl2onnx.common.data_types import DoubleTensorType

    alias = "SklearnSimpleImputer"
    known = get_converter(alias)

    def converted(scope: Any, operator: Any, container: Any) -> None:
        imputer, (given, *others) = operator.raw_operator, operator.inputs
        if others or not isinstance(given.type, DoubleTensorType) or not np.isnan(imputer.missing_values):
            known(scope, operator, container)
            return
        filling, hole = (scope.get_unique_variable_name(name) for name in ("filling", "hole"))
        statistics = np.asarray(imputer.statistics_, dtype=np.float64)
        container.add_initializer(filling, _DOUBLE, [1, len(statistics)], statistics.tolist())
        container.add_node("IsNaN", given.full_name, hole)
        container.add_node("Where", [hole, filling, given.full_name], operator.output_full_names)

    register_converter(alias, converted, overwrite=True, options=known.get_allowed_options())


def _teach_target_encoder(precision: Precision) -> None:
    """Have skl2onnx convert the mean targets of several classes too (version 1.20 does those of two, and of amounts),
    and have them exact in double: a text is looked up as a place in a table, because ONNX looks up floats, not doubles.
    """
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.preprocessing import TargetEncoder

    tensor, number = (DoubleTensorType, _DOUBLE) if precision == "float64" else (FloatTensorType, _FLOAT)

    def shape(operator: Any) -> None:
        rows = operator.inputs[0].get_first_dimension()
        operator.outputs[0].type = tensor([rows, len(operator.raw_operator.encodings_)])

    def converted(scope: Any, operator: Any, container: Any) -> None:
        encoder = operator.raw_operator
        (texts,) = operator.inputs
        # One feature after the other, and of each a column per class; a single one of two classes, and of amounts.
        overall = np.atleast_1d(encoder.target_mean_)
        means, made = iter(encoder.encodings_), []
        for feature, known in enumerate(encoder.categories_):
            table = np.vstack([np.column_stack([next(means) for _ in overall]), overall])
            index, values, column, place, looked_up = (
                scope.get_unique_variable_name(name) for name in ("index", "means", "column", "place", "mean")
            )
            container.add_initializer(index, _INTEGER, [], [feature])
            container.add_initializer(values, number, table.shape, table.ravel().tolist())
            container.add_node("Gather", [texts.full_name, index], column, axis=1)
            container.add_node(
                "LabelEncoder",
                column,
                place,
                op_domain="ai.onnx.ml",
                op_version=2,
                keys_strings=[str(text).encode() for text in known],
                values_int64s=list(range(len(known))),
                default_int64=len(known),
            )
            container.add_node("Gather", [values, place], looked_up, axis=0)
            made.append(looked_up)
        container.add_node("Concat", made, operator.output_full_names, axis=1)

    update_registered_converter(TargetEncoder, "SklearnTargetEncoder", shape, converted, overwrite=True)


def _mend_trees() -> None:
    """Have trees and support vector regressors compute in double where that is asked for, and holes go their way.

    Left alone the converters promise doubles and ONNX Runtime answers in floats, so the graph does not load; they write
    thresholds as floats; and version 1.20 of skl2onnx writes the ways of holes as truth values, which onnx refuses.
    """
    from skl2onnx.common._registration import get_converter, register_converter
    from skl2onnx.operator_converters.random_forest import convert_sklearn_random_forest_classifier

    def forest(scope: Any, operator: Any, container: Any) -> None:
        # Not told the version of the operators, it rounds a classifier's thresholds.
        convert_sklearn_random_forest_classifier(scope, operator, container, op_version=3)

    for alias in _TREES:
        with contextlib.suppress(ValueError):  # a booster that is not installed
            known = get_converter(alias)
            convert = forest if alias in _FORESTS else known
            register_converter(alias, _mended(convert, alias), overwrite=True, options=known.get_allowed_options())


def _mended(convert: Callable[..., None], alias: str) -> Callable[[Any, Any, Any], None]:
    from skl2onnx.common.data_types import DoubleTensorType

    def converted(scope: Any, operator: Any, container: Any) -> None:
        double = isinstance(operator.inputs[0].type, DoubleTensorType)
        if double:  # a random forest's probabilities would stay declared as floats
            operator.outputs[-1].type = DoubleTensorType(operator.outputs[-1].type.shape)
        convert(scope, operator, _Mending(scope, container, double, alias in _IN_FLOATS))

    return converted


class _Mending:
    """A container of skl2onnx that writes nodes as onnx and ONNX Runtime take them."""

    def __init__(self, scope: Any, container: Any, double: bool, in_floats: bool) -> None:
        self._scope, self._container, self._double, self._in_floats = scope, container, double, in_floats

    def add_node(self, operator: str, inputs: Any, outputs: Any, **attributes: Any) -> None:
        """As skl2onnx says, but with whole numbers for truth values, and with trees in double where they shall be."""
        for name, values in attributes.items():
            if isinstance(values, list) and any(isinstance(value, bool | np.bool_) for value in values):
                attributes[name] = [int(value) for value in values]
        if not self._double or operator not in _ANSWERS_IN_FLOATS:
            self._container.add_node(operator, inputs, outputs, **attributes)
            return
        given, answers = ([names] if isinstance(names, str) else list(names) for names in (inputs, outputs))
        wanted = answers[-1]
        rounded, in_floats, double, number = map(
            self._scope.get_unique_variable_name, ("rounded", "in_floats", "double", "number")
        )
        moved_by = 0.0
        if self._in_floats:
            self._container.add_node("Cast", given, rounded, to=_FLOAT)
            given = [rounded]
        else:
            moved_by = _in_double(attributes)
        self._container.add_node(operator, given, [*answers[:-1], in_floats], **attributes)
        self._container.add_node("Cast", in_floats, double, to=_DOUBLE)
        self._container.add_initializer(number, _DOUBLE, [1], [moved_by])
        self._container.add_node("Add", [double, number], wanted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


def _in_double(attributes: dict[str, Any]) -> float:
    """Put the numbers of a tree ensemble into double; returns what is to be added to its answers.

    These are floats even so. What a regression predicts may lie far from zero for its spread (a moment in seconds since
    1970), so the leaves of each tree are moved to around zero, and back after the sum.
    """
    import onnx

    moved_by = 0.0
    if "target_weights" in attributes and attributes.get("aggregate_function", "SUM") == "SUM":
        leaves = np.asarray(attributes["target_weights"], dtype=np.float64)
        _, tree, count = np.unique(attributes["target_treeids"], return_inverse=True, return_counts=True)
        means = np.bincount(tree, leaves) / count
        attributes["target_weights"] = leaves - means[tree]
        moved_by = float(means.sum() + np.sum(attributes.pop("base_values", 0.0)))
    for name in ("nodes_values", "nodes_hitrates", "class_weights", "target_weights", "base_values"):
        values = attributes.pop(name, None)
        if values is not None and len(values):
            attributes[f"{name}_as_tensor"] = onnx.numpy_helper.from_array(np.asarray(values, dtype=np.float64))
    attributes["op_version"] = 3
    return moved_by
