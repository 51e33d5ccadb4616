"""report.md: the report for a pull request, a job summary, or a terminal.

In: a document. Out: one file of GitHub's Markdown; its charts are links to the files that the `png` form writes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.records.finding import Document, Section, Table
from harness.units import Unit, format_number

REQUIRES: tuple[str, ...] = ()

_SPECIAL = re.compile(r"[\\`*\[\]<>|#~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class Markdown:
    """The report as Markdown."""

    rows: int = 40
    """Rows of a table that are printed; the rest is in its CSV file, and the text says so."""

    def export(self, document: Document) -> Mapping[str, bytes]:
        return {"report.md": ("\n".join(self._lines(document)).rstrip() + "\n").encode()}

    def _lines(self, document: Document) -> Iterator[str]:
        yield f"# {_escaped(document.recommendation)}\n"
        yield f"*{_escaped(document.title)}*\n"
        yield f"**Gates: {document.verdict.answer or 'none'}**\n"
        for gate in document.verdict.gates:
            yield f"- **{_escaped(gate.name)}: {gate.answer.value}.** {_escaped(gate.sentence)}"
        yield ""
        yield from _headlines(document.summary)
        for warning in document.warnings:
            yield f"> ⚠ {_escaped(warning)}\n"
        for section in document.sections:
            yield from self._section(section)

    def _section(self, section: Section) -> Iterator[str]:
        yield f"## {_escaped(section.title)}\n"
        for paragraph in section.paragraphs:
            yield f"{_escaped(paragraph)}\n"
        for chart in section.charts:
            yield f"![{_escaped(chart.title)}](charts/{chart.key}.png)\n"
            yield f"{_escaped(chart.description)}\n"
        for table in section.tables:
            yield from self._table(table)

    def _table(self, table: Table) -> Iterator[str]:
        yield f"### {_escaped(table.title)}\n"
        yield _row(field.heading for field in table.fields)
        yield "|" + "|".join("---" if field.unit is None else "---:" for field in table.fields) + "|"
        for row in table.texts()[: self.rows]:
            yield _row(row)
        yield ""
        if len(table.rows) > self.rows:
            yield f"{len(table.rows) - self.rows:,} more rows are in `tables/{table.key}.csv`.\n"
        if table.note:
            yield f"{_escaped(table.note)}\n"


def _headlines(summary: Mapping[str, object]) -> Iterator[str]:
    headlines = summary.get("headlines")
    if not isinstance(headlines, list) or not headlines:
        return
    yield "| figure | value | |\n|---|---:|---|"
    for headline in headlines:
        value = format_number(headline["value"], Unit(headline["unit"]))
        yield _row((headline["label"], value, headline["note"]))
    yield ""


def _row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(_escaped(text) for text in texts) + " |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line: names are the user's, and may hold anything."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], " ".join(text.split()))
