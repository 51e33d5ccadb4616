"""Plug-ins by name: a file in a port's folder is a plug-in, and its name is the file's.

In: a kind (`engines`, ...), a name, and parameters from a scenario. Out: the plug-in's object with its parameters set,
and the inventory that `harness list` prints. There is no registry to edit: being in the folder is the registration.
"""

import dataclasses
import importlib
import importlib.util
import pkgutil
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from harness.environments import how_to_install, is_installed
from harness.errors import UsageError, did_you_mean
from harness.ports import Foreign
from harness.records.words import Scalar

Kind = Literal["engines", "runtimes", "targets", "shapes", "exporters"]
KINDS: tuple[Kind, ...] = ("engines", "runtimes", "targets", "shapes", "exporters")


@dataclass(frozen=True, slots=True)
class Plugin:
    """What can be said of a plug-in without using it."""

    kind: Kind
    name: str
    summary: str
    """First line of its file's docstring."""
    missing: tuple[str, ...]
    """What it needs that is not installed, libraries or an environment; empty: it can be used."""
    parameters: Mapping[str, object]
    """Its parameters with their defaults."""


def names(kind: Kind) -> tuple[str, ...]:
    """The plug-ins in a kind's folder, sorted."""
    folder = importlib.import_module(f"harness.{kind}")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__)))


def inventory(kind: Kind) -> tuple[Plugin, ...]:
    """All plug-ins of a kind, also those that cannot be used here."""
    return tuple(_described(kind, name) for name in names(kind))


def plugin_class(kind: Kind, name: str) -> Any:
    """The dataclass of a plug-in. Raises UsageError where it is unknown or not installed."""
    known = names(kind)
    if name not in known:
        hint = did_you_mean(name, known, f"known: {', '.join(known)}.")
        raise UsageError(f"There is no {_singular(kind)} {name!r}; {hint}")
    described = _described(kind, name)
    if described.missing:
        raise UsageError(
            f"The {_singular(kind)} {name} is not installed here: it needs {', '.join(described.missing)}. "
            "Install that, or leave it out of the scenario."
        )
    return _class_of(_module(kind, name))


def plugin(kind: Kind, name: str, parameters: Mapping[str, Scalar] | None = None) -> Any:
    """A plug-in with its parameters set. Raises UsageError on an unknown name, parameter or type."""
    made_from = plugin_class(kind, name)
    given = dict(parameters or {})
    known = [field.name for field in dataclasses.fields(made_from)]
    for parameter in given:
        if parameter not in known:
            hint = did_you_mean(parameter, known, f"it takes: {', '.join(known) or 'none'}.")
            raise UsageError(f"The {_singular(kind)} {name} has no parameter {parameter!r}; {hint}")
    try:
        for parameter, annotation in typing.get_type_hints(made_from).items():
            if parameter in given:
                adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
                given[parameter] = adapter.validate_python(given[parameter], strict=True)
        return made_from(**given)
    except ValidationError as error:
        details = error.errors()[0]
        raise UsageError(f"The {_singular(kind)} {name}: parameter {parameter}: {details['msg']}.") from None
    except ValueError as error:
        raise UsageError(f"The {_singular(kind)} {name}: {error}.") from None


def foreign(engine: str) -> Foreign | None:
    """What an engine brings that has an environment of its own; None for one that shares ours."""
    found: Foreign | None = getattr(_class_of(_module("engines", engine)), "foreign", None)
    return found


def bare_targets() -> frozenset[str]:
    """Names of the targets that serve nothing of ours."""
    return frozenset(name for name in names("targets") if _class_of(_module("targets", name)).bare)


def clustered_targets() -> frozenset[str]:
    """Names of the targets that are served on a Ray cluster, where one is named."""
    return frozenset(
        name for name in names("targets") if getattr(_class_of(_module("targets", name)), "clustered", False)
    )


def installed(kind: Kind) -> tuple[str, ...]:
    """Names of the plug-ins of a kind that can be used here."""
    return tuple(found.name for found in inventory(kind) if not found.missing)


def _module(kind: Kind, name: str) -> ModuleType:
    return importlib.import_module(f"harness.{kind}.{name}")


def _class_of(module: ModuleType) -> Any:
    classes = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and dataclasses.is_dataclass(value)
        and not name.startswith("_")
    ]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must define exactly one public dataclass, not {len(classes)}")
    return classes[0]


def _described(kind: Kind, name: str) -> Plugin:
    module = _module(kind, name)
    fields = dataclasses.fields(_class_of(module))
    own = foreign(name) if kind == "engines" else None
    if own is None:
        missing = [library for library in module.REQUIRES if importlib.util.find_spec(library) is None]
    else:
        missing = [] if is_installed(own.environment) else [how_to_install(own.environment)]
    return Plugin(
        kind=kind,
        name=name,
        summary=(module.__doc__ or "").strip().partition("\n")[0].rstrip("."),
        missing=tuple(missing),
        parameters={field.name: field.default for field in fields if field.default is not dataclasses.MISSING},
    )


def _singular(kind: Kind) -> str:
    return kind.removesuffix("s")
