"""Checks of how a table is split: whether its folds can be scored, and what groups and moments do to figures.

In: a `Table`, and the search with its metric. Out: `DataCheck` rows.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.records.scenario import SearchPlan
from harness.records.table import DataCheck
from harness.records.words import Metric
from harness.stages.data import Table
from harness.stages.split import fold_rows

ROWS_PER_FOLD = 20
CLASS_ROWS_PER_FOLD = 5
"""Fewer scored rows than that, of the rarest class, make the score of a fold a matter of a row or two."""

HOLDOUT_GROUPS = 10
"""From so many groups on, intervals over resampled groups tell two equal models apart in 8 of 100 cases (from 20 on in
6); of five in 15."""

TEXTS_OF_GROUPS = 0.5
"""Of the other rows with a row's text, the share that are of its own group."""


def rows_per_fold(table: Table, search: SearchPlan, metric: Metric) -> DataCheck:
    """Of the folds of every seed: groups may fall so that those of one can be used, and those of another not."""
    rows, folds = table.training, search.folds
    classes = len(table.signature.classes)
    bound = float(CLASS_ROWS_PER_FOLD if classes else ROWS_PER_FOLD)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scored = [rows.target[held] for seed in search.seeds for _, held in fold_rows(rows, folds, seed)]
    except UsageError as error:
        return DataCheck(name="rows_per_fold", verdict="fail", bound=bound, detail=str(error))
    of = "of the rarest class " if classes else ""
    least = min(int(np.bincount(held, minlength=classes).min()) if classes else len(held) for held in scored)
    told = f"The smallest of {folds} folds is scored on {least:,} rows {of}".rstrip()
    if least == 0 and metric == "roc_auc":
        verdict = "fail"
        told += (
            ", and without a row of each class there is no roc_auc: choose another `search.metric`, lower "
            "`search.folds`, or split otherwise."
        )
    elif least < bound:
        verdict = "warn"
        told += ", too few for a score that a row or two do not move: lower `search.folds`, or bring more."
    else:
        verdict, told = "pass", f"{told}."
    return DataCheck(name="rows_per_fold", verdict=verdict, value=float(least), bound=bound, detail=told)


def independent_rows(table: Table) -> Iterator[DataCheck]:
    """Whether intervals of holdout scores, which are made of resampled rows or groups, can be taken at their word."""
    if table.split == "time":
        yield DataCheck(
            name="independent_rows",
            verdict="warn",
            detail="Intervals of holdout scores take the holdout's rows as independent. Rows that are near in time are "
            "often hard alike; then the intervals are too narrow, and models are told apart that are not.",
        )
    groups = table.holdout_groups
    if groups is None:
        return
    count = len(np.unique(groups))
    detail = f"Intervals of holdout scores are made of whole groups, of which the holdout has {count:,}"
    if count < HOLDOUT_GROUPS:
        detail += ": so few make them too narrow. Bring rows of more groups, or raise `data.holdout`"
    yield DataCheck(
        name="independent_rows",
        verdict="warn" if count < HOLDOUT_GROUPS else "pass",
        value=float(count),
        bound=float(HOLDOUT_GROUPS),
        detail=f"{detail}.",
    )


def texts_of_groups(table: Table) -> Iterator[DataCheck]:
    """Texts that stand for groups, where models are fitted on the mean targets of a row's text in other rows.

    These means are taken across rows, not across groups: scikit-learn passes no groups on to what a pipeline fits.
    """
    groups = table.training.groups
    if groups is None:
        return
    crowded = [column.name for column in table.signature.columns if column.by_target]
    found = False
    for name in crowded:
        texts = pd.factorize(table.frame[name].iloc[table.train])[0]
        pairs = _pairs(texts)
        share = _pairs(texts * (groups.max() + 1) + groups) / pairs if pairs else 0.0
        if share <= TEXTS_OF_GROUPS:
            continue
        found = True
        yield DataCheck(
            name="texts_of_groups",
            column=name,
            verdict="warn",
            value=share,
            bound=TEXTS_OF_GROUPS,
            detail=f"Of rows with the same text of {name!r}, {share:.0%} are of one group: models see its mean target "
            "in other rows of the group, which new groups do not have, and trust it too much. Compare with a search "
            "that leaves it out by `data.drop`.",
        )
    if crowded and not found:
        detail = f"No text of {len(crowded):,} columns of many texts stands for a group."
        yield DataCheck(name="texts_of_groups", verdict="pass", bound=TEXTS_OF_GROUPS, detail=detail)


def _pairs(numbers: NDArray[np.intp]) -> float:
    counts = np.unique(numbers, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1)).sum())
