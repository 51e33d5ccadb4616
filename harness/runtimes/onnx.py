"""The candidate as one ONNX graph, computed by ONNX Runtime.

In: a fitted Pipeline. Out: `model.onnx`, and a predictor on one thread. What follows the pipeline's first step converts
as a whole; that step itself (raw columns to numbers and texts) is the same arithmetic for every runtime and runs
outside the graph. Numbers become 32-bit floats on the way in, so a split may fall the other way: whether the answers
agree is measured for every candidate, never assumed.
"""

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness.errors import IntegrityError, NotConvertibleError, one_line
from harness.ports import Predictor, SklearnPipeline
from harness.records.candidate import Signature
from harness.records.rows import Batch, Prediction
from harness.space.parts import model_columns, model_inputs

REQUIRES = ("onnx", "onnxruntime", "skl2onnx", "onnxmltools")

NUMBERS, TEXTS = "numbers", "texts"
"""The graph's inputs; one is left out where it would have no columns."""

_OPSETS = {"": 21, "ai.onnx.ml": 3}
"""The newest that both converters write: onnxmltools knows the machine-learning operators up to version 3."""


@dataclass(frozen=True, slots=True)
class Onnx:
    """ONNX Runtime on the CPU."""

    artifact: ClassVar[str] = "model.onnx"
    same_minor: ClassVar[tuple[str, ...]] = ()

    def export(self, pipeline: SklearnPipeline, signature: Signature, sample: Batch) -> bytes:
        _check_classes(pipeline, signature)
        try:
            stored = _converted(pipeline, signature)
            predict = _predictor(stored, signature)
            answered = predict(sample) if len(sample) else None
        except NotConvertibleError:
            raise
        except Exception as error:  # converters raise whatever they stumble over
            raise NotConvertibleError(f"skl2onnx cannot convert it: {_line(error)}") from error
        if answered is not None and not answered.finite.all():
            raise NotConvertibleError("the converted graph answers with values that are not finite")
        return stored

    def load(self, artifact: Path, signature: Signature) -> Predictor:
        try:
            return _predictor(artifact.read_bytes(), signature)
        except Exception as error:  # ONNX Runtime has a class of its own per status code, without a common root
            raise IntegrityError(
                f"{artifact} cannot be loaded as the graph of this candidate: {_line(error)}. Export it again."
            ) from error


def _converted(pipeline: SklearnPipeline, signature: Signature) -> bytes:
    import onnx
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.base import is_classifier
    from sklearn.pipeline import Pipeline

    _register_boosters()
    _mend_hist_gradient_boosting()
    _mend_target_encoder()
    numbers, texts = model_columns(signature.columns)
    inputs: list[tuple[str, Any]] = []
    if numbers:
        inputs.append((NUMBERS, FloatTensorType([None, len(numbers)])))
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


def _predictor(stored: bytes, signature: Signature) -> Predictor:
    # Read when it is imported: it would send its makers word of what it does, and keeps a file in the temporary folder.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(stored, settings, providers=["CPUExecutionProvider"])
    inputs_of = model_inputs(signature.columns)
    wanted = {given.name for given in session.get_inputs()}
    outputs = [given.name for given in session.get_outputs()]
    regression = signature.task == "regression"
    classes = len(signature.classes)
    if not wanted <= {NUMBERS, TEXTS} or len(outputs) != (1 if regression else 2):
        raise ValueError(f"its inputs are {sorted(wanted)} and its outputs {outputs}")
    answer = outputs[-1:]

    def predict(batch: Batch) -> Prediction:
        numbers, texts = inputs_of(batch)
        feed: dict[str, Any] = {}
        if NUMBERS in wanted:
            feed[NUMBERS] = numbers.astype(np.float32)
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


def _mend_hist_gradient_boosting() -> None:
    """Have skl2onnx write where the missing values of these trees go as numbers, which onnx takes, not as truth values.

    Version 1.20 does not; the functions registered here are its own.
    """
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )
    from skl2onnx.operator_converters import random_forest
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    update_registered_converter(
        HistGradientBoostingClassifier,
        "SklearnHistGradientBoostingClassifier",
        calculate_linear_classifier_output_shapes,
        _in_numbers(random_forest.convert_sklearn_random_forest_classifier),
        options={"nocl": [True, False], "zipmap": [True, False, "columns"], "raw_scores": [True, False]},
        overwrite=True,
    )
    update_registered_converter(
        HistGradientBoostingRegressor,
        "SklearnHistGradientBoostingRegressor",
        calculate_linear_regressor_output_shapes,
        _in_numbers(random_forest.convert_sklearn_random_forest_regressor_converter),
        overwrite=True,
    )


def _mend_target_encoder() -> None:
    """Have skl2onnx convert the mean targets of several classes too: version 1.20 does those of two, and of amounts."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.operator_converters.target_encoder import convert_sklearn_target_encoder
    from sklearn.preprocessing import TargetEncoder

    def shape(operator: Any) -> None:
        rows = operator.inputs[0].get_first_dimension()
        operator.outputs[0].type = FloatTensorType([rows, len(operator.raw_operator.encodings_)])

    def converted(scope: Any, operator: Any, container: Any) -> None:
        encoder = operator.raw_operator
        if encoder.target_type_ != "multiclass":
            convert_sklearn_target_encoder(scope, operator, container)
            return
        (texts,) = operator.inputs
        # One feature after the other, and of each a column per class.
        classes, made = len(encoder.classes_), []
        for place, means in enumerate(encoder.encodings_):
            feature, of_class = divmod(place, classes)
            index, column, looked_up = (scope.get_unique_variable_name(name) for name in ("index", "column", "mean"))
            container.add_initializer(index, 7, [1], [feature])  # 7: 64-bit whole numbers
            container.add_node("Gather", [texts.full_name, index], column, axis=1)
            container.add_node(
                "LabelEncoder",
                column,
                looked_up,
                op_domain="ai.onnx.ml",
                op_version=2,
                keys_strings=[str(text).encode() for text in encoder.categories_[feature]],
                values_floats=means,
                default_float=encoder.target_mean_[of_class],
            )
            made.append(looked_up)
        container.add_node("Concat", made, operator.output_full_names, axis=1)

    update_registered_converter(TargetEncoder, "SklearnTargetEncoder", shape, converted, overwrite=True)


def _in_numbers(convert: Callable[..., None]) -> Callable[[Any, Any, Any], None]:
    def converted(scope: Any, operator: Any, container: Any) -> None:
        convert(scope, operator, _WholeNumbers(container))

    return converted


class _WholeNumbers:
    """A container of skl2onnx that writes truth values as the whole numbers which ONNX has for them."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def add_node(self, *arguments: Any, **attributes: Any) -> Any:
        """As skl2onnx says, but for truth values."""
        for name, values in attributes.items():
            if isinstance(values, list) and any(isinstance(value, bool | np.bool_) for value in values):
                attributes[name] = [int(value) for value in values]
        return self._container.add_node(*arguments, **attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


def _line(error: BaseException) -> str:
    # The converters wrap what went wrong into messages that print whole trees: the first cause says it in a line.
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(error)}"
