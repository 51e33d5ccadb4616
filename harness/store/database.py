"""`run.db`: every record of a run but the raw exchanges, in SQLite.

In: records, one by one, from the single writer. Out: the same records as a `Ledger`. Each record is kept as JSON, the
one truth, beside its digest, and virtual columns for those who come with SQL. A finished record is committed before the
next is made, so a killed run loses only what it was doing; a cell that was not finished is begun anew from nothing.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

from harness.errors import HarnessError, IntegrityError, UsageError
from harness.records.candidate import Candidate, Check, Trial
from harness.records.cell import Cell
from harness.records.frozen import Frozen
from harness.records.ledger import Ledger, StepEntry
from harness.records.refit import Refit
from harness.records.run import CellResult, CellState, Host, MicroResult, Run
from harness.records.scenario import Scenario
from harness.records.table import TableEntry
from harness.store.connections import closed, reading, told, writing

SCHEMA_VERSION = 5

_SCHEMA = """
CREATE TABLE run (record TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE host (record TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE scenario (record TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE tables (
    record TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    name TEXT AS (record ->> '$.name')
);
CREATE TABLE cells (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    plan TEXT NOT NULL,
    plan_sha256 TEXT NOT NULL,
    record TEXT,
    record_sha256 TEXT,
    kind TEXT AS (plan ->> '$.kind'),
    searched TEXT AS (plan ->> '$.table'),
    engine TEXT AS (plan ->> '$.engine'),
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
    sha256 TEXT NOT NULL,
    number INTEGER AS (record ->> '$.number'),
    family TEXT AS (record ->> '$.evaluated.configuration.family'),
    duration_s REAL AS (record ->> '$.evaluated.duration_s'),
    finished_s REAL AS (record ->> '$.finished_s'),
    cause TEXT AS (record ->> '$.evaluated.failure.cause')
);
CREATE INDEX trials_by_cell ON trials (cell);
CREATE TABLE refits (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    searched TEXT AS (record ->> '$.table'),
    entrant TEXT AS (record ->> '$.entrant'),
    score REAL AS (record ->> '$.score')
);
CREATE TABLE candidates (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    id TEXT AS (record ->> '$.id'),
    origin TEXT AS (record ->> '$.origin'),
    cv_score REAL AS (record ->> '$.cv_score')
);
CREATE TABLE checks (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    candidate TEXT AS (record ->> '$.candidate'),
    name TEXT AS (record ->> '$.name'),
    passed INTEGER AS (record ->> '$.passed'),
    value REAL AS (record ->> '$.value')
);
CREATE TABLE steps (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    id TEXT AS (record ->> '$.id'),
    mode TEXT AS (record ->> '$.step.mode'),
    rate_rps REAL AS (record ->> '$.step.rate_rps'),
    in_flight INTEGER AS (record ->> '$.step.in_flight')
);
CREATE TABLE micro (
    cell TEXT NOT NULL REFERENCES cells (id),
    record TEXT NOT NULL,
    sha256 TEXT NOT NULL,
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
    Refit: "refits",
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
    def create(
        cls, path: Path, run: Run, host: Host, scenario: Scenario, tables: Sequence[TableEntry], plan: tuple[Cell, ...]
    ) -> Self:
        """A new file that holds the plan and nothing done. Killed in here, it leaves a file that is no run's yet."""
        database = cls(path, writing(path, new=True))
        with database._committed() as connection:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            entries = (("tables", entry) for entry in tables)
            for table, record in (("run", run), ("host", host), ("scenario", scenario), *entries):
                text = record.model_dump_json()
                connection.execute(
                    f"INSERT INTO {table} (record, sha256) VALUES (?, ?)", (text, record_sha256(table, text))
                )
            for position, cell in enumerate(plan):
                text = cell.model_dump_json()
                connection.execute(
                    "INSERT INTO cells (id, position, plan, plan_sha256) VALUES (?, ?, ?, ?)",
                    (cell.id, position, text, record_sha256("plan", cell.id, position, text)),
                )
        return database

    @classmethod
    def open(cls, path: Path) -> Self:
        """The file of an earlier run, to go on with. Raises IntegrityError or UsageError where it is none of ours."""
        return cls(path, writing(path))._known()

    @classmethod
    @contextlib.contextmanager
    def read(cls, path: Path) -> Iterator[Self]:
        """The file of a run, as long as the block lasts, for reading only. Raises as `open` does."""
        with reading(path) as connection:
            yield cls(path, connection)._known()

    def begin(self, cell: Cell) -> None:
        """Mark a cell as begun, and forget what an earlier, unfinished attempt recorded.

        Trials are kept: a search goes on from those it has.
        """
        with self._committed() as connection:
            for record, table in _OF_CELLS.items():
                if record is not Trial:
                    connection.execute(f"DELETE FROM {table} WHERE cell = ?", (cell.id,))
            _put_result(connection, CellResult(id=cell.id, label=cell.label, kind=cell.kind, state=CellState.OPEN))

    def finish(self, result: CellResult) -> None:
        """Mark a cell as ended, well or not."""
        with self._committed() as connection:
            _put_result(connection, result)

    def record(self, cell: str, record: Trial | Refit | Candidate | Check | StepEntry | MicroResult) -> None:
        """Keep one finished record of a cell."""
        table, text = _OF_CELLS[type(record)], record.model_dump_json()
        with self._committed() as connection:
            connection.execute(
                f"INSERT INTO {table} (cell, record, sha256) VALUES (?, ?, ?)",
                (cell, text, record_sha256(table, cell, text)),
            )

    def replace_run(self, run: Run) -> None:
        """Keep a newer form of the run's own record, as when it ends."""
        text = run.model_dump_json()
        with self._committed() as connection:
            connection.execute("UPDATE run SET record = ?, sha256 = ?", (text, record_sha256("run", text)))

    def run(self) -> Run:
        """The run's own record, of all in the file. Raises IntegrityError where it is not as it was written."""
        return self._one(Run, "run")

    def trials(self, cell: str) -> tuple[Trial, ...]:
        """Those of one cell, in the order of writing, whatever else is in the file. Raises as `ledger` does."""
        rows = self._rows("SELECT record, sha256 FROM trials WHERE cell = ? ORDER BY rowid", cell)
        return tuple(self._parsed(Trial, record, digest, "trials", cell) for record, digest in rows)

    def ledger(self) -> Ledger:
        """Everything in the file. Raises IntegrityError where a record is not as it was written."""
        plan, results = [], []
        columns = "id, position, plan, plan_sha256, record, record_sha256"
        for cell, position, planned, plan_digest, record, digest in self._rows(
            f"SELECT {columns} FROM cells ORDER BY position"
        ):
            plan.append(self._parsed(Cell, planned, plan_digest, "plan", cell, position))
            if (record, digest) != (None, None):
                results.append(self._parsed(CellResult, record, digest, "result", cell))
        return Ledger(
            run=self.run(),
            host=self._one(Host, "host"),
            scenario=self._one(Scenario, "scenario"),
            tables=tuple(
                self._parsed(TableEntry, record, digest, "tables")
                for record, digest in self._rows("SELECT record, sha256 FROM tables ORDER BY rowid")
            ),
            plan=tuple(plan),
            results=tuple(results),
            trials=self._of_cells(Trial),
            refits=self._of_cells(Refit),
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
        closed(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _known(self) -> Self:
        """Itself, if its schema is the one that is written here."""
        try:
            ((version,),) = self._rows("PRAGMA user_version")
            if version != SCHEMA_VERSION:
                raise UsageError(
                    f"{self._path} has schema {version}, and this harness reads schema {SCHEMA_VERSION}. "
                    "Read it with the version that wrote it."
                )
        except BaseException:
            self._connection.close()
            raise
        return self

    def _of_cells(self, kind: type[_Record]) -> tuple[_Record, ...]:
        # In the plan's order of cells, then of writing: a resumed run reads as one that was never interrupted. A record
        # whose cell is not in the plan is still read: nothing of ours wrote it, and its digest will say so.
        table = _OF_CELLS[kind]
        order = "LEFT JOIN cells ON cells.id = t.cell ORDER BY position, t.rowid"
        rows = self._rows(f"SELECT t.cell, t.record, t.sha256 FROM {table} t {order}")
        return tuple(self._parsed(kind, record, digest, table, cell) for cell, record, digest in rows)

    def _one(self, kind: type[_Record], table: str) -> _Record:
        rows = self._rows(f"SELECT record, sha256 FROM {table}")
        if len(rows) != 1:
            raise IntegrityError(f"{self._path} holds {len(rows)} records of its {table}, not one: it is damaged.")
        ((record, digest),) = rows
        return self._parsed(kind, record, digest, table)

    def _parsed(self, kind: type[_Record], text: object, digest: object, *place: object) -> _Record:
        if record_sha256(*place, text) != digest:
            raise IntegrityError(
                f"{self._path} is damaged: a {kind.__name__} ({', '.join(map(str, place))}) is not what was written; "
                "its SHA-256 is another. Restore the file from a copy, or run the scenario again."
            )
        try:
            return kind.model_validate_json(str(text))
        except ValueError as error:
            raise IntegrityError(f"{self._path} holds a {kind.__name__} that cannot be read: {error}") from error

    def _rows(self, query: str, *values: str) -> list[tuple[object, ...]]:
        with self._committed() as connection:
            return connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _committed(self) -> Iterator[sqlite3.Connection]:
        with told(self._path), self._connection:
            yield self._connection


def record_sha256(*parts: object) -> str:
    """The digest kept beside a record: of its table's name, its cell's id where it has one, and its text, a line each.

    Of where it stands too, so that a record cannot pass from one cell to another. SQLite's own check sees pages, and
    would take a changed figure in a sound page for good.
    """
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def started_utc(path: Path) -> str | None:
    """When the run of a file began; None where it does not say, whatever the reason. Any schema will do."""
    return _said(path, "started_utc")


def scenario_of(path: Path) -> str | None:
    """Of which scenario the run of a file is; None where it does not say, whatever the reason. Any schema will do."""
    return _said(path, "scenario")


def _said(path: Path, key: str) -> str | None:
    try:
        with reading(path) as connection, told(path):
            ((value,),) = connection.execute("SELECT record ->> ? FROM run", (f"$.{key}",)).fetchall()
    except (HarnessError, OSError, ValueError):
        return None
    return value if isinstance(value, str) else None


def _put_result(connection: sqlite3.Connection, result: CellResult) -> None:
    text = result.model_dump_json()
    connection.execute(
        "UPDATE cells SET record = ?, record_sha256 = ? WHERE id = ?",
        (text, record_sha256("result", result.id, text), result.id),
    )
