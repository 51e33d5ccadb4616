"""Resampled rows: the same for everybody, every class keeps its number of them, and groups stay together."""

import numpy as np
import pytest

from harness.records.rows import Prediction
from harness.space.resamples import RESAMPLES, resampled_rows, resampled_scores
from harness.stats.compare import margins

TRUTH = np.array([0, 1, 1, 0, 1, 1, 1, 0])


def test_every_class_keeps_its_number_of_rows() -> None:
    rows = np.array(list(resampled_rows(TRUTH, "binary", seed=3)))
    assert rows.shape == (RESAMPLES, len(TRUTH))
    assert (np.sort(TRUTH[rows], axis=1) == np.sort(TRUTH)).all()
    assert (rows == list(resampled_rows(TRUTH, "binary", seed=3))).all()


def test_the_rows_of_a_regression_are_drawn_from_all() -> None:
    values = np.arange(200.0)
    rows = resampled_rows(values, "regression", seed=3)
    distinct = [len(np.unique(drawn)) / len(values) for drawn in rows]
    # A row is left out of a resample with probability (1 - 1/n)^n.
    assert abs(np.mean(distinct) - (1 - (1 - 1 / 200) ** 200)) < 0.01


def test_scores_of_resamples_spread_as_arithmetic_says() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros(400)
    wrong = rng.random(400) < 0.2
    scores = resampled_scores(
        "accuracy", truth, Prediction(wrong.astype(float), None), resampled_rows(truth, "binary", 1)
    )
    share = wrong.mean()
    assert abs(np.mean(scores) - (1 - share)) < 0.005
    # The standard error of a share.
    assert abs(np.std(scores) / np.sqrt(share * (1 - share) / 400) - 1) < 0.15


def test_groups_are_drawn_whole_and_no_class_is_lost() -> None:
    groups = np.array([4, 4, 7, 7, 7, 9])
    truth = np.array([0, 0, 0, 1, 1, 2])  # of the last class there is one group only
    sizes = {4: 2, 7: 3, 9: 1}
    drawn = list(resampled_rows(truth, "multiclass", 3, groups))
    assert len(drawn) == RESAMPLES
    for rows in drawn:
        assert set(truth[rows]) == {0, 1, 2}
        assert len(rows) == sum(sizes[group] * (rows == place).sum() for group, place in ((4, 0), (7, 2), (9, 5)))
    assert [rows.tolist() for rows in drawn] == [
        rows.tolist() for rows in resampled_rows(truth, "multiclass", 3, groups)
    ]


def test_a_single_group_has_an_interval_too() -> None:
    values = np.arange(20.0)
    assert len({tuple(rows) for rows in resampled_rows(values, "regression", 3, np.zeros(20, dtype=np.intp))}) > 1


@pytest.mark.parametrize(("whole", "least", "most"), [(True, 0.0, 0.15), (False, 0.2, 0.6)])
def test_two_equal_models_that_err_by_groups_are_seldom_told_apart_when_groups_are_drawn(
    whole: bool, least: float, most: float
) -> None:
    """Twenty groups of ten rows: by rows a third of the pairs is told apart, by groups about one of twenty."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 10)
    apart = []
    for seed in range(40):
        right = np.array([rng.random(200) < rng.beta(2, 0.5, 20)[groups] for _ in range(2)])
        drawn = resampled_rows(np.zeros(200), "regression", seed, groups if whole else None)
        scores = np.array([right[:, rows].mean(axis=1) for rows in drawn]).T
        apart.append(abs(np.subtract(*right.mean(axis=1))) > margins(scores.tolist())[0, 1])
    assert least <= np.mean(apart) <= most
