"""The gates of a run: pass, fail, or inconclusive.

In: a scenario with its plan before the run (`refuse_unreal`); ledger, ranking, capacities and steps after it
(`verdict`). Out: `Verdict`; and `self_test`, the proof that each of its gates can fail.

A gate is decided by the value of its figure, as the scenario's author wrote a bound for a value. Where the figure did
not earn a number the gate is inconclusive, with the reason: a gate without data must not pass. So it is where a
capacity is only known to be at least something, and the bound lies above that.
"""

from collections.abc import Collection, Sequence

from harness.analysis.ranking import failed_checks
from harness.errors import UsageError
from harness.records.candidate import MINIMISED
from harness.records.finding import Answer, Capacity, Estimate, GateVerdict, Ranking, Verdict
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.scenario import BASELINE, Cell, Gate, Measure, Scenario
from harness.units import Unit, format_bound, format_number

EXPECTED_SCORE = "expected-score"
OBJECTIVE = "objective"

UNITS: dict[Measure, Unit] = {
    "score": Unit.SCORE,
    "capacity_rps": Unit.RPS,
    "served_p99_s": Unit.SECONDS,
    "error_share": Unit.SHARE,
}

_WORDS: dict[Unit, str] = {
    Unit.SCORE: "the holdout score",
    Unit.RPS: "the capacity",
    Unit.SECONDS: "the scheduled p99",
    Unit.SHARE: "the share of errors",
}

_LARGEST: dict[Unit, float] = {Unit.SHARE: 1.0}
_SMALLEST: dict[Unit, float] = {Unit.SHARE: 0.0, Unit.SECONDS: 0.0, Unit.RPS: 0.0}
"""Values that a figure cannot pass, so a bound there cannot fail."""


def known_gates(scenario: Scenario) -> tuple[Gate, ...]:
    """The scenario's gates after those that follow from its expected score and its objective."""
    implied = []
    expect, objective = scenario.expect, scenario.load.objective
    if expect.score_at_least is not None or expect.score_at_most is not None:
        bounds = {"at_least": expect.score_at_least} if _maximised(scenario) else {"at_most": expect.score_at_most}
        if None not in bounds.values():
            implied.append(Gate.model_validate({"name": EXPECTED_SCORE, "measure": "score", **bounds}))
    if objective is not None and scenario.serve:
        implied.append(Gate(name=OBJECTIVE, measure="capacity_rps", at_least=objective.rate_rps or 0.0))
    return (*implied, *scenario.gates)


def refuse_unreal(scenario: Scenario, plan: Collection[Cell]) -> None:
    """Raise UsageError where a gate could never be decided, or never fail, before hours are spent on its run."""
    expect, metric = scenario.expect, scenario.search.metric or "the default metric"
    if (expect.score_at_most if _maximised(scenario) else expect.score_at_least) is not None:
        wrong, right = (
            ("score_at_most", "score_at_least") if _maximised(scenario) else ("score_at_least", "score_at_most")
        )
        raise UsageError(f"expect.{wrong} does not fit {metric}; write expect.{right} instead.")
    serve_cells = [cell for cell in plan if cell.kind == "serve"]
    candidates = {BASELINE, *scenario.search.engines}
    runtimes = {cell.runtime for cell in serve_cells if cell.runtime}
    targets = {cell.target for cell in serve_cells if cell.target}
    for gate in scenario.gates:
        where = f"The gate {gate.name}"
        if gate.name in {EXPECTED_SCORE, OBJECTIVE}:
            raise UsageError(f"{where} has the name of a gate that the harness makes itself; choose another one.")
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
        bound, direction = _bound(gate)
        if _cannot_fail(bound, direction, UNITS[gate.measure]):
            raise UsageError(f"{where} can never fail: no {gate.measure} is beyond {bound:g}. Give it another bound.")


def verdict(ledger: Ledger, ranking: Ranking, capacities: Sequence[Capacity], results: Sequence[StepResult]) -> Verdict:
    """What became of each gate, in the order of `known_gates`."""
    judged = []
    for gate in known_gates(ledger.scenario):
        if gate.name == EXPECTED_SCORE:
            estimate, whose = _expected_score(ranking)
        elif gate.name == OBJECTIVE:
            estimate, whose = _objective(ledger, ranking, capacities, results)
        elif gate.measure == "score":
            estimate, whose = _score_of(gate, ranking)
        else:
            estimate, whose = _served(gate, ranking, capacities, results)
        judged.append(judge(gate.name, estimate, *_bound(gate), whose))
    return Verdict(gates=tuple(judged))


