"""`run.db`: every record of a run but the raw exchanges, in SQLite.

In: records, one by one, from the single writer. Out: the same records as a `Ledger`. Each record is kept as JSON, the
one truth, beside virtual columns for those who come with SQL. A finished record is committed before the next is made,
so a killed run loses only what it was doing; a cell that was not finished is begun anew from nothing.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar

from harness.errors import InfrastructureError, IntegrityError, UsageError
from harness.records.candidate import Candidate, Check, Trial
from harness.records.frozen import Frozen
from harness.records.ledger import Ledger, StepEntry
from harness.records.run import CellResult, CellState, Host, MicroResult, Run
from harness.records.scenario import Cell, Scenario

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE run (record TEXT NOT NULL);
CREATE TABLE host (record TEXT NOT NULL);
CREATE TABLE scenario (record TEXT NOT NULL);
CREATE TABLE cells (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    plan TEXT NOT NULL,
    record TEXT,
    kind TEXT AS (plan ->> '$.kind'),
    candidate TEXT AS (plan ->> '$.candidate'),
    runtime TEXT AS (plan ->> '$.runtime'),
    target TEXT AS (plan ->> '$.target'),
    replicas INTEGER AS (plan ->> '$.replicas'),
    state TEXT AS (record ->> '$.state'),
    duration_s REAL AS (record ->> '$.duration_s')
);
CREATE TABLE trials (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    number INTEGER AS (record ->> '$.number'),
    family TEXT AS (record ->> '$.evaluated.configuration.family'),
    duration_s REAL AS (record ->> '$.evaluated.duration_s'),
    finished_s REAL AS (record ->> '$.finished_s'),
    cause TEXT AS (record ->> '$.evaluated.failure.cause')
);
CREATE INDEX trials_by_cell ON trials (cell);
CREATE TABLE candidates (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    id TEXT AS (record ->> '$.id'),
    origin TEXT AS (record ->> '$.origin'),
    cv_score REAL AS (record ->> '$.cv_score')
);
CREATE TABLE checks (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    candidate TEXT AS (record ->> '$.candidate'),
    name TEXT AS (record ->> '$.name'),
    passed INTEGER AS (record ->> '$.passed'),
    value REAL AS (record ->> '$.value')
);
CREATE TABLE steps (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    id TEXT AS (record ->> '$.id'),
    mode TEXT AS (record ->> '$.step.mode'),
    rate_rps REAL AS (record ->> '$.step.rate_rps'),
    in_flight INTEGER AS (record ->> '$.step.in_flight')
);
CREATE TABLE micro (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    candidate TEXT AS (record ->> '$.candidate'),
    benchmark TEXT AS (record ->> '$.benchmark'),
    runtime TEXT AS (record ->> '$.runtime'),
    rows INTEGER AS (record ->> '$.rows')
);
CREATE VIEW failures AS
    SELECT id AS cell, 'cell' AS what, record ->> '$.failure.cause' AS cause, record ->> '$.failure.message' AS message
        FROM cells WHERE record ->> '$.failure' IS NOT NULL
    UNION ALL
    SELECT cell, 'trial', record ->> '$.evaluated.failure.cause', record ->> '$.evaluated.failure.message'
        FROM trials WHERE record ->> '$.evaluated.failure' IS NOT NULL
    UNION ALL
    SELECT cell, 'check', 'check_failed', record ->> '$.detail' FROM checks WHERE record ->> '$.passed' = 0;
"""

_OF_CELLS: dict[type[Frozen], str] = {
    Trial: "trials",
    Candidate: "candidates",
    Check: "checks",
    StepEntry: "steps",
    MicroResult: "micro",
}

_Record = TypeVar("_Record", bound=Frozen)


