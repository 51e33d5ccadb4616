"""The Open Inference Protocol v2 over HTTP: the wire form of rows and answers, in JSON and with tensors in bytes.

In: bytes of a request or an answer, and the signature of the model. Out: `Request` and `Answer`, or the other way
round; `BadRequestError` for whatever a client got wrong. Nothing here trusts a client: a body is decoded to exactly the
rows it states, or refused with the field that is wrong.

Source: https://github.com/kserve/open-inference-protocol (`inference_rest.yaml`), and Triton's "binary tensor data
extension": tensors may follow the JSON as bytes, in the order in which it names them, and a header says where it ends.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.records.candidate import Column, Signature
from harness.records.rows import Batch, Prediction
from harness.serving.limits import Limits
from harness.serving.tensors import (
    DATATYPES,
    BadRequestError,
    Tensor,
    column_values,
    encoded,
    matrix,
    row_count,
    shown,
    text_in_bytes,
)

__all__ = [
    "Answer",
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

BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
"""Parameters of an input or an answer's output, of a requested output, and of a request."""

_LARGE_BYTES = 2**20
"""Of JSON. To read it takes 20 to 40 times as long as to count its commas, and nobody else is answered meanwhile."""

_FEW = 64
_NO_TEXTS = np.empty((1, 0), dtype=object)

_OTHER_EXTENSIONS = ("shared_memory_region", "classification")
"""What a client of Triton may ask for and would take our answer for."""


class Request(NamedTuple):
    """A decoded request."""

    batch: Batch
    id: str | None
    """The client's own name for it, which the answer repeats."""
    outputs: Mapping[str, bool]
    """Names of the outputs that are wanted, and whether in bytes."""


class Answer(NamedTuple):
    """An encoded answer."""

    body: bytes
    header_bytes: int | None = None
    """Length of its JSON, where tensors follow it as bytes."""


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
    return request_reader(signature)(body, None).batch


def request_reader(signature: Signature, limits: Limits | None = None) -> Callable[[bytes, int | None], Request]:
    """`decode_request` for many bodies of one signature, with what else a request may state.

    What is returned takes a body and, where tensors follow its JSON as bytes, the length of the JSON.
    """
    limits = limits or Limits()
    columns = {column.name: column for column in signature.columns}
    number_names, text_names = signature.number_columns, signature.text_columns
    output_names = [str(output["name"]) for output in _outputs_metadata(signature)]
    in_json, in_bytes = dict.fromkeys(output_names, False), dict.fromkeys(output_names, True)
    # A table of the single column `rows` reads the same either way.
    as_tensor = _numbers_only(signature) and tuple(columns) != (ROWS,)
    width = len(columns)
    # Within texts commas say nothing. A thousand and a few per column are those outside of data.
    most_commas = (limits.rows + 10) * width + 1_000 if _numbers_only(signature) else None

    def read(body: bytes, header_bytes: int | None) -> Request:
        if most_commas is not None and len(body) > _LARGE_BYTES and body.count(b",", 0, header_bytes) > most_commas:
            raise BadRequestError("body", f"has more values than {limits.rows:,} rows of {width} columns")
        request = _json_of(body, header_bytes)
        inputs = request.get("inputs")
        if type(inputs) is not list or not inputs:
            raise BadRequestError("inputs", "must be a list with at least one input")
        tensors = _tensors(inputs, memoryview(body)[header_bytes:] if header_bytes is not None else None)
        if as_tensor and len(tensors) == 1 and tensors[0].name == ROWS:
            numbers = matrix(tensors[0], width, limits)
            batch = Batch(numbers, _NO_TEXTS if len(numbers) == 1 else np.empty((len(numbers), 0), dtype=object))
        else:
            named = _by_name(tensors, columns)
            rows = {row_count(tensor, limits) for tensor in named.values()}
            if len(rows) > 1:
                raise BadRequestError("inputs", f"have different numbers of rows: {sorted(rows)[:5]}")
            count = rows.pop()
            values = {name: column_values(columns[name], tensor, count, limits) for name, tensor in named.items()}
            batch = Batch(
                numbers=_joined([values[name] for name in number_names], count, float),
                texts=_joined([values[name] for name in text_names], count, object),
            )
        usual = in_bytes if "parameters" in request and _parameter(request, "", ALL_BINARY, bool, False) else in_json
        return Request(batch, _request_id(request), _asked_outputs(request, usual) if "outputs" in request else usual)

    return read


def encode_response(prediction: Prediction, signature: Signature, model: str) -> bytes:
    """The body of the answer to a request.

    Classification: `label` (BYTES, [n]) and `probabilities` (FP64, [n, classes]); regression: `value` (FP64, [n]).
    Raises BadRequestError on a prediction that is not finite: `null` would pass for an answer.
    """
    outputs = {str(output["name"]): False for output in _outputs_metadata(signature)}
    return response_writer(signature, model)(prediction, None, outputs).body


