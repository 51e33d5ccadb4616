"""Pipelines from configurations: they fit raw tables with holes, texts and dates, and repeat."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss

from harness.errors import UsageError
from harness.records.candidate import Column, Configuration, Signature
from harness.records.words import Task
from harness.space.build import build
from harness.space.families import FAMILIES, Family, defaults
from harness.space.preprocess import to_batch, to_frame

COLUMNS = (
    Column(name="size", kind="number"),
    Column(name="colour", kind="category"),
    Column(name="since", kind="date"),
    Column(name="member", kind="boolean"),
    Column(name="never", kind="number"),
)
CASES = [
    (family, task)
    for family in FAMILIES
    for task in ("binary", "multiclass", "regression")
    if family.estimator_for(task)
]


def raw_table(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=rows),
            "colour": rng.choice(["red", "green", ""], rows),
            "since": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 1000, rows), unit="D"),
            "member": rng.integers(0, 2, rows).astype(float),
            # All holes, as a column may be in one fold.
            "never": np.full(rows, np.nan),
        }
    )
    frame.loc[::7, ["size", "member"]] = np.nan
    frame.loc[::11, "since"] = pd.NaT
    return frame


def target_of(task: Task, rows: int = 120) -> Any:
    value = np.arange(rows) / rows
    return value if task == "regression" else (value * (2 if task == "binary" else 3)).astype(int)


@pytest.mark.parametrize(("rare", "told"), [(2, None), (1, "a class has a single row")])
def test_support_vectors_are_calibrated_on_as_few_rows_of_a_class_as_a_fold_may_have(
    rare: int, told: str | None
) -> None:
    frame = pd.DataFrame({"size": np.arange(20.0)})
    target = np.array([0] * (20 - rare) + [1] * rare)
    signature = Signature(task="binary", columns=(Column(name="size", kind="number"),))
    pipeline = build({"family": "svc"}, signature, seed=1)
    with nullcontext() if told is None else pytest.raises(ValueError, match=told):
        probabilities = pipeline.fit(frame, target).predict_proba(frame)
        assert probabilities[-1, 1] > probabilities[0, 1]


def signature_of(task: Task) -> Signature:
    return Signature(task=task, columns=COLUMNS)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(("family", "task"), CASES, ids=lambda value: getattr(value, "name", value))
def test_every_family_fits_a_table_with_holes_texts_and_dates(family: Family, task: Task) -> None:
    frame, target = raw_table(), target_of(task)
    small = defaults(family) | {name: 20 for name in ("n_estimators", "max_iter") if name in defaults(family)}
    pipeline = build(small, signature_of(task), seed=1).fit(frame, target)
    again = build(small, signature_of(task), seed=1).fit(frame, target)
    assert [name for name, _ in pipeline.steps] == ["columns", "features", "model"]
    answers = pipeline.predict(frame)
    assert len(answers) == len(frame)
    np.testing.assert_array_equal(answers, again.predict(frame))


def test_the_frame_a_request_becomes_gets_the_answers_of_the_training_frame() -> None:
    frame = raw_table()
    pipeline = build({"family": "random_forest"}, signature_of("binary"), 1).fit(frame, target_of("binary"))
    sent = to_frame(to_batch(frame, COLUMNS), COLUMNS)
    np.testing.assert_array_equal(pipeline.predict_proba(frame), pipeline.predict_proba(sent))


def test_a_text_never_seen_in_training_gets_an_answer() -> None:
    frame = raw_table()
    pipeline = build({"family": "logistic"}, signature_of("binary"), 1).fit(frame, target_of("binary"))
    assert np.isfinite(pipeline.predict_proba(frame.assign(colour="violet"))).all()


def test_numbers_only_and_texts_only_are_tables_too() -> None:
    frame, target = raw_table(), target_of("binary")
    for column in (COLUMNS[0], COLUMNS[1]):
        signature = Signature(task="binary", columns=(column,))
        assert build({"family": "logistic"}, signature, 1).fit(frame, target).predict(frame).shape == (120,)


def test_numbers_are_scaled_where_the_family_wants_it() -> None:
    frame, target = raw_table().assign(size=lambda raw: raw["size"] * 1e6), target_of("binary")
    scaled = build({"family": "logistic"}, signature_of("binary"), 1).fit(frame, target)
    assert scaled[:-1].transform(frame)[:, 0].std() == pytest.approx(1.0)
    plain = build({"family": "lightgbm"}, signature_of("binary"), 1).fit(frame, target)
    assert plain[:-1].transform(frame)[:, 0].std() > 1e5


def test_margins_become_probabilities_that_mean_something() -> None:
    features, target = make_classification(1200, 6, n_informative=4, flip_y=0.2, random_state=3)
    frame = pd.DataFrame(features, columns=[f"x{place}" for place in range(6)])
    signature = Signature(task="binary", columns=tuple(Column(name=name, kind="number") for name in frame))
    pipeline = build({"family": "svc"}, signature, 1).fit(frame[:800], target[:800])
    answered = pipeline.predict_proba(frame[800:])[:, 1]
    # Of rows that were answered with about p, about p are of the class; a tenth of the rows has the wrong label.
    seen, said = calibration_curve(target[800:], answered, n_bins=4)
    np.testing.assert_allclose(seen, said, atol=0.15)
    assert log_loss(target[800:], answered) < 0.9 * np.log(2)
    # One model for the server, not one per part of the calibration.
    assert len(pipeline[-1].calibrated_classifiers_) == 1
    assert pipeline[-1].calibrated_classifiers_[0].estimator.n_features_in_ == 6


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        ({}, "names its model under 'family'"),
        ({"family": "logistik"}, "did you mean logistic"),
        ({"family": "logistic", "c": 1.0}, "no parameter 'c'"),
        ({"family": "logistic", "C": "high"}, "'C' of the model family 'logistic' is a finite number, not 'high'"),
        ({"family": "logistic", "C": float("nan")}, "is a finite number"),
        ({"family": "knn", "n_neighbors": 2.5}, "is a whole number, not 2.5"),
        ({"family": "knn", "n_neighbors": True}, "is a whole number"),
        ({"family": "knn", "weights": "heavy"}, "is one of uniform, distance"),
        ({"family": "ridge"}, "no estimator for a binary task"),
    ],
)
def test_a_bad_configuration_is_refused_with_what_is_wrong(configuration: Configuration, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        build(configuration, signature_of("binary"), 1)
