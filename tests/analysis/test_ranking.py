"""Who leads a comparison, what separates entrants, and what failures have to do with it: by hand, or by scipy."""

import dataclasses
from types import ModuleType
from typing import Any

import pytest
from scipy import stats

from harness.analysis.ranking import ranking
from harness.records.comparison import Ranking
from harness.records.run import Cause, Failure
from harness.records.words import BASELINE, DUMMY

FLAML, OPTUNA, RANDOM = "flaml_search", "optuna_search", "random_search"
SIX = [f"table-{number}" for number in range(6)]


def told(story: Any) -> Ranking:
    found = ranking(story.ledger())
    assert found is not None
    return found


def steady(tables: list[str]) -> dict[str, dict[str, float | None]]:
    """FLAML before Optuna before random search before the baseline, on every table."""
    return {table: {FLAML: 0.9, OPTUNA: 0.85, RANDOM: 0.8, BASELINE: 0.7} for table in tables}


def test_without_refits_nothing_is_compared(ledgers: ModuleType) -> None:
    assert ranking(ledgers.whole_run().ledger()) is None


def test_a_planned_comparison_of_which_nothing_came_has_no_answer(ledgers: ModuleType) -> None:
    found = told(ledgers.Story(ledgers.comparison_scenario(SIX)).lost())
    assert (found.leader, found.entrants, found.left_out) == (None, (), tuple(SIX))
    assert found.sentence.startswith("No comparison:")


def test_on_each_table_the_dummy_is_0_the_best_1_and_ranks_count_from_the_best(ledgers: ModuleType) -> None:
    found = told(ledgers.compared(steady(["one"])))
    assert [one.entrant for one in found.placings] == [FLAML, OPTUNA, RANDOM, BASELINE]
    assert [one.normalised for one in found.placings] == pytest.approx([1.0, 0.875, 0.75, 0.5])
    assert [one.rank for one in found.placings] == [1, 2, 3, 4]
    assert DUMMY not in {one.entrant for one in found.entrants}


def test_of_a_loss_less_is_better(ledgers: ModuleType) -> None:
    story = ledgers.compared({"one": {FLAML: 0.4, OPTUNA: 0.3, RANDOM: 0.6, BASELINE: 0.5}})
    story.metrics["one"] = "log_loss"
    found = told(story)
    assert [one.entrant for one in found.placings] == [OPTUNA, FLAML, BASELINE, RANDOM]
    assert [one.normalised for one in found.placings] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert found.placings[1].behind.value == pytest.approx(0.1)


def test_a_score_is_the_mean_over_seeds(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.comparison_scenario(["one"], (1, 2), compare={}))
    story.refitted("one", DUMMY, 0.5)
    for seed, score in ((1, 0.8), (2, 0.9)):
        story.refitted("one", FLAML, score, seed=seed)
    best = told(story.lost()).placings[0]
    assert (best.entrant, best.planned, best.failures) == (FLAML, 2, 0)
    assert (best.score.value, best.seed_low, best.seed_high) == (pytest.approx(0.85), 0.8, 0.9)
    # Nobody else says how much luck there is, and two seeds have one degree of freedom: no interval to speak of.
    assert best.score.low is not None and 0.0 <= best.score.low < 0.5
    assert best.score.high == 1.0  # and nobody's is above 1


def test_scores_are_told_apart_by_their_difference_on_the_same_rows(ledgers: ModuleType) -> None:
    """0.01 apart, each known to 0.06: clear where both err on the same rows, and chance where they do not."""
    scores = {"one": {FLAML: 0.90, OPTUNA: 0.89, RANDOM: 0.89, BASELINE: 0.89}}
    alike = told(ledgers.compared(scores, spread=0.03, alike=True))
    assert [one.apart for one in alike.placings] == [False, True, True, True]
    assert alike.sentence.startswith(f"{FLAML} leads on one: roc_auc 0.9000")
    apart = told(ledgers.compared(scores, spread=0.03, alike=False))
    assert not any(one.apart for one in apart.placings)
    assert apart.sentence.startswith(
        f"No difference shown between {FLAML}, {BASELINE}, {OPTUNA} and {RANDOM} on one: the best is {FLAML}"
    )
    assert [one.best_on for one in apart.entrants] == [1, 1, 1, 1]


