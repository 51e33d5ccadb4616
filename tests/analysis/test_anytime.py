"""Best so far against time, by hand."""

from types import ModuleType
from typing import Any

import pytest

from harness.analysis.anytime import POINTS, Curve, anytime
from harness.analysis.entries import entries
from harness.records.words import DUMMY

FLAML, OPTUNA, RANDOM = "flaml_search", "optuna_search", "random_search"


def curves(story: Any) -> dict[str, Curve]:
    ledger = story.ledger()
    compared = entries(ledger)
    assert compared is not None
    return {curve.engine: curve for curve in anytime(ledger, compared)}


def started(ledgers: ModuleType, tables: list[str], seeds: tuple[int, ...]) -> Any:
    story = ledgers.Story(ledgers.comparison_scenario(tables, seeds))
    for table in tables:
        story.refitted(table, DUMMY, 0.5)
    return story.lost()


def test_before_its_first_trial_a_search_has_nothing_and_after_its_last_what_it_found(ledgers: ModuleType) -> None:
    """The best on the table is 0.9, so 0.7 is half of the way from the dummy's 0.5, and 0.8 three quarters."""
    story = started(ledgers, ["one", "two"], (1,))
    for table in ("one", "two"):
        story.searched(FLAML, [0.7, 0.6, 0.9], table=table, every_s=1.0)
        story.searched(OPTUNA, [0.8], table=table, every_s=2.5)
    found = curves(story)
    moments = found[FLAML].after_s
    assert len(moments) == POINTS and (moments[0], moments[-1]) == (1.0, 3.0)
    for after_s, flaml, optuna, random in zip(
        moments, found[FLAML].median, found[OPTUNA].median, found[RANDOM].median, strict=True
    ):
        assert flaml == pytest.approx(0.5 if after_s < 3 else 1.0)
        assert optuna == pytest.approx(0.0 if after_s < 2.5 else 0.75)
        assert random == 0


def test_tables_are_averaged_and_seeds_make_the_band(ledgers: ModuleType) -> None:
    """Seed 1 ends at 1 on one table and 0.5 on the other, seed 2 at 0.5 and 1, seed 3 at 0.5 and 0.5."""
    story = started(ledgers, ["one", "two"], (1, 2, 3))
    for seed, one, two in ((1, 0.9, 0.7), (2, 0.7, 0.9), (3, 0.7, 0.7)):
        story.searched(FLAML, [one], table="one", seed=seed)
        story.searched(FLAML, [two], table="two", seed=seed)
    found = curves(story)[FLAML]
    assert (found.median[-1], found.low[-1], found.high[-1]) == pytest.approx((0.75, 0.5, 0.75))
    assert (found.tables, found.seeds) == (2, 3)


def test_of_a_loss_the_least_is_the_best(ledgers: ModuleType) -> None:
    story = started(ledgers, ["one", "two"], (1,))
    story.metrics.update(one="log_loss", two="log_loss")
    story.searched(FLAML, [0.4, 0.1], table="one", every_s=1.0)
    story.searched(OPTUNA, [0.3], table="one", every_s=1.0)
    found = curves(story)
    assert found[FLAML].median[0] == pytest.approx((0.5 - 0.4) / (0.5 - 0.1) / 2)
    assert found[OPTUNA].median[-1] == pytest.approx((0.5 - 0.3) / (0.5 - 0.1) / 2)


def test_trials_on_part_of_the_rows_or_folds_do_not_count(ledgers: ModuleType) -> None:
    story = started(ledgers, ["one", "two"], (1,))
    story.searched(FLAML, [0.7, 0.99], table="one", every_s=1.0)
    part = story.trials[1].evaluated.model_copy(update={"rows_share": 0.5})
    story.trials[1] = story.trials[1].model_copy(update={"evaluated": part})
    story.searched(OPTUNA, [0.9], table="one", every_s=3.0)
    assert max(curves(story)[FLAML].median) == pytest.approx(0.5 / 2)


def test_of_several_numbers_of_workers_the_largest_is_compared(ledgers: ModuleType) -> None:
    told = ledgers.comparison_scenario(["one", "two"], (1,))
    search = told.search.model_copy(update={"workers": (1, 4)})
    story = ledgers.Story(told.model_copy(update={"search": search}))
    story.refitted("one", DUMMY, 0.5)
    story.searched(FLAML, [0.9], table="one")  # by one worker
    ledger = story.ledger()
    compared = entries(ledger)
    assert compared is not None and anytime(ledger, compared) == ()