def judge(name: str, estimate: Estimate, bound: float, direction: str, whose: str) -> GateVerdict:
    """One gate's answer for one figure; `direction` is `at_least` or `at_most`, `whose` ends its sentence."""
    answer, reason = _answer(estimate, bound, direction)
    asked = f"{direction.replace('_', ' ')} {format_bound(bound, estimate.unit)}"
    if estimate.unit is Unit.RPS and direction == "at_least" and bound == 0:
        asked = "any rate"
    what = _WORDS[estimate.unit]
    if answer is Answer.INCONCLUSIVE:
        sentence = f"Inconclusive: {what} of {whose} should be {asked}. {reason}"
    else:
        measured = format_number(estimate.value, estimate.unit)
        sentence = f"{what[0].upper()}{what[1:]} of {whose} is {measured}; asked for: {asked}."
    return GateVerdict(
        name=name, answer=answer, value=estimate, bound=bound, direction=direction, sentence=sentence.strip()
    )


def self_test(found: Verdict) -> list[str]:
    """Complaints about gates that cannot give all three answers; empty where each can pass, fail and abstain.

    Each gate is asked again about made-up figures on both sides of its bound, and about none.
    """
    complaints = []
    for gate in found.gates:
        unit, bound = gate.value.unit, gate.bound
        step = max(abs(bound), 1.0) * 0.01
        for value, expected in (
            (bound + step, Answer.PASS if gate.direction == "at_least" else Answer.FAIL),
            (bound - step, Answer.FAIL if gate.direction == "at_least" else Answer.PASS),
            (None, Answer.INCONCLUSIVE),
        ):
            if value is not None:
                value = min(max(value, _SMALLEST.get(unit, value)), _LARGEST.get(unit, value))
            figure = Estimate(value=value, unit=unit, high=value, reason=None if value is not None else "made up")
            answer = judge(gate.name, figure, bound, gate.direction, "a made-up figure").answer
            if answer is not expected:
                told = "no data" if value is None else format_number(value, unit)
                complaints.append(f"The gate {gate.name} answers {answer} to {told}, where it should {expected}.")
    return complaints


def _answer(estimate: Estimate, bound: float, direction: str) -> tuple[Answer, str]:
    value = estimate.value
    if value is None:
        return Answer.INCONCLUSIVE, estimate.reason or "There is no figure."
    if direction == "at_most":
        return (Answer.PASS if value <= bound else Answer.FAIL), ""
    # A capacity of 0 says that no step met the objective: not even "any rate" is carried.
    if value >= bound and not (estimate.unit is Unit.RPS and value == 0):
        return Answer.PASS, ""
    if estimate.unit is Unit.RPS and estimate.high is None:
        reached = format_number(value, Unit.RPS)
        return Answer.INCONCLUSIVE, f"It is at least {reached}, and no step above that was tried or missed it."
    return Answer.FAIL, ""


def _maximised(scenario: Scenario) -> bool:
    # Left out, the metric is one of roc_auc, accuracy and r2: more is better.
    return scenario.search.metric not in MINIMISED


def _bound(gate: Gate) -> tuple[float, str]:
    if gate.at_least is not None:
        return gate.at_least, "at_least"
    return gate.at_most or 0.0, "at_most"


def _cannot_fail(bound: float, direction: str, unit: Unit) -> bool:
    if direction == "at_most":
        return bound >= _LARGEST.get(unit, float("inf"))
    # A capacity of 0 fails "at least 0", see _answer.
    return unit is not Unit.RPS and bound <= _SMALLEST.get(unit, float("-inf"))


def _expected_score(ranking: Ranking) -> tuple[Estimate, str]:
    """Of the recommended candidate, else of the best there is; standings are in that order."""
    if not ranking.standings:
        return _no(Unit.SCORE, "There is no candidate."), "the recommended candidate"
    first = ranking.standings[0]
    return first.score, first.candidate


def _score_of(gate: Gate, ranking: Ranking) -> tuple[Estimate, str]:
    origin = gate.candidate or ranking.recommended
    if origin is None:
        return _no(Unit.SCORE, "No candidate was recommended."), "the recommended candidate"
    for standing in ranking.standings:
        if standing.candidate == origin:
            return standing.score, origin
    return _no(Unit.SCORE, f"{origin} did not end in a candidate."), origin


