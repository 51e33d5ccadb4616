"""Cells: the points of a scenario's plan, each the unit of work that is done once, whole.

In: a scenario. Out: `cells`, its plan in the order in which it is worked off. A cell's id is the hash of what
determines it, so a resumed run knows what is done.
"""

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator
from typing import Literal

from pydantic import Field

from harness.records.frozen import Frozen
from harness.records.scenario import ComparePlan, Scenario, SearchPlan
from harness.records.server import ServerSettings
from harness.records.table import DataPlan
from harness.records.words import BASELINE, DUMMY, Scalar

CellKind = Literal["search", "refit", "candidate", "serve", "micro"]


class Cell(Frozen):
    """One fully resolved point of the plan; the unit of work that is done once, whole."""

    id: str
    kind: CellKind
    table: str | None = None
    """Of a search and a refit: on which table."""
    engine: str | None = None
    """Of a search: who searches. Of a refit: whose best it is, or `baseline`, or `dummy`."""
    seed: int | None = None
    """Of both: with which seed; None for a refit of what was not searched for."""
    workers: int | None = None
    """Of a search: by how many."""
    candidate: str | None = None
    """Of every other cell: the candidate's origin (an engine, or `baseline`); None where nothing of ours is served."""
    runtime: str | None = None
    target: str | None = None
    replicas: int | None = None
    settings: ServerSettings | None = None
    """Of a serve cell: how its servers are told to serve; None: as usual."""
    parameters: dict[str, Scalar] = Field(default={})
    """Of a serve cell: the target's."""

    @property
    def max_replicas(self) -> int | None:
        """Of a serve cell whose target adds replicas by itself: how many there may be (`ports.Target`)."""
        return int(self.parameters.get("max_replicas", 0)) or None

    @property
    def label(self) -> str:
        """The cell in a few words, for progress and tables."""
        parts: tuple[object, ...]
        match self.kind:
            case "search":
                parts = (self.table, self.engine, f"seed {self.seed}", f"x{self.workers}")
            case "refit":
                parts = (self.table, self.engine, None if self.seed is None else f"seed {self.seed}")
            case "serve":
                told = self.settings.words if self.settings else None
                replicas = f"x{self.replicas}-{self.max_replicas}" if self.max_replicas else f"x{self.replicas}"
                parts = (self.candidate, self.runtime, self.target, replicas, told)
            case _:
                parts = (self.candidate,)
        return " ".join(str(part) for part in parts if part is not None)


def cells(scenario: Scenario, bare_targets: Collection[str]) -> tuple[Cell, ...]:
    """The plan of a scenario, in the order in which it is worked off.

    `bare_targets` are the targets that serve nothing of ours (null, external): each is one cell per number of
    replicas, without candidate or runtime. The same scenario gives the same ids on every machine.
    """
    search, comparison, planned = scenario.search, scenario.comparison, list[Cell]()
    if search is not None:
        # All searches before the first refit: Ray is gone before anything is timed.
        planned += itertools.chain.from_iterable(_searches(search, table) for table in scenario.tables)
        if comparison is not None:
            planned += itertools.chain.from_iterable(_refits(search, comparison, table) for table in scenario.tables)
    if len(scenario.tables) < 2:  # on several, engines are compared and nothing is served
        planned += _on_the_way_to_traffic(scenario, bare_targets)
    return tuple(planned)


def _searches(search: SearchPlan, table: DataPlan) -> Iterator[Cell]:
    searching = [table.model_dump(mode="json"), search.model_dump(mode="json")]
    for workers, engine, seed in itertools.product(search.workers, search.engines, search.seeds):
        yield _cell("search", searching, table=table.name, engine=engine, seed=seed, workers=workers)


def _refits(search: SearchPlan, comparison: ComparePlan, table: DataPlan) -> Iterator[Cell]:
    """What the engines found on a table fitted once more, and what they are compared with."""
    refitting = [part.model_dump(mode="json") for part in (table, search, comparison)]
    for entrant in (DUMMY, BASELINE):  # neither is searched for, so neither has a seed
        yield _cell("refit", refitting, table=table.name, engine=entrant)
    for engine, seed in itertools.product(search.engines, search.seeds):
        yield _cell("refit", refitting, table=table.name, engine=engine, seed=seed)


def _on_the_way_to_traffic(scenario: Scenario, bare_targets: Collection[str]) -> Iterator[Cell]:
    """Candidates, where they are served, and what is timed in process."""
    origins = (BASELINE, *scenario.search.engines) if scenario.search else ()
    searching = [part.model_dump(mode="json") if part else None for part in (*scenario.tables, scenario.search)]
    judging = [searching, scenario.expect.model_dump(mode="json")]
    for origin in origins:
        yield _cell("candidate", judging, candidate=origin)
    asking = scenario.requests.model_dump(mode="json") if scenario.requests else None
    loading = [judging, asking, scenario.load.model_dump(mode="json")]
    for plan in scenario.serve:
        shared = {"target": plan.target, "parameters": dict(plan.parameters)}
        bare = plan.target in bare_targets
        for candidate, runtime, replicas, settings in itertools.product(
            (None,) if bare else plan.candidates or origins,
            (None,) if bare else plan.runtimes,
            plan.replicas,
            plan.settings,
        ):
            # Left out where they are as usual, so that a cell keeps the id that it had before there were any.
            told = {"settings": settings.model_dump(mode="json")} if settings else {}
            yield _cell("serve", loading, candidate=candidate, runtime=runtime, replicas=replicas, **shared, **told)
    if scenario.micro.enabled:
        for origin in (scenario.micro.candidates or origins) if origins else ():
            yield _cell("micro", [judging, scenario.micro.seconds], candidate=origin)


def _cell(kind: CellKind, determined_by: object, **fields: object) -> Cell:
    text = json.dumps([kind, fields, determined_by], sort_keys=True, separators=(",", ":"))
    return Cell.model_validate(
        {"id": f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}", "kind": kind, **fields}
    )
