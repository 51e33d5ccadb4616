"""Gates that could never be decided, or never fail, are refused before the run."""

from types import ModuleType

import pytest

from harness.analysis.gate import known_gates
from harness.errors import UsageError
from harness.pipeline.gate_plan import refuse_unreal
from harness.records.cell import cells

OPTUNA = "optuna_search"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"gates": [{"name": "g", "measure": "score", "at_least": 0.5, "candidate": "nobody"}]},
            "the candidate nobody",
        ),
        ({"gates": [{"name": "g", "measure": "capacity_rps", "at_least": 5, "runtime": "tpu"}]}, "the runtime tpu"),
        ({"gates": [{"name": "g", "measure": "served_p99_s", "at_most": 5, "target": "moon"}]}, "the target moon"),
        ({"gates": [{"name": "g", "measure": "capacity_rps", "at_least": 5}], "load": {}}, "without an objective"),
        ({"gates": [{"name": "g", "measure": "served_p99_s", "at_most": 5}], "serve": []}, "add a [[serve]] table"),
        ({"gates": [{"name": "g", "measure": "error_share", "at_most": 1.0}]}, "can never fail"),
        ({"gates": [{"name": "g", "measure": "served_p99_s", "at_least": 0.0}]}, "can never fail"),
        ({"expect": {"score_at_least": 0.0}, "search": {"engines": [OPTUNA], "metric": "roc_auc"}}, "can never fail"),
        ({"gates": [{"name": "g", "measure": "score", "at_most": 1.0}]}, "can never fail"),
        ({"gates": [{"name": "objective", "measure": "score", "at_least": 0.5}]}, "choose another one"),
        ({"expect": {"score_at_most": 0.5}}, "write expect.score_at_least instead"),
        (
            {"expect": {"score_at_least": 0.5}, "search": {"engines": [OPTUNA], "metric": "rmse"}},
            "write expect.score_at_most instead",
        ),
    ],
)
def test_a_gate_that_could_never_be_decided_or_never_fail_is_refused_before_the_run(
    ledgers: ModuleType, changes: dict[str, object], words: str
) -> None:
    scenario = ledgers.scenario(**changes)
    with pytest.raises(UsageError) as caught:
        refuse_unreal(scenario, cells(scenario, ()))
    assert words in str(caught.value)


def test_a_pair_that_is_never_served_together_is_refused(ledgers: ModuleType) -> None:
    scenario = ledgers.scenario(
        serve=[{"target": "asgi", "runtimes": ["onnx"]}, {"target": "ray_serve", "runtimes": ["sklearn_native"]}],
        gates=[
            {"name": "g", "measure": "capacity_rps", "at_least": 5, "runtime": "onnx", "target": "ray_serve"},
        ],
    )
    with pytest.raises(UsageError, match="never served together"):
        refuse_unreal(scenario, cells(scenario, ()))


def test_real_gates_are_not_refused(ledgers: ModuleType) -> None:
    gates = [
        {"name": "a", "measure": "score", "at_least": 0.9, "candidate": OPTUNA},
        {"name": "b", "measure": "capacity_rps", "at_least": 100, "runtime": "onnx", "target": "asgi"},
        {"name": "c", "measure": "error_share", "at_most": 0.01},
    ]
    scenario = ledgers.scenario(gates=gates)
    refuse_unreal(scenario, cells(scenario, ()))
    assert [gate.name for gate in known_gates(scenario)] == ["expected-score", "objective", "a", "b", "c"]
