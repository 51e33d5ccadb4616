"""What the charts of a comparison state, for findings that are known."""

from types import ModuleType
from typing import Any

import pytest

from harness.analysis import comparison_pictures
from harness.analysis.drawable import Lines, Picture, Points, Ranks, Rows
from harness.analysis.findings import findings
from harness.records.words import BASELINE

FLAML, OPTUNA, RANDOM = "flaml_search", "optuna_search", "random_search"


def pictures(story: Any) -> dict[str, Picture]:
    found = findings(story.ledger(), ())
    assert found.ranking is not None
    return {picture.key: picture for picture in comparison_pictures.of_comparison(found, found.ranking)}


def story(ledgers: ModuleType, tables: int, **fields: Any) -> Any:
    scores = {FLAML: 0.9, OPTUNA: 0.85, RANDOM: 0.8, BASELINE: 0.7}
    made = ledgers.compared({f"table-{number}": scores for number in range(tables)}, **fields)
    for number in range(tables):
        made.searched(FLAML, [0.6, 0.7, 0.9], table=f"table-{number}", every_s=4.0)
        made.searched(OPTUNA, [0.85], table=f"table-{number}", every_s=1.0)
    return made


def test_the_diagram_s_title_says_whom_nothing_separates(ledgers: ModuleType) -> None:
    """Ranks 1, 2, 3, 4 on every table: the critical difference is 1.91 on 6, and 0.74 on 40."""
    few, many = pictures(story(ledgers, 6))["critical_difference"], pictures(story(ledgers, 40))["critical_difference"]
    assert isinstance(few, Ranks) and isinstance(many, Ranks)
    assert few.title == f"No difference shown between {FLAML} and {OPTUNA} on 6 tables"
    assert few.groups == ((FLAML, OPTUNA), (OPTUNA, RANDOM), (RANDOM, BASELINE))
    assert many.title == f"{FLAML} leads: its average rank is more than 0.74 below every other"
    assert many.ranks == ((FLAML, 1.0), (OPTUNA, 2.0), (RANDOM, 3.0), (BASELINE, 4.0))


def test_on_one_table_the_scores_are_shown_and_the_difference_on_the_same_rows(ledgers: ModuleType) -> None:
    found = pictures(story(ledgers, 1, spread=0.01))["standings"]
    assert isinstance(found, Rows)
    assert found.title == f"{FLAML} has the best holdout roc_auc, 0.9000, by more than chance"
    assert [row.dots[1].value for row in found.rows] == pytest.approx([0.0, 0.05, 0.1, 0.2])
    assert [row.filled for row in found.rows] == [True, False, False, False]


def test_on_few_tables_ranks_are_shown_without_a_diagram(ledgers: ModuleType) -> None:
    found = pictures(story(ledgers, 3))
    assert "critical_difference" not in found
    standings = found["standings"]
    assert isinstance(standings, Rows)
    assert [row.dots[0].value for row in standings.rows] == [1, 2, 3, 4]
    assert all(row.filled for row in standings.rows)  # nothing is shown beyond these tables


def test_the_anytime_chart_says_who_ends_ahead_and_who_was_before(ledgers: ModuleType) -> None:
    """Optuna has 0.85, which is 0.875 of the way, after 1 s; FLAML the best after 12 s, and 0.25 before 8."""
    found = pictures(story(ledgers, 2))["anytime"]
    assert isinstance(found, Lines)
    assert found.title == f"{FLAML} ends ahead at 1.0000 of the best known; after 3.54 s {OPTUNA} is ahead at 0.8750"
    assert [line.label for line in found.lines] == [FLAML, OPTUNA, RANDOM]
    assert all(line.band and line.stairs for line in found.lines)


def test_an_entrant_keeps_its_style_from_chart_to_chart(ledgers: ModuleType) -> None:
    found = pictures(story(ledgers, 2))
    lines, points = found["anytime"], found["trades"]
    assert isinstance(lines, Lines) and isinstance(points, Points)
    styles = {point.label: point.style for panel in points.panels for point in panel.points}
    assert all(styles[line.label] == line.style for line in lines.lines)
    assert len(set(styles.values())) == len(styles)


def test_costs_have_a_panel_each(ledgers: ModuleType) -> None:
    found = pictures(story(ledgers, 2))["trades"]
    assert isinstance(found, Points)
    assert [panel.x.title for panel in found.panels] == [
        "predict 1 row, × fastest",
        "predict 1,000 rows, × fastest",
        "fit, × fastest",
    ]


def test_nothing_recorded_draws_nothing(ledgers: ModuleType) -> None:
    assert pictures(ledgers.Story(ledgers.comparison_scenario(["one", "two"]))) == {}
