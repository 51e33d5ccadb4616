"""The candidate as one ONNX graph, computed by ONNX Runtime.

In: a fitted Pipeline. Out: `model.onnx`, and a predictor on one thread. What follows the pipeline's first step converts
as a whole; that step itself (raw columns to numbers and texts) is the same arithmetic for every runtime and runs
outside the graph. Numbers become 32-bit floats on the way in, so a split may fall the other way: where the answers to a
sample show that, the graph is made in double, and whether the answers agree is measured for every candidate.
"""

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness.errors import IntegrityError, NotConvertibleError, one_line
from harness.ports import Form, Predictor, SklearnPipeline
from harness.records.candidate import Precision, Signature
from harness.records.rows import Batch, Prediction
from harness.space.parts import model_columns, model_inputs
from harness.stats.agreement import PARITY_DIFFERENCE, Agreement, agreement

REQUIRES = ("onnx", "onnxruntime", "skl2onnx", "onnxmltools")

NUMBERS, TEXTS = "numbers", "texts"
"""The graph's inputs; one is left out where it would have no columns."""

_OPSETS = {"": 21, "ai.onnx.ml": 3}
"""The newest that both converters write: onnxmltools knows the machine-learning operators up to version 3."""

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


@dataclass(frozen=True, slots=True)
class Onnx:
    """ONNX Runtime on the CPU."""

    artifact: ClassVar[str] = "model.onnx"
    same_minor: ClassVar[tuple[str, ...]] = ()

    def export(self, pipeline: SklearnPipeline, signature: Signature, sample: Batch) -> Form:
        from harness.space.preprocess import to_frame
        from harness.space.score import predict

        _check_classes(pipeline, signature)
        try:
            floats = converted(pipeline, signature, "float32")
            answered = predictor(floats, signature)(sample)
        except Exception as error:  # converters raise whatever they stumble over
            raise NotConvertibleError(f"skl2onnx cannot convert it: {_line(error)}") from error
        if not len(sample):
            return Form(floats, "float32")
        wanted = predict(pipeline, to_frame(sample, signature.columns), signature.task)
        found = agreement(wanted, answered)
        if found.is_parity:
            return Form(floats, "float32")
        # The fitted pipeline answers in double. Twice the bytes, and slower: only where floats are not enough.
        note = f"in float32 {_told(found)}, of {len(sample):,} rows"
        try:
            doubles = converted(pipeline, signature, "float64")
            closer = agreement(wanted, predictor(doubles, signature)(sample))
        except Exception as error:
            doubt = f"it has no form in float64: {_line(error)}"
        else:
            if closer.is_parity:
                return Form(doubles, "float64", note)
            doubt = f"in float64 {_told(closer)}"
        if not answered.finite.all():
            raise NotConvertibleError(f"the converted graph answers with values that are not finite; {doubt}")
        return Form(floats, "float32", f"{note}; {doubt}")

    def load(self, artifact: Path, signature: Signature) -> Predictor:
        try:
            return predictor(artifact.read_bytes(), signature)
        except Exception as error:  # ONNX Runtime has a class of its own per status code, without a common root
            raise IntegrityError(
                f"{artifact} cannot be loaded as the graph of this candidate: {_line(error)}. Export it again."
            ) from error


def _told(found: Agreement) -> str:
    labels = "" if found.same_labels == 1.0 else f" and {found.same_labels:.2%} had the same label"
    return f"{found.within:.2%} were within {PARITY_DIFFERENCE:g}{labels}"


def converted(pipeline: SklearnPipeline, signature: Signature, precision: Precision) -> bytes:
    """The graph of a fitted pipeline; raises whatever the converters raise."""
    import onnx
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    from sklearn.base import is_classifier
    from sklearn.pipeline import Pipeline

    _mend_converters()
    _mend_target_encoder(precision)
    numbers, texts = model_columns(signature.columns)
    inputs: list[tuple[str, Any]] = []
    if numbers:
        tensor = DoubleTensorType if precision == "float64" else FloatTensorType
        inputs.append((NUMBERS, tensor([None, len(numbers)])))
    if texts:
        inputs.append((TEXTS, StringTensorType([None, len(texts)])))
    after = Pipeline([(name, _by_place(step, (*numbers, *texts))) for name, step in pipeline.steps[1:]])
    model = after.steps[-1][1]
    options = {id(model): {"zipmap": False}} if is_classifier(model) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both converters warn of versions they have not been told of
        graph = convert_sklearn(after, "candidate", inputs, options=options, target_opset=_OPSETS)
    onnx.checker.check_model(graph)
    stored: bytes = graph.SerializeToString()
    return stored


def predictor(stored: bytes, signature: Signature) -> Predictor:
    """What computes a graph, in the precision of its numbers."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(stored, settings, providers=["CPUExecutionProvider"])
    inputs_of = model_inputs(signature.columns)
    wanted = {
        given.name: np.float64 if given.type == "tensor(double)" else np.float32 for given in session.get_inputs()
    }
    outputs = [given.name for given in session.get_outputs()]
    regression = signature.task == "regression"
    classes = len(signature.classes)
    if not wanted.keys() <= {NUMBERS, TEXTS} or len(outputs) != (1 if regression else 2):
        raise ValueError(f"its inputs are {sorted(wanted)} and its outputs {outputs}")
    answer = outputs[-1:]

    def predict(batch: Batch) -> Prediction:
        numbers, texts = inputs_of(batch)
        feed: dict[str, Any] = {}
        if NUMBERS in wanted:
            feed[NUMBERS] = numbers.astype(wanted[NUMBERS], copy=False)
        if TEXTS in wanted:
            feed[TEXTS] = texts
        (answered,) = session.run(answer, feed)
        given = np.asarray(answered, dtype=np.float64)
        if regression:
            return Prediction(values=given.reshape(len(batch)), probabilities=None)
        if given.shape != (len(batch), classes):
            raise ValueError(f"the graph answers with shape {given.shape}, not ({len(batch)}, {classes})")
        return Prediction(values=given.argmax(axis=1).astype(np.float64), probabilities=given)

    return predict


def _check_classes(pipeline: SklearnPipeline, signature: Signature) -> None:
    if signature.task == "regression":
        return
    known = [int(index) for index in pipeline.classes_]
    if known != list(range(len(signature.classes))):
        absent = [label for index, label in enumerate(signature.classes) if index not in known]
        raise NotConvertibleError(f"classes without a training row have no place in the graph: {', '.join(absent)}")


def _by_place(step: Any, names: Sequence[str]) -> Any:
    """A ColumnTransformer that selects by name, selecting by place: the graph has two inputs, not one per column."""
    if not hasattr(step, "transformers_"):
        return step
    placed = copy.copy(step)
    placed.transformers_ = [
        (name, block, [names.index(one) if isinstance(one, str) else one for one in selected])
        for name, block, selected in step.transformers_
        if block != "drop"
    ]
    return placed


@cache
def _mend_converters() -> None:
    """Once per process: skl2onnx keeps what it is taught, and a mended converter is not to be mended again."""
    _register_boosters()
    _mend_trees()
    _mend_imputer()


def _register_boosters() -> None:
    """Teach skl2onnx the two libraries whose converters live in onnxmltools; where one is absent, so are its models."""
    import contextlib

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


def _mend_target_encoder(precision: Precision) -> None:
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
    import contextlib

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


def _line(error: BaseException) -> str:
    # The converters wrap what went wrong into messages that print whole trees: the first cause says it in a line.
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(error)}"
