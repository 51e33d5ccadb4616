"""The scenario format as a page, made from the models that read it.

In: the models of `records.scenario`. Out: `scenario_reference`, Markdown with a table per model; `scenarios/README.md`
is its committed copy.
"""

import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.records.scenario import Scenario
from harness.store.scenarios import models_in

_INTRODUCTION = """\
# Scenarios

A scenario is one question to the harness, as a TOML file. This page is made from the models that read it
(`harness list keys`), so it says what the program does. An unknown key is an error, and so is a value of another type.

| file | question |
|---|---|
| `smoke.toml` | Does every stage work on this machine? Under a minute. |
| `stall.toml` | Does a server that stalls look fast? To closed load, but not to open load: its gate fails. |
| `quickstart.toml` | Which model should serve the breast-cancer table, and how much can one core carry? |
| `digits.toml` | The same for a multiclass table of images. |
| `diabetes.toml` | The same for a regression. |
| `batching.toml` | What does it bring to compute requests together, and what does it cost? |
| `automl-quick.toml` | Which engine finds the best model in a few seconds? Six tables, four engines, two seeds. |
| `automl-scale.toml` | What does a further worker buy, and how do time and memory grow with rows and columns? |

`harness check FILE` reads and checks the tables of a scenario, prints its plan, and runs nothing; `--set
search.trials=5` changes one key for one run, and `--set serve.0.replicas=[1,2]` one in a list of tables. A run folder
keeps the scenario's text as it was run."""


def scenario_reference() -> str:
    """The scenario format in Markdown, a table per model."""
    parts = [_INTRODUCTION]
    parts += _reference_of(Scenario, "", "The top level")
    return "\n".join(parts) + "\n"


def _reference_of(model: type[BaseModel], path: str, title: str) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield f"{(model.__doc__ or '').strip()}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    inner: list[tuple[str, FieldInfo, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        nested = next(models_in(field.annotation), None)
        if nested is not None:
            inner.append((name, field, nested))
        default = "required" if field.is_required() else _default(field)
        meaning = field.description or f"see `{path}{name}` below"
        yield f"| `{name}` | {_type_name(field.annotation)} | {default} | {meaning} |"
    for name, field, nested in inner:
        is_list = "tuple" in str(field.annotation)
        place = f"{path}{name}.NAME" if "dict" in str(field.annotation) else f"{path}{name}"
        heading = f"`[[{place}]]`" if is_list else f"`[{place}]`"
        yield from _reference_of(nested, f"{place}.", heading)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, BaseModel):
        return "the defaults below"
    return f"`{json.dumps(value)}`"


_PLAIN_TYPES: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false"}


def _type_name(annotation: Any) -> str:
    if annotation in _PLAIN_TYPES:
        return _PLAIN_TYPES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type_name(part) for part in arguments if part is not type(None))
    if origin is tuple:
        inner = _type_name(arguments[0])
        return "list of tables" if inner == "table" else f"list of {inner}s"
    return "table"
