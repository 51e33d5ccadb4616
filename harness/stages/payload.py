"""Payload: the bodies that a server of the user's own is asked with, out of the user's files.

In: a `RequestsPlan`, the folder its paths are relative to, the rows per request, and where the protocol asks for them
the inputs that the model states. Out: `Requests`. What cannot be read or does not fit the model is refused here, with
what to do about it.
"""

import csv
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from harness.errors import UsageError, did_you_mean, one_line
from harness.records.load import Head
from harness.records.scenario import RequestsPlan
from harness.stages.validate import PAYLOADS, PAYLOADS_BYTES

Row = dict[str, Any]

_WHOLE = ("INT", "UINT")


@dataclass(frozen=True, slots=True)
class Requests:
    """What to send, again and again."""

    bodies: tuple[bytes, ...]
    head: Head
    sha256: str
    """Digest of the bodies and of what the plan says of them; a token is not in it."""
    locustfile: Path | None = None
    """Whose users make the requests in place of the bodies."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A tensor that a model of the Open Inference Protocol v2 takes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    """Of a tensor of several columns: their names, where the server says them."""


def head_of(plan: RequestsPlan, folder: Path) -> Head:
    """What all requests have in common. Raises UsageError where a token or a certificate file is missing."""
    headers = dict(plan.headers)
    for name, value in headers.items():
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum() or not value.isprintable():
            raise UsageError(f"requests.headers: {name!r} = {value[:40]!r} is no header that HTTP can carry.")
        if not value.isascii():
            raise UsageError(f"requests.headers: the value of {name} has characters that HTTP headers cannot carry.")
        if name.lower() in ("host", "content-length", "connection", "transfer-encoding"):
            raise UsageError(f"requests.headers: {name} is made from the address and the body; leave it out.")
    has_body = plan.payload is not None or plan.template is not None
    if has_body and "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = "application/json"
    if plan.bearer_env is not None:
        token = os.environ.get(plan.bearer_env, "").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise UsageError(
                f"The environment variable {plan.bearer_env}, which is to hold the bearer token, "
                + ("is not set." if not token else "holds what no header can carry.")
            )
        headers["Authorization"] = f"Bearer {token}"
    ca_file = None
    if plan.ca_file is not None:
        path = folder / plan.ca_file
        if not path.is_file():
            raise UsageError(f"There is no file of certificates {path}: looked for it in {path.parent.resolve()}.")
        ca_file = str(path.resolve())
    return Head(method=plan.method or ("POST" if has_body else "GET"), headers=tuple(headers.items()), ca_file=ca_file)


def read_requests(plan: RequestsPlan, folder: Path, rows: int, inputs: Sequence[ModelInput] = ()) -> Requests:
    """The requests of a plan, each of `rows` rows; `inputs` are those of the model where the protocol is `v2`.

    The rows of the file are taken in order, and from its beginning again until the last request is full; of a long
    file as many as `PAYLOADS` requests and `PAYLOADS_BYTES` hold. Raises UsageError.
    """
    head = head_of(plan, folder)
    template = _template(folder / plan.template) if plan.template is not None else None
    found = _rows(folder / plan.payload) if plan.payload is not None else [{}]
    if plan.protocol == "v2" and plan.payload is None:
        raise UsageError("The protocol v2 sends rows: give `payload`, a .csv file or JSON lines.")
    if plan.protocol == "v2" and template is not None:
        raise UsageError("The protocol v2 makes the bodies itself, so `template` has no place beside it.")
    if plan.payload is None and template is None:
        bodies: list[bytes] = [b""]
    else:
        bodies = []
        size_bytes = 0
        for start in range(0, min(len(found), PAYLOADS * rows), rows):
            portion = [found[(start + place) % len(found)] for place in range(rows)]
            body = _body(portion, template, plan, inputs, start)
            size_bytes += len(body)
            if bodies and size_bytes > PAYLOADS_BYTES:
                break
            bodies.append(body)
    said = json.dumps(plan.model_dump(mode="json"), sort_keys=True).encode()
    digest = hashlib.sha256(said)
    for body in bodies:
        digest.update(len(body).to_bytes(8, "big") + body)
    return Requests(bodies=tuple(bodies), head=head, sha256=digest.hexdigest())


def _body(
    portion: Sequence[Row],
    template: jinja2.Template | None,
    plan: RequestsPlan,
    inputs: Sequence[ModelInput],
    start: int,
) -> bytes:
    where = f"row {start + 1} of {plan.payload}" if plan.payload else "the request"
    if template is not None:
        try:
            return template.render({**portion[0], "rows": portion}).encode()
        except (jinja2.TemplateError, TypeError, ValueError, ZeroDivisionError) as error:
            known = ", ".join(portion[0]) or "none"
            raise UsageError(
                f"The template {plan.template} cannot be filled for {where}: {one_line(error)}. "
                f"The fields there are: {known}."
            ) from None
    if plan.protocol == "v2":
        return _v2_body(portion, inputs, where)
    return json.dumps(portion[0] if len(portion) == 1 else list(portion), separators=(",", ":")).encode()


def _template(path: Path) -> jinja2.Template:
    # Rendered ahead of the load, and by the one who wrote it: no sandbox is needed, and no escaping wanted.
    surroundings = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=False)
    try:
        return surroundings.from_string(_text(path, "template"))
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"The template {path} is not Jinja: line {error.lineno}: {error.message}.") from None


def _text(path: Path, what: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        there = [beside.name for beside in path.parent.glob("*") if beside.is_file()]
        hint = did_you_mean(path.name, there, "paths are relative to the scenario file.")
        raise UsageError(f"There is no {what} {path}; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The {what} {path} cannot be read as UTF-8: {error}.") from None


def _rows(path: Path) -> list[Row]:
    text = _text(path, "payload")
    rows = list(_csv_rows(text, path)) if path.suffix.lower() == ".csv" else list(_json_rows(text, path))
    if not rows:
        raise UsageError(f"The payload {path} has no rows: bring at least one.")
    return rows


def _csv_rows(text: str, path: Path) -> Iterator[Row]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        if not any(name.strip() for name in header):
            raise UsageError(f"The payload {path} is empty: bring a header and at least one row.")
        if len(set(header)) != len(header) or "" in header:
            raise UsageError(f"The header of the payload {path} has a name twice, or none for a column: {header}.")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise UsageError(
                    f"Line {reader.line_num} of the payload {path} has {len(fields)} fields, and its header "
                    f"{len(header)}."
                )
            yield {name: _value(field) for name, field in zip(header, fields, strict=True)}
    except csv.Error as error:
        raise UsageError(f"Line {reader.line_num} of the payload {path} is not CSV: {error}.") from None


def _value(field: str) -> Any:
    """A field of a CSV file as JSON would have it: a number where it is written as one, null where it is empty."""
    if field == "":
        return None
    if field in ("true", "false"):
        return field == "true"
    try:
        value = json.loads(field)
    except ValueError:
        return field
    return value if type(value) in (int, float) and abs(value) < float("inf") else field


def _json_rows(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(
                f"Line {number} of the payload {path} is not JSON: {error}. A payload is a .csv file, or one JSON "
                "object a line."
            ) from None
        if type(row) is not dict:
            raise UsageError(f"Line {number} of the payload {path} is no JSON object but {line.strip()[:40]!r}.")
        yield row


def _v2_body(portion: Sequence[Row], inputs: Sequence[ModelInput], where: str) -> bytes:
    tensor = inputs[0] if len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].shape[1] != 1 else None
    if tensor is not None and tensor.name not in portion[0]:
        names = tensor.columns or tuple(portion[0])
        width = tensor.shape[1]
        if width not in (-1, len(names)):
            raise UsageError(f"The model takes rows of {width} values, and {where} has {len(names)}.")
        _refuse_other_columns(portion, names, where)
        data = [_typed(row[name], tensor.datatype, name, where) for row in portion for name in names]
        tensors = [_tensor(tensor, [len(portion), len(names)], data)]
    else:
        _refuse_other_columns(portion, [each.name for each in inputs], where)
        tensors = [
            _tensor(
                each,
                [len(portion), *([1] if len(each.shape) == 2 else [])],
                [_typed(row[each.name], each.datatype, each.name, where) for row in portion],
            )
            for each in inputs
        ]
    return json.dumps({"inputs": tensors}, separators=(",", ":")).encode()


def _tensor(stated: ModelInput, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": stated.name, "datatype": stated.datatype, "shape": shape, "data": data}


def _refuse_other_columns(portion: Sequence[Row], names: Sequence[str], where: str) -> None:
    for row in portion:
        missing = [name for name in names if name not in row]
        strange = [name for name in row if name not in names]
        if missing or strange:
            told = [f"it lacks {', '.join(missing[:5])}"] if missing else []
            told += [f"it has {', '.join(strange[:5])}, which the model does not know"] if strange else []
            takes = ", ".join(itertools.islice(names, 20))
            raise UsageError(f"The columns of {where} are not the model's: {'; '.join(told)}. It takes: {takes}.")


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
