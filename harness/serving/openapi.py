"""The description of a server in the words of OpenAPI 3.1.

In: models. Out: `openapi`, the document. Requests are described as far as JSON Schema can: that data has as many values
as a shape says is beyond it.
"""

from collections.abc import Sequence
from typing import Any

import harness
from harness.serving.protocol import metadata
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
_OF_PAGES = ("401", "405", "431")
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2}
_VALUES = {
    "number": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "category": {"type": ["string", "null"]},
    "date": {"type": ["string", "null"]},
}


def openapi(models: Sequence[Model]) -> dict[str, Any]:
    """The document of a server with these models."""
    paths: dict[str, Any] = {
        "/v2/health/live": _page("Whether the server runs.", {"live": {"const": True}}),
        "/v2/health/ready": _page("Whether it answers for its models.", {"ready": {"const": True}}),
        "/v2": _page(
            "What the server is.",
            {"name": {"type": "string"}, "version": {"type": "string"}, "extensions": {"type": "array"}},
        ),
        "/metrics": {
            "get": {
                "summary": "Figures for Prometheus.",
                "responses": {
                    "200": {"description": "Figures.", "content": {"text/plain": {}}},
                    **_refusals(_OF_PAGES),
                },
            }
        },
    }
    for model in models:
        path = f"/v2/models/{model.name}"
        paths[path] = _page("What the model takes and answers.", {"name": {"const": model.name}})
        paths[f"{path}/ready"] = _page("Whether the model answers.", {"ready": {"const": True}})
        paths[f"{path}/infer"] = {"post": _infer(model)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Models served by automl-harness", "version": harness.__version__},
        "paths": paths,
        "components": {
            "schemas": {
                "error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                    "additionalProperties": False,
                }
            }
        },
    }


def _page(summary: str, properties: dict[str, Any]) -> dict[str, Any]:
    said = {"type": "object", "properties": properties, "required": list(properties)}
    answers = {"200": {"description": summary, "content": {"application/json": {"schema": said}}}}
    return {"get": {"summary": summary, "responses": {**answers, **_refusals(_OF_PAGES)}}}


def _infer(model: Model) -> dict[str, Any]:
    stated = metadata(model.signature, model.name, model.version)
    output = {
        "type": "object",
        "properties": {
            "name": {"enum": [one["name"] for one in stated["outputs"]]},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array"},
        },
        "required": ["name", "datatype", "shape"],
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
        "requestBody": {"required": True, "content": {"application/json": {"schema": _request(model, stated)}}},
        "responses": {
            "200": {"description": "The answers.", "content": {"application/json": {"schema": answer}}},
            **_refusals(tuple(_REFUSALS)),
        },
    }


def _request(model: Model, stated: dict[str, Any]) -> dict[str, Any]:
    names = [one["name"] for one in stated["inputs"]]
    kinds = {column.name: column.kind for column in model.signature.columns}
    inputs = [_input(name, kinds.get(name, "number")) for name in names]
    asked = {
        "type": "object",
        "properties": {"name": {"enum": [one["name"] for one in stated["outputs"]]}},
        "required": ["name"],
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {
                "type": "array",
                "prefixItems": inputs,
                "items": False,
                "minItems": len(inputs),
                "maxItems": len(inputs),
            },
            "outputs": {"type": "array", "items": asked},
        },
        "required": ["inputs"],
    }


def _input(name: str, kind: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": name},
            "datatype": {"enum": list(DATATYPES[kind])},
            "shape": _SHAPE,
            "data": {"type": "array", "items": _VALUES[kind]},
        },
        "required": ["name", "datatype", "shape", "data"],
    }


def _refusals(statuses: Sequence[str]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}}
    return {status: {"description": _REFUSALS[status], "content": content} for status in statuses}
