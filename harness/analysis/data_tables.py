"""What was found in the tables before any search: what each holds, and what its checks say.

In: `Findings`. Out: `Table` values; a check that passed is a row too.
"""

from collections import Counter

from harness.analysis.findings import Findings
from harness.records.finding import Field, Table
from harness.units import Unit


def read(found: Findings) -> Table:
    """A row per table, as it was read."""
    return Table(
        key="tables",
        title="Tables",
        fields=(
            Field("table", "table"),
            Field("source", "source"),
            Field("task", "task"),
            Field("metric", "metric"),
            Field("train_rows", "training rows", Unit.COUNT),
            Field("holdout_rows", "holdout rows", Unit.COUNT),
            Field("classes", "classes", Unit.COUNT),
            Field("columns", "columns by kind"),
            Field("warned", "checks that warn", Unit.COUNT),
            Field("failed", "checks that failed and were accepted", Unit.COUNT),
        ),
        rows=tuple(
            (
                entry.name,
                entry.source,
                entry.task,
                entry.metric,
                entry.train_rows,
                entry.holdout_rows,
                len(entry.classes) or None,
                ", ".join(f"{kind} {count}" for kind, count in sorted(entry.columns.items())),
                verdicts["warn"],
                verdicts["fail"],
            )
            for entry in found.ledger.tables
            for verdicts in (Counter(check.verdict for check in entry.checks),)
        ),
    )


def checks(found: Findings) -> Table:
    """A row per check of each table: those that failed and were accepted first, then those that warn, then the rest."""
    order = ("fail", "warn", "pass")
    rows = [(entry.name, check) for entry in found.ledger.tables for check in entry.checks]
    return Table(
        key="data_checks",
        title="Checks of the tables",
        fields=(
            Field("table", "table"),
            Field("check", "check"),
            Field("verdict", "verdict"),
            Field("column", "column"),
            Field("value", "value", Unit.SCORE),
            Field("bound", "held against", Unit.SCORE),
            Field("detail", "detail"),
        ),
        rows=tuple(
            (name, check.name, check.verdict, check.column, check.value, check.bound, check.detail)
            for name, check in sorted(rows, key=lambda row: order.index(row[1].verdict))
        ),
    )
