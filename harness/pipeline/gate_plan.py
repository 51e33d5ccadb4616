"""The gates of a scenario before its run: whether each could be decided, and could fail.

In: a scenario with its plan. Out: nothing, or the refusal: hours must not be spent on a run whose verdict is certain.
"""

import math
from collections.abc import Collection, Sequence

from harness.analysis.gate import EXPECTED_SCORE, OBJECTIVE, bound_of, known_gates, maximised
from harness.errors import UsageError
from harness.records.cell import Cell
from harness.records.scenario import Gate, Scenario
from harness.records.words import BASELINE, Measure, Metric

_SCORES: dict[Metric | None, tuple[float, float]] = {
    "roc_auc": (0.0, 1.0),
    "accuracy": (0.0, 1.0),
    "r2": (-math.inf, 1.0),
    "log_loss": (0.0, math.inf),
    "rmse": (0.0, math.inf),
    # Left to the task, it may still be any of the first three.
    None: (-math.inf, 1.0),
}
_LIMITS: dict[Measure, tuple[float, float]] = {
    # A capacity of 0 fails "at least 0": it says that no step met the objective.
    "capacity_rps": (-math.inf, math.inf),
    "served_p99_s": (0.0, math.inf),
    "error_share": (0.0, 1.0),
}
"""Values that a figure cannot pass, so a bound there cannot fail."""


def refuse_unreal(scenario: Scenario, plan: Collection[Cell]) -> None:
    """Raise UsageError where a gate could never be decided, or never fail, before hours are spent on its run."""
    expect, search = scenario.expect, scenario.search
    metric = (search.metric if search else None) or "the default metric"
    if (expect.score_at_most if maximised(scenario) else expect.score_at_least) is not None:
        wrong, right = (
            ("score_at_most", "score_at_least") if maximised(scenario) else ("score_at_least", "score_at_most")
        )
        raise UsageError(f"expect.{wrong} does not fit {metric}; write expect.{right} instead.")
    serve_cells = [cell for cell in plan if cell.kind == "serve"]
    candidates = {BASELINE, *search.engines} if search else set()
    runtimes = {cell.runtime for cell in serve_cells if cell.runtime}
    targets = {cell.target for cell in serve_cells if cell.target}
    for gate in known_gates(scenario):
        bound, direction = bound_of(gate)
        if _cannot_fail(gate.measure, bound, direction, search.metric if search else None):
            raise UsageError(
                f"The gate {gate.name} can never fail: no {gate.measure} is beyond {bound:g}. Give it another bound."
            )
    for gate in scenario.gates:
        where = f"The gate {gate.name}"
        if gate.name in {EXPECTED_SCORE, OBJECTIVE}:
            raise UsageError(f"{where} has the name of a gate that the harness makes itself; choose another one.")
        if gate.measure == "score" and search is None:
            raise UsageError(f"{where} measures score, and without a search there is no candidate to score.")
        if gate.measure != "score" and not serve_cells:
            raise UsageError(
                f"{where} measures {gate.measure}, but the scenario serves nothing: add a [[serve]] table."
            )
        if gate.measure != "score" and scenario.load.objective is None:
            raise UsageError(
                f"{where} measures {gate.measure}, at the step that carries the capacity, and without an objective "
                "there is no such step: add [load.objective] with p99_s."
            )
        for kind, name, known in (
            ("candidate", gate.candidate, candidates),
            ("runtime", gate.runtime, runtimes),
            ("target", gate.target, targets),
        ):
            if name is not None and name not in known:
                has = ", ".join(sorted(known)) or "none"
                raise UsageError(f"{where} names the {kind} {name}, which is not in the plan; it has: {has}.")
        if gate.measure != "score" and not _cells_of(gate, serve_cells):
            raise UsageError(f"{where} names a candidate, runtime and target that are never served together.")


def _cannot_fail(measure: Measure, bound: float, direction: str, metric: Metric | None) -> bool:
    smallest, largest = _SCORES[metric] if measure == "score" else _LIMITS[measure]
    return bound >= largest if direction == "at_most" else bound <= smallest


def _cells_of(gate: Gate, serve_cells: Sequence[Cell]) -> list[Cell]:
    return [
        cell
        for cell in serve_cells
        if gate.candidate in {None, cell.candidate}
        and gate.runtime in {None, cell.runtime}
        and gate.target in {None, cell.target}
    ]
