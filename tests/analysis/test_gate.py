"""Gates with three answers, each of which can be given."""

from types import ModuleType

import pytest

from harness.analysis.findings import findings
from harness.records.finding import Answer, GateVerdict

OPTUNA = "optuna_search"


def judged(story: object) -> dict[str, GateVerdict]:
    found = findings(story.ledger(), story.reduced()).verdict  # type: ignore[attr-defined]
    return {gate.name: gate for gate in found.gates}


def one_served(ledgers: ModuleType, capacity_rps: float = 1000.0, **changes: object) -> object:
    story = ledgers.Story(ledgers.scenario(**changes))
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.loaded(story.cell("serve", OPTUNA), capacity_rps, (400, 800, 1200))
    return story


def test_expected_score_and_objective_are_gates_without_being_asked_for(ledgers: ModuleType) -> None:
    found = judged(one_served(ledgers))
    assert {name: gate.answer for name, gate in found.items()} == {
        "expected-score": Answer.PASS,
        "objective": Answer.PASS,
    }
    assert found["objective"].sentence == "The capacity of optuna_search is 800 req/s; asked for: at least 400 req/s."


def test_a_score_below_the_expected_one_fails(ledgers: ModuleType) -> None:
    assert judged(one_served(ledgers, expect={"score_at_least": 0.995}))["expected-score"].answer is Answer.FAIL


def test_an_objective_that_nothing_carries_fails(ledgers: ModuleType) -> None:
    for capacity, rate in ((1000.0, 1000), (300.0, 100)):
        gate = judged(one_served(ledgers, capacity, load={"objective": {"p99_s": 0.05, "rate_rps": rate}}))["objective"]
        assert gate.answer is Answer.FAIL


def test_any_rate_fails_only_where_every_step_missed_the_objective(ledgers: ModuleType) -> None:
    told = {"load": {"objective": {"p99_s": 0.05}}}
    assert judged(one_served(ledgers, 1000.0, **told))["objective"].answer is Answer.PASS
    missed = judged(one_served(ledgers, 300.0, **told))["objective"]
    assert missed.answer is Answer.FAIL
    assert missed.sentence == "The capacity of optuna_search is 0 req/s; asked for: any rate."


def test_a_rate_above_all_that_was_tried_is_inconclusive(ledgers: ModuleType) -> None:
    gate = judged(one_served(ledgers, 9000.0, load={"objective": {"p99_s": 0.05, "rate_rps": 5000}}))["objective"]
    assert gate.answer is Answer.INCONCLUSIVE
    assert "at least 1,200 req/s" in gate.sentence


def test_a_gate_without_data_is_inconclusive_and_says_why(ledgers: ModuleType) -> None:
    found = judged(ledgers.Story())
    assert {gate.answer for gate in found.values()} == {Answer.INCONCLUSIVE}
    assert found["expected-score"].sentence.endswith("There is no candidate.")


@pytest.mark.parametrize(
    ("gate", "answer"),
    [
        ({"measure": "score", "at_least": 0.98}, Answer.PASS),
        ({"measure": "score", "at_least": 0.999}, Answer.FAIL),
        ({"measure": "capacity_rps", "at_least": 800}, Answer.PASS),
        ({"measure": "capacity_rps", "at_least": 801}, Answer.FAIL),
        ({"measure": "served_p99_s", "at_most": 0.02}, Answer.PASS),
        ({"measure": "served_p99_s", "at_most": 0.002}, Answer.FAIL),
        ({"measure": "error_share", "at_most": 0.0}, Answer.PASS),
        ({"measure": "score", "at_least": 0.98, "candidate": OPTUNA}, Answer.PASS),
        ({"measure": "score", "at_least": 0.98, "candidate": "random_search"}, Answer.INCONCLUSIVE),
        ({"measure": "capacity_rps", "at_least": 1, "candidate": "random_search"}, Answer.INCONCLUSIVE),
        ({"measure": "capacity_rps", "at_least": 1, "runtime": "onnx", "target": "asgi"}, Answer.PASS),
    ],
)
def test_a_gate_of_the_scenario_is_decided_by_the_value(
    ledgers: ModuleType, gate: dict[str, object], answer: Answer
) -> None:
    found = judged(one_served(ledgers, gates=[{"name": "mine", **gate}]))
    assert found["mine"].answer is answer


def test_where_every_step_missed_the_lowest_one_decides_p99_and_errors(ledgers: ModuleType) -> None:
    """Otherwise the worst server of all would leave these gates without data."""
    gates = [{"name": "quick", "measure": "served_p99_s", "at_most": 0.05, "candidate": OPTUNA}]
    gate = judged(one_served(ledgers, 300.0, gates=gates))["quick"]
    assert gate.answer is Answer.FAIL
    assert "at 400 req/s, the lowest rate tried (no step met the objective)" in gate.sentence


def test_a_verdict_fails_if_any_gate_fails_and_else_is_inconclusive_if_any_is(ledgers: ModuleType) -> None:
    story = one_served(ledgers, gates=[{"name": "mine", "measure": "score", "at_least": 0.9, "candidate": "baseline"}])
    assert findings(story.ledger(), story.reduced()).verdict.answer is Answer.INCONCLUSIVE  # type: ignore[attr-defined]


def test_where_nothing_is_recommended_a_slow_server_fails_a_gate_that_names_no_candidate(ledgers: ModuleType) -> None:
    gates = [{"name": "quick", "measure": "served_p99_s", "at_most": 0.05}]
    assert judged(one_served(ledgers, 300.0, gates=gates))["quick"].answer is Answer.FAIL
