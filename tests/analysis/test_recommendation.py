"""Which candidate is recommended, and in which words."""

from types import ModuleType

from harness.analysis.capacity import capacities
from harness.analysis.recommendation import recommendation
from harness.records.candidate import Check
from harness.records.finding import Recommendation
from harness.records.run import Cause, Failure

OPTUNA = "optuna_search"
RANDOM = "random_search"


def ranked(story: object) -> Recommendation:
    ledger, results = story.ledger(), story.reduced()  # type: ignore[attr-defined]
    return recommendation(ledger, capacities(ledger, results), results)


def test_a_tie_in_score_goes_to_capacity_and_the_sentence_says_so(ledgers: ModuleType) -> None:
    found = ranked(ledgers.whole_run())
    assert found.recommended == RANDOM
    assert found.sentence.startswith(
        "Ship random_search (lightgbm) as onnx on asgi: it scores 0.9902 roc_auc on the holdout and carries "
        "1,200 req/s on one replica with p99 10.2 ms, inside the objective of 50 ms."
    )
    assert found.sentence.endswith(
        "cannot be told apart from the 0.9931 of optuna_search, and it carries more than that one's 800 req/s."
    )
    assert {one.candidate for one in found.standings if one.tied} == {OPTUNA, RANDOM}


def test_scores_are_told_apart_by_their_difference_on_the_same_rows(ledgers: ModuleType) -> None:
    """Their intervals overlap, yet on every resample one is better: there is no tie for capacity to break."""
    story = ledgers.Story()
    story.candidate(OPTUNA, 0.95, 0.93, 0.97, alike=True)
    story.candidate(RANDOM, 0.93, 0.91, 0.95, alike=True)
    story.loaded(story.cell("serve", OPTUNA), 900.0, (400, 800, 1200))
    story.loaded(story.cell("serve", RANDOM), 5000.0, (400, 800, 1200))
    found = ranked(story)
    assert found.recommended == OPTUNA
    assert [one.candidate for one in found.standings if one.tied] == [OPTUNA]


def test_a_tie_is_not_said_to_be_broken_by_more_than_was_shown(ledgers: ModuleType) -> None:
    """Neither cell ever missed the objective: which of the two carries more is not known."""
    story = ledgers.Story()
    story.candidate(OPTUNA, 0.993, 0.984, 0.999)
    story.candidate(RANDOM, 0.990, 0.981, 0.998)
    story.loaded(story.cell("serve", OPTUNA), 5000.0, (400, 800))
    story.loaded(story.cell("serve", RANDOM), 5000.0, (400, 1250))
    found = ranked(story)
    assert found.recommended == RANDOM
    assert found.sentence.endswith("of optuna_search, which carried 800 req/s and was not shown to carry more.")


