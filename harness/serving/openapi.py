"""The description of a server in the words of OpenAPI 3.1.

In: models, and whether a token is wanted. Out: `openapi`, the document, and `model_paths`, where a model is found.
Requests are described as far as JSON Schema can: it refuses nothing that the server takes, and takes some that it
refuses, for that data has as many values as a shape says is beyond it. Tensors in bytes are told in words: no schema
looks behind the JSON of a body.
"""

from collections.abc import Sequence
from typing import Any

import orjson

import harness
from harness.serving.protocol import ALL_BINARY, BINARY, BINARY_SIZE, ROWS, metadata
from harness.serving.tensors import DATATYPES
from harness.serving.work import Model

_REFUSALS = {
    "400": "The request is wrong; the error names the field.",
    "401": "The server wants a bearer token.",
    "404": "There is no such model, version or path.",
    "405": "Another method is meant.",
    "408": "The request took too long to send.",
    "413": "The body is larger than the server takes.",
    "415": "The body is compressed in a way that the server does not know.",
    "431": "The headers are more, or larger, than the server takes.",
    "500": "The model failed on this request.",
    "503": "Too many requests are waiting; `Retry-After` says for how long.",
}
_OBJECT = {"type": "object"}
_ROWS = {"type": "integer", "minimum": 1}
_JSON_LENGTH = "Inference-Header-Content-Length"
_IN_BYTES = (
    f"In `application/octet-stream` the JSON comes first, and `{_JSON_LENGTH}` says how many bytes it has. An input "
    f"may have `parameters.{BINARY_SIZE}` in place of `data`, and so many bytes behind the JSON, in the order of the "
    "inputs: numbers little-endian, row by row, a boolean in one byte, before each text its length in four. A body may "
    "be compressed (`Content-Encoding: gzip` or `deflate`)."
)
_OF_ANSWERS = (
    f"The answers. Those that were asked for in bytes (`{BINARY}` or `{ALL_BINARY}`) are `application/octet-stream`, "
    "with their bytes behind the JSON."
)

_VALUES = {
    "number": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "category": {"type": ["string", "null"]},
    "date": {"type": ["string", "null"]},
}


def openapi(models: Sequence[Model], with_token: bool = False) -> dict[str, Any]:
    """The document of a server with these models; `with_token` where it wants one."""
    of_pages = _refusals(("405", "431"), with_token)
    paths: dict[str, Any] = {
        "/": _other("The models, and how to ask them, for people.", "text/html", of_pages),
        "/openapi.json": _page("This description.", {"openapi": {"type": "string"}, "paths": _OBJECT}, of_pages),
        "/metrics": _other("Figures for Prometheus.", "text/plain", of_pages),
        "/v2/health/live": _open(_page("Whether the server runs.", {"live": {"const": True}}, of_pages)),
        "/v2/health/ready": _open(_page("Whether it answers for its models.", {"ready": {"const": True}}, of_pages)),
        "/v2": _page(
            "What the server is.",
            {"name": {"type": "string"}, "version": {"type": "string"}, "extensions": {"type": "array"}},
            of_pages,
        ),
    }
    for model in models:
        for path in model_paths(model):
            paths[path] = _page("What the model takes and answers.", {"name": {"const": model.name}}, of_pages)
            paths[f"{path}/ready"] = _page("Whether the model answers.", {"ready": {"const": True}}, of_pages)
            paths[f"{path}/infer"] = {"post": _infer(model, with_token)}
    bearer = {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}} if with_token else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Models served by automl-harness", "version": harness.__version__},
        "paths": paths,
        **({"security": [{"bearer": []}]} if with_token else {}),
        "components": {
            **bearer,
            "schemas": {
                "error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                    "additionalProperties": False,
                }
            },
        },
    }


def model_paths(model: Model) -> tuple[str, ...]:
    """Where a model is found: by its name, and by its version where it has one."""
    path = f"/v2/models/{model.name}"
    return (path,) if model.version is None else (path, f"{path}/versions/{model.version}")


def _page(summary: str, properties: dict[str, Any], refusals: dict[str, Any]) -> dict[str, Any]:
    said = {"type": "object", "properties": properties, "required": list(properties)}
    answers = {"200": {"description": summary, "content": {"application/json": {"schema": said}}}}
    return {"get": {"summary": summary, "responses": {**answers, **refusals}}}


