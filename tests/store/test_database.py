"""What is recorded is read back, what was not finished is begun anew, and damage is told."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import HarnessError, InfrastructureError, IntegrityError, UsageError
from harness.records.candidate import Check, Evaluated, Trial
from harness.records.cell import Cell, cells
from harness.records.ledger import StepEntry
from harness.records.load import GeneratorHealth, Step, WorkerHealth
from harness.records.refit import PredictTime, Refit
from harness.records.run import Cause, CellResult, CellState, Failure, Host, MicroResult, Run
from harness.records.scenario import Scenario
from harness.records.table import TableEntry
from harness.store.database import Database, scenario_of, started_utc

SCENARIO = Scenario.model_validate(
    {
        "question": "Which?",
        "data": [{"source": "sklearn:iris"}],
        "search": {"engines": ["random_search"]},
        "serve": [{"target": "asgi"}],
    }
)
PLAN = cells(SCENARIO, ())
TABLES = (
    TableEntry(
        name="iris",
        source="sklearn:iris",
        task="multiclass",
        metric="accuracy",
        classes=("setosa", "versicolor", "virginica"),
        train_rows=112,
        holdout_rows=38,
        columns={"number": 4},
        sha256="2" * 64,
    ),
)
HOST = Host(
    system="Linux",
    machine="x86_64",
    cpu="a cpu",
    cores=2,
    memory_bytes=2**34,
    python="3.11.7",
    versions={"ray": "2.60.0"},
    generator_cores=(1,),
    target_cores=(0,),
)
RUN = Run(
    id="r",
    scenario="s",
    data_folder="/data",
    scenario_sha256="0" * 64,
    data_sha256="1" * 64,
    harness_version="0.1.0",
    started_utc="2026-01-01T00:00:00Z",
)


def created(path: Path) -> Database:
    return Database.create(path, RUN, HOST, SCENARIO, TABLES, PLAN)


def cell(kind: str) -> Cell:
    return next(cell for cell in PLAN if cell.kind == kind)


def trial(number: int, failure: Failure | None = None) -> Trial:
    scores = () if failure else (0.5, 0.75)
    evaluated = Evaluated(
        configuration={"family": "ridge", "alpha": 0.5}, fold_scores=scores, duration_s=0.1, worker=1, failure=failure
    )
    return Trial(
        cell=cell("search").id,
        number=number,
        asked=number,
        asked_s=0.0,
        sent_s=0.0,
        finished_s=0.25,
        evaluated=evaluated,
    )


def done(of: Cell, state: CellState = CellState.DONE) -> CellResult:
    return CellResult(id=of.id, label=of.label, kind=of.kind, state=state, duration_s=1.5)


def test_everything_recorded_is_read_back(tmp_path: Path) -> None:
    served = cell("serve")
    step = Step(shape="ladder", number=0, mode="closed", in_flight=4, duration_s=1.0, warmup_s=0.1)
    records = {
        "trials": trial(0),
        "refits": Refit(
            cell=served.id,
            table="iris",
            entrant="random_search",
            seed=1,
            configuration={"family": "random_forest"},
            cv_score=0.9,
            score=0.1 + 0.2,
            resamples=(0.25, 0.35),
            fit_cold_s=0.2,
            fit_warm_s=0.1,
            load_s=0.01,
            predict_cold_s=0.02,
            predict=(PredictTime(rows=1, calls_s=(0.001, 0.0011)),),
            threads=1,
            size_bytes=1000,
            peak_memory_bytes=2**27,
        ),
        "checks": Check(candidate="baseline", name="holdout_score", passed=True, value=0.1 + 0.2, detail="fine"),
        "steps": StepEntry(
            id="one",
            cell=served.id,
            step=step,
            planned=3,
            plan_sha256="1" * 64,
            exchanges_sha256="2" * 64,
            generator=GeneratorHealth(
                workers=(
                    WorkerHealth(cpu_share=0.5, started_late_s=0.0, gc_s=0.1, clock_moved_s=-2.0, timer="timerfd"),
                ),
                lost=("it died",),
                servers_before={"a": 2},
            ),
        ),
        "micro": MicroResult(
            cell=cell("micro").id,
            candidate="baseline",
            benchmark="predict",
            runtime="onnx",
            rows=1,
            rounds_s=(1e-6, 2e-6),
        ),
    }
    with created(tmp_path / "run.db") as database:
        for record in records.values():
            database.record(served.id, record)
        database.finish(done(served))
    with Database.read(tmp_path / "run.db") as database:
        database.check()
        ledger = database.ledger()
    assert (ledger.run, ledger.host, ledger.scenario) == (RUN, HOST, SCENARIO)
    assert (ledger.tables, ledger.plan) == (TABLES, PLAN)
    assert {name: getattr(ledger, name) for name in records} == {name: (record,) for name, record in records.items()}
    assert ledger.results == (done(served),)


def test_a_cell_begun_again_has_forgotten_its_first_attempt_and_no_other_cell_has(tmp_path: Path) -> None:
    begun_twice, other = cell("candidate"), cell("micro")
    check = Check(candidate="baseline", name="beats_dummy", passed=True, detail="")
    with created(tmp_path / "run.db") as database:
        for begun in (begun_twice, other):
            database.begin(begun)
            database.record(begun.id, check)
        database.begin(begun_twice)
        ledger = database.ledger()
    assert len(ledger.checks) == 1
    assert {result.state for result in ledger.results} == {CellState.OPEN}


def test_a_search_begun_again_keeps_its_trials(tmp_path: Path) -> None:
    with created(tmp_path / "run.db") as database:
        database.begin(cell("search"))
        database.record(cell("search").id, trial(0))
        database.begin(cell("search"))
        database.record(cell("search").id, trial(1))
        assert [made.number for made in database.ledger().trials] == [0, 1]


def test_records_are_told_in_the_order_of_the_plan_however_they_were_made(tmp_path: Path) -> None:
    with created(tmp_path / "run.db") as database:
        for kind in ("serve", "candidate"):
            database.record(cell(kind).id, Check(candidate=kind, name="holdout_score", passed=True, detail=""))
        assert [check.candidate for check in database.ledger().checks] == ["candidate", "serve"]


def test_those_who_come_with_sql_find_columns_and_failures(tmp_path: Path) -> None:
    failure = Failure(cause=Cause.MEMORY, message="too much")
    with created(tmp_path / "run.db") as database:
        database.record(cell("search").id, trial(0, failure))
    connection = sqlite3.connect(tmp_path / "run.db")
    assert connection.execute("SELECT number, family, cause FROM trials").fetchall() == [(0, "ridge", "memory")]
    assert connection.execute("SELECT what, cause, message FROM failures").fetchall() == [
        ("trial", "memory", "too much")
    ]
    connection.close()


def killed(path: Path) -> None:
    """Have a process record five trials in a new file, and die before it closes it."""
    writing = (
        "import os, pathlib, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_database as t\n"
        "database = t.created(pathlib.Path(sys.argv[1]))\n"
        "database.begin(t.cell('search'))\n"
        "for number in range(5): database.record(t.cell('search').id, t.trial(number))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", writing, str(path)], check=False).returncode == -9


def finished(path: Path) -> None:
    """The same file, closed as it should be."""
    with created(path) as database:
        database.begin(cell("search"))
        for number in range(5):
            database.record(cell("search").id, trial(number))


@pytest.mark.parametrize("opened", [Database.open, Database.read])
def test_a_killed_writer_loses_nothing_that_was_recorded(tmp_path: Path, opened: Callable[..., Database]) -> None:
    killed(tmp_path / "run.db")
    with opened(tmp_path / "run.db") as database:
        database.check()
        assert [kept.number for kept in database.ledger().trials] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("made", [killed, finished])
@pytest.mark.parametrize("gone", [(), ("run.db-shm",)], ids=["whole", "without the index"])
def test_who_reads_writes_nothing(tmp_path: Path, made: Callable[[Path], None], gone: tuple[str, ...]) -> None:
    made(tmp_path / "run.db")
    for name in gone:
        (tmp_path / name).unlink(missing_ok=True)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    contents = {name: (tmp_path / name).read_bytes() for name in before if name != "run.db-shm"}
    with Database.read(tmp_path / "run.db") as database:
        database.check()
        assert len(database.ledger().trials) == 5
    assert before.keys() == {path.name for path in tmp_path.iterdir()}
    assert contents == {name: (tmp_path / name).read_bytes() for name in contents}


@pytest.mark.parametrize("made", [killed, finished])
@pytest.mark.parametrize("gone", [(), ("run.db-shm",)], ids=["whole", "without the index"])
def test_a_file_is_read_where_nothing_can_be_written(
    tmp_path: Path,
    made: Callable[[Path], None],
    gone: tuple[str, ...],
    read_only: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    made(folder / "run.db")
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    read = (
        "import pathlib, sys\n"
        "from harness.store.database import Database\n"
        "with Database.read(pathlib.Path(sys.argv[1])) as database: print(len(database.ledger().trials))\n"
    )
    done = read_only([sys.executable, "-c", read, str(folder / "run.db")], folder)
    assert (done.stdout, done.returncode) == ("5\n", 0), done.stderr


def test_what_cannot_be_written_is_no_damage(
    tmp_path: Path, read_only: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    finished(folder / "run.db")
    write = (
        "import pathlib, sys\n"
        "from harness.errors import InfrastructureError\n"
        "from harness.store.database import Database\n"
        "try: Database.open(pathlib.Path(sys.argv[1]))\n"
        "except InfrastructureError as error: print(error)\n"
    )
    done = read_only([sys.executable, "-c", write, str(folder / "run.db")], folder)
    assert "readonly" in done.stdout, done.stderr
    assert "damaged" not in done.stdout


def test_a_reader_is_in_nobodys_way(tmp_path: Path) -> None:
    with created(tmp_path / "run.db") as writer:
        writer.record(cell("search").id, trial(0))
        with Database.read(tmp_path / "run.db") as reader:
            writer.record(cell("search").id, trial(1))
            assert len(reader.ledger().trials) == 2
    with Database.read(tmp_path / "run.db") as reader:
        assert len(reader.ledger().trials) == 2


def test_when_a_run_began_and_of_what_is_known_in_any_schema_or_is_not_without_raising(tmp_path: Path) -> None:
    finished(tmp_path / "run.db")
    connection = sqlite3.connect(tmp_path / "run.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert (started_utc(tmp_path / "run.db"), scenario_of(tmp_path / "run.db")) == (RUN.started_utc, RUN.scenario)
    (tmp_path / "none.db").touch()
    (tmp_path / "noise.db").write_bytes(b"noise" * 1000)
    for said in (started_utc, scenario_of):
        assert [said(tmp_path / f"{name}.db") for name in ("none", "noise", "absent")] == [None] * 3


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_bytes(b"nothing of ours, and long enough to have a header" * 10)
    with pytest.raises(IntegrityError, match="is not a run's database"):
        Database.open(tmp_path / "run.db")


def test_the_trials_of_one_cell_are_read_without_those_of_others(tmp_path: Path) -> None:
    path, searched = tmp_path / "run.db", cell("search").id
    with created(path) as database:
        for number in range(3):
            database.record(searched, trial(number))
        database.record(cell("serve").id, trial(9))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trials SET sha256 = '' WHERE cell != ?", (searched,))
    with Database.read(path) as database:
        assert database.trials(searched) == tuple(trial(number) for number in range(3))
        with pytest.raises(IntegrityError):
            database.trials(cell("serve").id)


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    created(tmp_path / "run.db").close()
    connection = sqlite3.connect(tmp_path / "run.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UsageError, match="has schema 99"):
        Database.open(tmp_path / "run.db")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run SET record = replace(record, '2026', '2025')",
        "UPDATE cells SET plan = replace(plan, 'random_search', 'optuna_search') WHERE kind = 'search'",
        "UPDATE cells SET position = -position",
        "UPDATE cells SET record = replace(record, 'open', 'done') WHERE record IS NOT NULL",
        "UPDATE cells SET record = NULL",
        "UPDATE trials SET record = replace(record, '0.75', '0.95') WHERE number = 3",
        "UPDATE trials SET cell = (SELECT id FROM cells WHERE kind = 'serve') WHERE number = 3",
        "UPDATE trials SET cell = 'nowhere' WHERE number = 3",
        "UPDATE trials SET record = CAST(record AS BLOB) WHERE number = 3",
    ],
)
def test_a_record_that_was_changed_in_a_sound_file_is_found(tmp_path: Path, statement: str) -> None:
    finished(tmp_path / "run.db")
    connection = sqlite3.connect(tmp_path / "run.db")
    with connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()
    with Database.read(tmp_path / "run.db") as database:
        database.check()
        with pytest.raises(IntegrityError, match="is not what was written"):
            database.ledger()


def test_any_flipped_bit_is_found_or_changes_nothing_that_is_read(tmp_path: Path) -> None:
    finished(tmp_path / "run.db")
    raw = (tmp_path / "run.db").read_bytes()
    with Database.read(tmp_path / "run.db") as database:
        written = database.ledger()
    found = 0
    for place in range(0, len(raw), 61):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        path = tmp_path / "damaged.db"
        path.write_bytes(damaged)
        try:
            with Database.read(path) as database:
                database.check()
                assert database.ledger() == written, f"bit {place % 8} of byte {place}"
        except HarnessError as error:
            found += 1
            assert not isinstance(error, InfrastructureError), f"bit {place % 8} of byte {place}: {error}"
    assert found > 50


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    with created(tmp_path / "run.db") as database:
        for number in range(200):
            database.record(cell("search").id, trial(number))
    raw = bytearray((tmp_path / "run.db").read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 8192] = b"\xff" * 8192
    (tmp_path / "run.db").write_bytes(raw)
    with pytest.raises(IntegrityError), Database.read(tmp_path / "run.db") as database:
        database.check()
        database.ledger()
