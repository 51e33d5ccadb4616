"""The Open Inference Protocol v2 over JSON: the wire form of rows and answers.

In: bytes of a request or an answer, and the signature of the model. Out: `Batch` and `Prediction`, or the other way
round; `BadRequestError` for whatever a client got wrong. Nothing here trusts a client: a body is decoded to exactly the
rows it states, or refused with the field that is wrong.

Source: https://github.com/kserve/open-inference-protocol (`inference_rest.yaml`). A missing value, which the protocol
has no word for, is JSON's `null`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.records.candidate import Column, Signature
from harness.records.rows import Batch, Prediction
from harness.serving.tensors import (
    DATATYPES,
    BadRequestError,
    column_values,
    encoded,
    matrix,
    row_count,
    shown,
)

__all__ = [
    "BadRequestError",
    "Request",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "metadata",
    "request_reader",
    "response_writer",
]

ROWS = "rows"
"""The one tensor, of shape [rows, columns], that a table of numbers alone travels as."""

LABEL, PROBABILITIES, VALUE = "label", "probabilities", "value"


@dataclass(frozen=True, slots=True)
class Request:
    """A decoded request."""

    batch: Batch
    id: str | None
    """The client's own name for it, which the answer repeats."""
    outputs: tuple[str, ...] | None
    """Names of the outputs asked for; None: all."""


