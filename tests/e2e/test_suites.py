"""The suites that ship, with smaller budgets: everything they promise to show is in their reports."""

import json
from pathlib import Path

import pytest
from commands import harness

from harness.records.run import CellState
from harness.space.score import METRICS
from harness.store.database import Database

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

QUICK = ("search.trials=6", "search.seconds=3", "compare.seconds=0.02")


def run(results: Path, suite: str, *overrides: str) -> None:
    settings = [part for override in overrides for part in ("--set", override)]
    command = ["run", f"scenarios/{suite}.toml", "--results", str(results), "--run-id", suite, *settings]
    done = harness(*command, timeout_s=850)
    assert done.returncode == 0, done.stderr
    with Database.read(results / suite / "run.db") as database:
        ledger = database.ledger()
    assert {result.state for result in ledger.results} == {CellState.DONE}


def written(results: Path, suite: str, folder: str) -> set[str]:
    return {path.stem for path in (results / suite / "report" / folder).iterdir()}


def test_the_quick_suite_compares_four_engines_on_six_tables_of_every_task(tmp_path: Path) -> None:
    run(tmp_path, "automl-quick", *QUICK)
    summary = json.loads((tmp_path / "automl-quick" / "report" / "summary.json").read_text())
    compared = summary["comparison"]
    assert len(compared["tables"]) == 6 and len(compared["entrants"]) == 5 and compared["seeds"] == 2
    assert {one["metric"] for one in compared["placings"]} == {metrics[0] for metrics in METRICS.values()}
    assert compared["separation"]["critical_difference"] is not None
    assert {"critical_difference", "standings", "anytime", "trades"} <= written(tmp_path, "automl-quick", "charts")
    with Database.read(tmp_path / "automl-quick" / "run.db") as database:
        before = database.ledger()
    again = harness("run", "--resume", "automl-quick", "--results", str(tmp_path))
    assert again.returncode == 0, again.stderr
    with Database.read(tmp_path / "automl-quick" / "run.db") as database:
        after = database.ledger()
    assert (after.trials, after.refits, after.results) == (before.trials, before.refits, before.results)


def test_the_scale_suite_shows_what_workers_rows_and_columns_bring(tmp_path: Path) -> None:
    run(tmp_path, "automl-scale", "search.trials=8", "search.seconds=10", "compare.seconds=0.02")
    assert {"search_scales", "worker_time", "search_laws", "sizes"} <= written(tmp_path, "automl-scale", "tables")
