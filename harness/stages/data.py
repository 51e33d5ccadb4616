"""The table of a scenario: read, checked, given kinds, split.

In: a `DataPlan` and the folder its paths are relative to. Out: `Table`, raw columns in exactly the form in which
requests will carry them, so that what is fitted is what is served. Everything that would spoil a search or a figure is
refused here, with what to do about it.

Which task: what the plan says; else a target of texts or booleans is a classification, and so is one of at most 20
distinct whole numbers; any other number is a regression. A classification of two classes is binary.

Which kind: numbers are `number`; true and false (holes allowed) are `boolean`; timestamps of a Parquet file, and the
columns that the plan lists under `dates`, are `date` (without a zone: UTC); texts are `category`. A hole is an empty
field, or one of the words that pandas reads as missing, such as NA, NaN or null.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UsageError, did_you_mean, one_line
from harness.records.candidate import Column, Signature
from harness.records.rows import LARGEST, Batch
from harness.records.table import DataPlan
from harness.records.words import ColumnKind, Split, Task
from harness.space.preprocess import to_batch, to_frame
from harness.stages.source import EXACT_INTEGERS, read_source
from harness.stages.split import LabelledRows, split_rows
from harness.stages.texts import CATEGORIES_MAX, CATEGORIES_SHARE, disguise, drop_setting, refuse_no_categories

CLASSES_OF_NUMBERS = 20
"""A target of whole numbers with at most so many distinct values is read as classes."""

CLASSES_MAX = 100


@dataclass(frozen=True, slots=True)
class Table:
    """A table, ready to be searched."""

    frame: pd.DataFrame
    """Raw feature columns of all rows: numbers and booleans float64, dates datetime64, categories `str`, "" a hole."""
    target: NDArray[Any]
    """Per row: index of its class (int64), or value (float64)."""
    signature: Signature
    train: NDArray[np.intp]
    """Rows that the search may see, ascending."""
    holdout: NDArray[np.intp]
    """Rows that it never sees, ascending."""
    sha256: str
    """Digest of columns, kinds, values, target and split; the same on every machine for the same content."""
    split: Split
    groups: NDArray[np.intp] | None = None
    """Of a grouped split: the number of each row's group."""
    times: NDArray[np.float64] | None = None
    """Of a split by time: when each row is from, in days since 1970-01-01 or in the column's own numbers."""

    @property
    def training(self) -> LabelledRows:
        """What the folds of the training rows are made of."""
        rows = LabelledRows(self.target, self.signature.task, self.split, self.groups, self.times)
        return rows.at(self.train)

    @property
    def holdout_groups(self) -> NDArray[np.intp] | None:
        """Of a grouped split: the number of each holdout row's group."""
        return None if self.groups is None else self.groups[self.holdout]


def load_table(plan: DataPlan, folder: Path, memory_bytes: int | None = None) -> Table:
    """The table of a plan, where it fits into `memory_bytes` (None: what the machine has free).

    Raises UsageError on anything that cannot be searched as it is.
    """
    raw = read_source(plan, folder, memory_bytes)
    where = f"the table {plan.source}"
    _refuse_unknown(plan, [str(name) for name in raw.columns], where)
    target = raw[plan.target]
    aside = {plan.target, plan.group, plan.time, *plan.drop}
    kept = [name for name in raw.columns if name not in aside]
    if not kept:
        raise UsageError(
            f"Of {where} no column is left to predict {plan.target!r} from: the plan takes them all for something else."
        )
    columns = tuple(
        Column(name=name, kind=_kind(raw[name], "dates" if name in plan.dates else None, where)) for name in kept
    )
    batch = to_batch(raw[kept], columns)
    texts = [column.name for column in columns if column.kind == "category"]
    distinct = {name: refuse_no_categories(batch.texts[:, place], name, where) for place, name in enumerate(texts)}
    columns = tuple(
        column.model_copy(update={"by_target": distinct.get(column.name, 0) > CATEGORIES_MAX}) for column in columns
    )
    values, task, classes = _target(target, plan, where)
    signature = Signature(task=task, columns=columns, classes=classes)
    split = plan.split or ("stratified" if classes else "plain")
    if split == "stratified" and not classes:
        raise UsageError(
            f'The column to predict, {plan.target!r} of {where}, holds amounts, and split = "stratified" keeps shares '
            "of classes: leave `data.split` out."
        )
    groups = None if plan.group is None else _groups(raw[plan.group], where)
    times = None if plan.time is None else _times(raw[plan.time], where)
    rows = LabelledRows(values, task, split, groups, times)
    train, holdout = split_rows(rows, classes, plan.holdout, plan.seed, where)
    deciding = tuple(each for each in (groups, times) if each is not None)
    return Table(
        frame=to_frame(batch, columns),
        target=values,
        signature=signature,
        train=train,
        holdout=holdout,
        sha256=_digest(signature, (batch.numbers, values, train, holdout, *deciding), batch.texts),
        split=split,
        groups=groups,
        times=times,
    )