def test_few_tables_show_nothing_beyond_them(ledgers: ModuleType) -> None:
    found = told(ledgers.compared(steady(SIX[:5]), spread=0.01))
    assert found.separation.critical_difference is None and found.separation.groups == ()
    assert found.separation.reason == "Below 6 tables no test over tables can show a difference at 5 %."
    assert found.leader == FLAML
    assert "which shows nothing beyond them: fewer than 6 tables cannot" in found.sentence
    assert found.sentence.endswith(
        "It is alone in first place on 5 of them, on 5 by more than chance from every other."
    )
    assert all(one.average_rank.low is None for one in found.entrants)


def test_over_tables_ranks_decide_and_the_tests_are_those_of_scipy(ledgers: ModuleType) -> None:
    """On 6 tables FLAML is first on all but two. Nemenyi's difference for four is 2.569 * sqrt(20 / 36) = 1.915."""
    scores = steady(SIX)
    for table in SIX[:2]:
        scores[table] = {FLAML: 0.85, OPTUNA: 0.9, RANDOM: 0.8, BASELINE: 0.7}
    found = told(ledgers.compared(scores))
    assert [(one.entrant, one.average_rank.value) for one in found.entrants] == [
        (FLAML, pytest.approx(4 / 3)),
        (OPTUNA, pytest.approx(5 / 3)),
        (RANDOM, 3),
        (BASELINE, 4),
    ]
    places = [[2, 2, 1, 1, 1, 1], [1, 1, 2, 2, 2, 2], [3] * 6, [4] * 6]
    friedman = stats.friedmanchisquare(*places)
    assert (found.separation.friedman_chi2, found.separation.friedman_p) == pytest.approx(tuple(friedman))
    assert found.separation.critical_difference == pytest.approx(1.915, abs=1e-3)
    assert found.separation.groups == ((FLAML, OPTUNA, RANDOM), (RANDOM, BASELINE))
    assert found.sentence == (
        f"No difference shown between {FLAML}, {OPTUNA} and {RANDOM} on 6 tables with 1 seed each; {FLAML} "
        f"has the best average rank, 1.33 among 4 entrants, told apart from {BASELINE} (Nemenyi's test, 5 %: ranks "
        "must differ by 1.91)."
    )
    duel = next(one for one in found.duels if {one.entrant, one.other} == {FLAML, OPTUNA})
    assert duel.win_rate.value == pytest.approx(4 / 6)
    exact = stats.binomtest(4, 6).proportion_ci()
    assert (duel.win_rate.low, duel.win_rate.high) == pytest.approx((exact.low, exact.high))


def test_who_is_ahead_on_enough_tables_leads(ledgers: ModuleType) -> None:
    tables = [f"table-{number}" for number in range(40)]
    found = told(ledgers.compared(steady(tables)))
    assert found.separation.groups == ()
    assert found.sentence.startswith(f"{FLAML} leads on 40 tables with 1 seed each: average rank 1.00 among 4 entrants")


def test_no_difference_is_an_answer(ledgers: ModuleType) -> None:
    """Each entrant is first, second, third and fourth twice: Friedman's statistic is 0."""
    order = [FLAML, OPTUNA, RANDOM, BASELINE]
    scores = {
        f"table-{number}": {order[(number + place) % 4]: 0.9 - 0.1 * place for place in range(4)} for number in range(8)
    }
    found = told(ledgers.compared(scores))
    assert found.separation.friedman_chi2 == pytest.approx(0)
    assert found.sentence.startswith("No difference shown between ") and "p = 1" in found.sentence
    assert [set(group) for group in found.separation.groups] == [set(order)]
    assert found.leader is not None


def test_what_failed_is_scored_as_the_dummy_and_counted(ledgers: ModuleType) -> None:
    scores = steady(SIX)
    scores[SIX[0]][FLAML] = None
    found = told(ledgers.compared(scores))
    lost = next(one for one in found.placings if (one.table, one.entrant) == (SIX[0], FLAML))
    assert (lost.score.value, lost.normalised, lost.rank, lost.failures) == (0.5, 0.0, 4, 1)
    flaml = next(one for one in found.entrants if one.entrant == FLAML)
    assert (flaml.planned, flaml.failures, flaml.failure_share) == (6, 1, pytest.approx(1 / 6))
    assert flaml.average_rank.value == pytest.approx((5 * 1 + 4) / 6)