def encode_request(batch: Batch, signature: Signature) -> bytes:
    """The body of an inference request for the rows of `batch`.

    One tensor `rows` where every column is a number, otherwise one input per column. Raises ValueError on an infinite
    number and on a date outside the years 1 to 9999, which JSON and ISO 8601 cannot write.
    """
    if np.isinf(batch.numbers).any():
        raise ValueError("an infinite number cannot be sent: JSON has none")
    if _numbers_only(signature):
        shape = list(batch.numbers.shape)
        inputs = [{"name": ROWS, "datatype": "FP64", "shape": shape, "data": batch.numbers.ravel()}]
    else:
        numbers, texts = iter(batch.numbers.T), iter(batch.texts.T)
        inputs = [
            {
                "name": column.name,
                "datatype": DATATYPES[column.kind][0],
                "shape": [len(batch)],
                "data": encoded(column, next(texts) if column.kind == "category" else next(numbers)),
            }
            for column in signature.columns
        ]
    # orjson writes NaN, which stands for a hole, as null.
    return orjson.dumps({"inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY)


def decode_request(body: bytes, signature: Signature) -> Batch:
    """The rows of a request: one tensor `rows`, or one input per column in any order. Raises BadRequestError."""
    return request_reader(signature)(body).batch


def request_reader(signature: Signature) -> Callable[[bytes], Request]:
    """`decode_request` for many bodies of one signature, with what else a request may state."""
    columns = {column.name: column for column in signature.columns}
    number_names, text_names = signature.number_columns, signature.text_columns
    output_names = {output["name"] for output in _outputs_metadata(signature)}
    # A table of the single column `rows` reads the same either way.
    as_tensor = _numbers_only(signature) and tuple(columns) != (ROWS,)
    width = len(columns)

    def read(body: bytes) -> Request:
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadRequestError("body", f"not JSON: {error}") from error
        if type(request) is not dict:
            raise BadRequestError("body", "must be a JSON object")
        inputs = request.get("inputs")
        if type(inputs) is not list or not inputs:
            raise BadRequestError("inputs", "must be a list with at least one input")
        if as_tensor and len(inputs) == 1 and type(inputs[0]) is dict and inputs[0].get("name") == ROWS:
            numbers = matrix(ROWS, inputs[0], width)
            batch = Batch(numbers=numbers, texts=np.empty((len(numbers), 0), dtype=object))
        else:
            named = _by_name(inputs, columns)
            rows = {row_count(name, given) for name, given in named.items()}
            if len(rows) > 1:
                raise BadRequestError("inputs", f"have different numbers of rows: {sorted(rows)}")
            count = rows.pop()
            values = {name: column_values(columns[name], given, count) for name, given in named.items()}
            batch = Batch(
                numbers=_joined([values[name] for name in number_names], count, float),
                texts=_joined([values[name] for name in text_names], count, object),
            )
        return Request(batch, _request_id(request), _asked_outputs(request, output_names))

    return read


def encode_response(prediction: Prediction, signature: Signature, model: str) -> bytes:
    """The body of the answer to a request.

    Classification: `label` (BYTES, [n]) and `probabilities` (FP64, [n, classes]); regression: `value` (FP64, [n]).
    Raises ValueError on a prediction that is not finite: `null` would pass for an answer.
    """
    return response_writer(signature, model)(prediction, None, None)


def response_writer(
    signature: Signature, model: str
) -> Callable[[Prediction, str | None, tuple[str, ...] | None], bytes]:
    """`encode_response` for many predictions of one model, with a request's id and the outputs it asked for."""
    classes = signature.classes

    def write(prediction: Prediction, request_id: str | None, asked: tuple[str, ...] | None) -> bytes:
        count = len(prediction.values)
        outputs: list[dict[str, Any]]
        if prediction.probabilities is None:
            outputs = [_output(VALUE, "FP64", [count], _finite(prediction.values))]
        else:
            labels = [classes[int(value)] for value in prediction.values]
            likely = _finite(prediction.probabilities)
            outputs = [
                _output(LABEL, "BYTES", [count], labels),
                _output(PROBABILITIES, "FP64", [count, len(classes)], likely),
            ]
        if asked is not None:
            outputs = [output for output in outputs if output["name"] in asked]
        answer: dict[str, Any] = {"model_name": model, "outputs": outputs}
        if request_id is not None:
            answer["id"] = request_id
        return orjson.dumps(answer)

    return write


def decode_response(body: bytes, signature: Signature) -> Prediction:
    """The prediction that an answer states. Raises ValueError, in one line, where it is not a whole answer."""
    try:
        answer = orjson.loads(body)
        outputs = {output["name"]: output for output in answer["outputs"]}
        if signature.task == "regression":
            values = np.array(outputs[VALUE]["data"], dtype=np.float64)
            if values.ndim != 1 or list(values.shape) != outputs[VALUE]["shape"]:
                raise ValueError(f"{VALUE}: data and shape do not agree")
            return Prediction(values=_answered(values, VALUE), probabilities=None)
        index = {label: place for place, label in enumerate(signature.classes)}
        values = np.array([index[label] for label in outputs[LABEL]["data"]], dtype=np.float64)
        shape = [len(values), len(signature.classes)]
        if outputs[PROBABILITIES]["shape"] != shape:
            raise ValueError(f"{PROBABILITIES}: shape must be {shape}")
        probabilities = np.array(outputs[PROBABILITIES]["data"], dtype=np.float64).reshape(shape)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an answer of this model: {type(error).__name__} at {error}") from error
    return Prediction(values=values, probabilities=_answered(probabilities, PROBABILITIES))


def metadata(signature: Signature, model: str) -> dict[str, Any]:
    """What `GET /v2/models/{name}` answers: inputs and outputs, and the columns as the user knows them."""
    if _numbers_only(signature):
        inputs = [{"name": ROWS, "datatype": "FP64", "shape": [-1, len(signature.columns)]}]
    else:
        inputs = [
            {"name": column.name, "datatype": DATATYPES[column.kind][0], "shape": [-1]} for column in signature.columns
        ]
    return {
        "name": model,
        "versions": [],
        "platform": "automl-harness",
        "inputs": inputs,
        "outputs": _outputs_metadata(signature),
        "parameters": {
            "task": signature.task,
            "columns": [{"name": column.name, "kind": column.kind} for column in signature.columns],
            "classes": list(signature.classes),
        },
    }


def _outputs_metadata(signature: Signature) -> list[dict[str, Any]]:
    if signature.task == "regression":
        return [{"name": VALUE, "datatype": "FP64", "shape": [-1]}]
    return [
        {"name": LABEL, "datatype": "BYTES", "shape": [-1]},
        {"name": PROBABILITIES, "datatype": "FP64", "shape": [-1, len(signature.classes)]},
    ]


def _numbers_only(signature: Signature) -> bool:
    return all(column.kind == "number" for column in signature.columns)


def _by_name(inputs: Sequence[Any], columns: dict[str, Column]) -> dict[str, dict[str, Any]]:
    named: dict[str, dict[str, Any]] = {}
    for place, given in enumerate(inputs):
        name = given.get("name") if type(given) is dict else None
        if type(name) is not str:
            raise BadRequestError(f"inputs[{place}]", "must be an object with a name")
        if name in named:
            raise BadRequestError(shown(name), "is given twice")
        if name not in columns:
            known = "only its columns" if len(columns) > 20 else ", ".join(columns)
            raise BadRequestError(shown(name), f"is no column of this model, which takes {known}")
        named[name] = given
    missing = [name for name in columns if name not in named]
    if missing:
        raise BadRequestError(missing[0], f"is missing ({len(missing)} of {len(columns)} columns are)")
    return named


def _joined(columns: list[NDArray[Any]], count: int, kind: type) -> NDArray[Any]:
    return np.column_stack(columns) if columns else np.empty((count, 0), dtype=kind)


def _request_id(request: dict[str, Any]) -> str | None:
    given = request.get("id")
    if given is not None and type(given) is not str:
        raise BadRequestError("id", "must be a text")
    return given


def _asked_outputs(request: dict[str, Any], known: set[str]) -> tuple[str, ...] | None:
    asked = request.get("outputs")
    if asked is None or asked == []:
        return None
    if type(asked) is not list or not all(type(output) is dict and type(output.get("name")) is str for output in asked):
        raise BadRequestError("outputs", "must be a list of objects with a name")
    names = tuple(output["name"] for output in asked)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadRequestError("outputs", f"{shown(unknown[0])} is no output of this model: {', '.join(sorted(known))}")
    return names


def _output(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _finite(values: NDArray[np.float64]) -> list[float]:
    if not np.isfinite(values).all():
        raise ValueError("the model's prediction is not a finite number")
    flat: list[float] = values.ravel().tolist()
    return flat


def _answered(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: has an answer that is not a finite number")
    return values
