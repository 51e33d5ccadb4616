"""Failures: whatever did not end well, with its cause, and what it cost.

In: `Findings`. Out: `Failed`, by what failed; `FailureCost`, by cause; and the tables of both.

A cell that was begun and has no end is a failure by `interrupted` until it is resumed. That is concluded here and not
recorded: a run that is killed writes nothing more, and should be told as one that was asked to stop.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.analysis.findings import Findings
from harness.records.finding import Field, Table, Values
from harness.records.frozen import Frozen
from harness.records.run import Cause, CellState
from harness.units import Unit


@dataclass(frozen=True, slots=True)
class Failed:
    """One thing that failed, or that the run did not come to."""

    what: str
    where: str
    cause: Cause | None
    """None: nothing failed, but the run ended before it."""
    message: str
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    """What it cost, where that is known: of a worker that was lost nobody is left to tell the last two."""


class FailureCost(Frozen):
    """What all failures of one cause cost together; None where it is known of none of them."""

    cause: Cause
    count: int
    wall_s: float | None
    cpu_s: float | None
    peak_memory_bytes: int | None
    """The highest of them."""


def of_cells(found: Findings) -> Iterator[Failed]:
    """Cells that failed, were interrupted, or were not begun."""
    for cell in found.ledger.plan:
        result, what = found.cell_results.get(cell.id), f"{cell.kind} cell"
        if result is None:
            yield Failed(what, cell.label, None, "The run did not come to this cell.")
        elif result.state is CellState.OPEN:
            again = f"goes on after its {len(found.trials_of(cell.id))} trials" if cell.kind == "search" else "does it"
            message = f"The run was interrupted in this cell, or is still at it; resuming {again}."
            yield Failed(what, cell.label, Cause.INTERRUPTED, message)
        elif result.failure is not None:
            # The time of a search is that of its trials, which are listed too.
            wall_s = None if cell.kind == "search" else result.duration_s
            yield Failed(what, cell.label, result.failure.cause, result.failure.message, wall_s)


def of_checks(found: Findings) -> Iterator[Failed]:
    """Checks that candidates did not pass."""
    for check in found.ledger.checks:
        if not check.passed:
            where = " ".join(part for part in (check.candidate, check.runtime, check.target) if part)
            yield Failed(f"check {check.name}", where, Cause.CHECK_FAILED, check.detail)


def of_trials(found: Findings) -> Iterator[Failed]:
    """Trials without a score."""
    for trial in found.ledger.trials:
        evaluated = trial.evaluated
        if evaluated.failure is not None:
            yield Failed(
                "trial",
                f"{found.label(trial.cell)}, trial {trial.number}",
                evaluated.failure.cause,
                evaluated.failure.message,
                evaluated.duration_s,
                evaluated.cpu_s,
                evaluated.peak_memory_bytes,
            )


def of_conversions(found: Findings) -> Iterator[Failed]:
    """Candidates that have no form in a runtime."""
    for candidate in found.ledger.candidates:
        for artifact in candidate.artifacts:
            if artifact.reason is not None:
                where = f"{candidate.origin} {artifact.runtime}"
                yield Failed("conversion", where, Cause.NOT_CONVERTIBLE, artifact.reason)


def all_failed(found: Findings) -> list[Failed]:
    """All of these."""
    return [*of_cells(found), *of_checks(found), *of_trials(found), *of_conversions(found)]


def failure_costs(failed: Iterable[Failed]) -> tuple[FailureCost, ...]:
    """By cause, the most seconds first."""
    of_cause: dict[Cause, list[Failed]] = {}
    for one in failed:
        if one.cause is not None:
            of_cause.setdefault(one.cause, []).append(one)
    costs = [
        FailureCost(
            cause=cause,
            count=len(own),
            wall_s=_sum(one.wall_s for one in own),
            cpu_s=_sum(one.cpu_s for one in own),
            peak_memory_bytes=max((one.peak_memory_bytes or 0 for one in own), default=0) or None,
        )
        for cause, own in of_cause.items()
    ]
    return tuple(sorted(costs, key=lambda cost: (-(cost.wall_s or 0.0), cost.cause)))


def failures(failed: Iterable[Failed]) -> Table:
    """A row per failure, and per cell that the run did not come to."""
    return Table(
        key="failures",
        title="Everything that failed",
        fields=(Field("what", "what"), Field("where", "where"), Field("cause", "cause"), *_COST, _MESSAGE),
        rows=tuple(
            (
                one.what,
                one.where,
                one.cause and one.cause.value,
                one.wall_s,
                one.cpu_s,
                one.peak_memory_bytes,
                one.message,
            )
            for one in failed
        ),
    )


def costs(failed: Iterable[Failed]) -> Table:
    """A row per cause."""
    rows: list[Values] = [
        (cost.cause.value, cost.count, cost.wall_s, cost.cpu_s, cost.peak_memory_bytes)
        for cost in failure_costs(failed)
    ]
    return Table(
        key="failure_costs",
        title="What failures cost",
        fields=(Field("cause", "cause"), Field("count", "failures", Unit.COUNT), *_COST),
        rows=tuple(rows),
        note="Sums, and the highest peak, over what is known: of a lost worker or node only the seconds are, and "
        "those of a failed search are its trials'.",
    )


_COST = (
    Field("wall_s", "time lost", Unit.SECONDS),
    Field("cpu_s", "processor time lost", Unit.SECONDS),
    Field("peak_memory_bytes", "peak memory", Unit.BYTES),
)
_MESSAGE = Field("message", "message")


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None
