"""The forms of the report, read back by programs that are not ours."""

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import jsonschema
import pytest

import harness.exporters
from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.errors import ExitCode
from harness.exporters.csv import Csv
from harness.exporters.html import Html
from harness.exporters.json import Json
from harness.exporters.junit import Junit
from harness.exporters.markdown import Markdown
from harness.exporters.png import Png
from harness.records.finding import Answer, Document, Estimate, Field, GateVerdict, Section, Table, Verdict
from harness.records.run import Cause, Failure
from harness.units import Unit

NASTY = "<script>alert(1)</script>|`*_x_*`[a](b)\n# no heading\x00"


class Page(HTMLParser):
    """What a browser would find: tags, their attributes, and the text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def page(whole_document: Document) -> Page:
    return Page(Html().export(whole_document)["report.html"].decode())


@pytest.fixture(scope="module")
def nasty(ledgers: ModuleType) -> Document:
    """A run whose names are an attack or an accident."""
    story = ledgers.Story(ledgers.scenario(question=NASTY))
    story.candidate("optuna_search", 0.99, 0.985, 0.995, family=NASTY)
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400, 1200))
    failed = Failure(cause=Cause.TARGET, message=NASTY)
    story.done(story.cell("serve", "baseline"), failure=failed)
    found: Document = document(findings(story.ledger(), story.reduced()))
    return found


def with_gates(found: Document) -> Document:
    gates = tuple(
        GateVerdict(
            name=answer.value,
            answer=answer,
            value=Estimate(value=None if answer is Answer.INCONCLUSIVE else 0.9, unit=Unit.SCORE, reason="no data"),
            bound=0.5,
            direction="at_least",
            sentence=f"The gate says {answer.value}.",
        )
        for answer in Answer
    )
    return dataclasses.replace(found, verdict=Verdict(gates=gates))


def test_html_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in {"href", "src", "xlink:href", "action", "data", "srcset", "poster"}:
                assert value is not None and value.startswith("#")
            assert not name.startswith("on")


def test_html_has_no_style_that_loads(whole_document: Document) -> None:
    text = Html().export(whole_document)["report.html"].decode()
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_html_begins_with_the_recommendation(page: Page, whole_document: Document) -> None:
    words = [word.strip() for word in page.words if word.strip()]
    shown = words[words.index(whole_document.recommendation) :]
    assert words[0] == whole_document.recommendation
    assert whole_document.title in shown


def test_html_shows_every_table_chart_and_warning(page: Page, whole_document: Document) -> None:
    tables = [table for section in whole_document.sections for table in section.tables]
    charts = [chart for section in whole_document.sections for chart in section.charts]
    assert sum(tag == "table" for tag, _ in page.tags) == len(tables)
    assert sum(tag == "svg" for tag, _ in page.tags) == len(charts)
    rows = sum(tag == "tr" and attributes.get("class") != "remark" for tag, attributes in page.tags)
    assert rows == sum(1 + len(table.rows) for table in tables)
    text = " ".join(page.words)
    assert all(warning in text for warning in whole_document.warnings)
    assert all(chart.description in text for chart in charts)


def test_html_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links and all(str(link)[1:] in ids for link in links)


def test_html_of_a_comparison_shows_all_of_it_with_ids_of_its_own(ledgers: ModuleType) -> None:
    scores = {"flaml_search": 0.9, "optuna_search": 0.85, "random_search": 0.8, "baseline": 0.7}
    story = ledgers.compared({f"table-{number}": scores for number in range(6)}, spread=0.02)
    story.searched("flaml_search", [0.6, 0.9], table="table-0")
    found = document(findings(story.ledger(), ()))
    shown = Page(Html().export(found)["report.html"].decode())
    ids = [attributes["id"] for _, attributes in shown.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert sum(tag == "svg" for tag, _ in shown.tags) == 4
    assert next(word for word in shown.words if word.strip()) == found.recommendation


def test_html_can_be_read_in_the_dark_and_printed(whole_document: Document) -> None:
    data = Html().export(whole_document)["report.html"]
    assert b"prefers-color-scheme: dark" in data and b"@media print" in data
    assert len(data) < 2_000_000


def test_html_folds_long_tables(whole_document: Document) -> None:
    folded = Page(Html(open_rows=1).export(whole_document)["report.html"].decode())
    opened = Page(Html(open_rows=10_000).export(whole_document)["report.html"].decode())
    assert sum(tag == "details" for tag, _ in folded.tags) > 5
    assert sum(tag == "details" for tag, _ in opened.tags) == 0


def test_html_puts_the_remarks_of_a_row_below_it_where_they_can_be_read(whole_document: Document) -> None:
    fields = (Field("cell", "cell"), Field("remarks", "remarks"), Field("shape", "shape"))
    table = Table("t", "T", fields, (("a", "Take care.", "stairs"), ("b", None, "ladder")))
    found = dataclasses.replace(whole_document, sections=(Section("s", tables=(table,)),))
    page = Page(Html().export(found)["report.html"].decode())
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "tr"] == [None, None, "remark", None]
    words = [word for word in page.words if word.strip()]
    assert words.index("stairs") < words.index("Take care.") < words.index("ladder")


def test_html_escapes_whatever_a_name_holds(nasty: Document) -> None:
    text = Html().export(nasty)["report.html"].decode()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_markdown_begins_with_the_recommendation(whole_document: Document) -> None:
    text = Markdown().export(whole_document)["report.md"].decode()
    assert text.splitlines()[0] == f"# {whole_document.recommendation}"


def test_markdown_tables_keep_their_columns_whatever_a_name_holds(nasty: Document) -> None:
    lines = Markdown().export(nasty)["report.md"].decode().splitlines()
    columns = None
    for line in lines:
        if not line.startswith("|"):
            columns = None
            continue
        found = len(re.findall(r"(?<!\\)\|", line))
        assert columns in {None, found}
        columns = found
    assert not any(re.search(r"(?<!\\)<script", line) for line in lines)
    assert "# no heading" not in lines


def test_markdown_says_where_the_rest_of_a_long_table_is(whole_document: Document) -> None:
    text = Markdown(rows=5).export(whole_document)["report.md"].decode()
    assert "7 more rows are in `tables/open_steps.csv`." in text


def test_json_keeps_the_schema_in_the_package(whole_document: Document) -> None:
    schema = Path(harness.exporters.__path__[0]) / "summary.schema.json"
    told = json.loads(Json().export(whole_document)["summary.json"])
    jsonschema.validate(told, json.loads(schema.read_text(encoding="utf-8")), jsonschema.Draft202012Validator)
    assert told["recommended"] == "random_search"


def test_csv_holds_raw_values_in_base_units(whole_document: Document) -> None:
    files = Csv().export(whole_document)
    rows = list(csv.DictReader(io.StringIO(files["tables/capacity.csv"].decode(), newline="")))
    row = next(row for row in rows if row["candidate"] == "random_search")
    assert float(row["capacity_rps"]) == 1200
    table = next(table for section in whole_document.sections for table in section.tables if table.key == "capacity")
    place = [field.key for field in table.fields].index("p99_s")
    assert [float(row["p99_s"]) for row in rows] == [values[place] for values in table.rows]


def test_csv_tells_holes_booleans_and_line_ends_apart() -> None:
    fields = (Field("text", "t"), Field("number_s", "n", Unit.SECONDS), Field("flag", "f"))
    table = Table("t", "T", fields, (('a,"b"\nc', None, True), ("", 1.5e-7, False)))
    found = Document("t", "r", (), (Section("s", tables=(table,)),), {}, Verdict(gates=()), ExitCode.GOOD, ())
    data = Csv().export(found)["tables/t.csv"]
    assert list(csv.reader(io.StringIO(data.decode(), newline=""))) == [
        ["text", "number_s", "flag"],
        ['a,"b"\nc', "", "true"],
        ["", "1.5e-07", "false"],
    ]


def test_junit_has_a_case_per_gate_with_its_answer(whole_document: Document) -> None:
    root = ElementTree.fromstring(Junit().export(with_gates(whole_document))["junit.xml"])
    cases = {case.attrib["name"]: case for case in root.iter("testcase")}
    assert set(cases) == {"pass", "fail", "inconclusive"}
    assert cases["pass"].find("failure") is None and cases["pass"].find("skipped") is None
    failure, skipped = cases["fail"].find("failure"), cases["inconclusive"].find("skipped")
    assert failure is not None and failure.attrib["message"] == "The gate says fail."
    assert skipped is not None and skipped.attrib["message"] == "The gate says inconclusive."
    suite = root.find("testsuite")
    assert suite is not None
    assert [suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "1"]
    assert all((case.findtext("system-out") or "").startswith("The gate says") for case in cases.values())


def test_junit_is_xml_whatever_a_message_holds(nasty: Document) -> None:
    gate = GateVerdict(
        name="g",
        answer=Answer.FAIL,
        value=Estimate(value=0.1, unit=Unit.SCORE),
        bound=0.5,
        direction="at_least",
        sentence=NASTY,
    )
    data = Junit().export(dataclasses.replace(nasty, verdict=Verdict(gates=(gate,))))["junit.xml"]
    failure = ElementTree.fromstring(data).find(".//failure")
    assert failure is not None and failure.attrib["message"].startswith("<script>alert(1)</script>")


def test_png_gives_each_chart_as_picture_and_as_drawing(whole_document: Document) -> None:
    files = Png().export(whole_document)
    keys = {chart.key for section in whole_document.sections for chart in section.charts}
    assert set(files) == {f"charts/{key}.{form}" for key in keys for form in ("png", "svg")}
    for path, data in files.items():
        assert data.startswith(b"\x89PNG" if path.endswith("png") else b"<svg")
        if path.endswith("svg"):
            ElementTree.fromstring(data)


def test_readers_see_numbers_with_their_unit_and_holes_as_nothing() -> None:
    fields = (Field("a", "a", Unit.SECONDS), Field("b", "b"), Field("c", "c"), Field("d", "d", Unit.COUNT))
    table = Table("t", "T", fields, ((0.0123, True, None, 12345), (None, False, "x", 0)))
    assert table.texts() == (("12.3 ms", "yes", "", "12,345"), ("", "no", "x", "0"))