def holdout_batch(table: Table) -> Batch:
    """The rows that no search has seen, as they travel to a server."""
    return to_batch(table.frame.iloc[table.holdout], table.signature.columns)


def _refuse_unknown(plan: DataPlan, names: Sequence[str], where: str) -> None:
    split = {"group": plan.group, "time": plan.time}
    dividing = {setting: (name,) for setting, name in split.items() if name is not None}
    features = {"drop": plan.drop, "dates": plan.dates, "columns": tuple(plan.columns)}
    for setting, given in {"target": (plan.target,), **features, **dividing}.items():
        for name in given:
            if name not in names:
                some = ", ".join(one_line(column, 40) for column in names[:10]) + (", ..." if len(names) > 10 else "")
                hint = did_you_mean(name, names, f"its columns are {some}.")
                raise UsageError(f"`data.{setting}` names the column {name!r}, which {where} does not have; {hint}")
    for setting, given in {**features, **dividing}.items():
        if plan.target in given:
            raise UsageError(f"`data.{setting}` names {plan.target!r}, the column to predict: remove it from there.")
    for setting, (name,) in dividing.items():
        if name in plan.drop:
            raise UsageError(
                f"`data.drop` names {name!r}, which `data.{setting}` needs: remove it from `data.drop`; no model sees "
                "it in any case."
            )


def _groups(series: "pd.Series[Any]", where: str) -> NDArray[np.intp]:
    name = f"column {series.name!r} of {where}"
    try:
        groups = pd.factorize(series)[0]
    except TypeError:  # lists and records, which a Parquet file may hold
        raise UsageError(
            f"The {name} names the groups of the rows, and holds values that are no names: write them as numbers or "
            "texts."
        ) from None
    if (groups < 0).any():
        raise UsageError(
            f"The {name} names the groups of the rows, and has no value in {(groups < 0).sum()} of {len(groups)} rows: "
            "only you know whether these belong together. Fill them, or remove those rows."
        )
    return np.asarray(groups, dtype=np.intp)


def _times(series: "pd.Series[Any]", where: str) -> NDArray[np.float64]:
    name = f"column {series.name!r} of {where}"
    missing = int(series.isna().sum())
    if missing:
        raise UsageError(
            f"The {name} orders the rows, and has no value in {missing} of {len(series)} rows: they are neither older "
            "nor newer than others. Fill them, or remove those rows."
        )
    is_text = pd.api.types.infer_dtype(series) == "string"
    kind = _kind(series, "time" if is_text else None, where, leave="order the rows by another column")
    if kind not in ("date", "number"):
        raise UsageError(f"The {name} orders the rows, and is of kind {kind}: only dates and numbers have an order.")
    return to_batch(series.to_frame(), (Column(name=str(series.name), kind=kind),)).numbers[:, 0]


def _kind(series: "pd.Series[Any]", dated: str | None, where: str, leave: str = "") -> ColumnKind:
    """The kind of a column; `leave` is what to do about one that cannot be used, if not to drop it.

    `dated` is the setting that says it holds dates, if one does.
    """
    name = f"column {series.name!r} of {where}"
    leave = leave or f"leave the column out with `{drop_setting(str(series.name))}` under [data]"
    if series.isna().all():
        raise UsageError(f"The {name} has no values at all: {leave}.")
    holds = pd.api.types.infer_dtype(series, skipna=True)
    if holds == "datetime64":
        _refuse_far_dates(series, name, leave)
    if dated is not None:
        _refuse_bad_dates(series, holds, name, dated)
        return "date"
    if isinstance(series.dtype, pd.CategoricalDtype):
        holds = "string" if pd.api.types.infer_dtype(series.cat.categories) == "string" else "mixed"
    if holds == "boolean":
        return "boolean"
    if holds in ("integer", "floating", "mixed-integer-float", "decimal"):
        _refuse_inexact(series, holds, name, leave)
        return "number"
    if holds in ("datetime64", "datetime", "date"):
        return "date"
    if holds == "string":
        return "category"
    raise UsageError(
        f"The {name} holds values of type {holds}, which no model here can take: write them as numbers, texts, "
        f"booleans or timestamps, or {leave}."
    )


