"""The self-test: it ruins records, and tells the gates that do not notice."""

from types import ModuleType

from harness.analysis.self_test import self_test

OPTUNA = "optuna_search"


def one_served(ledgers: ModuleType, **changes: object) -> object:
    story = ledgers.Story(ledgers.scenario(**changes))
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.loaded(story.cell("serve", OPTUNA), 1000.0, (400, 800, 1200))
    return story


def complaints(story: object) -> list[str]:
    return self_test(story.ledger(), story.reduced())  # type: ignore[attr-defined]


def test_every_kind_of_gate_can_fail_and_abstain(ledgers: ModuleType) -> None:
    gates = [
        {"name": "a", "measure": "score", "at_least": 0.9},
        {"name": "b", "measure": "capacity_rps", "at_least": 100},
        {"name": "c", "measure": "error_share", "at_most": 0.0},
        {"name": "d", "measure": "served_p99_s", "at_most": 0.05},
        {"name": "e", "measure": "served_p99_s", "at_least": 0.001, "candidate": OPTUNA},
        {"name": "f", "measure": "capacity_rps", "at_most": 5000},
        {"name": "g", "measure": "score", "at_most": 0.999, "candidate": OPTUNA},
        {"name": "h", "measure": "error_share", "at_least": 0.001},
    ]
    assert complaints(one_served(ledgers, gates=gates)) == []


def test_a_gate_on_what_was_never_made_is_told(ledgers: ModuleType) -> None:
    """The candidate was planned, but no search ended in it: its gate will never be anything but inconclusive."""
    gates = [{"name": "mine", "measure": "score", "at_least": 0.9, "candidate": "random_search"}]
    (complaint,) = complaints(one_served(ledgers, gates=gates))
    assert complaint == (
        "The gate mine does not fail on records that were ruined for it. Inconclusive: the holdout score of "
        "random_search should be at least 0.9. random_search did not end in a candidate."
    )


def test_a_bound_beyond_reach_is_told(ledgers: ModuleType) -> None:
    gates = [{"name": "toothless", "measure": "error_share", "at_most": 1.0}]
    (complaint,) = complaints(one_served(ledgers, gates=gates))
    assert complaint.startswith("The gate toothless does not fail")
