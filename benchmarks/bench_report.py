"""What does a report of a million exchanges cost, from the start of the process to its last file? And what does it cost
to reduce ten million to measurements?

The runs are made up (twenty open steps of Poisson arrivals); each is read in a process of its own. The goals are 10 s
and 1 GiB for the report; 20 s, 2 GiB and 30 bytes a row for the ten million. `peak_bytes` and `row_bytes` are in the
extra info.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from harness.records.arrivals import Poisson
from harness.records.cell import cells
from harness.records.ledger import StepEntry
from harness.records.load import NEVER, STAGE_COLUMNS, GeneratorHealth, Outcome, Step
from harness.records.run import CellResult, CellState, Run
from harness.records.scenario import Scenario
from harness.stages.host import fingerprint
from harness.stages.load.timing import chosen
from harness.stats.arrivals import due_ns
from harness.store.database import Database
from harness.store.exchanges import write_exchanges
from harness.store.files import write_atomically
from harness.store.runs import RunFolder, new_run

STEPS = 20
MILLION, TEN_MILLION = 1_000_000, 10_000_000

REDUCE = """
import sys
from harness.pipeline.report import read_findings
from harness.store.runs import find_run
from pathlib import Path
assert len(read_findings(find_run(Path(sys.argv[1]), "made-up")).results) == int(sys.argv[2])
"""
SCENARIO = Scenario.model_validate(
    {
        "question": "What does a report cost?",
        "data": [{"source": "sklearn:iris"}],
        "search": {"engines": ["random_search"]},
        "serve": [{"target": "null"}],
        "load": {"objective": {"p99_s": 0.05}},
    }
)


def made_up_run(results: Path, exchanges: int) -> Path:
    plan = cells(SCENARIO, {"null"})
    served = next(cell for cell in plan if cell.kind == "serve")
    run = Run(
        id="made-up",
        scenario="made-up",
        data_folder="",
        scenario_sha256="",
        data_sha256="",
        harness_version="0",
        started_utc="2026-01-01T00:00:00Z",
    )

    def fill(made: RunFolder) -> None:
        write_atomically(made.scenario, b"")
        Database.create(made.database, run, fingerprint(), SCENARIO, plan).close()

    folder = new_run(results, "made-up", fill)
    with Database.open(folder.database) as database:
        database.begin(served)
        for number in range(STEPS):
            step = Step(
                shape="stairs",
                number=number,
                mode="open",
                rate_rps=5_000.0 + number,
                duration_s=exchanges / STEPS / (5_000.0 + number),
                warmup_s=0.5,
            )
            columns = made_up(step)
            digest = write_exchanges(folder.exchanges(f"step-{number}"), columns)
            entry = StepEntry(
                id=f"step-{number}",
                cell=served.id,
                step=step,
                planned=len(columns["due_ns"]),
                plan_sha256="0" * 64,
                exchanges_sha256=digest,
                generator=GeneratorHealth(workers=()),
            )
            database.record(served.id, entry)
        database.finish(
            CellResult(id=served.id, label=served.label, kind="serve", state=CellState.DONE, duration_s=1.0)
        )
    return folder.path


def made_up(step: Step) -> dict[str, np.ndarray]:
    assert step.rate_rps is not None
    due = due_ns(Poisson(), step.rate_rps, step.duration_s, seed=step.number)
    rng = np.random.default_rng(step.number)
    dispatch = due + rng.exponential(2e4, len(due)).astype(np.int64)
    sent = dispatch + rng.exponential(3e4, len(due)).astype(np.int64)
    done = sent + rng.lognormal(13.5, 0.8, len(due)).astype(np.int64)
    failed = rng.random(len(due)) < 0.001
    asked = np.frombuffer(chosen(len(due), planned=True), dtype=np.bool_)
    outcome = np.where(failed, Outcome.DROPPED, Outcome.OK).astype(np.int8)
    return {
        "due_ns": due,
        "dispatch_ns": np.where(failed, NEVER, dispatch),
        "sent_ns": np.where(failed, NEVER, sent),
        "done_ns": np.where(failed, NEVER, done),
        "status": np.where(failed, 0, 200).astype(np.int16),
        "outcome": outcome,
        "bytes": np.full(len(due), 180, dtype=np.int32),
        "payload": (np.arange(len(due)) % 143).astype(np.int32),
        "worker": np.zeros(len(due), dtype=np.int16),
        **{name: np.where(asked & ~failed, 1000 * rng.poisson(40, len(due)), NEVER) for name in STAGE_COLUMNS},
    }


def test_report(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    folder, peaks = made_up_run(tmp_path, MILLION), list[int]()
    command = [sys.executable, "-m", "harness", "report", "made-up", "--results", str(tmp_path)]
    benchmark.pedantic(lambda: peaks.append(peak_bytes(command)), rounds=3)
    benchmark.extra_info.update(benchmark="report", exchanges=MILLION, peak_bytes=max(peaks))
    assert (folder / "report" / "report.html").is_file()


def test_reduce(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    folder, peaks = made_up_run(tmp_path, TEN_MILLION), list[int]()
    row_bytes = sum(path.stat().st_size for path in (folder / "exchanges").iterdir()) / TEN_MILLION
    command = [sys.executable, "-c", REDUCE, str(tmp_path), str(STEPS)]
    benchmark.pedantic(lambda: peaks.append(peak_bytes(command)), rounds=3)
    benchmark.extra_info.update(
        benchmark="reduce", exchanges=TEN_MILLION, peak_bytes=max(peaks), row_bytes=round(row_bytes, 1)
    )


def peak_bytes(command: list[str]) -> int:
    """Run a command; the most memory that its process held."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    return used.ru_maxrss * 1024
