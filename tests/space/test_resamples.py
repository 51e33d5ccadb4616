"""Resampled rows: the same for everybody, and every class keeps its number of them."""

import numpy as np

from harness.records.rows import Prediction
from harness.space.resamples import RESAMPLES, resampled_rows, resampled_scores

TRUTH = np.array([0, 1, 1, 0, 1, 1, 1, 0])


def test_every_class_keeps_its_number_of_rows() -> None:
    rows = resampled_rows(TRUTH, "binary", seed=3)
    assert rows.shape == (RESAMPLES, len(TRUTH))
    assert (np.sort(TRUTH[rows], axis=1) == np.sort(TRUTH)).all()
    assert (rows == resampled_rows(TRUTH, "binary", seed=3)).all()


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
