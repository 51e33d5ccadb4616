"""What a run reads before it begins: the table, the trace, the requests.

In: a scenario and the folder its paths are relative to. Out: `Inputs`, with their digests, by which a resumed run knows
that they are the same. What cannot be read, or a server that does not answer, is refused before there is a run.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.plugins import plugin
from harness.ports import Problem, Servable, Target
from harness.records.scenario import Scenario, SearchPlan
from harness.records.table import DataPlan, TableEntry
from harness.records.words import EXTERNAL, Metric
from harness.space.families import families_for
from harness.space.score import default_metric, refuse_unfit
from harness.stages.data import Table, load_table
from harness.stages.data_checks import data_checks, refuse_failed
from harness.stages.load.locust_users import refuse_unusable
from harness.stages.payload import Requests, head_of, read_requests
from harness.stages.probe import first_answer, stated_by
from harness.stages.trace import trace_of


@dataclass(frozen=True, slots=True)
class Searched:
    """A table, and what is searched for on it."""

    table: Table
    data: DataPlan
    search: SearchPlan
    metric: Metric
    families: tuple[str, ...]

    def problem(self, seed: int) -> Problem:
        """What an engine is asked to solve on it."""
        return Problem(
            task=self.table.signature.task,
            metric=self.metric,
            families=self.families,
            folds=self.search.folds,
            trials=self.search.trials,
            seconds=self.search.seconds,
            seed=seed,
            trial_seconds=self.search.trial_seconds,
            memory_bytes=self.search.memory_bytes,
        )

    def checked(self) -> TableEntry:
        """The table with its checks, for the record.

        Raises UsageError where one fails and the plan does not accept it.
        """
        signature = self.table.signature
        checks = data_checks(self.table, self.data, self.search, self.metric)
        refuse_failed(checks, self.data)
        return TableEntry(
            name=str(self.data.name),
            source=self.data.source,
            task=signature.task,
            metric=self.metric,
            classes=signature.classes,
            train_rows=len(self.table.train),
            holdout_rows=len(self.table.holdout),
            columns=dict(Counter(column.kind for column in signature.columns)),
            sha256=self.table.sha256,
            checks=checks,
        )


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a run gets from outside its scenario."""

    searched: tuple[Searched, ...]
    requests: Requests | None
    trace_s: NDArray[np.float64] | None
    """Recorded times, shape (n,), where the arrivals of the load are a trace."""

    @property
    def data_sha256(self) -> str:
        """Digest of the tables, or of the requests."""
        if self.searched:
            digests = [searched.table.sha256 for searched in self.searched]
            return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
        return self.requests.sha256 if self.requests is not None else hashlib.sha256().hexdigest()

    @property
    def trace_sha256(self) -> str | None:
        """Digest of the trace, where there is one."""
        return None if self.trace_s is None else hashlib.sha256(self.trace_s.tobytes()).hexdigest()


def read_inputs(scenario: Scenario, folder: Path) -> Inputs:
    """The inputs of a scenario. Raises UsageError for what it names and cannot be used."""
    return Inputs(
        searched=read_tables(scenario, folder),
        requests=_requests(scenario, folder),
        trace_s=trace_of(scenario.load.arrivals, folder),
    )


def read_tables(scenario: Scenario, folder: Path) -> tuple[Searched, ...]:
    """The tables of a scenario that searches. Raises UsageError for one that cannot be used."""
    search = scenario.search
    return tuple(_searched(plan, search, folder) for plan in scenario.tables) if search else ()


def _searched(data: DataPlan, search: SearchPlan, folder: Path) -> Searched:
    table = load_table(data, folder, search.memory_bytes)
    task = table.signature.task
    metric = search.metric or default_metric(task)
    refuse_unfit(metric, task)
    families = families_for(task, search.families)
    return Searched(table, data, search, metric, tuple(family.name for family in families))


def _requests(scenario: Scenario, folder: Path) -> Requests | None:
    """What the server of the user's own is asked; it is asked once, so that a wrong token costs no run."""
    plan = scenario.requests
    if plan is None:
        return None
    locustfile = None if plan.locustfile is None else folder / plan.locustfile
    if locustfile is not None:
        refuse_unusable(locustfile)
    head = head_of(plan, folder)
    (serve,) = (serve for serve in scenario.serve if serve.target == EXTERNAL)
    target: Target = plugin("targets", EXTERNAL, serve.parameters)
    nothing = Servable(entry="", bundle=None, runtime=None, model="", replicas=1, cores=(), log=folder)
    with target.serve(nothing) as endpoint:
        if locustfile is not None:
            digest = hashlib.sha256(locustfile.read_bytes()).hexdigest()
            return Requests(bodies=(), head=head, sha256=digest, locustfile=locustfile.resolve())
        stated = stated_by(endpoint, head, plan.protocol)
        requests = read_requests(plan, folder, scenario.load.rows, stated)
        first_answer(endpoint, head, requests.bodies[0], plan.protocol)
    return requests
