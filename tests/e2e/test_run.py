"""The main job, from a scenario to a report, with everything real: Ray, uvicorn, Locust, SQLite."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pandas as pd
import psutil
import pytest
from commands import ROOT, harness, left_running, short, started

from harness.analysis.growth import best_by
from harness.records.run import CellState
from harness.space.families import baseline
from harness.store.database import Database

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A CSV file as people have them, in place of the scenario's own table; the settings that say so."""
    rng = np.random.default_rng(3)
    rows = 480
    size, member, age = rng.normal(size=rows), rng.random(rows) < 0.5, rng.integers(0, 1_500, rows)
    kind, place = rng.integers(0, 3, rows), rng.integers(0, 120, rows)
    says = 2 * size + 2 * member - age / 500 + kind + rng.normal(scale=0.3, size=rows)
    columns = {
        "size": size.round(3),
        "member": member,
        "since": (np.datetime64("2026-01-31") - age).astype(str),
        "kind": np.array(["plain", "röd, ljus", 'so-called "fast"'])[kind],
        "place": [f"place {number}" for number in place],
    }
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    frame = frame.mask(rng.random(frame.shape) < 0.05)
    path = tmp_path_factory.mktemp("table") / "customers.csv"
    frame.assign(left=np.where(says > np.median(says), "yes", "no")).to_csv(path, index=False)
    return f"data.source={path}", "data.target=left", "data.dates=['since']"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, table: tuple[str, ...]) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("results")
    before = set(psutil.pids())
    done = harness(*short(folder, "one", *table, "compare.rows=[1, 1000]", "compare.seconds=0.02"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Ship ")
    assert left_running(before) == []
    yield folder


def test_every_cell_was_done(results: Path) -> None:
    with Database.read(results / "one" / "run.db") as database:
        ledger = database.ledger()
    assert [result.id for result in ledger.results] == [cell.id for cell in ledger.plan]
    assert {result.state for result in ledger.results} == {CellState.DONE}
    assert {check.name for check in ledger.checks} == {
        *("holdout_score", "beats_dummy", "expected_score", "same_after_reload", "runtime_parity"),
        "same_over_the_wire",
    }
    assert all(check.passed for check in ledger.checks)
    assert len(ledger.trials) == 3
    assert {result.runtime for result in ledger.micro if result.benchmark == "predict"} == {"onnx", "sklearn_native"}
    assert ledger.run.finished_utc is not None


def test_numbers_booleans_dates_categories_and_holes_came_through(results: Path) -> None:
    with Database.read(results / "one" / "run.db") as database:
        (entry,) = database.ledger().tables
    assert (entry.name, entry.task) == ("customers", "binary")
    assert entry.columns == {"number": 1, "boolean": 1, "date": 1, "category": 2}
    assert {check.verdict for check in entry.checks} == {"pass"}
    for bundle in (results / "one" / "candidates").iterdir():
        columns = json.loads((bundle / "signature.json").read_text())["candidate"]["signature"]["columns"]
        # More texts than may be features: models see their mean target.
        assert [column["name"] for column in columns if column["by_target"]] == ["place"]
    assert "customers" in (results / "one" / "report" / "report.md").read_text()


def test_what_was_found_is_fitted_once_more_and_compared(results: Path) -> None:
    with Database.read(results / "one" / "run.db") as database:
        ledger = database.ledger()
    best = best_by(ledger.trials, "roc_auc")
    assert {refit.entrant: refit.configuration for refit in ledger.refits} == {
        "dummy": {},
        "baseline": baseline("binary"),
        "random_search": next(one.evaluated.configuration for one in ledger.trials if one.evaluated.score == best),
    }
    for refit in ledger.refits:
        assert [one.rows for one in refit.predict] == [1, 1000]
        assert refit.fit_cold_s > 0 and refit.predict_cold_s > 0 and refit.threads == 1
    summary = json.loads((results / "one" / "report" / "summary.json").read_text())
    assert summary["comparison"]["tables"] == ["customers"]
    scored = {one["entrant"]: one["score"]["value"] for one in summary["comparison"]["placings"]}
    assert scored == {one.entrant: one.score for one in ledger.refits if one.entrant != "dummy"}
    report = results / "one" / "report"
    assert {"standings.png", "trades.png"} <= {path.name for path in (report / "charts").iterdir()}
    assert {"scores.csv", "timings.csv", "predictions.csv"} <= {path.name for path in (report / "tables").iterdir()}
    assert "Engines compared" in (report / "report.md").read_text()


def test_the_report_holds_every_form(results: Path) -> None:
    report = results / "one" / "report"
    found = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "summary.json", "junit.xml"} <= found
    assert any(name.startswith("tables/") and name.endswith(".csv") for name in found)
    assert any(name.startswith("charts/") and name.endswith(".png") for name in found)
    summary = json.loads((report / "summary.json").read_text())
    schema = json.loads((ROOT / "harness" / "exporters" / "summary.schema.json").read_text())
    jsonschema.validate(summary, schema)
    cases = [case.get("name") for case in ElementTree.parse(report / "junit.xml").iter("testcase")]
    assert cases == ["expected-score", "objective"]
    page = (report / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://127.0.0.1", "")
    assert "https://" not in page


def test_the_report_is_remade_to_the_byte_without_ray_and_locust(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "one", tmp_path / "one")
    report = tmp_path / "one" / "report"
    before = {path.relative_to(report): path.read_bytes() for path in report.rglob("*") if path.is_file()}
    shutil.rmtree(report)
    without = (
        "import sys\n"
        "for name in ('ray', 'locust', 'gevent', 'optuna', 'flaml', 'sklearn', 'onnxruntime'):\n"
        "    sys.modules[name] = None\n"
        "from harness.cli.main import main\n"
        f"sys.exit(main(['report', 'one', '--results', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", without], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = {path.relative_to(report): path.read_bytes() for path in report.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert [str(path) for path in before if before[path] != after[path]] == []


def test_its_search_is_simulated_with_more_workers(results: Path, table: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(results / "one", tmp_path / "one")
    done = harness(*short(tmp_path, "more", *table), "--simulate", "workers=4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Simulated from one, no trial ran.")
    with Database.read(tmp_path / "more" / "run.db") as database:
        ledger = database.ledger()
    # Two were recorded, for a scenario that says nothing has two; they show what the simulation is off by.
    assert {cell.workers for cell in ledger.plan} == {2, 4}
    assert len(ledger.trials) == 6
    with Database.read(tmp_path / "one" / "run.db") as database:
        real_s = max(trial.finished_s for trial in database.ledger().trials)
    (two,) = (cell.id for cell in ledger.plan if cell.workers == 2)
    again_s = max(trial.finished_s for trial in ledger.trials if trial.cell == two)
    with (tmp_path / "more" / "report" / "tables" / "simulation.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    # Three trials each: the error of their rate is that of their times.
    assert float(row["rate_error"]) == pytest.approx(real_s / again_s - 1)
    assert "no trial ran" in (tmp_path / "more" / "report" / "report.md").read_text()


def test_the_gates_are_an_exit_status_and_can_fail(results: Path) -> None:
    assert harness("gate", "one", "--results", str(results)).returncode == 0
    tested = harness("gate", "one", "--self-test", "--results", str(results))
    assert tested.returncode == 0
    assert tested.stdout.splitlines() == [
        "expected-score: fails on ruined records, abstains without any",
        "objective: fails on ruined records, abstains without any",
    ]


def a_server_of(run: "subprocess.Popen[str]") -> psutil.Process:
    children = psutil.Process(run.pid).children()
    return next(child for child in children if "harness.server" in child.cmdline())


@pytest.mark.parametrize(
    ("ended", "status", "said"),
    [
        (lambda run: run.send_signal(signal.SIGINT), 0, "Stopping."),
        (lambda run: a_server_of(run).kill(), 5, "ended by signal SIGKILL while it was in use"),
    ],
)
def test_a_candidate_is_served_until_it_is_interrupted_or_dies(
    results: Path, ended: Callable[[subprocess.Popen[str]], None], status: int, said: str
) -> None:
    before = set(psutil.pids())
    bundle = next((results / "one" / "candidates").iterdir())
    with started(["serve", str(bundle), "--processes", "2"]) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        url = run.stdout.readline().strip().removesuffix("/infer")
        with urllib.request.urlopen(url) as answer:
            assert json.load(answer)["name"] == bundle.name
        ended(run)
        told = run.stderr.read()
    assert run.returncode == status, told
    assert said in told
    assert left_running(before) == []


def test_one_flipped_bit_is_found(results: Path, tmp_path: Path) -> None:
    assert harness("verify", "one", "--results", str(results)).returncode == 0
    for number, pattern in enumerate(("exchanges/*.parquet", "candidates/*/model.onnx", "scenario.toml")):
        folder = tmp_path / str(number) / "one"
        shutil.copytree(results / "one", folder)
        damaged = sorted(folder.glob(pattern))[0]
        raw = bytearray(damaged.read_bytes())
        raw[len(raw) // 2] ^= 1
        damaged.write_bytes(raw)
        found = harness("verify", "one", "--results", str(folder.parent))
        assert found.returncode == 7, (pattern, found.stdout, found.stderr)
        assert damaged.name in found.stderr


def test_a_finished_run_resumed_does_nothing_again(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "one", tmp_path / "one")
    with Database.read(tmp_path / "one" / "run.db") as database:
        before = database.ledger()
    done = harness("run", "--resume", "one", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "begun" not in done.stderr
    with Database.read(tmp_path / "one" / "run.db") as database:
        assert database.ledger() == before


def test_a_resumed_run_refuses_a_changed_scenario(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "one", tmp_path / "one")
    with (tmp_path / "one" / "scenario.toml").open("a") as file:
        file.write("# changed\n")
    done = harness("run", "--resume", "one", "--results", str(tmp_path))
    assert done.returncode == 7
    assert "was changed since the run began" in done.stderr


@pytest.mark.long
def test_a_run_can_be_watched_on_a_page_and_says_so(tmp_path: Path) -> None:
    before = set(psutil.pids())
    done = harness(*short(tmp_path, "shown", "load.parameters.stairs.step_s=4.0"), "--ui")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Locust's page is up: http://127.0.0.1:") == 1
    assert " answered/s, p50 " in done.stderr
    with Database.read(tmp_path / "shown" / "run.db") as database:
        results = database.ledger().results
    notes = [" ".join(result.notes) for result in results if result.kind == "serve"]
    assert notes and all("Locust's page was open" in told for told in notes)
    assert left_running(before) == []
