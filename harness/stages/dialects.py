"""Dialects: how rows travel to a server of the user's own, and what counts there as an answer.

In: a protocol by name, the user's rows, and what the server states of its model, where it states that. Out: the bodies
of requests, and whether a first answer is one. What does not fit the model is refused here, with what to do about it.

Sources: the Open Inference Protocol v2 (`inference_rest.yaml`); MLServer's documentation of content types;
MLflow's of its scoring server; and the page `/docs.json` that every BentoML service has.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.records.words import Protocol

Row = dict[str, Any]

Write = Callable[[Sequence[Row], str], Any]
"""The body of a request as JSON would have it: its rows, and where they stand for whoever reads a refusal."""

_WHOLE = ("INT", "UINT")
_FIRST = "the first row"
_MATRIX = "input-0"
"""What MLServer's own client calls an input that has no name."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A tensor that a model of the Open Inference Protocol v2 takes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    """Of a tensor of several columns: their names, where somebody says them."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a call of a BentoML service takes, by name."""

    required: tuple[str, ...]
    known: tuple[str, ...]
    kinds: Mapping[str, str]
    """Of each: `rows` (a list of objects, as a data frame is), `matrix` (a list of lists), `row` (one object), or
    `value`."""


Stated = tuple[ModelInput, ...] | Arguments | None
"""What a server says of its model; None: its protocol has no words for it."""


def writer(protocol: Protocol, rows: Sequence[Row], stated: Stated = None) -> Write:
    """How the rows of a request become its body; `rows` are all that there are, of which kinds may be read off."""
    if protocol == "v2":
        assert isinstance(stated, tuple)
        return lambda portion, where: _v2(portion, stated, where)
    if protocol == "v2:np":
        matrix = (ModelInput(_MATRIX, "FP64", (-1, -1), tuple(rows[0])),)
        return lambda portion, where: _v2(portion, matrix, where) | {"parameters": {"content_type": "np"}}
    if protocol == "v2:pd":
        columns = _columns_of(rows)
        return lambda portion, where: _v2_frame(portion, columns, where)
    if protocol == "bentoml":
        assert isinstance(stated, Arguments)
        return lambda portion, where: _called(portion, stated, tuple(rows[0]), where)
    if protocol == "plain":
        return lambda portion, _: portion[0] if len(portion) == 1 else list(portion)
    names = tuple(rows[0])
    field = protocol.partition(":")[2] or "dataframe_split"
    return lambda portion, where: {field: _mlflow(portion, field, names, where)}


def refuse_no_answer(protocol: Protocol, answer: bytes) -> None:
    """Raises ValueError where what came with a success is no answer by the protocol.

    How many rows an answer is of is not asked: a model may well answer one row with a week of forecasts.
    """
    field = "outputs" if protocol.startswith("v2") else "predictions" if protocol.startswith("mlflow") else None
    if field is None:
        return
    try:
        found = json.loads(answer)
    except ValueError:
        raise ValueError("it is not JSON") from None
    if type(found) is not dict or field not in found:
        raise ValueError(f"it has no `{field}`")
    if field == "outputs" and not found[field]:
        raise ValueError("its `outputs` are empty")


def model_inputs(metadata: Mapping[str, Any]) -> tuple[ModelInput, ...]:
    """The inputs in the metadata of a model, the answer to `GET /v2/models/NAME`. Raises ValueError on any other."""
    stated = metadata.get("inputs")
    if type(stated) is not list or not stated:
        raise ValueError("it states no inputs")
    parameters = metadata.get("parameters")
    columns = parameters.get("columns") if type(parameters) is dict else None
    names = [str(one["name"]) for one in columns if type(one) is dict and "name" in one] if columns else []
    try:
        return tuple(
            ModelInput(
                name=str(one["name"]),
                datatype=str(one["datatype"]),
                shape=tuple(int(size) for size in one["shape"]),
                columns=tuple(names) if len(stated) == 1 else (),
            )
            for one in stated
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"an input lacks its name, datatype or shape ({type(error).__name__}: {error})") from None