def _refuse_bad_dates(series: "pd.Series[Any]", holds: str, name: str, dated: str) -> None:
    if holds in ("datetime64", "datetime", "date"):
        return
    if holds != "string":
        raise UsageError(
            f"The {name} is named under `data.{dated}` and holds values of type {holds}: only texts (ISO 8601) are "
            "read as dates. Remove it from there to use it as it is."
        )
    parsed = pd.to_datetime(series, utc=True, format="ISO8601", errors="coerce")
    bad = series[parsed.isna() & series.notna()]
    if len(bad):
        raise UsageError(
            f"The {name} is named under `data.{dated}`, and {len(bad)} of its values are no ISO 8601 dates, the first "
            f"{bad.iloc[0]!r} in data row {bad.index[0] + 1}: write them as 2026-01-31 or 2026-01-31T14:05:00, or "
            "remove the column from there."
        )
    _refuse_far_dates(parsed, name, "remove the column from there")


def _refuse_far_dates(series: "pd.Series[Any]", name: str, leave: str) -> None:
    years = pd.to_datetime(series, utc=True).dt.year
    far = years[(years < 1) | (years > 9999)]  # holes have no year
    if len(far):
        raise UsageError(
            f"The {name} has {len(far)} dates outside the years 1 to 9999, which no request can carry, the first of "
            f"the year {far.iloc[0]:.0f} in data row {far.index[0] + 1}: write a hole where there is none, or {leave}."
        )


def _refuse_inexact(series: "pd.Series[Any]", holds: str, name: str, leave: str) -> None:
    """What would be another number, or none, on its way through a model."""
    numbers = _doubles(series)
    infinite = np.isinf(numbers)
    if infinite.any():
        raise UsageError(
            f"The {name} has {infinite.sum()} infinite values, the first in data row {infinite.argmax() + 1}: replace "
            "them by a number, or by a hole."
        )
    large = np.abs(numbers) > LARGEST
    if large.any():
        row = int(large.argmax())
        raise UsageError(
            f"The {name} has {large.sum()} values beyond {LARGEST:.1e}, which trees and ONNX take for infinite; the "
            f"first, {str(series.iloc[row])[:40]}, is in data row {row + 1}: replace them by a number, or by a hole."
        )
    long = np.abs(numbers) >= EXACT_INTEGERS
    if long.any() and holds in ("integer", "decimal") and all(value == int(value) for value in series[long]):
        row = int(long.argmax())
        raise UsageError(
            f"The {name} has whole numbers of more digits than a model can tell apart (2**53 or beyond), the first, "
            f"{series.iloc[row]}, in data row {row + 1}. If they are identifiers, {leave}, or write them as texts "
            "(id-123) where they name classes; if they are amounts, write them with a decimal point."
        )


def _doubles(series: "pd.Series[Any]") -> NDArray[np.float64]:
    try:
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError:  # a whole number of more than 308 digits
        most = int(sys.float_info.max)
        values = [min(most, max(-most, value)) if isinstance(value, int) else value for value in series]
        return np.array(values, dtype=np.float64)