def test_a_score_that_is_clearly_better_beats_any_capacity(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.candidate(RANDOM, 0.95, 0.94, 0.96)
    story.loaded(story.cell("serve", OPTUNA), 900.0, (400, 800, 1200))
    story.loaded(story.cell("serve", RANDOM), 5000.0, (400, 800, 1200))
    found = ranked(story)
    assert found.recommended == OPTUNA
    assert "cannot be told apart" not in found.sentence
    assert [standing.candidate for standing in found.standings] == [OPTUNA, RANDOM]


def test_of_equal_scores_the_one_that_serves_better_leads_and_no_tie_is_told(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.candidate(RANDOM, 0.99, 0.985, 0.995)
    story.loaded(story.cell("serve", OPTUNA), 900.0, (400, 800, 1200))
    story.loaded(story.cell("serve", RANDOM), 1300.0, (400, 800, 1200, 1600))
    found = ranked(story)
    assert found.recommended == RANDOM
    assert "cannot be told apart" not in found.sentence


def test_a_candidate_that_does_not_carry_the_asked_rate_is_not_recommended(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(load={"objective": {"p99_s": 0.05, "rate_rps": 1000}}))
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.candidate(RANDOM, 0.95, 0.94, 0.96)
    story.loaded(story.cell("serve", OPTUNA), 900.0, (400, 800, 1200))
    story.loaded(story.cell("serve", RANDOM), 5000.0, (400, 800, 1200))
    found = ranked(story)
    assert found.recommended == RANDOM
    # It is the last step that was tried, so the promise is a lower bound.
    assert "carries at least 1,200 req/s" in found.sentence


def test_where_nothing_carries_the_rate_nothing_is_recommended_and_each_reason_is_given(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(load={"objective": {"p99_s": 0.05, "rate_rps": 9000}}))
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.candidate(RANDOM, 0.95, 0.94, 0.96, passed=False)
    story.loaded(story.cell("serve", OPTUNA), 900.0, (400, 800, 1200))
    found = ranked(story)
    assert found.recommended is None
    assert found.sentence == (
        "Nothing can be recommended. optuna_search: It carries 800 req/s inside the objective, and 9,000 req/s are "
        "asked for; random_search: It failed a check (beats_dummy: against 0.5)."
    )


def test_a_check_of_one_runtime_keeps_only_that_runtime_away(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(serve=[{"target": "asgi", "runtimes": ["onnx", "sklearn_native"]}]))
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.checks.append(
        Check(candidate=OPTUNA, name="runtime_parity", runtime="onnx", passed=False, detail="half the labels differ")
    )
    onnx, native = (cell for cell in story.plan if cell.kind == "serve" and cell.candidate == OPTUNA)
    story.loaded(onnx, 5000.0, (400, 800))
    story.loaded(native, 600.0, (400, 800))
    found = ranked(story)
    assert found.recommended == OPTUNA
    assert "as sklearn_native on asgi" in found.sentence


def test_losses_are_better_when_they_are_smaller(ledgers: ModuleType) -> None:
    story = ledgers.Story(
        ledgers.scenario(
            data=[{"source": "sklearn:diabetes", "task": "regression"}],
            search={"engines": [OPTUNA, RANDOM], "metric": "rmse"},
            expect={"score_at_most": 60.0},
            serve=[],
        )
    )
    story.candidate(OPTUNA, 61.0, 60.5, 61.5, metric="rmse")
    story.candidate(RANDOM, 54.0, 53.5, 54.5, metric="rmse")
    found = ranked(story)
    assert found.recommended == RANDOM
    assert found.sentence == (
        "Ship random_search (random_forest): it scores 54.0 rmse on the holdout. Nothing was served, so no rate can be "
        "promised."
    )


def test_without_an_objective_no_rate_is_promised(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(load={}))
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.loaded(story.cell("serve", OPTUNA), 1000.0, (400,))
    sentence = ranked(story).sentence
    assert "reached 1,000 req/s on one replica; without an objective no rate can be promised." in sentence


def test_the_least_hardware_that_carries_the_asked_rate_is_the_best_cell(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(serve=[{"target": "asgi", "replicas": [1, 2, 4]}]))
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    for replicas in (1, 2, 4):
        cell = story.cell("serve", OPTUNA, replicas=replicas)
        story.loaded(cell, 300.0 * replicas, (200, 400, 800, 1600))
    found = ranked(story)
    capacity = found.standings[0].capacity
    assert capacity is not None and capacity.replicas == 2
    assert "on two replicas" in found.sentence


def test_what_scaled_itself_is_no_capacity_of_its_first_replicas(ledgers: ModuleType) -> None:
    """It carries more, but may have had four replicas for it, and two that stay carry what is asked for."""
    scaled = {"target": "ray_serve", "parameters": {"max_replicas": 4}}
    told = ledgers.scenario(
        serve=[{"target": "ray_serve", "replicas": [2]}, scaled],
        load={"objective": {"p99_s": 0.05, "rate_rps": 400}},
    )
    story = ledgers.Story(told)
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    fixed, growing = (cell for cell in story.plan if cell.kind == "serve" and cell.candidate == OPTUNA)
    assert growing.label == f"{OPTUNA} onnx ray_serve x1-4"
    story.loaded(growing, 1200.0, (200, 400, 800))
    alone = ranked(story)
    assert "on up to four replicas, autoscaled" in alone.sentence
    rate = alone.standings[0].capacity.rate
    assert any("Autoscaled, from 1 to at most 4 replicas" in warning for warning in rate.warnings)
    story.loaded(fixed, 600.0, (200, 400, 800))
    assert ranked(story).standings[0].capacity.cell == fixed.id


def test_a_cell_that_is_better_for_its_batches_is_named_by_them(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(serve=[{"target": "asgi", "batch_requests": [1, 8]}]))
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    for cell in (cell for cell in story.plan if cell.kind == "serve" and cell.candidate == OPTUNA):
        story.loaded(cell, 900.0 if cell.settings else 300.0, (200, 400, 800))
    assert f"Ship {OPTUNA} (random_forest) as onnx on asgi with batch 8" in ranked(story).sentence


def test_a_dominated_candidate_is_not_on_the_front(ledgers: ModuleType) -> None:
    """Worse in score, in capacity, and in p99 at the rate that all were offered."""
    story = ledgers.Story()
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.candidate(RANDOM, 0.95, 0.94, 0.96)
    story.loaded(story.cell("serve", OPTUNA), 2000.0, (400, 800, 1200, 1600))
    story.loaded(story.cell("serve", RANDOM), 1000.0, (400, 800, 1200))
    assert {one.candidate: one.on_front for one in ranked(story).standings} == {OPTUNA: True, RANDOM: False}


def test_the_front_compares_p99_under_the_same_arrivals(ledgers: ModuleType) -> None:
    """At its own, higher capacity the better cell is slower; at the rate both were offered it is faster."""
    story = ledgers.Story()
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.candidate(RANDOM, 0.95, 0.94, 0.96)
    story.loaded(story.cell("serve", OPTUNA), 1700.0, (400, 800, 1600))
    story.loaded(story.cell("serve", RANDOM), 1000.0, (400, 800, 1600))
    found = ranked(story)
    p99_s = {one.candidate: one.capacity.p99.value for one in found.standings if one.capacity}
    assert p99_s[OPTUNA] > p99_s[RANDOM]
    assert {one.candidate: one.on_front for one in found.standings} == {OPTUNA: True, RANDOM: False}


def test_candidates_that_share_no_rate_are_not_compared_by_p99(ledgers: ModuleType) -> None:
    """Better in score, worse in capacity; p99 at other rates would say nothing, and both stay on the front."""
    story = ledgers.Story()
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    story.candidate(RANDOM, 0.95, 0.94, 0.96)
    story.loaded(story.cell("serve", OPTUNA), 900.0, (315, 630))
    story.loaded(story.cell("serve", RANDOM), 5000.0, (400, 1250))
    assert {one.candidate: one.on_front for one in ranked(story).standings} == {OPTUNA: True, RANDOM: True}


def test_a_candidate_that_was_never_loaded_stands_with_its_reason(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.candidate(OPTUNA, 0.99, 0.985, 0.995)
    failed = Failure(cause=Cause.TARGET, message="the server did not become ready")
    story.done(story.cell("serve", OPTUNA), failure=failed)
    standing = ranked(story).standings[0]
    assert standing.capacity is None
    assert standing.reason == "Never loaded: the server did not become ready"


def test_a_run_without_candidates_says_so(ledgers: ModuleType) -> None:
    found = ranked(ledgers.Story())
    assert (found.recommended, found.standings) == (None, ())
    assert found.sentence.startswith("Nothing can be recommended: no search and no baseline ended in a candidate.")
