"""Ten thousand columns, from a file to a report."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import FINISHED, harness

from harness.store.database import Database

COLUMNS, ROWS = 10_000, 120

SCENARIO = """
question = "Does a wide table come through?"

[data]
source = "wide.csv"

[search]
engines = ["random_search"]
trials = 2
seconds = 120
folds = 2
families = ["logistic", "random_forest"]

[micro]
enabled = false
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_thousand_columns_are_searched_and_reported(tmp_path: Path, nothing_left: Callable[[], list[str]]) -> None:
    rng = np.random.default_rng(1)
    label = np.arange(ROWS) % 2 == 0
    values = rng.normal(size=(ROWS, COLUMNS))
    values[label, :1_000] += 0.5  # each of a thousand says a little
    values = values.round(3)
    lines = [",".join([*(f"x{column}" for column in range(COLUMNS)), "target"])]
    lines += [",".join([*map(str, row), "yes" if yes else "no"]) for row, yes in zip(values, label, strict=True)]
    (tmp_path / "wide.csv").write_text("\n".join(lines))
    (tmp_path / "wide.toml").write_text(SCENARIO)
    results = tmp_path / "results"
    done = harness("run", str(tmp_path / "wide.toml"), "--results", str(results), "--run-id", "wide", timeout_s=800.0)
    assert done.returncode in FINISHED, done.stderr
    with Database.read(results / "wide" / "run.db") as database:
        ledger = database.ledger()
    assert [trial.evaluated.failure for trial in ledger.trials] == [None, None]
    assert ledger.tables[0].columns == {"number": COLUMNS}
    assert len(list((results / "wide" / "candidates").iterdir())) == 2
    assert nothing_left() == []