def service_arguments(document: Mapping[str, Any], path: str) -> Arguments:
    """The arguments of a call, from what a service states at `/docs.json`. Raises ValueError where it has no such."""
    calls = {name: one["post"] for name, one in document.get("paths", {}).items() if "post" in one}
    if path not in calls:
        raise ValueError(f"it has no POST {path}, but {', '.join(sorted(calls)) or 'nothing that could be loaded'}")
    try:
        schema = _resolved(calls[path]["requestBody"]["content"]["application/json"]["schema"], document)
        properties = {str(name): _resolved(one, document) for name, one in schema["properties"].items()}
        return Arguments(
            required=tuple(map(str, schema.get("required", ()))),
            known=tuple(properties),
            kinds={name: _kind(one, document) for name, one in properties.items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"POST {path} takes no JSON object ({type(error).__name__}: {error})") from None


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    assert isinstance(found, Mapping)
    return found


def _kind(schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    if schema.get("type") == "object":
        return "row"
    if schema.get("type") != "array":
        return "value"
    # Of an array of numpy whose shape nobody states, the service says no more than that it holds numbers.
    return "rows" if _resolved(schema.get("items", {}), document).get("type") == "object" else "matrix"


def _called(portion: Sequence[Row], stated: Arguments, names: tuple[str, ...], where: str) -> Any:
    """The rows as the one argument of a call; where its arguments are the columns, the one row."""
    if set(stated.required) <= set(names) <= set(stated.known):
        if len(portion) > 1:
            raise UsageError("The service takes one row a call, by its columns, so `rows` of [load] can only be 1.")
        return portion[0]
    wanted = stated.required or stated.known
    kind = stated.kinds[wanted[0]] if len(wanted) == 1 else "value"
    if kind == "value":
        raise UsageError(
            f"The service's call takes {', '.join(stated.known) or 'nothing'}, and {where} has "
            f"{', '.join(itertools.islice(names, 20))}. Rows can be sent as one argument (a data frame, an array, a "
            "list of objects), or as arguments that are the columns; for all else there is `template`."
        )
    if kind == "row" and len(portion) > 1:
        raise UsageError("The service takes one row a call, so `rows` of [load] can only be 1.")
    if kind == "matrix":
        _refuse_other_columns(portion, names, where, _FIRST)
        return {wanted[0]: _values(portion, names)}
    return {wanted[0]: portion[0] if kind == "row" else list(portion)}


def _mlflow(portion: Sequence[Row], field: str, names: tuple[str, ...], where: str) -> Any:
    if field == "dataframe_records":
        return list(portion)
    _refuse_other_columns(portion, names, where, _FIRST)
    values = _values(portion, names)
    return {"columns": list(names), "data": values} if field == "dataframe_split" else values


def _values(portion: Sequence[Row], names: Sequence[str]) -> list[list[Any]]:
    return [[row[name] for name in names] for row in portion]


def _columns_of(rows: Sequence[Row]) -> tuple[ModelInput, ...]:
    """An input per column of all rows, so that one that has a hole, or a fraction, in one row is no other elsewhere."""
    return tuple(ModelInput(name, _datatype(name, {type(row.get(name)) for row in rows}), (-1, 1)) for name in rows[0])


def _datatype(name: str, kinds: set[type]) -> str:
    if kinds == {bool, type(None)}:
        raise UsageError(f"{name} of the payload has holes among true and false, where v2:pd has none: write 1 and 0.")
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    # pandas has no whole numbers with a hole among them, and MLServer answers such a column by a failure.
    return "FP64" if kinds <= {int, float, type(None)} else "BYTES"


def _v2_frame(portion: Sequence[Row], columns: Sequence[ModelInput], where: str) -> Any:
    body = _v2(portion, columns, where)
    for tensor in body["inputs"]:
        if tensor["datatype"] == "BYTES":
            tensor["parameters"] = {"content_type": "str"}  # or the model would be given bytes
    return body | {"parameters": {"content_type": "pd"}}


def _v2(portion: Sequence[Row], inputs: Sequence[ModelInput], where: str) -> dict[str, Any]:
    tensor = inputs[0] if len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].shape[1] != 1 else None
    if tensor is not None and tensor.name not in portion[0]:
        names = tensor.columns or tuple(portion[0])
        width = tensor.shape[1]
        if width not in (-1, len(names)):
            raise UsageError(f"The model takes rows of {width} values, and {where} has {len(names)}.")
        _refuse_other_columns(portion, names, where)
        data = [_typed(row[name], tensor.datatype, name, where) for row in portion for name in names]
        return {"inputs": [_tensor(tensor, [len(portion), len(names)], data)]}
    _refuse_other_columns(portion, [each.name for each in inputs], where)
    return {
        "inputs": [
            _tensor(
                each,
                [len(portion), *([1] if len(each.shape) == 2 else [])],
                [_typed(row[each.name], each.datatype, each.name, where) for row in portion],
            )
            for each in inputs
        ]
    }


def _tensor(stated: ModelInput, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": stated.name, "datatype": stated.datatype, "shape": shape, "data": data}


def _refuse_other_columns(portion: Sequence[Row], names: Sequence[str], where: str, whose: str = "the model") -> None:
    for row in portion:
        missing = [name for name in names if name not in row]
        strange = [name for name in row if name not in names]
        if missing or strange:
            told = [f"it lacks {', '.join(missing[:5])}"] if missing else []
            told += [f"it has {', '.join(strange[:5])}, which {whose} does not have"] if strange else []
            those = ", ".join(itertools.islice(names, 20))
            raise UsageError(
                f"The columns of {where} are not those of {whose}: {'; '.join(told)}. Those of {whose} are: {those}."
            )


def _typed(value: Any, datatype: str, name: str, where: str) -> Any:
    if value is None:
        return None
    if datatype == "BYTES":
        return value if type(value) is str else json.dumps(value)
    if datatype == "BOOL":
        sound = type(value) is bool
    elif datatype.startswith(_WHOLE):
        sound = type(value) is int
    else:
        sound = type(value) in (int, float)
    if not sound:
        raise UsageError(f"{name} of {where} is {json.dumps(value)[:40]}, and the model takes {datatype} there.")
    return value