def response_writer(
    signature: Signature, model: str, version: str | None = None
) -> Callable[[Prediction, str | None, Mapping[str, bool]], Answer]:
    """`encode_response` for many predictions of one model, with a request's id and the outputs it asked for."""
    classes = signature.classes
    labels_in_bytes = [text_in_bytes(label) for label in classes]
    named: dict[str, Any] = {"model_name": model} | ({"model_version": version} if version is not None else {})

    def write(prediction: Prediction, request_id: str | None, asked: Mapping[str, bool]) -> Answer:
        # All of it, whatever is asked for: a label of a model that answers no number is no answer either.
        numbers = prediction.values if prediction.probabilities is None else prediction.probabilities
        if not _all_finite(numbers):
            # Told as the client's doing: what fails on everything does not answer its own example, and is not served.
            row = int(np.argmin(np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1)))
            raise BadRequestError("inputs", f"the model's prediction is not a finite number, of row {row}")
        count = len(prediction.values)
        outputs: list[dict[str, Any]] = []
        raw: list[bytes] = []
        for name, in_bytes in asked.items():
            shape = [count, len(classes)] if name == PROBABILITIES else [count]
            output: dict[str, Any] = {"name": name, "datatype": "BYTES" if name == LABEL else "FP64", "shape": shape}
            places = prediction.values.astype(np.intp).tolist() if name == LABEL else []
            if in_bytes:
                of_labels = [labels_in_bytes[place] for place in places]
                raw.append(b"".join(of_labels) if name == LABEL else np.asarray(numbers, "<f8").tobytes())
                output["parameters"] = {BINARY_SIZE: len(raw[-1])}
            else:
                output["data"] = [classes[place] for place in places] if name == LABEL else numbers.ravel().tolist()
            outputs.append(output)
        answer = {**named, "outputs": outputs}
        if request_id is not None:
            answer["id"] = request_id
        header = orjson.dumps(answer)
        return Answer(b"".join([header, *raw]), len(header)) if raw else Answer(header)

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


def metadata(signature: Signature, model: str, version: str | None = None) -> dict[str, Any]:
    """What `GET /v2/models/{name}` answers: inputs and outputs, and the columns as the user knows them."""
    if _numbers_only(signature):
        inputs = [{"name": ROWS, "datatype": "FP64", "shape": [-1, len(signature.columns)]}]
    else:
        inputs = [
            {"name": column.name, "datatype": DATATYPES[column.kind][0], "shape": [-1]} for column in signature.columns
        ]
    return {
        "name": model,
        "versions": [version] if version is not None else [],
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


def _json_of(body: bytes, header_bytes: int | None) -> dict[str, Any]:
    if header_bytes is not None and header_bytes > len(body):
        raise BadRequestError("body", f"ends before the {header_bytes:,} bytes of JSON that a header states")
    try:
        request = orjson.loads(body if header_bytes is None else memoryview(body)[:header_bytes])
    except orjson.JSONDecodeError as error:
        raise BadRequestError("body", f"not JSON: {error}") from error
    if type(request) is not dict:
        raise BadRequestError("body", "must be a JSON object")
    return request


def _tensors(inputs: Sequence[Any], raw: memoryview | None) -> list[Tensor]:
    """Each input with its bytes, where it has some behind the JSON."""
    tensors = []
    at = 0
    for place, given in enumerate(inputs):
        name = given.get("name") if type(given) is dict else None
        if type(name) is not str:
            raise BadRequestError(f"inputs[{place}]", "must be an object with a name")
        size = _parameter(given, shown(name), BINARY_SIZE, int, None) if "parameters" in given else None
        if size is None:
            tensors.append(Tensor(name, given))
            continue
        if "data" in given:
            raise BadRequestError(shown(name), f"has data and a {BINARY_SIZE}, and only one of them can be meant")
        if raw is None or not 0 <= size <= len(raw) - at:
            raise BadRequestError(shown(name), f"its {size:,} bytes of data are not behind the JSON")
        tensors.append(Tensor(name, given, raw[at : at + size]))
        at += size
    if raw is not None and at != len(raw):
        raise BadRequestError("body", f"has {len(raw) - at:,} bytes that are no input's")
    return tensors


def _parameter(of: dict[str, Any], field: str, name: str, kind: type, otherwise: Any) -> Any:
    """A parameter of a request, an input or an output."""
    given = of.get("parameters")
    if given is None:
        return otherwise
    place = f"{field}: parameters".removeprefix(": ")
    if type(given) is not dict:
        raise BadRequestError(place, "must be an object")
    for other in _OTHER_EXTENSIONS:
        if other in given:
            raise BadRequestError(place, f"{other} is an extension that this server does not have")
    value = given.get(name, otherwise)
    if name in given and type(value) is not kind:
        raise BadRequestError(place, f"{name} must be {'true or false' if kind is bool else 'a whole number'}")
    return value


def _by_name(tensors: Sequence[Tensor], columns: dict[str, Column]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for tensor in tensors:
        name = tensor.name
        if name in named:
            raise BadRequestError(shown(name), "is given twice")
        if name not in columns:
            known = "only its columns" if len(columns) > 20 else ", ".join(columns)
            raise BadRequestError(shown(name), f"is no column of this model, which takes {known}")
        named[name] = tensor
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


def _asked_outputs(request: dict[str, Any], usual: dict[str, bool]) -> Mapping[str, bool]:
    """The outputs that are wanted, and whether in bytes; `usual` where a request does not say."""
    asked = request.get("outputs")
    if asked is None or asked == []:
        return usual
    if type(asked) is not list or not all(type(output) is dict and type(output.get("name")) is str for output in asked):
        raise BadRequestError("outputs", "must be a list of objects with a name")
    wanted: dict[str, bool] = {}
    for output in asked:
        name = output["name"]
        if name not in usual:
            raise BadRequestError("outputs", f"{shown(name)} is no output of this model: {', '.join(sorted(usual))}")
        if name in wanted:
            raise BadRequestError("outputs", f"{shown(name)} is asked for twice")
        wanted[name] = _parameter(output, "outputs", BINARY, bool, usual[name])
    return wanted


def _all_finite(numbers: NDArray[np.float64]) -> bool:
    # A sum of finite numbers may not be one; a sum that is finite has only such. NumPy's way takes some microseconds
    # however few they are.
    is_known = numbers.size <= _FEW and math.isfinite(sum(numbers.ravel().tolist()))
    return is_known or bool(np.isfinite(numbers).all())


def _answered(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: has an answer that is not a finite number")
    return values
