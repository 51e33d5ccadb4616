"""What servers were found to do that serve no candidate of ours.

In: the ledger, the capacities and the reduced steps. Out: a sentence, and the step that speaks for a cell where no
objective chooses one.
"""

from collections.abc import Sequence

from harness.records.cell import Cell
from harness.records.finding import Capacity
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.scenario import Objective
from harness.records.words import ROOFLINE
from harness.units import Unit, format_bound, format_number


def speaking_step(results: Sequence[StepResult], cell_id: str) -> StepResult | None:
    """Of the steps of a cell that have figures, the open one of the highest rate, else the closed one that answered
    most; None where there is none.
    """
    own = [one for one in results if one.cell == cell_id and one.throughput_rps is not None]
    return max(own, key=lambda one: (one.step.rate_rps or 0.0, one.throughput_rps or 0.0), default=None)


def carried_words(best: Capacity, objective: Objective, on: str = "") -> str:
    """The rate with the p99 that carries it, and what speaks against it."""
    below = best.missed_below_rps
    least = "at least " if best.is_least else ""
    though = "" if below is None else f", though not steadily: a step at {format_number(below, Unit.RPS)} missed it"
    return (
        f"carries {least}{format_number(best.rate.value, Unit.RPS)}{on} with p99 "
        f"{format_number(best.p99.value, Unit.SECONDS)}, inside the objective of "
        f"{format_bound(objective.p99_s, Unit.SECONDS)}{though}"
    )


def server_sentence(ledger: Ledger, capacities: Sequence[Capacity], results: Sequence[StepResult]) -> str:
    """What each server did; where there are others, the one that computes nothing is not worth a word."""
    cells = {cell.id: cell for cell in ledger.plan}
    own = [one for one in capacities if one.target != ROOFLINE] or list(capacities)
    return " ".join(_of(one, cells[one.cell], ledger.scenario.load.objective, results) for one in own)


def _of(one: Capacity, cell: Cell, objective: Objective | None, results: Sequence[StepResult]) -> str:
    name = _called(cell)
    if objective is not None and one.rate.value:
        return f"{name} {carried_words(one, objective)}."
    if objective is not None and one.rate.value is not None:
        return (
            f"{name} never met the objective of {format_bound(objective.p99_s, Unit.SECONDS)}. {one.rate.warnings[0]}"
        )
    if objective is not None and one.rate.reason and any(step.cell == cell.id for step in results):
        return f"It is not known what {name} carries. {one.rate.reason}"
    step = speaking_step(results, cell.id)
    if step is None:
        doubted = (doubt.text for step in results if step.cell == cell.id for doubt in step.doubts)
        why = next(doubted, None) or one.rate.reason or "it has no step"
        return f"Nothing can be said of {name}: {why.rstrip('.')}."
    answered, latency = format_number(step.throughput_rps, Unit.RPS), step.scheduled
    if step.step.mode == "open":
        how = f"answered {answered} where {step.step.label} were asked"
    else:
        how, latency = f"answered {answered} with {step.step.label}", step.service
    figures = ", ".join(
        f"{name} {format_number(latency[name].value_s, Unit.SECONDS)}"
        for name in ("p50", "p99")
        if latency[name].value_s is not None
    )
    failed = f"; {format_number(step.error_share, Unit.SHARE)} failed" if step.error_share else ""
    return f"{name} {how}{f': {figures}' if figures else ''}{failed}."


def _called(cell: Cell) -> str:
    """The address of a server that someone else runs, with the model in it where it has several."""
    url, model = cell.parameters.get("url"), cell.parameters.get("model")
    return cell.label if url is None else f"{url}/v2/models/{model}" if model else str(url)