def test_a_seed_that_failed_is_a_dummy_among_the_seeds(ledgers: ModuleType) -> None:
    story = ledgers.compared(steady(["one"]), seeds=(1, 2))
    lost = story.cell("refit", FLAML, table="one", seed=2)
    story.refits = [refit for refit in story.refits if refit.cell != lost.id]
    placing = next(one for one in told(story).placings if one.entrant == FLAML)
    assert (placing.score.value, placing.failures, placing.planned) == (pytest.approx((0.9 + 0.5) / 2), 1, 2)


def test_a_lead_that_hangs_on_how_failures_are_scored_says_so(ledgers: ModuleType) -> None:
    """Optuna is first where it did not fail: on 3 of 6. With its dummies it is last on the others, behind FLAML."""
    scores: dict[str, dict[str, float | None]] = {
        table: {FLAML: 0.85, OPTUNA: None if number < 3 else 0.9, RANDOM: 0.8, BASELINE: 0.7}
        for number, table in enumerate(SIX)
    }
    found = told(ledgers.compared(scores))
    assert [(one.way, one.tables, one.leaders) for one in found.imputations] == [
        ("dummy", 6, (FLAML,)),
        ("left_out", 3, (OPTUNA,)),
        ("worst", 6, (FLAML,)),
    ]
    assert found.flips == (
        f"How failures are scored decides who leads: 3 of 24 refits failed and are scored as the dummy model, and "
        f"{FLAML} leads; with the tables of failures left out, on the 3 others, {OPTUNA} leads."
    )


def test_a_lead_that_does_not_hang_on_failures_says_that_too(ledgers: ModuleType) -> None:
    scores = steady(SIX)
    scores[SIX[0]][RANDOM] = None
    assert told(ledgers.compared(scores)).flips == (
        f"1 of 24 refits failed and is scored as the dummy model; {FLAML} leads however failures are scored."
    )
    assert told(ledgers.compared(steady(SIX))).flips is None


def test_an_order_that_hangs_on_failures_says_so_where_the_lead_does_not(ledgers: ModuleType) -> None:
    """Optuna is second on one table, and last on the other, where it failed."""
    scores: dict[str, dict[str, float | None]] = {
        table: {FLAML: 0.9, OPTUNA: None if number == 0 else 0.85, RANDOM: 0.84 if number else 0.85, BASELINE: 0.6}
        for number, table in enumerate(SIX[:2])
    }
    found = told(ledgers.compared(scores))
    assert found.leader == FLAML
    assert found.flips == (
        f"1 of 8 refits failed and is scored as the dummy model; {FLAML} leads however failures are scored, but the "
        f"order behind changes: {FLAML}, {RANDOM}, {OPTUNA}, {BASELINE}; with the tables of failures left out, on the "
        f"1 other, it is {FLAML}, {OPTUNA}, {RANDOM}, {BASELINE}."
    )
    assert found.flips in found.warnings


def test_where_no_table_is_left_there_is_no_other_answer_and_so_no_flip(ledgers: ModuleType) -> None:
    scores: dict[str, dict[str, float | None]] = {"one": {FLAML: 0.9, OPTUNA: 0.85, RANDOM: 0.8, BASELINE: 0.6}}
    story = ledgers.compared(scores, seeds=(1, 2))
    lost = story.cell("refit", RANDOM, table="one", seed=2)
    story.refits = [refit for refit in story.refits if refit.cell != lost.id]
    found = told(story)
    assert [(one.way, one.leaders) for one in found.imputations] == [
        ("dummy", (FLAML,)),
        ("left_out", ()),
        ("worst", (FLAML,)),
    ]
    assert found.flips is not None and found.flips.endswith("however failures are scored.")
    assert found.flips not in found.warnings


@pytest.mark.parametrize("tables", [1, 6])
def test_who_has_no_model_does_not_lead_where_others_are_worse_than_the_dummy(ledgers: ModuleType, tables: int) -> None:
    scores: dict[str, dict[str, float | None]] = {
        table: {FLAML: None, OPTUNA: 0.45, RANDOM: 0.44, BASELINE: 0.43} for table in SIX[:tables]
    }
    found = told(ledgers.compared(scores))
    assert found.leader is None
    assert found.sentence.startswith("Nobody leads: nothing that was found is better on ")
    assert [one.entrant for one in found.placings[:4]] == [OPTUNA, RANDOM, BASELINE, FLAML]
    scores[SIX[0]][OPTUNA] = 0.6
    assert told(ledgers.compared(scores)).leader == OPTUNA


