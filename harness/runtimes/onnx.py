"""The candidate as one ONNX graph, computed by ONNX Runtime.

In: a fitted Pipeline. Out: `model.onnx`, and a predictor on one thread. What follows the pipeline's first step converts
as a whole; that step itself (raw columns to numbers and texts) is the same arithmetic for every runtime and runs
outside the graph. Numbers become 32-bit floats on the way in, so a split may fall the other way: where the answers to a
sample show that, the graph is made in double, and whether the answers agree is measured for every candidate.
"""

import copy
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
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
            compute = predictor(floats, signature)
            answered = compute(sample) if len(sample) else None
        except Exception as error:  # converters raise whatever they stumble over
            raise NotConvertibleError(f"skl2onnx cannot convert it: {_line(error)}") from error
        if answered is None:
            return Form(floats, "float32")
        wanted = predict(pipeline, to_frame(sample, signature.columns), signature.task)
        found = agreement(wanted, answered)
        if found.is_parity:
            return Form(floats, "float32")
        # Not always: in double the products of matrices take up to twice the time, and files more bytes.
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
            raise NotConvertibleError("the converted graph answers with values that are not finite")
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

    from harness.space.converters import teach

    teach(precision)
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
    wanted = {
        given.name: np.float64 if given.type == "tensor(double)" else np.float32 for given in session.get_inputs()
    }
    outputs = [given.name for given in session.get_outputs()]
    regression = signature.task == "regression"
    classes = len(signature.classes)
    if not wanted.keys() <= {NUMBERS, TEXTS} or len(outputs) != (1 if regression else 2):
        raise ValueError(f"its inputs are {sorted(wanted)} and its outputs {outputs}")
    answer = outputs[-1:]
    # Given none, each run makes its own, which takes an eighth of the time that a forest takes for one row.
    options = onnxruntime.RunOptions()

    def predict(batch: Batch) -> Prediction:
        numbers, texts = inputs_of(batch)
        feed: dict[str, Any] = {}
        if NUMBERS in wanted:
            feed[NUMBERS] = numbers.astype(wanted[NUMBERS], copy=False)
        if TEXTS in wanted:
            feed[TEXTS] = texts
        (answered,) = session.run(answer, feed, options)
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


def _line(error: BaseException) -> str:
    # The converters wrap what went wrong into messages that print whole trees: the first cause says it in a line.
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(error)}"
