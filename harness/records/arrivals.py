"""Arrival laws: how the requests of an open step follow one another.

In: a law as users write it, such as `poisson`, `gamma:4` or `trace:monday.csv`. Out: the law as a value. Whatever the
law, its mean rate is the step's: shapes and objectives speak of rates and need not know laws.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

from harness.errors import did_you_mean


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent exponential gaps: many users who know nothing of one another."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Equal gaps: a machine that polls."""


@dataclass(frozen=True, slots=True)
class Gamma:
    """Independent gamma gaps: bursts and pauses."""

    burstiness: float
    """Variance of the gaps over their squared mean: 1 is Poisson, 0 would be constant, more than 1 comes in bursts.
    The reciprocal of the gamma shape, which some tools call burstiness."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """Poisson arrivals whose rate rises or falls along a straight line over the step."""

    start: float
    """Rate at the beginning as a share of the step's mean rate, 0 to 2; it ends at 2 - start of it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded traffic, stretched to the step's rate, and begun anew where it is shorter than the step."""

    file: str
    """A CSV file of timestamps, relative to the scenario file."""


Arrivals: TypeAlias = Poisson | Constant | Gamma | Ramp | Trace

_FORMS = {
    "poisson": "poisson",
    "constant": "constant",
    "gamma": "gamma:BURSTINESS",
    "ramp": "ramp:START",
    "trace": "trace:FILE",
}

FORMS = tuple(_FORMS.values())
"""How each law is written."""


def parse_arrivals(text: str) -> Arrivals:
    """The law that `text` names. Raises ValueError on a law that there is not, or one that is not fully said."""
    name, colon, argument = text.partition(":")
    if name not in _FORMS:
        hint = did_you_mean(name, _FORMS, f"known are {', '.join(FORMS)}.")
        raise ValueError(f"there is no arrival law {name!r}; {hint}")
    if bool(colon) != (":" in _FORMS[name]) or (colon and not argument):
        raise ValueError(f"{text!r} is not how {name} arrivals are written: write {_FORMS[name]}")
    match name:
        case "poisson":
            return Poisson()
        case "constant":
            return Constant()
        case "trace":
            return Trace(argument)
        case "gamma":
            return Gamma(_number(argument, text, 0.01, 100.0))
        case _:
            return Ramp(_number(argument, text, 0.0, 2.0))


def _number(argument: str, text: str, low: float, high: float) -> float:
    try:
        number = float(argument)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f"in {text!r}, {argument!r} must be a number from {low:g} to {high:g}")
    return number
