"""Splits: which rows are kept away from the search, and which it fits on and scores, fold by fold.

In: rows with their target, and with their group or time where these decide. Out: positions. Plain, stratified and
grouped splits are scikit-learn's, by chance from a seed; a split by time has no chance in it.

Nothing may be learned from a moment that it is scored on, and rows of one moment (a day, a batch) know of each other:
in a split by time they are on one side of the holdout, and a fold is not fitted on the moment that its scored rows
begin with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    train_test_split,
)

from harness.errors import UsageError, one_line
from harness.records.words import Split, Task

DRAWS = 100
"""So many times the groups of a holdout are drawn; the draw whose rows are nearest to what was asked for is taken."""

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows to fit on, and rows to score."""


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows with their target, and what else decides how they may be split; shapes (n,)."""

    target: NDArray[Any]
    """Index of the class (whole numbers), or value."""
    task: Task
    split: Split
    groups: NDArray[np.intp] | None = None
    """Of a grouped split: the number of each row's group."""
    times: NDArray[np.float64] | None = None
    """Of a split by time: when each row is from, in any unit."""

    def at(self, positions: NDArray[np.intp]) -> Self:
        """The rows at these positions."""
        return type(self)(
            target=self.target[positions],
            task=self.task,
            split=self.split,
            groups=None if self.groups is None else self.groups[positions],
            times=None if self.times is None else self.times[positions],
        )


