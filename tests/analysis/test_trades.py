"""What a better score costs, by hand."""

from types import ModuleType
from typing import Any

import pytest

from harness.analysis.ranking import ranking
from harness.records.comparison import Trade
from harness.records.words import BASELINE, DUMMY

FLAML, OPTUNA, RANDOM = "flaml_search", "optuna_search", "random_search"


def story(ledgers: ModuleType) -> Any:
    """Two tables. FLAML scores best and is 4 and 9 times as slow as the baseline, Optuna as good as random search and
    as slow as FLAML, random search twice as slow as the baseline."""
    made = ledgers.Story(ledgers.comparison_scenario(["one", "two"], (1,)))
    for table, slow in (("one", 4.0), ("two", 9.0)):
        made.refitted(table, DUMMY, 0.5)
        made.refitted(table, BASELINE, 0.7, fit_s=0.1, call_s=1e-4)
        made.refitted(table, FLAML, 0.9, fit_s=0.1 * slow, call_s=1e-4 * slow)
        made.refitted(table, OPTUNA, 0.8, fit_s=0.1 * slow, call_s=1e-4 * slow)
        made.refitted(table, RANDOM, 0.8, fit_s=0.2, call_s=2e-4)
    return made


def trades(made: Any) -> dict[tuple[str, int | None, str], Trade]:
    found = ranking(made.ledger())
    assert found is not None
    return {(one.cost, one.rows, one.entrant): one for one in found.trades}


def test_seconds_are_ratios_to_the_fastest_and_their_mean_is_geometric(ledgers: ModuleType) -> None:
    found = trades(story(ledgers))
    assert {key[:2] for key in found} == {("predict", 1), ("predict", 1000), ("fit", None)}
    for cost, rows in (("predict", 1), ("predict", 1000), ("fit", None)):
        ratios = [found[cost, rows, entrant].ratio.value for entrant in (BASELINE, RANDOM, FLAML)]
        assert ratios == pytest.approx([1.0, 2.0, (4 * 9) ** 0.5])


def test_the_front_is_who_is_not_beaten_in_both(ledgers: ModuleType) -> None:
    found = trades(story(ledgers))
    assert {one.entrant for key, one in found.items() if key[0] == "fit" and one.on_front} == {BASELINE, RANDOM, FLAML}


def test_a_table_on_which_one_has_no_model_has_no_times_to_compare(ledgers: ModuleType) -> None:
    made = story(ledgers)
    made.refits = [one for one in made.refits if (one.table, one.entrant) != ("two", OPTUNA)]
    ratio = trades(made)["fit", None, FLAML].ratio
    assert (ratio.value, ratio.n) == (pytest.approx(4.0), 1)


def test_who_has_no_model_at_all_keeps_no_other_from_being_compared(ledgers: ModuleType) -> None:
    made = story(ledgers)
    made.refits = [one for one in made.refits if one.entrant != OPTUNA]
    found = trades(made)
    assert found["fit", None, FLAML].ratio.n == 2
    assert ("fit", None, OPTUNA) not in found
