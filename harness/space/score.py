"""How good answers are.

In: a fitted pipeline with raw rows, or predictions with the truth. Out: a `Prediction`, and the value of a metric as
scikit-learn defines it, never with its sign turned.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from harness.errors import UsageError
from harness.records.rows import Prediction
from harness.records.words import Metric, Task

if TYPE_CHECKING:
    import pandas as pd

METRICS: Mapping[Task, tuple[Metric, ...]] = {
    "binary": ("roc_auc", "accuracy", "log_loss"),
    "multiclass": ("accuracy", "log_loss", "roc_auc"),
    "regression": ("r2", "rmse"),
}
"""The metrics that fit each task, the default first."""


def default_metric(task: Task) -> Metric:
    """The metric that is meant where a scenario names none."""
    return METRICS[task][0]


def refuse_unfit(metric: Metric, task: Task) -> None:
    """Raise UsageError where a metric says nothing about a task."""
    if metric not in METRICS[task]:
        raise UsageError(
            f"The metric {metric!r} does not fit a {task} task: set `search.metric` to one of "
            f"{', '.join(METRICS[task])}, or leave it out."
        )


def predict(pipeline: Any, frame: "pd.DataFrame", task: Task) -> Prediction:
    """The answers of a pipeline, fitted to class indices or values, to n raw rows."""
    if task == "regression":
        return Prediction(np.asarray(pipeline.predict(frame), dtype=np.float64).ravel(), None)
    probabilities = np.asarray(pipeline.predict_proba(frame), dtype=np.float64)
    return Prediction(probabilities.argmax(axis=1).astype(np.float64), probabilities)


def score(metric: Metric, target: NDArray[Any], prediction: Prediction) -> float:
    """The metric's value; `target` holds n class indices or values.

    roc_auc of more than two classes is the unweighted mean of each class against the rest. NaN where a prediction is
    not finite, where probabilities are none (negative, or all zero), or where the target lacks a class that a ROC curve
    needs. Raises UsageError where the metric needs probabilities and there are none.
    """
    if not prediction.finite.all():
        return float("nan")
    match metric:
        case "accuracy":
            return float(metrics.accuracy_score(target, prediction.values))
        case "r2":
            return float(metrics.r2_score(target, prediction.values))
        case "rmse":
            return float(metrics.root_mean_squared_error(target, prediction.values))
        case "log_loss" | "roc_auc":
            return _of_probabilities(metric, target, prediction.probabilities)


def _of_probabilities(metric: Metric, target: NDArray[Any], probabilities: NDArray[np.float64] | None) -> float:
    if probabilities is None:
        raise UsageError(f"The metric {metric!r} needs the probabilities of classes, and a regression has none.")
    classes = probabilities.shape[1]
    # Runtimes that compute in float32 answer rows whose sum is 1 only to six digits; scikit-learn is stricter.
    sums = probabilities.sum(axis=1, keepdims=True)
    if (probabilities < 0).any() or (sums == 0).any():
        return float("nan")
    shares = probabilities / sums
    if metric == "log_loss":
        return float(metrics.log_loss(target, shares, labels=range(classes)))
    if len(np.unique(target)) < classes:
        return float("nan")
    if classes == 2:
        return float(metrics.roc_auc_score(target, probabilities[:, 1]))
    return float(metrics.roc_auc_score(target, shares, multi_class="ovr", labels=range(classes)))
