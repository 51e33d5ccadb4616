"""The scenario of `harness load`: one server that is there already, and one question to it.

In: what the command was told. Out: `Brought`, a scenario like any other, which `pipeline.run` begins.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.pipeline.run import Brought
from harness.records.words import EXTERNAL
from harness.store.scenarios import made_scenario

WHERE = "harness load"

_MODEL_PATH = re.compile(r"(?P<before>.*)/v2/models/(?P<model>[^/?#]+)(/infer)?/?")


@dataclass(frozen=True, slots=True)
class Question:
    """What the command was told; what it was not told is None."""

    url: str
    requests: dict[str, Any]
    """Keys of `[requests]`."""
    load: dict[str, Any]
    """Keys of `[load]`, apart from shapes and their parameters."""
    rate_rps: float | None
    users: int | None
    duration_s: float | None
    """Measured time of a step."""
    warmup_s: float | None
    objective: dict[str, float] | None


def brought(asked: Question) -> Brought:
    """The scenario of a question; its paths are relative to the working directory. Raises UsageError."""
    if asked.users is not None and asked.objective is not None:
        raise UsageError(
            "--slo with --users: so many requests at a time wait for one another, and say nothing of what an objective "
            "promises. Give --rate instead, or neither, to learn how much the server carries."
        )
    if "locustfile" in asked.requests and asked.users is None:
        raise UsageError(
            "--locustfile needs --users: its users wait for their answers, so how many there are is all that can be "
            "asked of them."
        )
    target = _target(asked.url, asked.requests.get("protocol", "plain"))
    load = dict(asked.load)
    load |= _shapes(asked)
    if asked.users is not None:
        load["in_flight_max"] = max(load.get("in_flight_max", 1024), asked.users)
    if asked.objective is not None:
        load["objective"] = asked.objective
    values = {
        "question": _words(asked),
        "serve": [{"target": EXTERNAL, "parameters": target}],
        "requests": asked.requests,
        "load": load,
    }
    scenario, text = made_scenario(values, WHERE)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", urlsplit(asked.url).netloc).strip("-.") or "server"
    return Brought(scenario, text, f"load-{name}", Path(), WHERE)


def _words(asked: Question) -> str:
    if asked.rate_rps is not None:
        return f"How does {asked.url} answer {asked.rate_rps:g} requests a second?"
    if asked.users is not None:
        of = f"users of {asked.requests['locustfile']}" if "locustfile" in asked.requests else "requests at a time"
        return f"How does {asked.url} answer {asked.users} {of}?"
    return f"How much does {asked.url} carry?"


def _shapes(asked: Question) -> dict[str, Any]:
    times: dict[str, float] = {}
    if asked.duration_s is not None or asked.warmup_s is not None:
        duration_s = 30.0 if asked.duration_s is None else asked.duration_s
        warmup_s = min(2.0, duration_s / 5) if asked.warmup_s is None else asked.warmup_s
        times = {"step_s": duration_s + warmup_s, "warmup_s": warmup_s}
    if asked.rate_rps is not None:
        return {"shapes": ["steady"], "parameters": {"steady": {"rate_rps": asked.rate_rps, **times}}}
    if asked.users is not None:
        return {"shapes": ["steady"], "parameters": {"steady": {"in_flight": asked.users, **times}}}
    return {"parameters": {"ladder": times, "stairs": times}} if times else {}


def _target(url: str, protocol: str) -> dict[str, str]:
    if not protocol.startswith("v2"):
        return {"url": url}
    parts = urlsplit(url)
    found = _MODEL_PATH.fullmatch(parts.path)
    if found is None or found["before"]:
        raise UsageError(
            f"With --protocol {protocol} the address names the model, as in "
            f"http://host:8080/v2/models/NAME/infer, not {url!r}."
        )
    return {"url": f"{parts.scheme}://{parts.netloc}", "model": found["model"]}
