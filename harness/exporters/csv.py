"""tables/*.csv: every table of the report, raw, in base units.

In: a document. Out: a file per table; the header holds the keys of its fields. Numbers are written in full, holes are
empty, booleans are true and false.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from harness.records.finding import Document, Table

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Csv:
    """The report's tables as CSV (RFC 4180, UTF-8)."""

    def export(self, document: Document) -> Mapping[str, bytes]:
        tables = (table for section in document.sections for table in section.tables)
        return {f"tables/{table.key}.csv": _rows_of(table) for table in tables}


def _rows_of(table: Table) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(field.key for field in table.fields)
    writer.writerows([_raw(value) for value in row] for row in table.rows)
    return text.getvalue().encode()


def _raw(value: str | float | int | bool | None) -> str | float | int:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value