def _other(summary: str, media_type: str, refusals: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": {"description": summary, "content": {media_type: {}}}}
    return {"get": {"summary": summary, "responses": {**answers, **refusals}}}


def _open(path: dict[str, Any]) -> dict[str, Any]:
    """The same for a path that nobody needs a token for."""
    responses = {status: said for status, said in path["get"]["responses"].items() if status != "401"}
    return {"get": {**path["get"], "responses": responses, "security": []}}


def _infer(model: Model, with_token: bool) -> dict[str, Any]:
    stated = metadata(model.signature, model.name, model.version)
    length = {"schema": {"type": "integer", "minimum": 0}, "description": "Of the JSON, where bytes follow it."}
    output = {
        "type": "object",
        "properties": {
            "name": {"enum": [one["name"] for one in stated["outputs"]]},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array"},
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    answer = {
        "type": "object",
        "properties": {
            "model_name": {"const": model.name},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": output},
        },
        "required": ["model_name", "outputs"],
    }
    return {
        "summary": "Answer for rows.",
        "parameters": [{"name": _JSON_LENGTH, "in": "header", **length}],
        "requestBody": {
            "required": True,
            "description": _IN_BYTES,
            "content": {
                "application/json": {"schema": _request(model, stated), **_example(model)},
                "application/octet-stream": {},
            },
        },
        "responses": {
            "200": {
                "description": _OF_ANSWERS,
                "headers": {
                    "Server-Timing": {"schema": {"type": "string"}, "description": "Milliseconds of each stage."},
                    _JSON_LENGTH: length,
                },
                "content": {"application/json": {"schema": answer}, "application/octet-stream": {}},
            },
            **_refusals(tuple(_REFUSALS), with_token),
        },
    }


def _example(model: Model) -> dict[str, Any]:
    """A real row, which the page for people shows to the same."""
    return {} if model.example is None else {"example": orjson.loads(model.example)}


def _request(model: Model, stated: dict[str, Any]) -> dict[str, Any]:
    columns = [_input(column.name, column.kind) for column in model.signature.columns]
    forms = [{"description": "One input per column, in any order.", **_each_once(columns)}]
    if stated["inputs"][0]["name"] == ROWS:
        told = "All columns in one tensor, row by row, in the order of the model's columns."
        forms.append({"description": told, **_each_once([_input(ROWS, "number", len(columns))])})
    asked = {
        "type": "object",
        "properties": {
            "name": {"enum": [one["name"] for one in stated["outputs"]]},
            "parameters": _parameters(BINARY),
        },
        "required": ["name"],
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"]},
            "inputs": {"anyOf": forms},
            "outputs": {"type": ["array", "null"], "items": asked},
            "parameters": _parameters(ALL_BINARY),
        },
        "required": ["inputs"],
    }


def _each_once(inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A list of these, in any order: as many as there are, and each among them."""
    each = [{"contains": {"properties": {"name": one["properties"]["name"]}, "required": ["name"]}} for one in inputs]
    items = {"items": {"anyOf": list(inputs)}, "minItems": len(inputs), "maxItems": len(inputs)}
    return {"type": "array", **items, "allOf": each}


def _parameters(name: str) -> dict[str, Any]:
    return {"type": ["object", "null"], "properties": {name: {"type": "boolean"}}}


def _input(name: str, kind: str, width: int | None = None) -> dict[str, Any]:
    """A tensor of one column, or of so many."""
    shape = [_ROWS, {"const": 1 if width is None else width}]
    row = {"type": "array", "items": _VALUES[kind], "minItems": width or 1, "maxItems": width or 1}
    return {
        "type": "object",
        "properties": {
            "name": {"const": name},
            "datatype": {"enum": list(DATATYPES[kind])},
            "shape": {
                "type": "array",
                "prefixItems": shape,
                "items": False,
                "minItems": 1 if width is None else 2,
                "maxItems": 2,
            },
            "data": {"anyOf": [{"type": "array", "items": one} for one in (_VALUES[kind], row)]},
            "parameters": {"type": ["object", "null"]},
        },
        "required": ["name", "datatype", "shape", "data"],
    }


def _refusals(statuses: Sequence[str], with_token: bool) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}}
    told = sorted({*statuses, "401"} if with_token else {*statuses} - {"401"})
    return {status: {"description": _REFUSALS[status], "content": content} for status in told}