def test_three_seeds_that_all_failed_are_no_better_than_the_dummy(ledgers: ModuleType) -> None:
    """A mean of three equal scores may be off by a last digit, of which no lead must be made."""
    for dummy in (0.1, 0.43, 0.57, 0.7, 0.83):
        story = ledgers.Story(ledgers.comparison_scenario(["one"], (1, 2, 3), compare={}))
        story.refitted("one", DUMMY, dummy)
        assert {one.normalised for one in told(story.lost()).placings} == {0.0}


def test_what_was_not_tried_yet_has_not_failed(ledgers: ModuleType) -> None:
    story = ledgers.compared(steady(SIX[:3]))
    for table in SIX[1:3]:
        cell = story.cell("refit", OPTUNA, table=table)
        story.refits = [refit for refit in story.refits if refit.cell != cell.id]
        del story.results[cell.id]
    found = told(story)
    assert (found.tables, found.left_out) == ((SIX[0],), tuple(SIX[1:3]))
    assert sum(one.failures for one in found.entrants) == 0
    assert any(warning.startswith("Not compared yet on table-1, table-2") for warning in found.warnings)


def test_friedman_may_find_what_nemenyi_cannot_place(ledgers: ModuleType) -> None:
    """Average ranks of 2, 2, 2.17 and 3.83: not all alike, and the farthest are 1.83 apart, where it takes 1.91."""
    goodness = [(1, 2, 3, 0), (3, 2, 0, 1), (3, 1, 2, 0), (1, 3, 2, 0), (1, 2, 3, 0), (3, 1, 2, 0)]
    names = (FLAML, OPTUNA, RANDOM, BASELINE)
    scores = {
        table: {name: 0.6 + 0.05 * one for name, one in zip(names, own, strict=True)}
        for table, own in zip(SIX, goodness, strict=True)
    }
    found = told(ledgers.compared(scores))
    assert found.separation.iman_davenport_p == pytest.approx(0.0182, abs=1e-4)
    assert "(not all are alike, by Friedman's test: p = 0.018; but Nemenyi's tells no two apart)" in found.sentence


def test_two_entrants_are_held_apart_by_the_sign_test(ledgers: ModuleType) -> None:
    tables = [f"table-{number}" for number in range(8)]
    story = ledgers.Story(ledgers.comparison_scenario(tables, (1,), [FLAML], compare={}))
    for number, table in enumerate(tables):
        story.refitted(table, DUMMY, 0.5)
        story.refitted(table, FLAML, 0.9, seed=1)
        story.refitted(table, BASELINE, 0.8 if number else 0.95)
    found = told(story)
    assert found.separation.sign_p == pytest.approx(18 / 256)
    assert found.sentence.startswith(f"No difference shown between {FLAML} and {BASELINE} on 8 tables")
    assert found.duels[0].p == pytest.approx(18 / 256)


def test_a_table_without_its_dummy_is_left_out_and_named(ledgers: ModuleType) -> None:
    story = ledgers.compared(steady(SIX))
    story.refits = [one for one in story.refits if (one.table, one.entrant) != (SIX[2], DUMMY)]
    found = told(story)
    assert found.left_out == (SIX[2],) and len(found.tables) == 5
    assert any(warning.startswith(f"Not compared on {SIX[2]}:") for warning in found.warnings)


def test_failures_of_the_machine_are_told_from_those_of_an_engine(ledgers: ModuleType) -> None:
    story = ledgers.compared(steady(["one"]))
    cell = story.cell("refit", OPTUNA, table="one")
    story.refits = [refit for refit in story.refits if refit.cell != cell.id]
    story.done(cell, failure=Failure(cause=Cause.WORKER_LOST, message="it was killed"))
    assert any("1 of 5 refits failed for reasons of the machine" in warning for warning in told(story).warnings)


def test_where_everybody_failed_nobody_leads(ledgers: ModuleType) -> None:
    found = told(ledgers.compared({"one": {FLAML: None, OPTUNA: None, RANDOM: None, BASELINE: None}}))
    assert found.leader is None and found.sentence.startswith("No comparison:")
    assert any("Nobody is better than the dummy model on one" in warning for warning in found.warnings)


def test_the_same_records_give_the_same_ranking(ledgers: ModuleType) -> None:
    ledger = ledgers.compared(steady(SIX), seeds=(1, 2), spread=0.02, alike=False).ledger()
    assert ranking(ledger) == ranking(dataclasses.replace(ledger))