class Database:
    """An open `run.db`. Not for sharing between threads."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, run: Run, host: Host, scenario: Scenario, plan: tuple[Cell, ...]) -> Self:
        """A new file that holds the plan and nothing done."""
        database = cls(path, _connect(path))
        with database._committed() as connection:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            for table, record in (("run", run), ("host", host), ("scenario", scenario)):
                connection.execute(f"INSERT INTO {table} (record) VALUES (?)", (record.model_dump_json(),))
            connection.executemany(
                "INSERT INTO cells (id, position, plan) VALUES (?, ?, ?)",
                [(cell.id, position, cell.model_dump_json()) for position, cell in enumerate(plan)],
            )
        return database

    @classmethod
    def open(cls, path: Path) -> Self:
        """The file of an earlier run. Raises IntegrityError or UsageError where it cannot be one of ours."""
        database = cls(path, _connect(path))
        with database._committed() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            database.close()
            raise UsageError(
                f"{path} has schema {version}, and this harness reads schema {SCHEMA_VERSION}. "
                "Read it with the version that wrote it."
            )
        return database

    def begin(self, cell: Cell) -> None:
        """Mark a cell as begun, and forget what an earlier, unfinished attempt left of it."""
        opened = CellResult(id=cell.id, label=cell.label, kind=cell.kind, state=CellState.OPEN)
        with self._committed() as connection:
            for table in _OF_CELLS.values():
                connection.execute(f"DELETE FROM {table} WHERE cell = ?", (cell.id,))
            connection.execute("UPDATE cells SET record = ? WHERE id = ?", (opened.model_dump_json(), cell.id))

    def finish(self, result: CellResult) -> None:
        """Mark a cell as ended, well or not."""
        with self._committed() as connection:
            connection.execute("UPDATE cells SET record = ? WHERE id = ?", (result.model_dump_json(), result.id))

    def record(self, cell: str, record: Trial | Candidate | Check | StepEntry | MicroResult) -> None:
        """Keep one finished record of a cell."""
        with self._committed() as connection:
            connection.execute(
                f"INSERT INTO {_OF_CELLS[type(record)]} (cell, record) VALUES (?, ?)", (cell, record.model_dump_json())
            )

    def replace_run(self, run: Run) -> None:
        """Keep a newer form of the run's own record, as when it ends."""
        with self._committed() as connection:
            connection.execute("UPDATE run SET record = ?", (run.model_dump_json(),))

    def ledger(self) -> Ledger:
        """Everything in the file. Raises IntegrityError where it is not as it was written."""
        cells = self._rows("SELECT plan, record FROM cells ORDER BY position")
        return Ledger(
            run=self._one(Run, "run"),
            host=self._one(Host, "host"),
            scenario=self._one(Scenario, "scenario"),
            plan=tuple(self._parsed(Cell, plan) for plan, _ in cells),
            results=tuple(self._parsed(CellResult, record) for _, record in cells if record is not None),
            trials=self._of_cells(Trial),
            candidates=self._of_cells(Candidate),
            checks=self._of_cells(Check),
            steps=self._of_cells(StepEntry),
            micro=self._of_cells(MicroResult),
        )

    def check(self) -> None:
        """Have SQLite read every page. Raises IntegrityError where one is damaged."""
        problems = [row[0] for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]
        if problems:
            raise IntegrityError(f"{self._path} is damaged: {problems[0]}.")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _of_cells(self, kind: type[_Record]) -> tuple[_Record, ...]:
        # In the plan's order of cells, then of writing: a resumed run reads as one that was never interrupted.
        query = f"SELECT t.record FROM {_OF_CELLS[kind]} t JOIN cells ON cells.id = t.cell ORDER BY position, t.rowid"
        return tuple(self._parsed(kind, record) for (record,) in self._rows(query))

    def _one(self, kind: type[_Record], table: str) -> _Record:
        rows = self._rows(f"SELECT record FROM {table}")
        if len(rows) != 1:
            raise IntegrityError(f"{self._path} holds {len(rows)} records of its {table}, not one: it is damaged.")
        return self._parsed(kind, rows[0][0])

    def _parsed(self, kind: type[_Record], text: str) -> _Record:
        try:
            return kind.model_validate_json(text)
        except ValueError as error:
            raise IntegrityError(f"{self._path} holds a {kind.__name__} that cannot be read: {error}") from error

    def _rows(self, query: str) -> list[tuple[str, ...]]:
        with self._committed() as connection:
            return connection.execute(query).fetchall()

    @contextlib.contextmanager
    def _committed(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection:
                yield self._connection
        except sqlite3.OperationalError as error:
            raise InfrastructureError(
                f"{self._path} cannot be written or read: {error}. What was finished before is kept; "
                "see to the disk and resume the run."
            ) from error
        except sqlite3.DatabaseError as error:
            raise IntegrityError(f"{self._path} is not a run's database, or is damaged: {error}.") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    try:
        # Write-ahead: a commit costs no wait for the disk, and a killed process loses nothing that was committed.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise IntegrityError(f"{path} is not a run's database, or is damaged: {error}.") from error
    return connection
