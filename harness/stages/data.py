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
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from harness.errors import UsageError, did_you_mean
from harness.records.candidate import Column, ColumnKind, Signature
from harness.records.rows import LARGEST, Batch
from harness.records.table import DataPlan
from harness.records.words import Task
from harness.space.preprocess import to_batch, to_frame
from harness.stages.source import EXACT_INTEGERS, read_source

CLASSES_OF_NUMBERS = 20
"""A target of whole numbers with at most so many distinct values is read as classes."""

CLASSES_MAX = 100
CATEGORIES_MAX = 1000
"""Most distinct texts of a column: each becomes a feature."""

CATEGORIES_SHARE = 0.5
CATEGORIES_FREE = 20
"""A text column with more distinct values than that share of its rows, and than so many, holds names or free text."""


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


def load_table(plan: DataPlan, folder: Path) -> Table:
    """The table of a plan. Raises UsageError on anything that cannot be searched as it is."""
    raw = read_source(plan.source, plan.target, folder)
    where = f"the table {plan.source}"
    _refuse_unknown(plan, [str(name) for name in raw.columns], where)
    target = raw[plan.target]
    kept = [name for name in raw.columns if name != plan.target and name not in plan.drop]
    if not kept:
        raise UsageError(f"Of {where} no column is left to predict {plan.target!r} from: `data.drop` takes them all.")
    columns = tuple(Column(name=name, kind=_kind(raw[name], name in plan.dates, where)) for name in kept)
    batch = to_batch(raw[kept], columns)
    for column in columns:
        if column.kind == "category":
            _refuse_free_text(batch.texts[:, _place(columns, column)], column.name, where)
    values, task, classes = _target(target, plan, where)
    train, holdout = _split(values, task, classes, plan, where)
    signature = Signature(task=task, columns=columns, classes=classes)
    return Table(
        frame=to_frame(batch, columns),
        target=values,
        signature=signature,
        train=train,
        holdout=holdout,
        sha256=_digest(signature, (batch.numbers, values, train, holdout), batch.texts),
    )


def holdout_batch(table: Table) -> Batch:
    """The rows that no search has seen, as they travel to a server."""
    return to_batch(table.frame.iloc[table.holdout], table.signature.columns)


def fold_rows(
    target: NDArray[Any], task: Task, folds: int, seed: int
) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]:
    """The folds of n training rows, as positions to fit on and to score: stratified for a classification, shuffled.

    The same for every engine of the same seed. Raises UsageError where a class, or the table, has too few rows.
    """
    if task == "regression":
        if len(target) < 2 * folds:
            raise UsageError(
                f"{len(target)} training rows are too few for {folds} folds of at least two: lower `search.folds`, or "
                "bring more rows."
            )
        return tuple(KFold(folds, shuffle=True, random_state=seed).split(target))
    rarest = int(np.unique(target, return_counts=True)[1].min())
    if rarest < folds:
        raise UsageError(
            f"The rarest class has {rarest} training rows, too few for {folds} folds: lower `search.folds`, merge or "
            "remove rare classes, or bring more rows."
        )
    return tuple(StratifiedKFold(folds, shuffle=True, random_state=seed).split(target, target))


def _refuse_unknown(plan: DataPlan, names: Sequence[str], where: str) -> None:
    for setting, given in (("target", (plan.target,)), ("drop", plan.drop), ("dates", plan.dates)):
        for name in given:
            if name not in names:
                some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
                hint = did_you_mean(name, names, f"its columns are {some}.")
                raise UsageError(f"`data.{setting}` names the column {name!r}, which {where} does not have; {hint}")
    for setting, given in (("drop", plan.drop), ("dates", plan.dates)):
        if plan.target in given:
            raise UsageError(f"`data.{setting}` names {plan.target!r}, the column to predict: remove it from there.")


def _kind(series: "pd.Series[Any]", is_date: bool, where: str, leave: str = "") -> ColumnKind:
    """The kind of a column; `leave` is what to do about one that cannot be used, if not to drop it."""
    name = f"column {series.name!r} of {where}"
    leave = leave or f"leave the column out with `{_drop(str(series.name))}` under [data]"
    if series.isna().all():
        raise UsageError(f"The {name} has no values at all: {leave}.")
    holds = pd.api.types.infer_dtype(series, skipna=True)
    if holds == "datetime64":
        _refuse_far_dates(series, name, leave)
    if is_date:
        _refuse_bad_dates(series, holds, name)
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


