"""The gates of a run: pass, fail, or inconclusive.

In: ledger, recommendation, capacities and steps. Out: `Verdict`; and `known_gates`, what a scenario asks.

A gate is decided by the value of its figure, as the scenario's author wrote a bound for a value. Where the figure did
not earn a number the gate is inconclusive, with the reason: a gate without data must not pass. So it is where a
capacity is only known to be at least something, and the bound lies above that.
"""

from collections.abc import Sequence

from harness.analysis.recommendation import failed_checks
from harness.records.candidate import MINIMISED
from harness.records.finding import Answer, Capacity, Estimate, GateVerdict, Recommendation, Verdict
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.scenario import Gate, Scenario
from harness.records.words import Measure
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


def known_gates(scenario: Scenario) -> tuple[Gate, ...]:
    """The scenario's gates after those that follow from its expected score and its objective."""
    implied = []
    expect, objective = scenario.expect, scenario.load.objective
    if expect.score_at_least is not None or expect.score_at_most is not None:
        bounds = {"at_least": expect.score_at_least} if maximised(scenario) else {"at_most": expect.score_at_most}
        if None not in bounds.values():
            implied.append(Gate.model_validate({"name": EXPECTED_SCORE, "measure": "score", **bounds}))
    if objective is not None and scenario.serve:
        implied.append(Gate(name=OBJECTIVE, measure="capacity_rps", at_least=objective.rate_rps or 0.0))
    return (*implied, *scenario.gates)


def verdict(
    ledger: Ledger, recommendation: Recommendation, capacities: Sequence[Capacity], results: Sequence[StepResult]
) -> Verdict:
    """What became of each gate, in the order of `known_gates`."""
    judged = []
    for gate in known_gates(ledger.scenario):
        if gate.name == EXPECTED_SCORE:
            estimate, whose = _expected_score(recommendation)
        elif gate.name == OBJECTIVE:
            estimate, whose = _objective(ledger, recommendation, capacities, results)
        elif gate.measure == "score":
            estimate, whose = _score_of(gate, recommendation)
        else:
            estimate, whose = _served(gate, ledger, recommendation, capacities, results)
        judged.append(judge(gate.name, estimate, *bound_of(gate), whose))
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


def maximised(scenario: Scenario) -> bool:
    """Whether more is better by the scenario's metric."""
    # Left out, the metric is one of roc_auc, accuracy and r2: more is better.
    return scenario.search is None or scenario.search.metric not in MINIMISED


def bound_of(gate: Gate) -> tuple[float, str]:
    """A gate's bound, and `at_least` or `at_most`."""
    if gate.at_least is not None:
        return gate.at_least, "at_least"
    return gate.at_most or 0.0, "at_most"


def _expected_score(recommendation: Recommendation) -> tuple[Estimate, str]:
    """Of the recommended candidate, else of the best there is; standings are in that order."""
    if not recommendation.standings:
        return _no(Unit.SCORE, "There is no candidate."), "the recommended candidate"
    first = recommendation.standings[0]
    return first.score, first.candidate


def _score_of(gate: Gate, recommendation: Recommendation) -> tuple[Estimate, str]:
    origin = gate.candidate
    if origin is None:
        return _expected_score(recommendation)
    for standing in recommendation.standings:
        if standing.candidate == origin:
            return standing.score, origin
    return _no(Unit.SCORE, f"{origin} did not end in a candidate."), origin


def _objective(
    ledger: Ledger, recommendation: Recommendation, capacities: Sequence[Capacity], results: Sequence[StepResult]
) -> tuple[Estimate, str]:
    """The capacity of the recommended cell, else the highest of all cells that were loaded."""
    recommended = _recommended_cell(recommendation)
    if recommended is not None:
        return recommended.rate, recommended.candidate or recommended.target
    loaded = _loaded(ledger, capacities, results)
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


def _recommended_cell(recommendation: Recommendation) -> Capacity | None:
    recommended = (one.capacity for one in recommendation.standings if one.candidate == recommendation.recommended)
    return next((capacity for capacity in recommended if capacity is not None), None)


def _loaded(ledger: Ledger, capacities: Sequence[Capacity], results: Sequence[StepResult]) -> list[Capacity]:
    """The cells that passed their checks and have steps; of candidates, or where none was served, of anything."""
    ours = [capacity for capacity in capacities if capacity.candidate is not None] or list(capacities)
    return [
        one
        for one in ours
        if any(result.cell == one.cell for result in results)
        and (one.candidate is None or not failed_checks(ledger, one.candidate, one.runtime, one.target))
    ]


def _served(
    gate: Gate,
    ledger: Ledger,
    recommendation: Recommendation,
    capacities: Sequence[Capacity],
    results: Sequence[StepResult],
) -> tuple[Estimate, str]:
    unit = UNITS[gate.measure]
    matching = _matching(gate, recommendation, capacities, _loaded(ledger, capacities, results))
    if not matching:
        if gate.candidate is None and recommendation.recommended is None:
            return _no(unit, "No candidate was recommended."), "the recommended candidate"
        return _no(unit, "It was not served that way."), gate.candidate or recommendation.recommended or "the candidate"
    best = _highest(matching)
    told = f"with {best.settings.words}" if best.settings else None
    whose = " ".join(part for part in (best.candidate, best.runtime, best.target, told) if part)
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


def _matching(
    gate: Gate, recommendation: Recommendation, capacities: Sequence[Capacity], loaded: Sequence[Capacity]
) -> list[Capacity]:
    """The cells a gate speaks of; what it leaves out is taken from the recommended cell, else from all `loaded`."""
    bare = [one for one in capacities if one.target == gate.target and one.candidate is None]
    if bare or all(one.candidate is None for one in capacities):
        return [one for one in bare or capacities if gate.target in {None, one.target}]
    recommended = _recommended_cell(recommendation)
    origin = gate.candidate or recommendation.recommended
    # A server so slow that nothing can be recommended must fail a gate on its speed, not leave it without data.
    own = loaded if origin is None else [one for one in capacities if one.candidate == origin]
    asked = [one for one in own if gate.runtime in {None, one.runtime} and gate.target in {None, one.target}]
    runtime = gate.runtime or (recommended.runtime if recommended else None)
    target = gate.target or (recommended.target if recommended else None)
    alike = [one for one in asked if runtime in {None, one.runtime} and target in {None, one.target}]
    return alike or asked


def _highest(capacities: Sequence[Capacity]) -> Capacity:
    return max(capacities, key=lambda one: -1.0 if one.rate.value is None else one.rate.value)


def _no(unit: Unit, reason: str) -> Estimate:
    return Estimate(value=None, unit=unit, reason=reason)
