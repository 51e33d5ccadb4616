"""The scikit-learn runtime: what it loads, what it never loads, and how it computes."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from harness.errors import IntegrityError, NotConvertibleError
from harness.records.candidate import Column, Signature
from harness.runtimes.sklearn_native import SklearnNative
from harness.space.build import build
from harness.space.families import FAMILIES, baseline, defaults
from harness.space.preprocess import RawColumns, to_batch

pytestmark = pytest.mark.filterwarnings("default")

X = np.random.default_rng(3).normal(size=(120, 4))
FRAME = pd.DataFrame(X, columns=list("abcd"))
COLUMNS = tuple(Column(name=name, kind="number") for name in "abcd")
BINARY = Signature(task="binary", columns=COLUMNS, classes=("no", "yes"))
REGRESSION = Signature(task="regression", columns=COLUMNS)
SIGN = (X[:, 0] > 0).astype(int)


def pipeline_of(model, target=SIGN):
    steps = [("columns", RawColumns(list("abcd"), ["number"] * 4)), ("model", model)]
    return Pipeline(steps).fit(FRAME, target)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_is_stored_loaded_and_answers_the_same(family, tmp_path):
    signatures = {"binary": (BINARY, SIGN), "regression": (REGRESSION, X[:, 0])}
    for task, (signature, target) in signatures.items():
        if family.estimator_for(task) is None:
            continue
        pipeline = build(defaults(family), signature, 1).fit(FRAME, target)
        batch = to_batch(FRAME, COLUMNS)
        path = tmp_path / f"{task}.skops"
        path.write_bytes(SklearnNative().export(pipeline, signature, batch).data)

        found = SklearnNative().load(path, signature)(batch)

        wanted = pipeline.predict(FRAME) if task == "regression" else pipeline.predict_proba(FRAME)
        assert np.array_equal(found.values if task == "regression" else found.probabilities, wanted)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_texts_that_are_told_by_their_mean_target_are_stored_with_it(task, tmp_path):
    columns = (Column(name="place", kind="category", by_target=True), Column(name="a", kind="number"))
    signature = Signature(task=task, columns=columns, classes=("no", "yes") if task == "binary" else ())
    frame = FRAME.assign(place=[f"place {row % 150}" for row in range(len(FRAME))])
    pipeline = build(baseline(task), signature, 1).fit(frame, SIGN if task == "binary" else X[:, 0])
    batch = to_batch(frame, columns)
    path = tmp_path / "model.skops"
    path.write_bytes(SklearnNative().export(pipeline, signature, batch).data)

    found = SklearnNative().load(path, signature)(batch)

    wanted = pipeline.predict(frame) if task == "regression" else pipeline.predict_proba(frame)
    assert np.array_equal(found.values if task == "regression" else found.probabilities, wanted)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickle_by_another_name_is_refused_and_runs_nothing(tmp_path):
    path, sprung = tmp_path / "model.skops", tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(str(sprung))))

    with pytest.raises(IntegrityError, match=r"model\.skops"):
        SklearnNative().load(path, BINARY)

    assert not sprung.exists()


def test_a_file_with_a_type_beyond_the_list_is_refused_and_the_type_named(tmp_path):
    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps({"call": os.mkdir}))

    with pytest.raises(IntegrityError, match="mkdir"):
        SklearnNative().load(path, BINARY)


def test_a_class_without_a_training_row_has_probability_zero(tmp_path):
    signature = Signature(task="multiclass", columns=COLUMNS, classes=("a", "b", "c"))
    path = tmp_path / "model.skops"
    pipeline = pipeline_of(LogisticRegression(), 2 * SIGN)
    path.write_bytes(SklearnNative().export(pipeline, signature, to_batch(FRAME, COLUMNS)).data)

    found = SklearnNative().load(path, signature)(to_batch(FRAME, COLUMNS))

    assert np.array_equal(found.probabilities[:, [0, 2]], pipeline.predict_proba(FRAME))
    assert not found.probabilities[:, 1].any()
    assert np.array_equal(found.values, pipeline.predict(FRAME))


def test_a_model_fitted_on_all_cores_predicts_on_one(tmp_path, monkeypatch):
    pipeline = pipeline_of(RandomForestClassifier(4, n_jobs=-1, random_state=1))
    path = tmp_path / "model.skops"
    path.write_bytes(SklearnNative().export(pipeline, BINARY, to_batch(FRAME, COLUMNS)).data)
    seen = []
    load = skops.io.loads
    monkeypatch.setattr(skops.io, "loads", lambda *given, **named: seen.append(load(*given, **named)) or seen[-1])

    SklearnNative().load(path, BINARY)

    assert seen[0].named_steps["model"].n_jobs == 1


def test_what_would_not_be_loaded_again_is_not_stored():
    class Homemade(LogisticRegression):
        """Not on the list."""

    with pytest.raises(NotConvertibleError, match="Homemade"):
        SklearnNative().export(pipeline_of(Homemade()), BINARY, to_batch(FRAME, COLUMNS))
