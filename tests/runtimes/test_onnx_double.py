"""ONNX in double: where floats do not tell rows apart that the fitted pipeline does, the graph is made of doubles."""

import numpy as np
import pandas as pd
import pytest

from harness.records.candidate import Column, Signature
from harness.runtimes.onnx import Onnx, converted, predictor
from harness.space.build import build
from harness.space.families import FAMILIES, defaults, family_named
from harness.space.preprocess import to_batch
from harness.space.score import predict
from harness.stats.agreement import agreement

pytestmark = pytest.mark.filterwarnings("default")

ROWS, FITTED = 300, 200
COLUMNS = (
    Column(name="stamp", kind="number"),
    Column(name="kind", kind="category"),
    Column(name="size", kind="number"),
    Column(name="sold", kind="date"),
    Column(name="code", kind="category", by_target=True),
)
SMALL = {"n_estimators": 10, "max_iter": 10}
CLASSES = {"binary": ("no", "yes"), "multiclass": ("low", "middle", "high"), "regression": ()}

SECONDS = 1_760_000_000.0
"""A day in 2025, since 1970: neighbouring floats are two minutes apart there."""

FLOATS_ARE_ENOUGH = {"random_forest", "extra_trees", "gradient_boosting", "xgboost"}
"""These round what they are given to floats themselves, when they are fitted and when they are asked."""


def table(large):
    """Holes, categories, a date, mean targets, and a number that is not small; and what there is to learn."""
    rng = np.random.default_rng(3)
    small = rng.normal(size=ROWS)
    frame = pd.DataFrame(
        {
            "stamp": np.where(rng.random(ROWS) < 0.05, np.nan, large(small)),
            "kind": rng.choice(["x", "y", "z"], ROWS),
            "size": rng.normal(size=ROWS),
            "sold": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 9600, ROWS), unit="h"),
            "code": rng.choice([f"c{place}" for place in range(30)], ROWS),
        }
    )
    return frame, 2 * np.where(frame["stamp"].isna(), 0, small) + (frame["kind"] == "x") + 0.3 * frame["size"]


TABLES = {
    "seconds since 1970 in a number column": lambda small: SECONDS + 3600 * small,
    "counts beyond 16,777,216": lambda small: 16_777_217 + np.rint(4 * small),
    "numbers as they usually are": lambda small: small,
}


def fitted(family, task, large, moment=False):
    """A pipeline with its signature, and rows of which it has seen two thirds."""
    frame, signal = table(TABLES[large])
    signature = Signature(task=task, columns=COLUMNS, classes=CLASSES[task])
    target = np.asarray(SECONDS + 3600 * signal if moment else signal)
    if CLASSES[task]:
        target = pd.qcut(signal, len(CLASSES[task]), labels=False)
    known = {parameter.name for parameter in family.parameters}
    configuration = defaults(family) | {name: value for name, value in SMALL.items() if name in known}
    pipeline = build(configuration, signature, 1).fit(frame[:FITTED], target[:FITTED])
    return pipeline, signature, frame


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_has_a_form_in_double_that_tells_seconds_apart(family, task):
    if family.estimator_for(task) is None:
        return
    pipeline, signature, frame = fitted(family, task, "seconds since 1970 in a number column")
    batch, wanted = to_batch(frame, COLUMNS), predict(pipeline, frame, task)

    single, double = (
        agreement(wanted, predictor(converted(pipeline, signature, precision), signature)(batch))
        for precision in ("float32", "float64")
    )

    assert double.is_parity
    assert double.largest < 1e-5
    assert (single.largest < 1e-5) == (family.name in FLOATS_ARE_ENOUGH)


@pytest.mark.parametrize(
    ("family", "task", "large", "moment", "precision"),
    [
        ("knn", "multiclass", "counts beyond 16,777,216", False, "float64"),
        ("hist_gradient_boosting", "regression", "counts beyond 16,777,216", False, "float64"),
        ("logistic", "binary", "seconds since 1970 in a number column", False, "float64"),
        # The answers themselves are far from zero for their spread.
        ("ridge", "regression", "numbers as they usually are", True, "float64"),
        ("random_forest", "regression", "numbers as they usually are", True, "float64"),
        ("lightgbm", "regression", "numbers as they usually are", True, "float64"),
        # XGBoost adds in floats: in another order there is another sum, and no precision of the graph mends that.
        ("xgboost", "regression", "numbers as they usually are", True, "float32"),
        ("logistic", "binary", "numbers as they usually are", False, "float32"),
        ("random_forest", "multiclass", "counts beyond 16,777,216", False, "float32"),
    ],
)
def test_doubles_are_taken_where_floats_are_not_enough(family, task, large, moment, precision, tmp_path):
    pipeline, signature, frame = fitted(family_named(family), task, large, moment)
    asked, others = to_batch(frame[::2], COLUMNS), frame[1::2]

    form = Onnx().export(pipeline, signature, asked)

    path = tmp_path / "model.onnx"
    path.write_bytes(form.data)
    found = agreement(predict(pipeline, others, task), Onnx().load(path, signature)(to_batch(others, COLUMNS)))
    assert form.precision == precision
    assert found.is_parity == (form.note is None or precision == "float64")
    if form.note is not None:
        assert form.note.startswith("in float32 ")
        assert ("in float64" in form.note) == (precision == "float32")


def test_without_rows_to_compare_there_are_floats():
    pipeline, signature, frame = fitted(family_named("ridge"), "regression", "counts beyond 16,777,216")

    form = Onnx().export(pipeline, signature, to_batch(frame[:0], COLUMNS))

    assert (form.precision, form.note) == ("float32", None)
