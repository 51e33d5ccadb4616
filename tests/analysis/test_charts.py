"""Charts: the same bytes each time, readable without colour, and safe whatever a name holds."""

import re
from dataclasses import replace
from itertools import combinations, pairwise
from types import ModuleType
from xml.etree import ElementTree

import pytest

from harness.analysis import pictures
from harness.analysis.charts import DASHES, MARKERS, PALETTE, draw
from harness.analysis.drawable import (
    MOST_LINES,
    Axis,
    Bar,
    Bars,
    Dot,
    Line,
    Lines,
    Panel,
    Picture,
    Point,
    Points,
    Ranks,
    Row,
    Rows,
    shortened,
)
from harness.analysis.findings import findings
from harness.analysis.rows import FILLS
from harness.records.finding import Document
from harness.records.load import PARTS
from harness.units import Unit

NASTY = '<script>alert("$x$")</script> & 模型\x00'
TEXT = "{http://www.w3.org/2000/svg}text"


def picture(*labels: str) -> Lines:
    return Lines(
        key="a_chart",
        title="A title",
        description="A description",
        x=Axis("rows", Unit.COUNT, log=True),
        y=Axis("time", Unit.SECONDS, log=True),
        lines=tuple(Line(label, (1.0, 8.0), (1e-3, 2e-3), style) for style, label in enumerate(labels)),
        rule=(5e-3, "objective"),
    )


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", PALETTE)
def test_every_line_colour_reaches_the_contrast_of_graphics_on_white(colour: str) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 3.0


def test_no_two_lines_share_marker_or_both_colour_and_dash() -> None:
    styles = [(MARKERS[n], PALETTE[n % len(PALETTE)], DASHES[n % len(DASHES)]) for n in range(MOST_LINES)]
    for left, right in combinations(styles, 2):
        assert left[0] != right[0]


def test_the_same_picture_gives_the_same_bytes() -> None:
    first, second = draw(picture("a", "b")), draw(picture("a", "b"))
    assert (first.svg, first.png) == (second.svg, second.png)


def test_names_are_text_and_are_escaped() -> None:
    svg = draw(picture(NASTY)).svg.decode()
    assert "<script" not in svg
    shown = ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(TEXT)]
    assert shortened(NASTY).replace("\x00", "\N{REPLACEMENT CHARACTER}") in shown


def test_a_chart_carries_its_title_and_description_for_screen_readers() -> None:
    root = ElementTree.fromstring(draw(picture("a")).svg)
    named = root.attrib["aria-labelledby"].split()
    by_id = {element.attrib.get("id"): element.text for element in root.iter()}
    assert [by_id[name] for name in named] == ["A title", "A description"]


def test_ids_of_two_charts_never_meet_and_references_hold(whole_document: Document) -> None:
    seen: set[str] = set()
    for section in whole_document.sections:
        for chart in section.charts:
            text = chart.svg.decode()
            ids = re.findall(r' id="([^"]+)"', text)
            assert len(ids) == len(set(ids))
            assert not seen & set(ids)
            seen |= set(ids)
            assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)


def test_names_at_line_ends_do_not_overlap() -> None:
    """Eight lines that end in one place: their names still stand apart."""
    root = ElementTree.fromstring(draw(picture(*(f"line number {n}" for n in range(8)))).svg)
    heights = []
    for element in root.iter(TEXT):
        if "line number" in "".join(element.itertext()):
            place = re.search(r"translate\(\S+ (\S+)\)", element.attrib.get("transform", ""))
            heights.append(float(place[1]) if place else float(element.attrib["y"]))
    assert len(heights) == 8
    assert min(abs(a - b) for a, b in combinations(heights, 2)) > 10


def test_a_long_name_loses_its_middle() -> None:
    name = "a_very_long_engine_name_that_somebody_chose onnx ray_serve x4"
    assert len(shortened(name, 30)) == 30
    assert shortened(name, 30).startswith("a_very_long") and shortened(name, 30).endswith("ray_serve x4")


def test_rows_tell_what_is_missing() -> None:
    rows = (
        Row(("one",), (Dot(0.9, "0.9000", 0.8, 0.95), Dot(None, "never loaded")), filled=True, bold=True),
        Row(("two",), (Dot(0.7, "0.7000"), Dot(None, "never loaded")), filled=False),
    )
    svg = draw(Rows("rows", "Title", "Description", ("score", "capacity"), rows)).svg.decode()
    assert svg.count("never loaded") == 2


