"""The self-test of a verdict: whether each gate of a recorded run can fail, and abstains without data.

In: a run's ledger and its reduced steps. Out: complaints. The records are made as bad as can be, or taken away, and all
conclusions are drawn from them anew, so that a gate that looks at the wrong figure is found, and not only one whose
bound is beyond reach.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.analysis.findings import findings
from harness.analysis.gate import bound_of, known_gates
from harness.records.candidate import Check
from harness.records.finding import Answer
from harness.records.ledger import Ledger
from harness.records.load import Latency, StepResult
from harness.records.words import Measure

_FAR = 1e9
"""Beyond any bound: seconds, requests a second, or an error of a regression."""


def self_test(ledger: Ledger, results: Sequence[StepResult]) -> list[str]:
    """What is wrong with the gates of a run; empty where each fails on ruined records and abstains without any."""
    complaints = []
    without = {gate.name: gate.answer for gate in findings(replace(ledger, candidates=(), checks=()), ()).verdict.gates}
    for gate in known_gates(ledger.scenario):
        _, direction = bound_of(gate)
        ruined, steps = _ruined(ledger, results, gate.measure, high=direction == "at_most")
        judged = {one.name: one for one in findings(ruined, steps).verdict.gates}[gate.name]
        if judged.answer is not Answer.FAIL:
            complaints.append(
                f"The gate {gate.name} does not fail on records that were ruined for it. {judged.sentence}"
            )
        if without[gate.name] is not Answer.INCONCLUSIVE:
            complaints.append(f"The gate {gate.name} answers {without[gate.name]} where there is nothing to judge.")
    return complaints


def _ruined(
    ledger: Ledger, results: Sequence[StepResult], measure: Measure, *, high: bool
) -> tuple[Ledger, list[StepResult]]:
    """The records with one measure at its far end."""
    match measure:
        case "score":
            checks = tuple(_scored(check, _FAR if high else -_FAR) for check in ledger.checks)
            return replace(ledger, checks=checks), list(results)
        case "capacity_rps" if high:
            return ledger, [_offered(result, _FAR) for result in results]
        case "error_share":
            return ledger, [_believed(result, error_share=float(high)) for result in results]
        case _:
            # What is slow beyond any objective has no capacity either.
            slow = high or measure == "capacity_rps"
            p99 = Latency(value_s=_FAR if slow else 0.0)
            return ledger, [
                _believed(result, scheduled={**result.scheduled, "p99": p99}, throughput_rps=_FAR) for result in results
            ]


def _scored(check: Check, value: float) -> Check:
    return check.model_copy(update={"value": value}) if check.name == "holdout_score" else check


def _offered(result: StepResult, rate_rps: float) -> StepResult:
    """The step as if it had carried that rate, with nothing slow or wrong about it."""
    step = result.step.model_copy(update={"rate_rps": rate_rps}) if result.step.mode == "open" else result.step
    quick = {**result.scheduled, "p99": Latency(value_s=0.0)}
    return _believed(result, step=step, scheduled=quick, error_share=0.0, throughput_rps=rate_rps)


def _believed(result: StepResult, **changes: object) -> StepResult:
    """The step with other figures and nothing to be said against them: a gate that abstains has not failed."""
    return result.model_copy(update={"doubts": (), "overloaded": None, **changes})
