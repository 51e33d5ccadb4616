"""What the reading wing finds, and the document it is told in.

In: nothing. Out: `Estimate`, `Capacity`, `Dissection`, `Routing`, `Standing`, `Recommendation`, `Verdict`, and
`Document` with its tables and charts as data. Warnings are values here: they travel with the number to the page.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from harness.errors import ExitCode
from harness.records.frozen import Frozen
from harness.records.load import Anatomy, StepResult
from harness.records.server import ServerSettings
from harness.units import Unit, format_number

Values: TypeAlias = tuple[str | float | int | bool | None, ...]
"""A row of a table, in base units."""


class Estimate(Frozen):
    """A figure with what it can stand behind; `value` is None where it did not earn a number, with the reason."""

    value: float | None
    unit: Unit
    low: float | None = None
    high: float | None = None
    n: int | None = None
    """Size of the sample behind it."""
    reason: str | None = None
    warnings: tuple[str, ...] = ()


class Capacity(Frozen):
    """What one served cell carries."""

    cell: str
    candidate: str | None
    runtime: str | None
    target: str
    replicas: int
    max_replicas: int | None = None
    """Where the target added replicas by itself: how many there may have been. It is the capacity of no number then."""
    settings: ServerSettings | None = None
    """How its servers were told to serve; None: as usual."""
    rate: Estimate
    """Highest measured rate (requests per second) of an open step that met the objective."""
    p99: Estimate
    """Scheduled p99 at that step."""
    step: str | None
    """Id of the step that carries both."""
    missed_below_rps: float | None = None
    """Lowest rate, no higher than `rate`, at which a step missed the objective all the same; None where all below met
    it. Such a cell carries its rate at times."""
    peak: Estimate
    """Highest throughput of a closed step: no objective holds there."""

    @property
    def is_least(self) -> bool:
        """The rate is a lower bound: it was met, and neither above nor below it was the objective missed."""
        return bool(self.rate.value) and self.rate.high is None and self.missed_below_rps is None


class Dissection(Frozen):
    """A step of a served cell at which its latency was taken apart."""

    cell: str
    step: str
    """Id of the step."""
    load: str
    """What it asked for, in a few words."""
    carries: bool
    """The cell's capacity rests on it, or it speaks for the cell where there is none; else it is the lowest load."""
    anatomy: Anatomy


class Routing(Frozen):
    """What the routing of a target costs, by the same candidate served without it at the same load."""

    candidate: str
    runtime: str
    replicas: int
    served: str = ""
    """How it was served with it, where that is not as usual: `batch 8, haproxy = false`."""
    load: str
    plain_s: float
    """Network and proxy of the median request without it..."""
    routed_s: float
    """... and with it."""
    p50_s: float
    """The median request with it."""


class Standing(Frozen):
    """One candidate, as served in its best cell, at its place in the recommendation."""

    candidate: str
    family: str
    score: Estimate
    capacity: Capacity | None
    """Best served cell; None where it was never loaded."""
    on_front: bool
    """No other candidate is at least as good in score, capacity and p99, and better in one."""
    tied: bool = False
    """It could be recommended too, and its score cannot be told apart from the best one."""
    reason: str | None = None
    """Why it was never loaded."""


class Recommendation(Frozen):
    """The candidates, best first, and the recommendation."""

    standings: tuple[Standing, ...]
    recommended: str | None
    sentence: str
    """The recommendation in plain words, with the number that carries it."""


class Answer(StrEnum):
    """A gate's three values; a gate without data is inconclusive."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class GateVerdict(Frozen):
    """What became of one gate."""

    name: str
    answer: Answer
    value: Estimate
    bound: float
    direction: str
    """`at_least` or `at_most`."""
    sentence: str


class Verdict(Frozen):
    """All gates of a run."""

    gates: tuple[GateVerdict, ...]

    @property
    def answer(self) -> Answer | None:
        """Fail if any gate fails, else inconclusive if any is, else pass; None without gates."""
        answers = {gate.answer for gate in self.gates}
        return next((one for one in (Answer.FAIL, Answer.INCONCLUSIVE, Answer.PASS) if one in answers), None)


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table: its name as the same word everywhere, its heading, and the unit that formats it."""

    key: str
    heading: str
    unit: Unit | None = None
    """None: the values are texts."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values in base units; exporters format them."""

    key: str
    title: str
    fields: tuple[Field, ...]
    rows: tuple[Values, ...]
    note: str | None = None

    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The rows as a reader sees them: numbers with their unit, booleans as yes and no, holes as nothing."""
        return tuple(
            tuple(_text(value, field.unit) for value, field in zip(row, self.fields, strict=True)) for row in self.rows
        )


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart with what a reader who cannot see it needs."""

    key: str
    title: str
    """States the finding."""
    description: str
    svg: bytes
    png: bytes


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of the report with what stands under it, in this order."""

    title: str
    paragraphs: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report as data: exporters turn it into bytes and decide nothing."""

    title: str
    recommendation: str
    """The first line of every form of the report."""
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    summary: dict[str, object]
    """What `summary.json` holds; made of plain JSON values."""
    verdict: Verdict
    exit_code: ExitCode
    """What a job is told of the run."""
    steps: tuple[StepResult, ...]


def _text(value: str | float | int | bool | None, unit: Unit | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if unit is None:
        raise ValueError(f"a column of texts holds the number {value}")
    return format_number(value, unit)