def test_open_and_closed_load_never_share_an_axis(ledgers: ModuleType) -> None:
    story = ledgers.whole_run()
    found = findings(story.ledger(), story.reduced())
    opened, closed = pictures.open_load(found), pictures.closed_load(found)
    assert opened is not None and closed is not None
    assert "open load" in opened.x.title and "closed load" in closed.x.title
    points = sum(len(line.x) for line in opened.lines if not line.companion)
    assert points == sum(result.step.mode == "open" for result in found.results)


def test_steps_that_missed_the_objective_are_hollow_and_intervals_are_drawn(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400, 800, 1200))
    chart = pictures.open_load(findings(story.ledger(), story.reduced()))
    assert chart is not None
    line = next(line for line in chart.lines if not line.companion)
    assert line.hollow == (False, False, True)
    assert all(low is not None and low <= y for low, y in zip(line.low, line.y, strict=True))
    # The last step is overloaded: it waits longer and longer, and nothing bounds its p99 from above.
    assert all(high is not None and high >= y for high, y in zip(line.high[:2], line.y[:2], strict=True))
    assert line.high[2] is None
    assert chart.rule is not None and chart.rule[0] == 0.05


def test_titles_state_the_finding(whole_document: Document) -> None:
    titles = {chart.key: chart.title for section in whole_document.sections for chart in section.charts}
    assert titles["open_load"] == (
        "random_search onnx asgi x1 keeps p99 within 50 ms up to 1,200 req/s, and misses it at 1,600 req/s"
    )
    assert titles["closed_load"].startswith("baseline onnx asgi x1 peaks at 1,900 req/s")
    assert titles["search"] == "optuna_search found the best cross-validated roc_auc, 0.9910, after 3.00 s"
    assert titles["candidates"] == "random_search is recommended; 3 of 3 candidates are on the front"
    assert titles["micro"].startswith("baseline onnx is quickest: 7.14 µs for 1 row")


def test_more_cells_than_an_axis_can_tell_apart_are_counted_not_drawn(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(serve=[{"target": "asgi", "replicas": [1, 2, 3, 4]}]))
    story.candidate("random_search", 0.99, 0.985, 0.995)
    for cell in story.plan:
        if cell.kind == "serve":
            story.loaded(cell, 1000.0 * (cell.replicas or 1), (400,), in_flight=(1,))
    chart = pictures.open_load(findings(story.ledger(), story.reduced()))
    assert chart is not None
    names = [line.label for line in chart.lines if not line.companion]
    assert len(names) == MOST_LINES
    assert names[0].startswith("random_search")
    assert "4 more are in the table alone." in chart.description


def test_an_engine_is_one_line_of_the_search_however_many_seeds_it_had(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(search={"engines": ["optuna_search"], "metric": "roc_auc", "seeds": [1, 2]}))
    first, second = (cell for cell in story.plan if cell.kind == "search")
    story.searched("optuna_search", [0.9, 0.8, 0.95, 0.94])
    story.trials += [trial.model_copy(update={"cell": second.id}) for trial in story.trials[:2]]
    chart = pictures.search(findings(story.ledger(), ()))
    assert chart is not None
    assert [(line.label, line.companion) for line in chart.lines] == [
        ("optuna_search, best of 2 seeds", False),
        ("optuna_search, best of 2 seeds", True),
    ]
    # Moved at the first and the third trial; the fourth ends the line.
    assert (chart.lines[0].x, chart.lines[0].y) == ((0.5, 1.5, 2.0), (0.9, 0.95, 0.95))
    assert first.id != second.id


def shown(picture: Picture) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ElementTree.fromstring(draw(picture).svg).iter(TEXT)]


def diagram(*names: str, groups: tuple[tuple[str, ...], ...] = ()) -> Ranks:
    ranks = tuple((name, 1.2 + 0.6 * place) for place, name in enumerate(names))
    return Ranks("ranks", "Title", "Description", ranks, groups, difference=1.25)


def scatter(*names: str) -> Points:
    points = tuple(Point(name, 1.0 + place, 0.9 - 0.1 * place, place, True) for place, name in enumerate(names))
    panels = tuple(Panel(Axis(title, Unit.RATIO, log=True), points) for title in ("fit", "predict"))
    return Points("points", "Title", "Description", Axis("score", Unit.SCORE), panels)