def _objective(
    ledger: Ledger, ranking: Ranking, capacities: Sequence[Capacity], results: Sequence[StepResult]
) -> tuple[Estimate, str]:
    """The capacity of the recommended cell, else the highest of all cells that were loaded."""
    for standing in ranking.standings:
        if standing.candidate == ranking.recommended and standing.capacity is not None:
            return standing.capacity.rate, standing.candidate
    ours = [capacity for capacity in capacities if capacity.candidate is not None] or list(capacities)
    loaded = [
        one
        for one in ours
        if any(result.cell == one.cell for result in results)
        and (one.candidate is None or not failed_checks(ledger, one.candidate, one.runtime, one.target))
    ]
    if not loaded:
        return _no(Unit.RPS, "Nothing that passed its checks was loaded."), "the recommended candidate"
    objective = ledger.scenario.load.objective
    asked = (objective.rate_rps or 0.0) if objective else 0.0
    best = _highest(loaded)
    # A capacity that is unknown, or known to be at least something, might be enough: it keeps the gate open.
    unknown = [one for one in loaded if one.rate.high is None and (one.rate.value is None or one.rate.value > 0)]
    if unknown and not (best.rate.value and best.rate.value >= asked):
        best = _highest(unknown)
    return best.rate, best.candidate or best.target


def _served(
    gate: Gate, ranking: Ranking, capacities: Sequence[Capacity], results: Sequence[StepResult]
) -> tuple[Estimate, str]:
    unit = UNITS[gate.measure]
    matching = _matching(gate, ranking, capacities)
    if not matching:
        if gate.candidate is None and ranking.recommended is None:
            return _no(unit, "No candidate was recommended."), "the recommended candidate"
        return _no(unit, "It was not served that way."), gate.candidate or ranking.recommended or "the candidate"
    best = _highest(matching)
    whose = " ".join(part for part in (best.candidate, best.runtime, best.target) if part)
    if gate.measure == "capacity_rps":
        return best.rate, whose
    step = _deciding_step(best, results)
    if step is None:
        return _no(unit, best.rate.reason or "It has no open step."), whose
    if best.step is None:
        whose += f" at {step.step.label}, the lowest rate tried (no step met the objective),"
    if gate.measure == "error_share":
        return Estimate(value=step.error_share, unit=unit, n=step.planned, warnings=step.warnings), whose
    p99 = step.scheduled["p99"]
    value = Estimate(value=p99.value_s, unit=unit, low=p99.low_s, high=p99.high_s, n=step.succeeded, reason=p99.reason)
    return value, whose


def _deciding_step(capacity: Capacity, results: Sequence[StepResult]) -> StepResult | None:
    """The step that carries the capacity; where all missed the objective the lowest one, so that a gate can fail."""
    own = [result for result in results if result.cell == capacity.cell and result.step.mode == "open"]
    if capacity.step is not None:
        return next((result for result in own if result.id == capacity.step), None)
    return min(own, key=lambda result: result.step.rate_rps or 0.0, default=None)


def _matching(gate: Gate, ranking: Ranking, capacities: Sequence[Capacity]) -> list[Capacity]:
    """The cells a gate speaks of; what it leaves out is taken from the recommended cell."""
    recommended = next(
        (one.capacity for one in ranking.standings if one.candidate == ranking.recommended and one.capacity), None
    )
    bare = [one for one in capacities if one.target == gate.target and one.candidate is None]
    if bare or all(one.candidate is None for one in capacities):
        return [one for one in bare or capacities if gate.target in {None, one.target}]
    origin = gate.candidate or ranking.recommended
    runtime = gate.runtime or (recommended.runtime if recommended else None)
    target = gate.target or (recommended.target if recommended else None)
    own = [one for one in capacities if origin is not None and one.candidate == origin]
    asked = [one for one in own if gate.runtime in {None, one.runtime} and gate.target in {None, one.target}]
    alike = [one for one in asked if runtime in {None, one.runtime} and target in {None, one.target}]
    return alike or asked


def _cells_of(gate: Gate, serve_cells: Sequence[Cell]) -> list[Cell]:
    return [
        cell
        for cell in serve_cells
        if gate.candidate in {None, cell.candidate}
        and gate.runtime in {None, cell.runtime}
        and gate.target in {None, cell.target}
    ]


def _highest(capacities: Sequence[Capacity]) -> Capacity:
    return max(capacities, key=lambda one: -1.0 if one.rate.value is None else one.rate.value)


def _no(unit: Unit, reason: str) -> Estimate:
    return Estimate(value=None, unit=unit, reason=reason)