def split_rows(
    rows: LabelledRows, classes: Sequence[str], holdout: float, seed: int, where: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Training rows and holdout, ascending. `where` names the table in what is told.

    Raises UsageError where a side would be too small, or without a class.
    """
    count = len(rows.target)
    apart = round(holdout * count)
    advice = "merge or remove rare classes, bring more rows, or change `data.holdout`."
    if min(apart, count - apart) < 2:
        raise UsageError(
            f"Of {count} rows in {where}, a holdout of {holdout:g} leaves fewer than two on one side: bring "
            "more rows, or change `data.holdout`."
        )
    counts = np.bincount(rows.target) if classes else np.array([], dtype=np.int64)
    thin = [label for label, number in zip(classes, counts, strict=True) if number < 2]
    if thin:
        raise UsageError(
            f"In {where}, classes with a single row cannot be learned and checked: {_some(thin)}; {advice}"
        )
    if classes and min(apart, count - apart) < len(classes):
        raise UsageError(
            f"In {where}, a holdout of {apart} of {count} rows leaves a side too small for {len(classes)} classes; "
            f"{advice}"
        )
    train, held = _sides(rows, apart, holdout, seed, where)
    for side, name in ((train, "training rows"), (held, "holdout")):
        if len(side) < 2:
            raise UsageError(f"In {where}, the {name} would be {len(side)} rows: bring more, or another `data.split`.")
        absent = [label for index, label in enumerate(classes) if index not in rows.target[side]]
        if absent and rows.split in ("plain", "stratified"):
            raise UsageError(f"In {where}, classes are too small to be in the {name}: {_some(absent)}; {advice}")
        if absent:
            raise UsageError(
                f'In {where}, split = "{rows.split}" leaves no row of some classes in the {name}: {_some(absent)}. '
                "Nothing can be learned or checked of them there: remove these classes, bring more rows, change "
                "`data.holdout`, or split otherwise."
            )
        if len(np.unique(rows.target[side])) < 2:
            raise UsageError(f"In {where}, the target has a single value in the {name}: bring more rows.")
    return np.sort(train), np.sort(held)


def fold_rows(rows: LabelledRows, folds: int, seed: int) -> tuple[Fold, ...]:
    """The folds of n training rows, as positions to fit on and to score.

    The same for every engine of the same seed. Raises UsageError where a class, the groups or the rows are too few.
    """
    count = len(rows.target)
    if count < 2 * folds:
        raise UsageError(
            f"{count} training rows are too few for {folds} folds of at least two: lower `search.folds`, or "
            "bring more rows."
        )
    if rows.task != "regression":
        rarest = int(np.unique(rows.target, return_counts=True)[1].min())
        if rarest < folds:
            raise UsageError(
                f"The rarest class has {rarest} training rows, too few for {folds} folds: lower `search.folds`, merge "
                "or remove rare classes, or bring more rows."
            )
    found = tuple(_folds(rows, folds, seed))
    for number, fold in enumerate(found, 1):
        _refuse_poor(rows, fold, f"Fold {number} of {folds}")
    return found


def _sides(rows: LabelledRows, apart: int, holdout: float, seed: int, where: str) -> Fold:
    positions = np.arange(len(rows.target))
    if rows.groups is not None:
        return _grouped_sides(rows, rows.groups, holdout, seed, where)
    if rows.times is not None:
        order = np.argsort(rows.times, kind="stable")
        # Where a new moment begins: between any other two rows nothing is older than anything.
        begins = np.flatnonzero(np.diff(rows.times[order])) + 1
        if not len(begins):
            raise UsageError(f"In {where}, all rows are of one time: none is newer than another. Split them otherwise.")
        cut = begins[np.argmin(np.abs(begins - (len(order) - apart)))]
        return order[:cut], order[cut:]
    stratified = rows.target if rows.split == "stratified" else None
    train, held = train_test_split(positions, test_size=apart, random_state=seed, stratify=stratified)
    return train, held


def _grouped_sides(rows: LabelledRows, groups: NDArray[np.intp], holdout: float, seed: int, where: str) -> Fold:
    """Of many draws of groups the one whose share of the rows, and of the rows of each class, is nearest to `holdout`.

    One that leaves a class out on either side is refused by who asked: it is taken only where all do. By shares alone
    none of two groups of a rare class is nearer to a tenth than one of them.

    scikit-learn draws a share of the groups, whatever their sizes; one of its grouped folds would only come in halves,
    thirds, quarters.
    """
    found = len(np.unique(groups))
    if found < 2:
        raise UsageError(f"In {where}, all rows are of one group: nothing can be kept apart. Split them otherwise.")
    strata = np.zeros(len(groups), dtype=np.intp) if rows.task == "regression" else rows.target
    sizes = np.bincount(strata)

    def off(fold: Fold) -> tuple[bool, float]:
        held = np.bincount(strata[fold[1]], minlength=len(sizes))
        lacks_a_class = bool(((held == 0) | (held == sizes)).any())
        return lacks_a_class, float(np.abs(held / sizes - holdout).max())

    apart = min(max(1, round(holdout * found)), found - 1)
    draws = GroupShuffleSplit(DRAWS, test_size=apart, random_state=seed).split(strata, groups=groups)
    nearest: Fold = min(draws, key=off)
    return nearest


def _folds(rows: LabelledRows, folds: int, seed: int) -> Iterator[Fold]:
    positions = np.zeros((len(rows.target), 0))
    stratifies = rows.task != "regression"
    if rows.groups is not None:
        found = len(np.unique(rows.groups))
        if found < folds:
            raise UsageError(
                f"The training rows are of {found} groups, too few for {folds} folds: lower `search.folds`, or bring "
                "rows of more groups."
            )
        by_group = StratifiedGroupKFold if stratifies else GroupKFold
        yield from by_group(folds, shuffle=True, random_state=seed).split(positions, rows.target, rows.groups)
    elif rows.times is not None:
        order = np.argsort(rows.times, kind="stable")
        times = rows.times[order]
        for fitted, scored in TimeSeriesSplit(folds).split(order):
            older = fitted[times[fitted] < times[scored[0]]]
            yield np.sort(order[older]), np.sort(order[scored])
    elif rows.split == "stratified":
        yield from StratifiedKFold(folds, shuffle=True, random_state=seed).split(positions, rows.target)
    else:
        yield from KFold(folds, shuffle=True, random_state=seed).split(positions)


def _refuse_poor(rows: LabelledRows, fold: Fold, name: str) -> None:
    """A fold that no model could be fitted on, or that has no score."""
    fitted, scored = fold
    advice = "lower `search.folds`, bring more rows, or split otherwise."
    if len(fitted) < 2 or len(scored) < 2:
        raise UsageError(
            f"{name} would be fitted on {len(fitted)} rows and scored on {len(scored)}, under split = "
            f'"{rows.split}": {advice}'
        )
    if rows.task == "regression":
        return
    known = set(np.unique(rows.target[fitted]).tolist())
    if known != set(np.unique(rows.target).tolist()):
        raise UsageError(f'{name} would be fitted without a row of some class, under split = "{rows.split}": {advice}')
    if len(np.unique(rows.target[scored])) < 2:
        raise UsageError(f'{name} would be scored on rows of one class, under split = "{rows.split}": {advice}')


def _some(labels: Sequence[str]) -> str:
    return ", ".join(one_line(label, 60) for label in labels[:5]) + (
        f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    )
