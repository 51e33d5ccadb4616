"""Synthetic tables: as many rows, columns, categories, holes and as much noise as a question needs, from a seed.

In: a task, parameters and a seed. Out: a frame with a `target`; the same on every machine for the same versions of
numpy and scikit-learn.

The rows are scikit-learn's `make_classification` and `make_regression`. Then a share of the columns becomes categories:
each of `cardinality` equal parts of the column's range of ranks is a text, so what the numbers told, the texts tell,
in steps. Last, cells are emptied by chance, of every column alike.

What can be known of such a table: with `noise` n, a share n of the class labels was drawn anew among all k classes, so
n (k - 1) / k of them are wrong; the amounts of a regression have a variance of 1 before a noise of variance n**2 is
added, so no model explains more than 1 / (1 + n**2) of it.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError, model_validator
from sklearn.datasets import make_classification, make_regression

from harness.errors import UsageError, did_you_mean
from harness.records.frozen import Frozen
from harness.records.words import Scalar
from harness.stages.memory import TableSize

TASKS = ("binary", "multiclass", "regression")

CLUSTERS = 2
"""Per class: one would be a table that a line divides."""

MIXING_BYTES = 16
"""Of each pair of informative columns, as measured: `make_classification` mixes them by a matrix per cluster, and holds
two at a time."""


class SyntheticPlan(Frozen):
    """The parameters of a synthetic table."""

    model_config = ConfigDict(strict=True)

    rows: int = Field(default=1_000, ge=20, le=100_000_000)
    columns: int = Field(default=20, ge=2, le=100_000)
    informative_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the columns that the target depends on; the others are noise."""
    categories_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the columns that hold texts."""
    cardinality: int = Field(default=10, ge=2)
    """Distinct texts of each of these."""
    missing_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the cells that are empty."""
    noise: float = Field(default=0.0, ge=0)
    """Of a classification, the share of labels that are drawn anew; of a regression, the standard deviation of what is
    added to amounts whose own is 1."""
    classes: int = Field(default=3, ge=3, le=100)
    """Of a multiclass table."""

    @property
    def informative(self) -> int:
        """Number of informative columns."""
        return max(1, round(self.informative_share * self.columns))

    def size(self, task: str) -> TableSize:
        """How large the table will be, and what a classification takes to be made: a matrix that mixes its columns."""
        texts = round(self.categories_share * self.columns)
        mixing_bytes = 0 if task == "regression" else MIXING_BYTES * self.informative**2
        return TableSize(rows=self.rows, numbers=self.columns - texts, texts=texts, beside_bytes=mixing_bytes)

    @model_validator(mode="after")
    def _categories_repeat(self) -> Self:
        if self.categories_share > 0 and self.cardinality > self.rows / 2:
            raise ValueError(
                f"a cardinality of {self.cardinality} in {self.rows} rows would be names, not categories: have at "
                "least two rows for each"
            )
        return self


def synthetic_plan(task: str, parameters: Mapping[str, Scalar | tuple[Scalar, ...]]) -> SyntheticPlan:
    """The parameters of `synthetic:TASK`. Raises UsageError on what cannot be made, in one paragraph."""
    where = f"The table `synthetic:{task}`"
    if task not in TASKS:
        hint = did_you_mean(task, TASKS, f"known are {', '.join(TASKS)}.")
        raise UsageError(f"{where} cannot be made; {hint}")
    for name in parameters:
        if name not in SyntheticPlan.model_fields:
            known = list(SyntheticPlan.model_fields)
            hint = did_you_mean(name, known, f"it has {', '.join(known)}.")
            raise UsageError(f"{where} has no parameter {name!r}; {hint}")
    if "classes" in parameters and task != "multiclass":
        raise UsageError(f"{where} has no parameter 'classes': a multiclass table has.")
    try:
        plan = SyntheticPlan.model_validate(dict(parameters))
    except ValidationError as error:
        (first, *_) = error.errors()
        place, value = ".".join(map(str, first["loc"])), first["input"]
        told = str(first["msg"]).removeprefix("Value error, ")
        if place:
            raise UsageError(f"{where}: parameter {place!r} is {value!r}: {told[0].lower()}{told[1:]}.") from None
        raise UsageError(f"{where}: {told}.") from None
    if task == "regression":
        return plan
    if plan.noise > 1:
        raise UsageError(f"{where}: parameter 'noise' is {plan.noise:g}; it is a share of the labels, at most 1.")
    needed = math.ceil(math.log2(_classes(task, plan) * CLUSTERS))
    if plan.informative < needed:
        raise UsageError(
            f"{where}: {_classes(task, plan)} classes need {needed} informative columns, and it has "
            f"{plan.informative}: raise `columns` or `informative_share`."
        )
    return plan


def synthetic_table(task: str, plan: SyntheticPlan, seed: int) -> pd.DataFrame:
    """The table, with columns `x0`, `x1`, ... and `target`."""
    rng = np.random.default_rng(seed)
    made, target = _made(task, plan, seed)
    names = [f"x{column}" for column in range(plan.columns)]
    # By chance, or the categories would be what is left when the informative columns are counted off.
    categorical = rng.choice(plan.columns, round(plan.categories_share * plan.columns), replace=False)
    texts = {names[column]: _texts(made[:, column], plan.cardinality) for column in sorted(categorical.tolist())}
    frame = pd.DataFrame({name: texts.get(name, made[:, place]) for place, name in enumerate(names)})
    if plan.missing_share:
        frame = frame.mask(rng.random(frame.shape) < plan.missing_share)
    return pd.concat([frame, pd.Series(target, name="target")], axis=1)


def _made(task: str, plan: SyntheticPlan, seed: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
    if task == "regression":
        made, amounts = make_regression(
            plan.rows, plan.columns, n_informative=plan.informative, shuffle=True, random_state=seed
        )
        added = np.random.default_rng([seed, 1]).normal(scale=plan.noise, size=plan.rows)
        return made, amounts / amounts.std() + added
    classes = _classes(task, plan)
    made, index = make_classification(
        plan.rows,
        plan.columns,
        n_informative=plan.informative,
        n_redundant=0,
        n_classes=classes,
        n_clusters_per_class=CLUSTERS,
        flip_y=plan.noise,
        random_state=seed,
    )
    labels = np.array([f"class_{number:0{len(str(classes - 1))}}" for number in range(classes)], dtype=object)
    return made, labels[index]


def _texts(values: NDArray[np.float64], cardinality: int) -> NDArray[np.object_]:
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    parts = ranks * cardinality // len(values)
    names = np.array([f"t{part:0{len(str(cardinality - 1))}}" for part in range(cardinality)], dtype=object)
    return names[parts]


def _classes(task: str, plan: SyntheticPlan) -> int:
    return plan.classes if task == "multiclass" else 2
