"""The plan of a scenario: its cells, checked against what is installed, with an estimate of how long each takes.

In: a scenario. Out: `Plan`. Everything that can be refused without measuring is refused here, so that a run never
stops in its tenth minute over a misspelt name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UsageError, did_you_mean
from harness.pipeline.gate_plan import refuse_unreal
from harness.plugins import bare_targets, plugin, plugin_class
from harness.ports import Shape
from harness.records.cell import Cell, cells
from harness.records.load import Rung, Step
from harness.records.run import Host
from harness.records.scenario import LoadPlan, Scenario
from harness.records.words import BASELINE, EXTERNAL, Scalar
from harness.space.families import family_named
from harness.units import Unit, format_number

_RAY_START_S = 10.0
_CANDIDATE_S = 10.0
_REFIT_S = 8.0
_SERVE_START_S = 8.0
_MICRO_BENCHMARKS = 10
"""Rough shares of the estimate that no scenario states, as seen on a two-core machine."""

_ASSUMED_PEAK_RPS = 2000.0
_STEPS_AT_MOST = 200

BYTES_PER_REQUEST = 200
"""Of memory, while a step is under way and when it is reduced: its row, where it was planned, and copies of both."""

MEMORY_SHARE = 0.5
"""Of a machine's memory that the requests of a step may take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A scenario that can be run here, resolved."""

    scenario: Scenario
    cells: tuple[Cell, ...]
    estimates_s: tuple[float, ...]
    """Of each cell, in the same order; a guess that errs to the long side."""

    @property
    def estimated_s(self) -> float:
        """Of the whole run."""
        return sum(self.estimates_s) + (_RAY_START_S if self.scenario.search else 0.0)


def resolved(scenario: Scenario, where: str) -> Plan:
    """The plan of a scenario that came from `where`. Raises UsageError for what it names and does not exist here."""
    try:
        return _resolved(scenario)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _resolved(scenario: Scenario) -> Plan:
    search, load = scenario.search, scenario.load
    origins = (BASELINE, *search.engines) if search else ()
    if search is not None:
        for engine in search.engines:
            plugin("engines", engine, search.parameters.get(engine))
        for family in search.families:
            family_named(family)
        _refuse_strangers("search.parameters", search.parameters, search.engines)
    for serve in scenario.serve:
        plugin("targets", serve.target, serve.parameters)
        _refuse_no_port(serve.target, serve.parameters)
        if serve.target in bare_targets() and any(serve.settings):
            raise UsageError(
                f"The target {serve.target} computes nothing of ours, so it is told neither batch_requests nor "
                "waiting_s: leave them out of its [[serve]] table."
            )
        for runtime in serve.runtimes:
            plugin_class("runtimes", runtime)
        _refuse_strangers(f"serve {serve.target} candidates", serve.candidates, origins)
        if search is None and serve.target not in bare_targets():
            raise UsageError(
                f"The target {serve.target} serves candidates, and without [data] and [search] there are none; "
                f"{', '.join(bare_targets())} need none."
            )
    _refuse_strangers("micro.candidates", scenario.micro.candidates, origins)
    _refuse_strangers("load.parameters", load.parameters, load.shapes)
    shapes(load)
    if scenario.requests is not None and scenario.requests.locustfile is not None:
        _refuse_open_users(load)
    if load.placement == "cluster":
        _refuse_users_on_a_cluster(scenario)
    planned = cells(scenario, bare_targets())
    _refuse_twins(planned)
    refuse_unreal(scenario, planned)
    return Plan(scenario, planned, tuple(_estimate_s(scenario, cell) for cell in planned))


def shapes(load: LoadPlan) -> tuple[Shape, ...]:
    """The load shapes of a scenario, in their order."""
    return tuple(plugin("shapes", name, load.parameters.get(name)) for name in load.shapes)


