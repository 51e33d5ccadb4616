"""Scores: the truth is arithmetic on a handful of rows."""

import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.records.candidate import Column, Signature
from harness.records.rows import Prediction
from harness.records.words import Metric, Task
from harness.space.build import build
from harness.space.score import default_metric, predict, refuse_unfit, score


def classified(*probabilities: tuple[float, ...]) -> Prediction:
    shares = np.array(probabilities)
    return Prediction(shares.argmax(axis=1).astype(float), shares)


TRUTH: NDArray[np.int64] = np.array([0, 0, 1, 1])
BINARY = classified((0.9, 0.1), (0.6, 0.4), (0.7, 0.3), (0.2, 0.8))


def test_roc_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    # Of the four pairs of a negative and a positive, only (0.4, 0.3) is in the wrong order.
    assert score("roc_auc", TRUTH, BINARY) == pytest.approx(3 / 4)


def test_accuracy_is_the_share_of_right_labels() -> None:
    assert score("accuracy", TRUTH, BINARY) == pytest.approx(3 / 4)


def test_log_loss_is_the_mean_negative_log_of_the_true_classs_probability() -> None:
    expected = -np.mean(np.log([0.9, 0.6, 0.3, 0.8]))
    assert score("log_loss", TRUTH, BINARY) == pytest.approx(expected)


def test_log_loss_knows_the_classes_that_a_fold_lacks() -> None:
    three = classified((0.5, 0.3, 0.2), (0.1, 0.8, 0.1))
    assert score("log_loss", np.array([0, 1]), three) == pytest.approx(-np.mean(np.log([0.5, 0.8])))


def test_roc_auc_of_three_classes_is_the_mean_of_each_against_the_rest() -> None:
    truth = np.array([0, 1, 2, 0])
    answers = classified((0.7, 0.2, 0.1), (0.2, 0.5, 0.3), (0.3, 0.3, 0.4), (0.25, 0.45, 0.3))
    # Class 0: pairs (0.7, 0.25) against (0.2, 0.3): three of four. Class 1: 0.5 against 0.2, 0.3, 0.45: three of three.
    # Class 2: 0.4 against 0.1, 0.3, 0.3: three of three.
    assert score("roc_auc", truth, answers) == pytest.approx((3 / 4 + 1 + 1) / 3)


def test_r2_and_rmse_follow_their_definitions() -> None:
    truth, answers = np.array([1.0, 2.0, 3.0]), Prediction(np.array([1.0, 2.0, 5.0]), None)
    assert score("rmse", truth, answers) == pytest.approx(math.sqrt(4 / 3))
    assert score("r2", truth, answers) == pytest.approx(1 - 4 / 2)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "accuracy"])
def test_probabilities_that_are_not_numbers_have_no_score(metric: Metric) -> None:
    assert math.isnan(score(metric, TRUTH, classified((0.9, 0.1), (math.nan, 0.4), (0.7, 0.3), (0.2, 0.8))))


@pytest.mark.parametrize("row", [(1.2, -0.2), (0.0, 0.0)], ids=["negative", "all zero"])
def test_shares_of_nothing_are_no_probabilities_and_have_no_score(row: tuple[float, float]) -> None:
    for metric in ("log_loss", "roc_auc"):
        assert math.isnan(score(metric, TRUTH, classified((0.9, 0.1), row, (0.7, 0.3), (0.2, 0.8))))


def test_predictions_that_are_not_finite_have_no_score() -> None:
    assert math.isnan(score("rmse", np.array([1.0, 2.0]), Prediction(np.array([1.0, math.inf]), None)))


def test_a_roc_curve_of_one_class_has_no_score() -> None:
    assert math.isnan(score("roc_auc", np.array([1, 1, 1, 1]), BINARY))


def test_float32_probabilities_are_scored_though_they_miss_a_sum_of_one() -> None:
    rough = Prediction(BINARY.values, np.array(BINARY.probabilities) * (1 + 3e-7))
    assert score("log_loss", TRUTH, rough) == pytest.approx(score("log_loss", TRUTH, BINARY))


def test_a_metric_of_probabilities_refuses_a_regression() -> None:
    with pytest.raises(UsageError, match="needs the probabilities"):
        score("log_loss", TRUTH, Prediction(np.zeros(4), None))


@pytest.mark.parametrize(("task", "metric"), [("binary", "roc_auc"), ("multiclass", "accuracy"), ("regression", "r2")])
def test_each_task_has_its_default_metric(task: Task, metric: Metric) -> None:
    assert default_metric(task) == metric
    refuse_unfit(metric, task)


@pytest.mark.parametrize(("task", "metric"), [("binary", "r2"), ("regression", "accuracy"), ("multiclass", "rmse")])
def test_a_metric_that_says_nothing_about_the_task_is_refused(task: Task, metric: Metric) -> None:
    with pytest.raises(UsageError, match=f"{metric!r} does not fit a {task} task"):
        refuse_unfit(metric, task)


def test_predictions_have_the_shape_that_every_runtime_answers_in() -> None:
    frame = pd.DataFrame({"x": np.arange(30.0)})
    columns = (Column(name="x", kind="number"),)
    classes = build({"family": "logistic"}, Signature(task="multiclass", columns=columns), 1)
    found = predict(classes.fit(frame, np.arange(30) // 10), frame, "multiclass")
    assert found.probabilities is not None
    assert found.probabilities.shape == (30, 3)
    assert found.values.dtype == np.float64
    values = build({"family": "ridge"}, Signature(task="regression", columns=columns), 1)
    found = predict(values.fit(frame, np.arange(30.0)), frame, "regression")
    assert found.probabilities is None
    assert found.values.shape == (30,)
