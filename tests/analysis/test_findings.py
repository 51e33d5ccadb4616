"""A run, read: what counts as the best of a search."""

from types import ModuleType

import pytest

from harness.analysis.document import document
from harness.analysis.findings import Findings, findings
from harness.records.candidate import Trial


def story_of(ledgers: ModuleType, *changes: dict[str, object]) -> Findings:
    """A search of trials that score 0.5, 0.6, 0.7 and so on, each changed as it is told."""
    story = ledgers.Story()
    story.searched("optuna_search", [0.5 + number / 10 for number in range(len(changes))])
    story.trials = [
        trial.model_copy(update={"evaluated": trial.evaluated.model_copy(update=change)})
        for trial, change in zip(story.trials, changes, strict=True)
    ]
    return findings(story.ledger(), story.reduced())


def path(found: Findings) -> list[tuple[Trial, float | None]]:
    (cell,) = (cell for cell in found.ledger.plan if cell.kind == "search" and cell.engine == "optuna_search")
    return found.best_so_far(cell.id)


@pytest.mark.parametrize("in_part", [{"rows_share": 1 / 3}, {"pruned": True}])
def test_a_trial_in_part_is_never_the_best_so_far(ledgers: ModuleType, in_part: dict[str, object]) -> None:
    found = story_of(ledgers, in_part, {}, in_part, {}, in_part)
    assert [best for _, best in path(found)] == [None, 0.6, 0.6, pytest.approx(0.8), pytest.approx(0.8)]


def test_the_report_says_how_many_trials_were_in_part_and_of_what(ledgers: ModuleType) -> None:
    found = story_of(ledgers, {"rows_share": 1 / 3}, {}, {"fold_scores": (0.9,), "pruned": True})
    told = document(found)
    tables = {table.key: table for section in told.sections for table in section.tables}
    searched = dict(zip((field.key for field in tables["search"].fields), tables["search"].rows[0], strict=True))
    assert (searched["trials"], searched["failed"], searched["in_part"], searched["best"]) == (3, 0, 2, 0.6)
    fields = [field.key for field in tables["trials"].fields]
    rows = [dict(zip(fields, row, strict=True)) for row in tables["trials"].rows]
    seen = [(row["rows_share"], row["folds"], row["best"]) for row in rows]
    assert seen == [(1 / 3, 2, None), (1, 2, 0.6), (1, 1, 0.6)]


def test_a_search_with_trials_in_part_alone_found_nothing(ledgers: ModuleType) -> None:
    found = story_of(ledgers, {"rows_share": 0.1}, {"pruned": True})
    assert [best for _, best in path(found)] == [None, None]
    told = document(found)
    assert "search" not in {chart.key for section in told.sections for chart in section.charts}
    assert "No trial has a score on all rows and all folds." in str(told.summary)
