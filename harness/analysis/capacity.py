"""What each served cell carries: the highest open step that met the objective, and the closed peak beside it.

In: the ledger and its reduced steps. Out: one `Capacity` per serve cell of the plan, also of those that were never
loaded, with the reason.

A step has met the objective where p99 of its scheduled latency is known and within the bound, its share of errors is,
and the server kept up. A step with a doubt, or whose sample is too small for a p99, has neither met nor missed it. The
rate of a step that met it is the rate it offered, which is the same for every cell; what arrived in a window of Poisson
arrivals differs from that by chance. Only where the server fell more than 1 % short does the measured throughput stand
instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.records.cell import Cell
from harness.records.finding import Capacity, Estimate
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.scenario import Objective
from harness.units import Unit, format_number

SHORTFALL = 0.01
"""Share of the due rate that answers may lack before a step no longer counts as having carried what it offered."""

NO_OBJECTIVE = "The scenario has no objective, so no rate is inside it."


class Met(StrEnum):
    """Whether a step met the objective."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"
    """There are doubts about it, or no p99."""


def met(result: StepResult, objective: Objective) -> Met:
    """Whether an open step met `objective`; the server's errors beyond the bound decide even where p99 is not known."""
    if result.planned == 0:
        return Met.UNDECIDED
    if result.failed_share > objective.error_share:
        return Met.NO
    p99_s = result.scheduled["p99"].value_s
    if result.doubts or p99_s is None:
        return Met.UNDECIDED
    if result.overloaded is not None:
        return Met.NO
    return Met.YES if p99_s <= objective.p99_s else Met.NO


def offered_rps(result: StepResult) -> float:
    """The rate an open step stands for: what it offered, or its throughput where more than 1 % of that is missing."""
    planned_rps = result.step.rate_rps or 0.0
    window_s = result.step.duration_s - result.measured_from_s
    due_rps = result.planned / window_s if window_s > 0 else 0.0
    answered_rps = result.throughput_rps or 0.0
    return planned_rps if answered_rps >= (1 - SHORTFALL) * due_rps else min(planned_rps, answered_rps)


def capacities(ledger: Ledger, results: Sequence[StepResult]) -> tuple[Capacity, ...]:
    """One capacity per serve cell, in the order of the plan.

    `rate` has as `low` the highest rate that met the objective (its value) and as `high` the lowest rate above it that
    missed it: the truth lies between the two as far as this run looked. `high` is None, with a warning, where nothing
    above was missed. A cell that missed the objective at every step has a capacity of 0, which is a finding; one whose
    steps were undecided has none, which is not.
    """
    return tuple(_capacity(ledger, cell, results) for cell in ledger.plan if cell.kind == "serve")


def p99_estimate(result: StepResult) -> Estimate:
    """Scheduled p99 of a step."""
    p99 = result.scheduled["p99"]
    return Estimate(
        value=p99.value_s,
        unit=Unit.SECONDS,
        low=p99.low_s,
        high=p99.high_s,
        n=result.succeeded,
        reason=p99.reason,
        warnings=result.warnings,
    )


def throughput_estimate(result: StepResult) -> Estimate:
    """What a step answered."""
    value, error = result.throughput_rps, result.throughput_error_rps
    low, high = (None, None) if value is None or error is None else (max(0.0, value - error), value + error)
    return Estimate(value=value, unit=Unit.RPS, low=low, high=high, n=result.succeeded)


def _capacity(ledger: Ledger, cell: Cell, results: Sequence[StepResult]) -> Capacity:
    steps = [result for result in results if result.cell == cell.id]
    reason = _why_not_loaded(ledger, cell)
    carried = _carried([step for step in steps if step.step.mode == "open"], ledger.scenario.load.objective, reason)
    best = carried.step
    peak = _peak([step for step in steps if step.step.mode == "closed"], reason)
    return Capacity(
        cell=cell.id,
        candidate=cell.candidate,
        runtime=cell.runtime,
        target=cell.target or "",
        replicas=cell.replicas or 1,
        max_replicas=cell.max_replicas,
        settings=cell.settings,
        rate=_of_no_number(carried.rate, cell) if cell.max_replicas else carried.rate,
        p99=p99_estimate(best) if best else Estimate(value=None, unit=Unit.SECONDS, reason=_why_no_p99(carried.rate)),
        step=best.id if best else None,
        missed_below_rps=carried.missed_below_rps,
        peak=_of_no_number(peak, cell) if cell.max_replicas else peak,
    )