def _refuse_bad_dates(series: "pd.Series[Any]", holds: str, name: str) -> None:
    if holds in ("datetime64", "datetime", "date"):
        return
    if holds != "string":
        raise UsageError(
            f"The {name} is listed under `data.dates` and holds values of type {holds}: only texts (ISO 8601) are read "
            "as dates. Remove it from the list to use it as it is."
        )
    parsed = pd.to_datetime(series, utc=True, format="ISO8601", errors="coerce")
    bad = series[parsed.isna() & series.notna()]
    if len(bad):
        raise UsageError(
            f"The {name} is listed under `data.dates`, and {len(bad)} of its values are no ISO 8601 dates, the first "
            f"{bad.iloc[0]!r} in data row {bad.index[0] + 1}: write them as 2026-01-31 or 2026-01-31T14:05:00, or "
            "remove the column from the list."
        )


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


def _refuse_free_text(texts: NDArray[np.object_], column: str, where: str) -> None:
    filled = texts[texts != ""]
    distinct = len(set(filled))
    if distinct <= CATEGORIES_FREE:
        return
    drop = _drop(column)
    if distinct > CATEGORIES_SHARE * len(filled):
        raise UsageError(
            f"The text column {column!r} of {where} has {distinct} distinct values in {len(filled)} filled rows, such "
            f"as {str(filled[0])[:40]!r}: names, identifiers or free text teach a model of categories nothing. Leave "
            f"it out with `{drop}` under [data]; list it under `dates` if it holds dates."
        )
    if distinct > CATEGORIES_MAX:
        raise UsageError(
            f"The text column {column!r} of {where} has {distinct} distinct values, and at most {CATEGORIES_MAX} can "
            f"become features: group the rare ones, or leave the column out with `{drop}` under [data]."
        )


def _target(target: "pd.Series[Any]", plan: DataPlan, where: str) -> tuple[NDArray[Any], Task, tuple[str, ...]]:
    name = f"column to predict, {plan.target!r} of {where},"
    missing = int(target.isna().sum())
    if missing:
        raise UsageError(
            f"The {name} has no value in {missing} of {len(target)} rows: nothing can be learned from them, and only "
            "you know what the holes mean. Remove those rows, or fill them."
        )
    kind = _kind(target, False, where, leave="predict another column")
    if kind == "date":
        raise UsageError(f"The {name} holds dates: predict a number (such as days since an event) or a class instead.")
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


def _split(
    values: NDArray[Any], task: Task, classes: tuple[str, ...], plan: DataPlan, where: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows = np.arange(len(values))
    apart = round(plan.holdout * len(rows))
    if min(apart, len(rows) - apart) < 2:
        raise UsageError(
            f"Of {len(rows)} rows in {where}, a holdout of {plan.holdout:g} leaves fewer than two on one side: bring "
            "more rows, or change `data.holdout`."
        )
    counts = np.bincount(values) if classes else np.array([], dtype=np.int64)
    thin = [label for label, count in zip(classes, counts, strict=True) if count < 2]
    advice = "merge or remove rare classes, bring more rows, or change `data.holdout`."
    if thin:
        raise UsageError(
            f"In {where}, classes with a single row cannot be learned and checked: {_some(thin)}; {advice}"
        )
    if classes and min(apart, len(rows) - apart) < len(classes):
        raise UsageError(
            f"In {where}, a holdout of {apart} of {len(rows)} rows leaves a side too small for {len(classes)} classes; "
            f"{advice}"
        )
    train, holdout = train_test_split(
        rows, test_size=apart, random_state=plan.seed, stratify=values if classes else None
    )
    for side, name in ((train, "training rows"), (holdout, "holdout")):
        absent = [label for index, label in enumerate(classes) if index not in values[side]]
        if absent:
            raise UsageError(f"In {where}, classes are too small to be in the {name}: {_some(absent)}; {advice}")
        if len(np.unique(values[side])) < 2:
            raise UsageError(f"In {where}, the target has a single value in the {name}: bring more rows.")
    return np.sort(train), np.sort(holdout)


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")


def _drop(column: str) -> str:
    return f"drop = [{json.dumps(column, ensure_ascii=False)}]"


def _place(columns: Sequence[Column], wanted: Column) -> int:
    return [column.name for column in columns if column.kind == "category"].index(wanted.name)


def _digest(signature: Signature, arrays: Sequence[NDArray[Any]], texts: NDArray[np.object_]) -> str:
    digest = hashlib.sha256(signature.model_dump_json().encode())
    for array in arrays:
        # One width and byte order whatever the machine, and one of the many bit patterns of NaN.
        plain = np.ascontiguousarray(array, dtype="<f8")
        digest.update(json.dumps(plain.shape).encode())
        digest.update(np.where(np.isnan(plain), np.nan, plain).astype("<f8").tobytes())
    digest.update(json.dumps(texts.tolist(), ensure_ascii=True).encode())
    return digest.hexdigest()
