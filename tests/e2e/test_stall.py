"""`scenarios/stall.toml`: three ways to measure a server that stalls, beside one another in its report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import harness

from harness.store.database import Database
from harness.store.exchanges import read_exchanges

pytestmark = pytest.mark.alone


@pytest.mark.long
def test_its_report_has_what_open_load_closed_load_and_locust_say(
    tmp_path: Path, nothing_left: Callable[[], list[str]]
) -> None:
    done = harness("run", "scenarios/stall.toml", "--results", str(tmp_path), "--run-id", "one")
    assert done.returncode == 3, done.stderr  # its objective is one that only a closed test would call met
    assert nothing_left() == []
    (said,) = (
        warning
        for warning in json.loads((tmp_path / "one" / "report" / "summary.json").read_text())["warnings"]
        if "come at their own time" in warning
    )
    assert "closed load with 1 in flight" in said and "Locust itself" in said and "with 1 user at" in said
    with Database.read(tmp_path / "one" / "run.db") as database:
        ledger = database.ledger()
    closed, opened, users = sorted(ledger.steps, key=lambda entry: entry.step.number)
    assert users.step.pace_rps == opened.step.rate_rps

    def p99_s(step_id: str) -> float:
        columns = read_exchanges(tmp_path / "one" / "exchanges" / f"{step_id}.parquet")
        assert set(columns["status"]) == {200}
        return float(sorted(columns["done_ns"] - columns["due_ns"])[round(0.99 * len(columns["due_ns"]))] / 1e9)

    assert p99_s(opened.id) == pytest.approx(0.19, rel=0.1)
    assert p99_s(closed.id) < 0.019 and p99_s(users.id) < 0.019
    assert users.generator.locust_p99_s == pytest.approx(p99_s(users.id), abs=0.002)
