"""Tables: what a scenario asks of one, and what was found in it before any search.

In: nothing. Out: `DataPlan`, and `TableEntry` with the `DataCheck`s that the table was put through.
"""

import itertools
import re
from pathlib import PurePath
from typing import Literal, Self

from pydantic import Field, model_validator

from harness.records.frozen import Frozen
from harness.records.words import ColumnKind, Metric, Name, Scalar, Seed, Share, Split, TableName, Task

DataCheckName = Literal[
    "schema",
    "mistaken_kind",
    "constant_column",
    "duplicate_column",
    "shared_rows",
    "leaking_column",
    "class_balance",
    "label_noise",
    "rows_per_fold",
    "independent_rows",
    "texts_of_groups",
]

AcceptableCheck = Literal["schema", "mistaken_kind", "shared_rows", "leaking_column"]
"""Those that fail a table which could be searched all the same, and that a user may know better about."""


class ColumnPlan(Frozen):
    """What a column is known to hold; a table in which it holds anything else fails its check of the schema."""

    kind: ColumnKind | None = Field(default=None, description="What its values must be.")
    at_least: float | None = Field(default=None, description="No number in it is below this.")
    at_most: float | None = Field(default=None, description="No number in it is above this.")
    one_of: tuple[str, ...] = Field(default=(), description="The texts it may hold.")
    holes: bool = Field(default=True, description="Whether values may be missing.")

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"nothing is at least {self.at_least:g} and at most {self.at_most:g}")
        if self.one_of and (self.at_least is not None or self.at_most is not None):
            raise ValueError("one_of is about texts, at_least and at_most are about numbers: give one or the other")
        return self


class DataPlan(Frozen):
    """Which table, which column is predicted, and how it is split."""

    name: TableName | None = Field(
        default=None, description="What reports call the table; left out, the name in its source."
    )
    source: str = Field(
        description="`sklearn:NAME` for a table that scikit-learn ships (iris, wine, breast_cancer, digits, diabetes), "
        "`openml:ID` for one that OpenML keeps under that number, `synthetic:TASK` (binary, multiclass, regression) "
        "for one that is made here, or the path of a `.csv` or `.parquet` file, relative to the scenario file.",
        min_length=1,
    )
    target: str = Field(default="target", description="The column to predict.", min_length=1)
    task: Task | None = Field(default=None, description="What is predicted; left out, it is read off the target.")
    drop: tuple[str, ...] = Field(default=(), description="Columns to leave out, such as row identifiers.")
    dates: tuple[str, ...] = Field(
        default=(), description="Columns of texts to read as dates (ISO 8601); Parquet files know theirs."
    )
    holdout: Share = Field(default=0.25, description="Share of the rows kept away from the search.")
    split: Split | None = Field(
        default=None,
        description="How rows are kept apart, in the holdout and in the folds. `plain`: by chance. `stratified`: by "
        "chance, with the same share of each class. `grouped`: the rows of a group together. `time`: the newest rows "
        "are the holdout, and each fold is scored on newer rows than it is fitted on. Left out, stratified for a "
        "classification and plain for a regression.",
    )
    group: str | None = Field(
        default=None,
        description="Of a grouped split: the column that names the group of a row; no model sees it.",
        min_length=1,
    )
    time: str | None = Field(
        default=None,
        description="Of a split by time: the column of dates (ISO 8601) or numbers that orders the rows; no model sees "
        "it, for all that a model is asked later lies beyond what it has seen there.",
        min_length=1,
    )
    columns: dict[str, ColumnPlan] = Field(
        default={},
        description="What columns are known to hold, each in a table of its name: `[data.columns.NAME]`.",
    )
    accept: tuple[AcceptableCheck, ...] = Field(
        default=(), description="Failed checks of the table that do not keep it from being searched."
    )
    seed: Seed = Field(default=7, description="Seed of the split, and of a synthetic table.")
    parameters: dict[Name, Scalar | tuple[Scalar, ...]] = Field(
        default={},
        description="Of a `synthetic:` table: rows, columns, informative_share, categories_share, cardinality, "
        "missing_share, noise, and classes. A list of values is an axis: the scenario has a table per combination of "
        "them.",
    )

    @model_validator(mode="after")
    def _split_has_what_it_needs(self) -> Self:
        for split, setting, column in (("grouped", "group", self.group), ("time", "time", self.time)):
            if self.split == split and column is None:
                raise ValueError(f'split = "{split}" needs `{setting}`, the column that says which rows belong where')
            if self.split != split and column is not None:
                raise ValueError(f'`{setting}` is given and has no meaning without split = "{split}"')
        if self.parameters and not self.source.startswith("synthetic:"):
            raise ValueError(f"`parameters` are those of a synthetic table, and the source is {self.source}")
        for key, value in self.parameters.items():
            if value == ():
                raise ValueError(f"parameters.{key} is an axis without a value: give it one, or leave it out")
        return self

    def along_axes(self) -> "tuple[DataPlan, ...]":
        """A plan per combination of the values of its axes, each with a name of its own."""
        axes = {key: value for key, value in self.parameters.items() if isinstance(value, tuple)}
        name = self.name or _named_after(self.source)
        found = []
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            parts = [name, *(f"{key}{_in_a_name(value)}" for key, value in point.items())]
            found.append(self.model_copy(update={"name": "-".join(parts), "parameters": {**self.parameters, **point}}))
        return tuple(found)


def _named_after(source: str) -> str:
    scheme, colon, rest = source.partition(":")
    plain = rest if colon and scheme == "sklearn" else PurePath(source).stem if not colon else f"{scheme}-{rest}"
    name = _in_a_name(plain)
    return name if name[:1].isalpha() else f"table-{name}".rstrip("-")


def _in_a_name(value: Scalar) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", str(value).lower()).strip("-")[:60]


class DataCheck(Frozen):
    """One verdict on a table; `fail` keeps it out of the search unless the plan accepts it."""

    name: DataCheckName
    column: str | None = None
    """The column it speaks of; None: the whole table."""
    verdict: Literal["pass", "warn", "fail"]
    value: float | None = None
    bound: float | None = None
    """What `value` was held against."""
    detail: str
    """One sentence or two for the reader: what was found, and what to do about it."""


class TableEntry(Frozen):
    """A table as it was read."""

    name: str
    source: str
    task: Task
    metric: Metric
    """What is maximised or minimised on it."""
    classes: tuple[str, ...]
    """Of a classification."""
    train_rows: int
    holdout_rows: int
    columns: dict[str, int]
    """Number of columns by kind."""
    sha256: str
    checks: tuple[DataCheck, ...] = ()
    """What it was put through before any search."""
