"""What every runtime promises: a candidate that is stored and loaded answers as the fitted pipeline did."""

import dataclasses
import importlib
import pkgutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import harness.runtimes
from harness.errors import IntegrityError, NotConvertibleError
from harness.records.candidate import Column, Signature
from harness.space.parts import model_columns
from harness.space.preprocess import RawColumns, to_batch

NAMES = sorted(module.name for module in pkgutil.iter_modules(harness.runtimes.__path__))

# skl2onnx, xgboost and scikit-learn warn of each other's versions.
pytestmark = pytest.mark.filterwarnings("default")

TABLES = {
    "numbers": [("height", "number"), ("width", "number")],
    "texts": [("colour", "category"), ("maker", "category")],
    "everything": [
        ("colour", "category"),
        ("height", "number"),
        ("sold", "date"),
        ("maker", "category"),
        ("new", "boolean"),
        ("width", "number"),
    ],
}
TASKS = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}


def plug_in(name):
    module = importlib.import_module(f"harness.runtimes.{name}")
    (found,) = (
        value
        for key, value in vars(module).items()
        if dataclasses.is_dataclass(value) and value.__module__ == module.__name__ and not key.startswith("_")
    )
    return found()


def table(rows=240):
    """Numbers with holes, categories with holes, dates with holes, booleans; and something to learn in each."""
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "height": rng.normal(size=rows),
            "width": rng.integers(0, 5, rows).astype(float),
            "colour": rng.choice(["red", "green", "blau-weiß"], rows),
            "maker": rng.choice(["one", "two", "three", "four"], rows),
            "sold": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 400, rows), unit="D"),
            "new": rng.random(rows) < 0.5,
        }
    )
    frame.loc[::7, "height"] = np.nan
    frame.loc[::11, "sold"] = pd.NaT
    frame["colour"] = frame["colour"].where(rng.random(rows) > 0.1)
    return frame


def fitted(columns, task, model=None):
    """A signature, and a pipeline of scikit-learn's own parts that was fitted on the table."""
    signature = Signature(
        task=task, columns=tuple(Column(name=name, kind=kind) for name, kind in columns), classes=TASKS[task]
    )
    if model is None:
        model = Ridge() if task == "regression" else LogisticRegression()
    numbers, texts = model_columns(signature.columns)
    places = list(range(len(numbers) + len(texts)))
    holes = Pipeline([("holes", SimpleImputer()), ("scale", StandardScaler())])
    blocks = [("numbers", holes, places[: len(numbers)])] if numbers else []
    if texts:
        blocks.append(("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), places[len(numbers) :]))
    pipeline = Pipeline(
        [
            ("columns", RawColumns([name for name, _ in columns], [kind for _, kind in columns])),
            ("features", ColumnTransformer(blocks)),
            ("model", model),
        ]
    )
    frame = table()
    signal = frame["height"].fillna(0) + (frame["colour"] == "red") + frame["width"] / 3 + frame["new"]
    target = signal if task == "regression" else pd.qcut(signal, len(TASKS[task]), labels=False)
    return signature, pipeline.fit(frame[[name for name, _ in columns]], target.to_numpy())


def stored(runtime, pipeline, signature, folder):
    path = folder / runtime.artifact
    path.write_bytes(runtime.export(pipeline, signature, to_batch(table(3), signature.columns)).data)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("task", TASKS)
def test_a_loaded_candidate_answers_as_the_pipeline_it_was(name, columns, task, tmp_path):
    runtime = plug_in(name)
    signature, pipeline = fitted(columns, task)
    predict = runtime.load(stored(runtime, pipeline, signature, tmp_path), signature)
    frame = table()
    frame.loc[0, "colour"] = "never seen"

    found = predict(to_batch(frame, signature.columns))

    if task == "regression":
        assert found.probabilities is None
        np.testing.assert_allclose(found.values, pipeline.predict(frame), rtol=0, atol=1e-4)
    else:
        wanted = pipeline.predict_proba(frame)
        np.testing.assert_allclose(found.probabilities, wanted, rtol=0, atol=1e-4)
        assert found.probabilities.dtype == np.float64
        # Where the pipeline itself is in two minds, 32 bits may decide the other way.
        ordered = np.sort(wanted, axis=1)
        sure = ordered[:, -1] - ordered[:, -2] > 1e-3
        assert sure.mean() > 0.9
        assert np.array_equal(found.values[sure], wanted.argmax(axis=1)[sure])
        assert np.array_equal(found.values, found.probabilities.argmax(axis=1))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_one_answer_alone_or_among_others_and_every_time(name, tmp_path):
    runtime = plug_in(name)
    signature, pipeline = fitted(TABLES["everything"], "multiclass", RandomForestClassifier(20, random_state=1))
    predict = runtime.load(stored(runtime, pipeline, signature, tmp_path), signature)

    together = predict(to_batch(table(), signature.columns))
    again = predict(to_batch(table(), signature.columns))
    alone = predict(to_batch(table()[5:6], signature.columns))

    assert np.array_equal(together.probabilities, again.probabilities)
    assert np.array_equal(together.probabilities[5:6], alone.probabilities)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x04\x95 not a pickle either"])
def test_a_file_that_is_something_else_is_not_loaded(name, content, tmp_path):
    signature, _ = fitted(TABLES["numbers"], "binary")
    path = tmp_path / plug_in(name).artifact
    path.write_bytes(content)

    with pytest.raises(IntegrityError, match=str(path)):
        plug_in(name).load(path, signature)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_stored_is_a_reason_in_one_line(name):
    class Homemade(LogisticRegression):
        """No runtime knows it."""

    signature, pipeline = fitted(TABLES["numbers"], "binary", Homemade())

    with pytest.raises(NotConvertibleError) as refused:
        plug_in(name).export(pipeline, signature, to_batch(table(3), signature.columns))

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("name", NAMES)
def test_its_libraries_wait_until_it_is_used(name):
    libraries = {"onnx", "onnxruntime", "skl2onnx", "onnxmltools", "skops", "sklearn", "pandas"}
    asked = f"import sys, harness.runtimes.{name}; print(sorted({libraries!r} & set(sys.modules)))"
    answered = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert answered.stdout.strip() == "[]"
