"""Checks of a table before any trial: what would make its figures wrong, and what makes them hard to read.

In: a `Table`, its plan, and the search with its metric. Out: `DataCheck` rows, one per check that passes, one per
column that does not. Only what makes every figure of a run wrong fails: a broken schema, copies of training rows in
the holdout, a column that gives the answer away, too few rows. All else warns.

Schema, constant and duplicate columns and shared rows are looked for in everything; single columns and noise in a
sample of the training rows, which the detail gives the size of.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import UsageError
from harness.records.scenario import SearchPlan
from harness.records.table import ColumnPlan, DataCheck, DataCheckName, DataPlan
from harness.records.words import ColumnKind, Metric
from harness.stages.column_signal import FOREST_ROWS, ROWS, Encoded, encoded, label_noise, leaking_columns
from harness.stages.data import Table
from harness.stages.split_checks import independent_rows, rows_per_fold, texts_of_groups
from harness.stages.texts import DISGUISED_SHARE, disguise, drop_setting

LEAK_WARNS, LEAK_FAILS = 0.95, 0.99
"""Of the skill of a single column, from 0 (as good as no column) to 1 (right on every row). The best honest columns of
the tables that scikit-learn ships have 0.92 (iris), 0.79 (breast_cancer), 0.70 (wine) and less; a copy of the target
has 1, and of two even classes one in which every fiftieth row is wrong 0.96."""

SHARED_FAILS = 0.1
"""Share of the holdout that is also in the training rows; a model that looks these up gains up to so much."""

CHANCE_SHARE = 0.01
"""Where so many rows would be alike by chance, in a table of few distinct values, rows that are alike are no copies."""

BALANCE_WARNS = 0.2
"""Rows of the rarest class, over what it would have if all classes had the same."""

NOISE_WARNS = 0.2
UNEXPLAINED_WARNS = 0.95
"""Of the variance of amounts: beyond it features say next to nothing of them."""

NAMED = 20
"""So many columns get a row of their own in a check; the last of them says how many more there are."""


def data_checks(table: Table, plan: DataPlan, search: SearchPlan, metric: Metric) -> tuple[DataCheck, ...]:
    """Every check, in a fixed order; columns and noise only of a table that has rows for the folds of the search."""
    divided = rows_per_fold(table, search, metric)
    sample = encoded(table) if divided.verdict != "fail" else None
    return (
        *_schema(table, plan),
        *_mistaken(table),
        *_constant(table),
        *_duplicates(table),
        _shared_rows(table),
        *(_leaks(sample) if sample else ()),
        *_balance(table),
        *((_noise(sample),) if sample else ()),
        divided,
        *independent_rows(table),
        *texts_of_groups(table),
    )


def refuse_failed(checks: Sequence[DataCheck], plan: DataPlan) -> None:
    """Raises UsageError where a check failed that the plan does not accept."""
    failed = [check for check in checks if check.verdict == "fail" and check.name not in plan.accept]
    if not failed:
        return
    told = " ".join(check.detail for check in failed[:3]) + (f" And {len(failed) - 3} more." if failed[3:] else "")
    acceptable = sorted({check.name for check in failed} - {"rows_per_fold"})
    way = ""
    if acceptable:
        names = ", ".join(f'"{name}"' for name in (*plan.accept, *acceptable))
        way = f" Where you know better, write `accept = [{names}]` under [data]."
    raise UsageError(f"The table {plan.name or plan.source} failed its checks: {told}{way}")


def _schema(table: Table, plan: DataPlan) -> Iterator[DataCheck]:
    """What the plan states of columns; kinds that were read off the values have nothing to be held against."""
    import pandera.pandas as pandera

    kinds = {column.name: column.kind for column in table.signature.columns}
    failed = {
        name: f"is of kind {kinds[name]}, and the plan says {wanted.kind}"
        for name, wanted in plan.columns.items()
        if name in kinds and wanted.kind not in (None, kinds[name])
    }
    failed |= {
        name: f"is of kind {kinds[name]}, and {about}"
        for name, wanted in plan.columns.items()
        if name in kinds and name not in failed and (about := _about_another(wanted, kinds[name]))
    }
    failed |= {name: "is no feature of the table" for name in plan.columns if name not in kinds}
    stated = {name: wanted for name, wanted in plan.columns.items() if name not in failed}
    schema = pandera.DataFrameSchema({name: _pandera_column(wanted) for name, wanted in stated.items()})
    try:
        schema.validate(table.frame[list(stated)], lazy=True)
    except pandera.errors.SchemaErrors as errors:
        for (name, check), cases in errors.failure_cases.groupby(["column", "check"], sort=False):
            first = cases["index"].iloc[0]
            where = "" if first is None or pd.isna(first) else f", the first in data row {int(first) + 1}"
            failed[str(name)] = f"breaks `{check}` in {len(cases):,} of {len(table.frame):,} rows{where}"
    for name, what in failed.items():
        advice = f"Mend the table, or what `[data.columns.{name}]` says of it."
        yield DataCheck(name="schema", column=name, verdict="fail", detail=f"The column {name!r} {what}. {advice}")
    if not failed:
        held = f"{len(stated):,} of {len(kinds):,} columns hold what [data.columns] says of them; the others'"
        nothing = f"Nothing is stated under [data.columns] to hold {len(kinds):,} columns against; their"
        read_off = f"{held if stated else nothing} kinds were read off their values."
        yield DataCheck(name="schema", verdict="pass", detail=read_off)


def _about_another(wanted: ColumnPlan, kind: ColumnKind) -> str:
    if kind != "number" and (wanted.at_least is not None or wanted.at_most is not None):
        return "at_least and at_most are about numbers"
    return "one_of is about texts" if wanted.one_of and kind != "category" else ""


def _pandera_column(wanted: ColumnPlan) -> Any:
    import pandera.pandas as pandera

    checks = []
    if wanted.at_least is not None:
        checks.append(pandera.Check.ge(wanted.at_least, error=f"at_least = {wanted.at_least:g}"))
    if wanted.at_most is not None:
        checks.append(pandera.Check.le(wanted.at_most, error=f"at_most = {wanted.at_most:g}"))
    if wanted.one_of:
        checks.append(pandera.Check.isin([*wanted.one_of, ""], error="one_of"))
    if not wanted.holes:
        checks.append(pandera.Check(lambda values: values.notna() & (values != ""), ignore_na=False, error="holes"))
    return pandera.Column(None, checks, nullable=True)


def _mistaken(table: Table) -> Iterator[DataCheck]:
    """Columns of texts that are dates or numbers: as categories these have no order, and no figure says so.

    Of dates that are written in several ways a day is several categories, which nobody wants; all else may be meant.
    """
    texts = table.signature.text_columns
    found = [(name, held) for name in texts if (held := disguise(table.frame[name])) is not None]
    found.sort(key=lambda each: not each[1].is_mixed)
    for place, (name, held) in enumerate(found[:NAMED]):
        more = f" {len(found) - NAMED} more are like it." if place == NAMED - 1 and len(found) > NAMED else ""
        yield DataCheck(
            name="mistaken_kind",
            column=name,
            verdict="fail" if held.is_mixed else "warn",
            value=held.rows / held.filled,
            bound=DISGUISED_SHARE,
            detail=f"The text column {name!r} {held.told} Or leave it out with `{drop_setting(name)}` under [data]."
            + more,
        )
    if not found:
        yield DataCheck(
            name="mistaken_kind",
            verdict="pass",
            value=0.0,
            bound=DISGUISED_SHARE,
            detail=f"None of {len(texts):,} columns of texts holds mostly dates or numbers.",
        )


def _constant(table: Table) -> Iterator[DataCheck]:
    train = table.frame.iloc[table.train]
    found = [str(name) for name in train.columns if _is_constant(train[name])]
    advice = "Nothing can be learned from it, and every request carries it: leave it out with `data.drop`."
    yield from _per_column(
        "constant_column",
        [(name, f"The column {name!r} has one value in all training rows. {advice}") for name in found],
        f"None of {train.shape[1]:,} columns has a single value.",
    )


def _is_constant(values: "pd.Series[Any]") -> bool:
    first = values.iloc[0]
    return bool(values.isna().all() if pd.isna(first) else (values == first).all())


def _duplicates(table: Table) -> Iterator[DataCheck]:
    seen: dict[bytes, str] = {}
    found = []
    advice = "Both say the same: leave one out with `data.drop`."
    for column in table.signature.columns:
        values = table.frame[column.name]
        # Texts by which rows have the same one: a copy in another language is a copy.
        if column.kind == "category":
            content = pd.factorize(values)[0].tobytes()
        elif column.kind == "date":
            content = values.to_numpy(dtype="datetime64[us]").tobytes()
        else:
            plain = values.to_numpy(dtype=np.float64) + 0.0  # one zero
            content = np.where(np.isnan(plain), np.nan, plain).tobytes()
        key = hashlib.blake2b(content, person=column.kind.encode()).digest()
        if key in seen:
            found.append((column.name, f"The column {column.name!r} is a copy of {seen[key]!r}. {advice}"))
        seen.setdefault(key, column.name)
    yield from _per_column("duplicate_column", found, f"No two of {table.frame.shape[1]:,} columns are the same.")


def _shared_rows(table: Table) -> DataCheck:
    hashes = pd.util.hash_pandas_object(table.frame, index=False).to_numpy()
    shared = np.isin(hashes[table.holdout], hashes[table.train])
    share = float(shared.mean())
    by_chance = _alike_by_chance(table)
    told = f"{shared.sum():,} of {len(shared):,} holdout rows have the same features as a training row"
    verdict = "pass"
    detail = f"{told}."
    if share > 0 and by_chance >= CHANCE_SHARE:
        detail = f"{told}; in a table of so few distinct values that is to be expected."
    elif share > 0:
        verdict = "fail" if share > SHARED_FAILS else "warn"
        detail = (
            f"{told}, and by chance next to none would: a model may look them up. Remove the copies, or name what they "
            'are copies of as `data.group`, with split = "grouped".'
        )
    return DataCheck(name="shared_rows", verdict=verdict, value=share, bound=SHARED_FAILS, detail=detail)


def _alike_by_chance(table: Table) -> float:
    """Share of the holdout that would have its like among the training rows if columns knew nothing of each other."""
    train = table.frame.iloc[table.train[:ROWS]]
    alike = 1.0
    for name in train.columns:
        counts = train[name].value_counts(dropna=False).to_numpy() / len(train)
        alike *= float(np.square(counts).sum())
        if alike * len(table.train) < CHANCE_SHARE / 100:
            return 0.0
    return 1 - (1 - alike) ** len(table.train)


def _leaks(sample: Encoded) -> Iterator[DataCheck]:
    skills = leaking_columns(sample)
    if not skills:
        yield DataCheck(
            name="leaking_column",
            verdict="warn",
            detail=f"No column was looked at alone: {len(sample.target):,} training rows have no two folds of split = "
            f'"{sample.rows.split}" with every class to learn and two to score.',
        )
        return
    looked = f"{len(skills):,} of {sample.columns:,} columns, {len(sample.target):,} rows"
    found = sorted(((skill, name) for name, skill in skills.items() if skill >= LEAK_WARNS), reverse=True)
    for skill, name in found[:NAMED]:
        verdict, bound = ("fail", LEAK_FAILS) if skill >= LEAK_FAILS else ("warn", LEAK_WARNS)
        yield DataCheck(
            name="leaking_column",
            column=name,
            verdict=verdict,
            value=skill,
            bound=bound,
            detail=f"The column {name!r} alone predicts the target with a skill of {skill:.3f} of 1 ({looked}): is it "
            "known when the prediction is asked for? If it is made from the target, or after it, leave it out with "
            "`data.drop`.",
        )
    if not found:
        best, name = max((skill, name) for name, skill in skills.items())
        detail = (
            f"No column alone predicts the target too well; the best, {name!r}, has a skill of {best:.2f} ({looked})."
        )
        yield DataCheck(name="leaking_column", verdict="pass", value=best, bound=LEAK_WARNS, detail=detail)


def _balance(table: Table) -> Iterator[DataCheck]:
    classes = table.signature.classes
    if not classes:
        return  # amounts have no classes
    counts = np.bincount(table.target, minlength=len(classes))
    value = float(counts.min() * len(classes) / counts.sum())
    label = classes[int(counts.argmin())]
    told = f"The rarest class, {label!r}, has {counts.min():,} of {counts.sum():,} rows"
    low = value < BALANCE_WARNS
    advice = ": accuracy says little of it; choose roc_auc or log_loss as `search.metric`." if low else "."
    yield DataCheck(
        name="class_balance",
        verdict="warn" if low else "pass",
        value=value,
        bound=BALANCE_WARNS,
        detail=told + advice,
    )


def _noise(sample: Encoded) -> DataCheck:
    value = label_noise(sample)
    rows = min(len(sample.target), FOREST_ROWS)
    if sample.rows.task == "regression":
        bound = UNEXPLAINED_WARNS
        detail = (
            f"A forest leaves {value:.0%} of the target's variance unexplained, out of bag in {rows:,} rows: noise is "
            "at most that."
        )
    else:
        bound = NOISE_WARNS
        detail = (
            f"About {value:.1%} of the labels may be wrong, or of classes that overlap or that a forest cannot tell "
            f"apart: of so many rows it is surer of another class, out of bag in {rows:,} rows."
        )
    warns = value > bound
    advice = " Look at how the target was made before more is spent on models." if warns else ""
    return DataCheck(
        name="label_noise", verdict="warn" if warns else "pass", value=value, bound=bound, detail=detail + advice
    )


def _per_column(name: DataCheckName, found: Sequence[tuple[str, str]], passed: str) -> Iterator[DataCheck]:
    for place, (column, detail) in enumerate(found[:NAMED]):
        more = f" {len(found) - NAMED} more are like it." if place == NAMED - 1 and len(found) > NAMED else ""
        yield DataCheck(
            name=name, column=column, verdict="warn", value=float(len(found)), bound=0.0, detail=detail + more
        )
    if not found:
        yield DataCheck(name=name, verdict="pass", value=0.0, bound=0.0, detail=passed)
