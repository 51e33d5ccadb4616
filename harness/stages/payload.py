"""Payload: the bodies that a server of the user's own is asked with, out of the user's files.

In: a `RequestsPlan`, the folder its paths are relative to, the rows per request, and what the server states of its
model, where the protocol has words for it. Out: `Requests`. What cannot be read is refused here, with what to do about
it; what does not fit the model, in `stages.dialects`.
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from harness.errors import UsageError, did_you_mean, one_line
from harness.records.load import Head
from harness.records.scenario import RequestsPlan
from harness.stages.dialects import Row, Stated, Write, writer
from harness.stages.validate import PAYLOADS, PAYLOADS_BYTES


@dataclass(frozen=True, slots=True)
class Requests:
    """What to send, again and again."""

    bodies: tuple[bytes, ...]
    head: Head
    sha256: str
    """Digest of the bodies and of what the plan says of them; a token is not in it."""
    locustfile: Path | None = None
    """Whose users make the requests in place of the bodies."""


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


def read_requests(plan: RequestsPlan, folder: Path, rows: int, stated: Stated = None) -> Requests:
    """The requests of a plan, each of `rows` rows.

    The rows of the file are taken in order, and from its beginning again until the last request is full; of a long
    file as many as `PAYLOADS` requests and `PAYLOADS_BYTES` hold. Raises UsageError.
    """
    head = head_of(plan, folder)
    template = _template(folder / plan.template) if plan.template is not None else None
    found = _rows(folder / plan.payload) if plan.payload is not None else [{}]
    if plan.protocol != "plain" and plan.payload is None:
        raise UsageError(f"The protocol {plan.protocol} sends rows: give `payload`, a .csv file or JSON lines.")
    if plan.protocol != "plain" and template is not None:
        raise UsageError(f"The protocol {plan.protocol} makes the bodies itself, so `template` has no place beside it.")
    if plan.payload is None and template is None:
        bodies: list[bytes] = [b""]
    else:
        write = writer(plan.protocol, found, stated)
        bodies = []
        size_bytes = 0
        for start in range(0, min(len(found), PAYLOADS * rows), rows):
            portion = [found[(start + place) % len(found)] for place in range(rows)]
            body = _body(portion, template, plan, write, start)
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
    write: Write,
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
    return json.dumps(write(portion, where), separators=(",", ":")).encode()


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
