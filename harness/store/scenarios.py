"""Scenario files: TOML in, a Scenario out, or one paragraph that names the file, the key and what was meant.

In: the path of a TOML file, and `key=value` overrides. Out: `Scenario`, and the text that a run keeps: a scenario file
too, and the same scenario for whoever reads it.
"""

import copy
import hashlib
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from harness.errors import IntegrityError, UsageError, did_you_mean
from harness.records.scenario import Scenario

_SHOWN_PROBLEMS = 5
_MAY_BE_ONE = (("data",), ("search", "workers"))
"""Lists in place of which one entry may be written."""

_SCALARS = ("bool", "int", "float", "str")
"""Where Pydantic says it looked for a `Scalar`."""


def read_scenario(path: Path, overrides: Sequence[str] = ()) -> tuple[Scenario, str]:
    """The scenario in a file with `overrides` (`search.trials=5`), and the text that a run of it keeps.

    Without overrides the text is the file's own. With some it holds the values as they were run, and below them the
    file's own text as comments. Either way it is a scenario file that gives the same scenario. Raises UsageError.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        there = sorted(beside.name for beside in path.parent.glob("*.toml"))
        hint = did_you_mean(path.name, there, "`harness list scenarios` shows those at hand.")
        raise UsageError(f"There is no scenario file {path}; {hint}") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; give the path of a scenario file, such as {path}/smoke.toml.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The scenario file {path} cannot be read: {error}.") from None
    values = _toml(text, str(path))
    for override in overrides:
        _override(values, override)
    scenario = _validated(values, str(path))
    return scenario, _as_run(path, text, values, overrides) if overrides else text


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Values with `overrides` (`opened=true`). Raises UsageError."""
    values = dict(values)
    for override in overrides:
        _override(values, override)
    return values


def made_scenario(values: dict[str, Any], where: str) -> tuple[Scenario, str]:
    """The scenario of values that came from `where` and no file, and the text that a run of it keeps."""
    return _validated(values, where), f"# Made by {where}\n\n{tomli_w.dumps(values)}"


def kept_scenario(path: Path, sha256: str) -> Scenario:
    """The scenario that a run keeps at `path`. Raises IntegrityError where the file is not the one with that digest."""
    if not path.is_file():
        raise IntegrityError(f"{path} is missing, and the run wrote it. Restore it from a copy.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise IntegrityError(f"{path} was changed since the run began; its results would answer two questions.")
    return read_scenario(path)[0]


def scenario_questions(folder: Path) -> list[tuple[Path, str]]:
    """The scenario files of a folder with their questions; of an unreadable one, what is wrong with it."""
    listed = []
    for path in sorted(folder.glob("**/*.toml")):
        try:
            listed.append((path, read_scenario(path)[0].question))
        except UsageError as error:
            listed.append((path, f"unusable: {error}"))
    return listed


def scenario_name(path: Path) -> str:
    """What a scenario is called: its file's name without the suffix, reduced to what a folder's name may hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "scenario"


def _as_run(path: Path, text: str, values: dict[str, Any], overrides: Sequence[str]) -> str:
    # Not the file with some of its lines changed: where a key lies in TOML is known to nobody but its parser.
    changes = "".join(f"  --set {json.dumps(override)}\n" for override in overrides)
    heading = _comment(f"{json.dumps(path.name)} as it was run, with\n{changes}")
    original = _comment(f"The file itself, without them:\n\n{text}")
    return f"{heading}\n{tomli_w.dumps(values)}\n{original}"


def _comment(text: str) -> str:
    return "".join(f"# {line.rstrip()}".rstrip() + "\n" for line in text.rstrip("\n").split("\n"))


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}.") from None


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {override!r} is not KEY=VALUE; write it as --set search.trials=5.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    place: Any = values
    for part in parts[:-1]:
        place = _step_into(place, part, key)
    if isinstance(place, list):
        place[_index(place, parts[-1], key)] = value
    else:
        place[parts[-1]] = value


def _step_into(place: Any, part: str, key: str) -> Any:
    found = place[_index(place, part, key)] if isinstance(place, list) else place.setdefault(part, {})
    if not isinstance(found, dict | list):
        raise UsageError(f"--set {key}: {part} is a value, not a table, in this scenario.")
    return found


def _index(place: list[Any], part: str, key: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        raise UsageError(f"--set {key}: {part} must be a position from 0 to {len(place) - 1} in this scenario's list.")
    return int(part)


def _validated(values: dict[str, Any], where: str) -> Scenario:
    try:
        # By way of JSON, where strict still takes a list for a tuple and 5 for 5.0, but never "5" for 5.
        return Scenario.model_validate_json(json.dumps(_with_lists(values), default=str), strict=True)
    except ValidationError as error:
        problems = _problems(error, values)
        more = len(problems) - _SHOWN_PROBLEMS
        told = "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
        raise UsageError(f"{where}: {told.rstrip('.')}. scenarios/README.md describes every key.") from None


def _with_lists(values: dict[str, Any]) -> dict[str, Any]:
    # Not as validators of the fields: what those return is no JSON any more, and strict then refuses a list of texts.
    found = copy.deepcopy(values)
    for *outer, key in _MAY_BE_ONE:
        place: Any = found
        for part in outer:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(key), dict | int):
            place[key] = [place[key]]
    return found


def _problems(error: ValidationError, values: dict[str, Any]) -> list[str]:
    """A line per key that is wrong, where Pydantic has one per reading that it tried, and one for what then follows."""
    found = error.errors()
    wrong = {details["loc"] for details in found}
    told: dict[tuple[int | str, ...], str] = {}
    for details in found:
        location = details["loc"]
        inside = any(other[: len(location)] == location for other in wrong - {location})
        if details["type"] == "too_short" and inside:
            continue  # of what is not empty, but whose entries were refused
        if location[-1:] and location[-1] in _SCALARS:
            location = location[:-1]
            details = {**details, "loc": location, "type": "scalar"}
        told.setdefault(location, _problem({**details, "loc": _as_written(details["loc"], values)}))
    return list(told.values())


def _as_written(location: tuple[int | str, ...], values: Any) -> tuple[int | str, ...]:
    """A place without the positions that whoever wrote one thing in place of a list does not know of."""
    place, found = values, []
    for part in location:
        if isinstance(part, int) and not isinstance(place, list):
            continue
        found.append(part)
        inside = (isinstance(place, dict) and part in place) or isinstance(place, list)
        place = place[part] if inside else None
    return tuple(found)


def _problem(details: Any) -> str:
    location = details["loc"]
    key = ".".join(str(part) for part in location) or "the scenario"
    match details["type"]:
        case "extra_forbidden":
            hint = did_you_mean(str(location[-1]), _known_keys(location[:-1]), "")
            return f"unknown key {key}" + (f" ({hint})" if hint else "")
        case "missing":
            return f"{key} is missing"
        case "scalar":
            return f"{key} must be one text, number, true or false, not {_shown(details['input'])}"
        case "too_short":
            return f"{key} needs at least one entry"
        case "value_error":
            return f"{key}: {details['ctx']['error']}"
        case _:
            message = str(details["msg"])
            return f"{key}: {message[0].lower()}{message[1:]}, not {_shown(details['input'])}"


def _shown(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)[:80]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] | None = Scenario
    for part in location:
        if isinstance(part, str):
            field = model.model_fields.get(part) if model else None
            model = next(models_in(field.annotation), None) if field else None
    return list(model.model_fields) if model else []


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field's annotation, such as `tuple[ServePlan, ...]`, mentions."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from models_in(argument)
