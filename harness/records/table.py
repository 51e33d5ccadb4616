"""Tables: what a scenario asks of one, and what was found in it before any search.

In: nothing. Out: `DataPlan`, and `TableEntry` with the `DataCheck`s that the table was put through.
"""

import itertools
import re
from pathlib import PurePath

from pydantic import Field

from harness.records.frozen import Frozen
from harness.records.words import Metric, Name, Scalar, Seed, Share, TableName, Task


class DataPlan(Frozen):
    """Which table, which column is predicted, and how it is split."""

    name: TableName | None = Field(
        default=None, description="What reports call the table; left out, the name in its source."
    )
    source: str = Field(
        description="`sklearn:NAME` for a table that scikit-learn ships (iris, wine, breast_cancer, digits, diabetes), "
        "or the path of a `.csv` or `.parquet` file, relative to the scenario file.",
        min_length=1,
    )
    target: str = Field(default="target", description="The column to predict.", min_length=1)
    task: Task | None = Field(default=None, description="What is predicted; left out, it is read off the target.")
    drop: tuple[str, ...] = Field(default=(), description="Columns to leave out, such as row identifiers.")
    dates: tuple[str, ...] = Field(
        default=(), description="Columns of texts to read as dates (ISO 8601); Parquet files know theirs."
    )
    holdout: Share = Field(default=0.25, description="Share of the rows kept away from the search.")
    seed: Seed = Field(default=7, description="Seed of the split.")
    parameters: dict[Name, Scalar | tuple[Scalar, ...]] = Field(
        default={},
        description="Parameters of a source that makes its rows. A list of values is an axis: the scenario has a table "
        "per combination of them.",
    )

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