def _target(target: "pd.Series[Any]", plan: DataPlan, where: str) -> tuple[NDArray[Any], Task, tuple[str, ...]]:
    name = f"column to predict, {plan.target!r} of {where},"
    missing = int(target.isna().sum())
    if missing:
        raise UsageError(
            f"The {name} has no value in {missing} of {len(target)} rows: nothing can be learned from them, and only "
            "you know what the holes mean. Remove those rows, or fill them."
        )
    kind = _kind(target, None, where, leave="predict another column")
    if kind == "date":
        raise UsageError(f"The {name} holds dates: predict a number (such as days since an event) or a class instead.")
    if kind == "category":
        _refuse_no_classes(target, plan, name)
    numbers = target.to_numpy(dtype=np.float64) if kind == "number" else None
    found = len(np.unique(numbers)) if numbers is not None else target.nunique()
    if found < 2:
        raise UsageError(
            f"The {name} has the same value, {str(target.iloc[0])!r}, in every row: there is nothing to learn. Bring "
            "rows with other values, or predict another column."
        )
    task = plan.task or _inferred(numbers, found)
    if task == "regression":
        if numbers is None:
            raise UsageError(f"The {name} is not a number, and `data.task` says regression: leave `data.task` out.")
        return numbers, task, ()
    if (task == "binary") != (found == 2):
        raise UsageError(
            f"The {name} has {found} distinct values, and `data.task` says {task}: a binary task has two, a multiclass "
            "task more. Leave `data.task` out, and it is read off the target."
        )
    if found > CLASSES_MAX:
        raise UsageError(
            f"The {name} has {found} distinct values, and at most {CLASSES_MAX} are taken as classes: is it an "
            'identifier? If it is an amount, write it as a number, with `task = "regression"` under [data].'
        )
    labels, index = _classes(target, numbers)
    return index, task, labels


def _refuse_no_classes(target: "pd.Series[Any]", plan: DataPlan, name: str) -> None:
    """Raises UsageError where the texts of a target are no classes."""
    found = disguise(map(str, target))
    if found is not None and found.kind == "date":
        raise UsageError(
            f"The {name} holds dates, such as {found.forms[0]!r}: predict a number (such as days since an event) or a "
            "class instead."
        )
    if found is not None and plan.task in (None, "regression"):
        written = found.beside or found.forms[0]
        raise UsageError(
            f"The {name} holds numbers in {found.rows:,} of {found.filled:,} rows, and texts in others or all, such as "
            f"{written[:40]!r}: write every amount with a point and nothing else (1234.5), and remove the rows that "
            'have none. If these are classes, write `task = "multiclass"` under [data].'
        )
    distinct = target.nunique()
    if distinct > 2 and distinct > CATEGORIES_SHARE * len(target):
        raise UsageError(
            f"The {name} has {distinct} distinct texts in {len(target)} rows, such as {str(target.iloc[0])[:40]!r}: "
            "nearly every row has one of its own, as identifiers, names and free text do. Predict another column; if "
            "these are classes, bring more rows of each."
        )


def _inferred(numbers: NDArray[np.float64] | None, found: int) -> Task:
    if numbers is not None and (found > CLASSES_OF_NUMBERS or (numbers != np.floor(numbers)).any()):
        return "regression"
    return "binary" if found == 2 else "multiclass"


def _classes(target: "pd.Series[Any]", numbers: NDArray[np.float64] | None) -> tuple[tuple[str, ...], NDArray[Any]]:
    if numbers is not None:
        values, index = np.unique(numbers, return_inverse=True)
        return tuple(str(int(value)) if value.is_integer() else repr(float(value)) for value in values), index.astype(
            "int64"
        )
    if isinstance(target.dtype, pd.CategoricalDtype) and target.cat.ordered:
        # An order that the file states (or scikit-learn's own numbering) is kept.
        used = target.cat.remove_unused_categories().cat
        return tuple(str(label) for label in used.categories), used.codes.to_numpy(dtype=np.int64)
    labels, index = np.unique(target.astype(object).map(str).to_numpy(dtype=str), return_inverse=True)
    return tuple(str(label) for label in labels), index.astype(np.int64)


def _digest(signature: Signature, arrays: Sequence[NDArray[Any]], texts: NDArray[np.object_]) -> str:
    # How a model is to see a category follows from the texts, which are in it below.
    digest = hashlib.sha256(signature.model_dump_json(exclude={"columns": {"__all__": {"by_target"}}}).encode())
    for array in arrays:
        # One width and byte order whatever the machine, and one of the many bit patterns of NaN.
        plain = np.ascontiguousarray(array, dtype="<f8")
        digest.update(json.dumps(plain.shape).encode())
        digest.update(np.where(np.isnan(plain), np.nan, plain).astype("<f8").tobytes())
    digest.update(json.dumps(texts.tolist(), ensure_ascii=True).encode())
    return digest.hexdigest()
