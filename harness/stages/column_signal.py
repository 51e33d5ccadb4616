"""What columns say of the target: of each alone whether it says too much, and of all together how much they leave.

In: a `Table`. Out: `Encoded`, a sample of its training rows as numbers; the skill of single columns; and an estimate of
the noise in the target. Everything is scored on rows that it was not fitted on.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_selection import f_classif, f_regression
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from harness.errors import UsageError
from harness.space.preprocess import to_batch
from harness.stages.data import Table
from harness.stages.split import Fold, LabelledRows, fold_rows

ROWS = 10_000
CELLS = 10_000_000
FEWEST_ROWS = 500
"""So many training rows are looked at, or fewer so that their cells are not more than `CELLS`, but these at least."""

COLUMNS = 200
"""Of more columns, these many are looked at alone: those whose ranks differ most between classes, or follow amounts."""

FOREST_ROWS = 4_000
TREES = 60
FOLDS = 3
SEED = 20_261_124
LEAF_ROWS = 5

CLASS_ROWS = 3 * LEAF_ROWS
"""Rows that a sample has of each class at least, where the table has them: in each fold's rows a leaf's worth."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample of the training rows of a table."""

    names: tuple[str, ...]
    """Of the columns of `numbers`, and after them of `texts`."""
    numbers: NDArray[np.float64]
    """Shape (n, k), with holes; dates in days."""
    texts: NDArray[np.intp]
    """Shape (n, m): the number of each text, in the order of their first rows."""
    rows: LabelledRows

    @property
    def target(self) -> NDArray[Any]:
        """Of the sampled rows."""
        return self.rows.target

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.names)


