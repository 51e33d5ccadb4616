"""Dissection: the steps at which the latency of a served cell is taken apart, and what routing adds to it.

In: the ledger, the capacities and the judged steps. Out: `dissections`, the step that carries each cell's capacity and
the lowest load beside it; `routings`, what Ray Serve adds over plain ASGI, with `routing_sentence`.
"""

import json
from collections.abc import Iterator, Sequence

from harness.analysis.anatomy import TOLERANCE
from harness.analysis.servers import speaking_step
from harness.records.cell import Cell
from harness.records.finding import Capacity, Dissection, Routing
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.server import ServerSettings
from harness.records.words import PLAIN, ROUTED
from harness.units import Unit, format_number

PART_NAMES = {
    "lag": "generator lag",
    "network": "network and proxy",
    "received": "receive",
    "queued": "queue",
    "decoded": "decode",
    "predicted": "predict",
    "encoded": "encode",
}
"""As a reader knows them."""

_NOT_ON_THE_WAY = ("port", "opened", "ready_timeout_s", "max_replicas", "target_ongoing_requests")
"""Parameters of a target that change nothing for a request, where the number of replicas stays."""


def dissections(capacities: Sequence[Capacity], results: Sequence[StepResult]) -> tuple[Dissection, ...]:
    """Of each cell whose server says where its time goes, in the order of the plan."""
    return tuple(one for capacity in capacities for one in _of(capacity, results))


def _of(capacity: Capacity, results: Sequence[StepResult]) -> Iterator[Dissection]:
    own = [one for one in results if one.cell == capacity.cell and one.anatomy is not None]
    # Of a server that falls behind the queue is all that one sees, and it would be longer in a longer step.
    kept_up = [one for one in own if one.overloaded is None]
    carrying = next((one for one in own if one.id == capacity.step), None)
    carrying = carrying or speaking_step(kept_up or own, capacity.cell)
    lowest = min(
        (one for one in kept_up if one.step.rate_rps is not None),
        key=lambda one: one.step.rate_rps or 0.0,
        default=None,
    )
    for step in (carrying, lowest if lowest is not carrying else None):
        if step is not None and step.anatomy is not None:
            yield Dissection(
                cell=capacity.cell,
                step=step.id,
                load=step.step.label,
                carries=step is carrying,
                anatomy=step.anatomy,
            )


def routings(ledger: Ledger, results: Sequence[StepResult]) -> tuple[Routing, ...]:
    """What routing costs each candidate that was also served without it, under the lowest load that both had.

    Nothing of a run on a cluster: there one of them is on this machine, and the network would be told as routing.
    """
    if ledger.run.is_on_cluster:
        return ()
    plain = [cell for cell in ledger.plan if cell.target == PLAIN]
    # Of how many replicas a cell that adds some is, nobody can say.
    routed = [cell for cell in ledger.plan if cell.target == ROUTED and cell.max_replicas is None]
    found = (
        next(filter(None, (_routing(other, one, results) for other in plain if _what(other) == _what(one))), None)
        for one in routed
    )
    return tuple(one for one in found if one is not None)


def _what(cell: Cell) -> tuple[str | None, str | None, int | None, ServerSettings]:
    return cell.candidate, cell.runtime, cell.replicas, cell.settings or ServerSettings()


def _served(cell: Cell) -> str:
    """How, as far as it was asked for: several cells of a candidate may differ in nothing else."""
    words = cell.settings.words if cell.settings else ""
    given = (f"{name} = {json.dumps(value)}" for name, value in cell.parameters.items() if name not in _NOT_ON_THE_WAY)
    return ", ".join(filter(None, (words, *given)))


def _routing(plain: Cell, routed: Cell, results: Sequence[StepResult]) -> Routing | None:
    told = [one for one in results if one.anatomy and one.anatomy.parts_s and one.overloaded is None]
    pairs = [
        (one, other)
        for one in told
        for other in told
        if (one.cell, other.cell) == (plain.id, routed.id)
        and (one.step.rate_rps, one.step.in_flight) == (other.step.rate_rps, other.step.in_flight)
    ]
    pairs.sort(key=lambda pair: _crowding(pair[0]))
    for one, other in pairs:
        without, having = one.anatomy, other.anatomy
        if without is not None and having is not None and having.p50_s is not None:
            return Routing(
                candidate=routed.candidate or "",
                runtime=routed.runtime or "",
                replicas=routed.replicas or 1,
                served=_served(routed),
                load=other.step.label,
                plain_s=without.parts_s["network"],
                routed_s=having.parts_s["network"],
                p50_s=having.p50_s,
            )
    return None


def _crowding(result: StepResult) -> tuple[int, float]:
    """The lower, the less a request waits for others, which would pass for the way; with one in flight it never does.

    Else open load goes before closed, which always has somebody waiting.
    """
    if result.step.rate_rps is not None:
        return 1, result.step.rate_rps
    return (0 if result.step.in_flight == 1 else 2), float(result.step.in_flight or 0)


def routing_sentence(one: Routing) -> str:
    """What routing adds, or that it does not show."""
    added_s = one.routed_s - one.plain_s
    on = f"{one.candidate} as {one.runtime}{f' on {one.replicas} replicas' if one.replicas > 1 else ''}"
    said = filter(None, (on, one.served, one.load))
    shows = added_s > TOLERANCE * one.p50_s
    adds = f"adds {format_number(added_s, Unit.SECONDS)}" if shows else "adds nothing that shows"
    routed, plain, p50 = (format_number(value, Unit.SECONDS) for value in (one.routed_s, one.plain_s, one.p50_s))
    return (
        f"Ray Serve's routing {adds} at p50 over plain ASGI ({', '.join(said)}): network and proxy take {routed} of "
        f"the median request, which is {p50}, and {plain} where uvicorn is asked itself."
    )
