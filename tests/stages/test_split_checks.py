"""What groups and moments do to figures is told before any search."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.records.table import DataCheck, DataPlan
from harness.stages.data import load_table
from harness.stages.split_checks import independent_rows, texts_of_groups

ROWS = 1_200


def checks(folder: Path, groups: int, **plan: Any) -> list[DataCheck]:
    """Of patients in `groups`, each with a street of his own, and streets that are shared by all."""
    patient = np.arange(ROWS) % groups
    columns = {
        "size": np.random.default_rng(1).normal(size=ROWS),
        "street": [f"s{number}" for number in patient],
        "town": [f"t{number}" for number in np.random.default_rng(2).integers(150, size=ROWS)],
        "patient": patient,
        "day": np.arange(ROWS),
        "target": np.arange(ROWS) // groups % 2,
    }
    pd.DataFrame(columns).to_parquet(folder / "table.parquet")
    table = load_table(DataPlan.model_validate({"source": "table.parquet", **plan}), folder)
    return [*independent_rows(table), *texts_of_groups(table)]


def test_a_text_that_stands_for_a_group_warns_and_one_that_does_not_passes(tmp_path: Path) -> None:
    *_, street = checks(tmp_path, 200, split="grouped", group="patient")
    assert (street.name, street.column, street.verdict, street.value) == ("texts_of_groups", "street", "warn", 1.0)
    *_, none = checks(tmp_path, 200, split="grouped", group="patient", drop=("street",))
    assert (none.name, none.column, none.verdict) == ("texts_of_groups", None, "pass")


@pytest.mark.parametrize(("groups", "verdict"), [(20, "warn"), (60, "pass")])
def test_a_holdout_of_few_groups_warns_of_its_intervals(tmp_path: Path, groups: int, verdict: str) -> None:
    check, *_ = checks(tmp_path, groups, split="grouped", group="patient")
    assert (check.name, check.verdict, check.value) == ("independent_rows", verdict, groups / 4)


def test_a_split_by_time_says_that_rows_are_taken_as_independent(tmp_path: Path) -> None:
    (check,) = checks(tmp_path, 60, split="time", time="day")
    assert check.verdict == "warn"
    assert "take the holdout's rows as independent" in check.detail


def test_rows_that_are_split_by_chance_need_no_word(tmp_path: Path) -> None:
    assert checks(tmp_path, 60) == []