def encoded(table: Table) -> Encoded:
    """A sample of a table's training rows: the same every time, in the order of the table, with rows of each class."""
    columns = table.signature.columns
    chosen = _drawn(table.training, min(ROWS, max(FEWEST_ROWS, CELLS // len(columns))))
    batch = to_batch(table.frame.iloc[table.train[chosen]], columns)
    texts = [pd.factorize(column)[0] for column in batch.texts.T]
    return Encoded(
        names=(*table.signature.number_columns, *table.signature.text_columns),
        numbers=batch.numbers,
        texts=np.column_stack(texts) if texts else np.empty((len(chosen), 0), dtype=np.intp),
        rows=table.training.at(chosen),
    )


def leaking_columns(sample: Encoded) -> dict[str, float]:
    """The skill of each column alone, from 0 to 1.

    Of classes, balanced accuracy above that of a guess over the most it could be above it; of amounts, the share of the
    variance of their ranks that it explains, since a few large amounts would hide a copy.

    It is that of a tree on the column, which finds any relation, whatever its shape, in folds that respect the split of
    the table: a column that names a group is no leak where groups are kept apart. Empty where the sample has no such
    folds: any others would call a column a leak that is none.
    """
    folds = _folds(sample.rows)
    if not folds:
        return {}
    count = sample.numbers.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that a sample has few rows of
        places = _likeliest(sample)
        skills = {}
        for place in places:
            column = sample.numbers[:, [place]] if place < count else sample.texts[:, [place - count]]
            skills[sample.names[place]] = _skill(column, place >= count, sample.rows, folds)
    return skills


def label_noise(sample: Encoded) -> float:
    """Share of the labels that may be wrong; of amounts, the share of their variance that nothing explains.

    Of classes by confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021): a row counts as of another class
    where a model that has not seen it is surer of that class than it is of that class's own rows on average; counts
    are brought to the classes' own sizes. What overlaps counts too, so it is an upper bound more often than not. Of
    amounts, what a forest leaves over is noise and what a better model would find: certainly an upper bound.
    """
    rows = _drawn(sample.rows, FOREST_ROWS)
    features, target = np.hstack([sample.numbers, sample.texts])[rows], sample.target[rows]
    forest = RandomForestRegressor if sample.rows.task == "regression" else RandomForestClassifier
    model = forest(
        TREES, min_samples_leaf=2, max_features="sqrt", bootstrap=True, oob_score=True, n_jobs=1, random_state=SEED
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that every tree has seen, in tables of a few
        model.fit(features, target)
    if sample.rows.task == "regression":
        return float(np.clip(1 - model.oob_score_, 0, 1))
    return _wrong_share(np.searchsorted(model.classes_, target), np.nan_to_num(model.oob_decision_function_))


def _drawn(rows: LabelledRows, most: int) -> NDArray[np.intp]:
    """Positions of all rows, or of so many by chance, ascending.

    By chance alone a class of a few rows in a million would be in no sample. The few that are kept of it are more than
    its share: neither balanced accuracy nor the share of wrong labels, which is brought to the classes' sizes, minds.
    """
    count = len(rows.target)
    if count <= most:
        return np.arange(count)
    order = np.random.default_rng(SEED).permutation(count)
    if rows.task == "regression":
        return np.sort(order[:most])
    labels = rows.target[order]
    classes = np.unique(labels)
    each = min(CLASS_ROWS, most // len(classes))
    kept = np.concatenate([np.flatnonzero(labels == index)[:each] for index in classes])
    rest = np.setdiff1d(np.arange(count), kept)
    return np.sort(order[np.concatenate([kept, rest[: most - len(kept)]])])


def _wrong_share(labels: NDArray[np.intp], probable: NDArray[np.float64]) -> float:
    classes = probable.shape[1]
    own = np.array([probable[labels == index, index].mean() for index in range(classes)])
    sure = np.where(probable >= own, probable, -1.0)
    counted = sure.max(axis=1) >= 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], sure.argmax(axis=1)[counted]), 1)
    totals = joint.sum(axis=1)
    right = np.divide(np.diag(joint), totals, out=np.ones(classes), where=totals > 0)
    return float(np.bincount(labels, minlength=classes) / len(labels) @ (1 - right))


def _folds(rows: LabelledRows) -> Sequence[Fold]:
    """Of the table's own kind, or none: of two where three leave one of them without a class or a group."""
    for count in range(FOLDS, 1, -1):
        with warnings.catch_warnings(), suppress(UsageError):
            warnings.simplefilter("ignore")
            return fold_rows(rows, count, SEED)
    return ()


def _likeliest(sample: Encoded) -> list[int]:
    """Places of the columns to look at: all, or texts first, and of numbers those nearest to the target."""
    count = sample.numbers.shape[1]
    texts = list(range(count, sample.columns))
    if sample.columns <= COLUMNS:
        return [*range(count), *texts]
    filled = np.where(np.isnan(sample.numbers), -np.inf, sample.numbers)
    ranks = rankdata(filled, axis=0)
    statistic = (
        f_regression(ranks, rankdata(sample.target))
        if sample.rows.task == "regression"
        else f_classif(ranks, sample.target)
    )
    order = np.argsort(-np.nan_to_num(statistic[0]), kind="stable")
    return sorted([*texts[:COLUMNS], *order[: max(0, COLUMNS - len(texts))].tolist()])


def _skill(column: NDArray[Any], is_text: bool, rows: LabelledRows, folds: Sequence[Fold]) -> float:
    amounts = rows.task == "regression"
    target = rankdata(rows.target) if amounts else rows.target
    truth, answers = [], []
    for fitted, scored in folds:
        seen, asked = column[fitted], column[scored]
        if is_text:
            inner = KFold(min(FOLDS, len(fitted)), shuffle=True, random_state=SEED)
            encoder = TargetEncoder(target_type="continuous" if amounts else "auto", cv=inner)
            seen = encoder.fit_transform(seen, target[fitted])
            asked = encoder.transform(asked)
        tree = (
            DecisionTreeRegressor(min_samples_leaf=LEAF_ROWS, random_state=SEED)
            if amounts
            else DecisionTreeClassifier(min_samples_leaf=LEAF_ROWS, class_weight="balanced", random_state=SEED)
        )
        answers.append(tree.fit(seen, target[fitted]).predict(asked))
        truth.append(target[scored])
    wanted, found = np.concatenate(truth), np.concatenate(answers)
    if amounts:
        return float(np.clip(r2_score(wanted, found), 0, 1))
    guess = 1 / len(np.unique(wanted))  # of two classes at least: there are no folds that score a single one
    return float(np.clip((balanced_accuracy_score(wanted, found) - guess) / (1 - guess), 0, 1))