def steps(load: LoadPlan, drive: Callable[[Step], Rung]) -> Iterator[Rung]:
    """Walk the shapes of a scenario: each step is driven and told to the shapes before the next is asked for."""
    history: list[Rung] = []
    for shape in shapes(load):
        for _ in range(_STEPS_AT_MOST):
            step = shape.next_step(history)
            if step is None:
                break
            history.append(drive(step))
            yield history[-1]


def _estimate_s(scenario: Scenario, cell: Cell) -> float:
    match cell.kind:
        case "search":
            return scenario.search.seconds if scenario.search else 0.0
        case "refit":
            return _REFIT_S
        case "candidate":
            return _CANDIDATE_S
        case "micro":
            return _MICRO_BENCHMARKS * scenario.micro.seconds + 4.0
        case "serve":
            walked = steps(scenario.load, _assumed)
            return _SERVE_START_S + sum(rung.step.duration_s for rung in walked)


def _assumed(step: Step) -> Rung:
    """What a plain server would do: saturate at eight in flight, and keep every promise below its peak."""
    asked = step.rate_rps if step.rate_rps is not None else _ASSUMED_PEAK_RPS * min(1.0, (step.in_flight or 1) / 8)
    return Rung(step=step, throughput_rps=min(asked, _ASSUMED_PEAK_RPS), p99_s=0.001, error_share=0.0)


def refuse_too_many(load: LoadPlan, host: Host) -> None:
    """Raises UsageError on a step of more requests than the host could keep a record of."""
    most_bytes = MEMORY_SHARE * host.memory_bytes
    for step in (rung.step for rung in steps(load, _assumed)):
        planned = (step.rate_rps or 0.0) * step.duration_s
        needed_bytes = planned * BYTES_PER_REQUEST
        if needed_bytes > most_bytes:
            raise UsageError(
                f"A step at {step.label} for {format_number(step.duration_s, Unit.SECONDS)} is {planned:,.0f} "
                f"requests, whose records need about {format_number(needed_bytes, Unit.BYTES)} of memory, and at most "
                f"{format_number(most_bytes, Unit.BYTES)} of this machine's may go to them: ask for less, or for a "
                "shorter step. `harness doctor` says which rate can be sent from here."
            )


def refuse_outside(plan: Plan) -> None:
    """Raises UsageError on what a run that reaches loopback only could not have.

    A table of OpenML may be in the cache; one that is not is refused when it is asked for.
    """
    for serve in plan.scenario.serve:
        if serve.target == EXTERNAL:
            raise UsageError(
                f"With --isolate nothing but loopback can be reached, and the target {EXTERNAL} is beyond it."
            )


def _refuse_open_users(load: LoadPlan) -> None:
    if any(rung.step.mode == "open" for rung in steps(load, _assumed)):
        raise UsageError(
            "Users of a locustfile wait for their answers, so no rate can be asked of them: load.shapes may hold "
            "closed steps only, the ladder, or steady with in_flight."
        )
    if any(rung.step.pace_rps is not None for rung in steps(load, _assumed)):
        raise UsageError(
            "The shape locust_users brings users of its own, and the requests are those of a locustfile: leave out one "
            "of the two."
        )
    if load.workers > 1:
        raise UsageError("Users of a locustfile run in one process: leave out load.workers.")


def _refuse_users_on_a_cluster(scenario: Scenario) -> None:
    if scenario.requests is not None and scenario.requests.locustfile is not None:
        raise UsageError("Users of a locustfile run in one process of this machine: leave out load.placement.")


def _refuse_no_port(target: str, parameters: Mapping[str, Scalar]) -> None:
    port = parameters.get("port", 0)
    if not 0 <= int(port) < 2**16:
        raise UsageError(f"The target {target} cannot listen on port {port}: choose one below 65536, or 0 for any.")


def _refuse_strangers(where: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, f"it knows {', '.join(known) or 'none'}.")
            raise UsageError(f"{where} names {name!r}, which this scenario does not use; {hint}")


def _refuse_twins(planned: Sequence[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in planned:
        if cell.id in seen:
            raise UsageError(f"The scenario plans the same cell twice: {cell.label}. Merge the two [[serve]] tables.")
        seen[cell.id] = cell