def _of_no_number(figure: Estimate, cell: Cell) -> Estimate:
    """A figure of a cell that was autoscaled: a step begins with as many replicas as the one before it has left."""
    warning = (
        f"Autoscaled, from {cell.replicas} to at most {cell.max_replicas} replicas: a figure of no number of them, nor "
        "of a fixed one."
    )
    return figure.model_copy(update={"warnings": (*figure.warnings, warning)})


@dataclass(frozen=True, slots=True)
class _Carried:
    """What the open steps of a cell say together."""

    rate: Estimate
    step: StepResult | None = None
    missed_below_rps: float | None = None


def _carried(steps: Sequence[StepResult], objective: Objective | None, not_loaded: str | None) -> _Carried:
    if not steps:
        return _Carried(_none(not_loaded or "No open step was run."))
    if objective is None:
        return _Carried(_none(NO_OBJECTIVE))
    by_rate = sorted(steps, key=lambda step: step.step.rate_rps or 0.0)
    answers = [met(step, objective) for step in by_rate]
    missed = [step.step.rate_rps or 0.0 for step, answer in zip(by_rate, answers, strict=True) if answer is Met.NO]
    if Met.YES not in answers:
        if Met.UNDECIDED in answers:
            undecided = next(step for step, answer in zip(by_rate, answers, strict=True) if answer is Met.UNDECIDED)
            why = undecided.scheduled["p99"].reason
            return _Carried(
                _none(f"No open step can be said to have met the objective: at {undecided.step.label}, {why}.")
            )
        lowest = format_number(missed[0], Unit.RPS)
        warning = f"No open step met the objective; the lowest rate tried was {lowest}."
        n = sum(step.planned for step in by_rate)
        return _Carried(Estimate(value=0.0, unit=Unit.RPS, low=0.0, high=missed[0], n=n, warnings=(warning,)))
    best = max(
        (step for step, answer in zip(by_rate, answers, strict=True) if answer is Met.YES),
        key=lambda step: (offered_rps(step), step.step.number),
    )
    asked = best.step.rate_rps or 0.0
    value = offered_rps(best)
    above = min((rate for rate in missed if rate > asked), default=None)
    below = min((rate for rate in missed if rate <= asked), default=None)
    warnings = list(best.warnings)
    if below is not None:
        at = format_number(below, Unit.RPS)
        warnings.append(f"A step at no higher a rate missed the objective ({at}): the cell is not stable at this rate.")
    elif above is None:
        warnings.append("Capacity is at least this: no step above it missed the objective.")
    if value < asked:
        warnings.append(f"The step offered {format_number(asked, Unit.RPS)}; fewer answers arrived in its window.")
    rate = Estimate(value=value, unit=Unit.RPS, low=value, high=above, n=best.planned, warnings=tuple(warnings))
    return _Carried(rate, best, below)


def _peak(steps: Sequence[StepResult], not_loaded: str | None) -> Estimate:
    if not steps:
        return _none(not_loaded or "No closed step was run.")
    sound = [step for step in steps if not step.doubts]
    if not sound:
        doubt = steps[0].doubts[0].text
        return _none(f"No closed step has figures: with {steps[0].step.label}, {doubt}.")
    best = max(sound, key=lambda step: step.throughput_rps or 0.0)
    return throughput_estimate(best).model_copy(update={"warnings": best.warnings})


def _none(reason: str) -> Estimate:
    return Estimate(value=None, unit=Unit.RPS, reason=reason)


def _why_no_p99(rate: Estimate) -> str:
    return rate.reason or "No open step met the objective."


def _why_not_loaded(ledger: Ledger, cell: Cell) -> str | None:
    """The reason of a cell without steps; None where its steps speak for themselves."""
    if any(entry.cell == cell.id for entry in ledger.steps):
        return None
    for result in ledger.results:
        if result.id == cell.id and result.failure is not None:
            return f"Never loaded: {result.failure.message}"
    return "Never loaded: the run did not come to it."