def test_a_critical_difference_diagram_names_everybody_with_the_rank_and_the_difference() -> None:
    texts = shown(diagram("a", "b", "c", groups=(("a", "b"),)))
    assert {"a (1.20)", "b (1.80)", "(2.40) c", "CD = 1.25"} <= set(texts)


def test_a_critical_difference_diagram_has_a_bar_per_group() -> None:
    def bars(*groups: tuple[str, ...]) -> int:
        return draw(diagram("a", "b", "c", "d", groups=groups)).svg.decode().count("stroke: #d55e00")

    # scikit-posthocs draws a bar as one path through all its members.
    assert [bars(), bars(("a", "b")), bars(("a", "b"), ("b", "c", "d"))] == [0, 1, 2]


def test_a_scatter_names_each_entrant_once_for_all_panels() -> None:
    texts = shown(scatter("one", "two"))
    assert (texts.count("one"), texts.count("two")) == (1, 1)
    assert {"fit", "predict", "score"} <= set(texts)


def bars(*names: str) -> Bars:
    parts = ("on the way", "in the queue", "at work")
    made = tuple(Bar((name, "at 10 req/s"), (0.5, 0.0, 1.25 + place), "1.75 s") for place, name in enumerate(names))
    return Bars("bars", "Title", "Description", Axis("share of it", Unit.SHARE), parts, made)


def test_bars_name_their_parts_once_and_write_the_length_of_what_has_room() -> None:
    texts = shown(bars("one", "two"))
    assert [texts.count(part) for part in bars().parts] == [1, 1, 1]
    assert {"one", "two", "500 ms", "1.25 s", "2.25 s"} <= set(texts)
    assert "0 ns" not in texts


def test_no_two_parts_of_a_bar_look_alike_without_their_colour() -> None:
    def grey(fill: dict[str, str]) -> float:
        return luminance(fill["facecolor"])

    assert len(FILLS) == len(PARTS)
    plain = sorted(grey(fill) for fill in FILLS if "hatch" not in fill)
    hatches = [fill["hatch"] for fill in FILLS if "hatch" in fill]
    assert len(set(hatches)) == len(hatches)
    assert all(high - low > 0.03 for low, high in pairwise(plain))


@pytest.mark.parametrize(
    "made", [diagram("a", NASTY), scatter("a", NASTY), bars("a", NASTY)], ids=["diagram", "scatter", "bars"]
)
def test_new_pictures_give_the_same_bytes_and_are_safe(made: Picture) -> None:
    first, second = draw(made), draw(made)
    assert (first.svg, first.png) == (second.svg, second.png)
    assert "<script" not in first.svg.decode()


def test_a_band_is_drawn_in_place_of_a_bar_at_each_point() -> None:
    line = Line("a", (1.0, 2.0, 4.0), (0.1, 0.5, 0.9), 0, low=(0.0, 0.4, 0.8), high=(0.2, 0.6, 1.0))
    axes = {"x": Axis("after", Unit.SECONDS, log=True), "y": Axis("best", Unit.SCORE)}
    bars = draw(Lines("bars", "T", "D", lines=(line,), **axes)).svg.decode()
    band = draw(Lines("band", "T", "D", lines=(replace(line, band=True, stairs=True),), **axes)).svg.decode()
    assert "FillBetweenPolyCollection" in band and "FillBetweenPolyCollection" not in bars


@pytest.mark.parametrize(
    ("last", "marks"),
    [
        (5.0, {"200 ms", "500 ms", "1 s", "2 s", "5 s"}),
        (20.0, {"300 ms", "1 s", "3 s", "10 s"}),
        (2e3, {"1 s", "10 s"}),
    ],
)
def test_a_logarithmic_axis_of_a_few_decades_has_marks_between_them(last: float, marks: set[str]) -> None:
    line = Line("a", (0.1, last), (0.1, 0.9), 0)
    axes = {"x": Axis("after", Unit.SECONDS, log=True), "y": Axis("best", Unit.SCORE)}
    texts = set(shown(Lines("marks", "T", "D", lines=(line,), **axes)))
    assert marks <= texts
    assert ("3 s" in texts) == ("3 s" in marks)
