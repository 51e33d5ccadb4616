"""The ONNX runtime: every family converts or says why not, and the graph has the two inputs it is fed with."""

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from harness.errors import IntegrityError, NotConvertibleError
from harness.records.candidate import Column, Signature
from harness.runtimes.onnx import Onnx, converted, predictor
from harness.space.build import build
from harness.space.families import FAMILIES, defaults, family_named
from harness.space.preprocess import RawColumns, to_batch

pytestmark = pytest.mark.filterwarnings("default")

ROWS = 150
RNG = np.random.default_rng(5)
FRAME = pd.DataFrame(
    {"a": RNG.normal(size=ROWS), "kind": RNG.choice(["x", "y"], ROWS), "b": RNG.normal(size=ROWS)},
)
COLUMNS = (Column(name="a", kind="number"), Column(name="kind", kind="category"), Column(name="b", kind="number"))
SIGNAL = (FRAME["a"] + (FRAME["kind"] == "x")).to_numpy()
SIGNATURES = {
    "binary": Signature(task="binary", columns=COLUMNS, classes=("no", "yes")),
    "multiclass": Signature(task="multiclass", columns=COLUMNS, classes=("low", "middle", "high")),
    "regression": Signature(task="regression", columns=COLUMNS),
}
TARGETS = {"binary": SIGNAL > 0, "multiclass": pd.qcut(SIGNAL, 3, labels=False), "regression": SIGNAL}
BATCH = to_batch(FRAME, COLUMNS)


@pytest.mark.parametrize("task", SIGNATURES)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_converts(family, task, tmp_path):
    if family.estimator_for(task) is None:
        return
    signature = SIGNATURES[task]
    pipeline = build(defaults(family), signature, 1).fit(FRAME, TARGETS[task])
    path = tmp_path / "model.onnx"
    path.write_bytes(Onnx().export(pipeline, signature, BATCH).data)

    found = Onnx().load(path, signature)(BATCH)

    wanted = pipeline.predict(FRAME) if task == "regression" else pipeline.predict_proba(FRAME)
    np.testing.assert_allclose(found.values if task == "regression" else found.probabilities, wanted, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("classes", [2, 4, 0], ids=["binary", "multiclass", "regression"])
def test_a_hole_that_reaches_the_histogram_trees_goes_where_it_went_in_training(classes, precision):
    """No imputer before them: each split has learned a side for holes, and left and right are both learned."""
    rows = 600
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"a": rng.normal(size=rows), "kind": rng.choice(["x", "y"], rows), "b": rng.normal(size=rows)})
    holes = rng.random((rows, 2)) < 0.3
    signal = np.where(holes[:, 0], 1.5, frame["a"]) - np.where(holes[:, 1], 1.5, frame["b"]) + (frame["kind"] == "x")
    frame["a"], frame["b"] = frame["a"].mask(holes[:, 0]), frame["b"].mask(holes[:, 1])
    signature = Signature(
        task={0: "regression", 2: "binary", 4: "multiclass"}[classes], columns=COLUMNS, classes=tuple("pqrs"[:classes])
    )
    model = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    target = pd.qcut(signal, classes, labels=False) if classes else signal
    pipeline = plain(([0, 1], [2]), model(max_iter=20), frame, target)
    sides = {
        bool(node["missing_go_to_left"])
        for trees in pipeline[-1]._predictors
        for tree in trees
        for node in tree.nodes
        if not node["is_leaf"]
    }
    batch = to_batch(frame, COLUMNS)

    found = predictor(converted(pipeline, signature, precision), signature)(batch)

    assert sides == {False, True}
    if classes:
        np.testing.assert_allclose(found.probabilities, pipeline.predict_proba(frame), atol=1e-5)
        np.testing.assert_array_equal(found.values, pipeline.predict(frame))
    else:
        np.testing.assert_allclose(found.values, pipeline.predict(frame), atol=1e-5)


def plain(selection, model=None, frame=FRAME, target=SIGNAL > 0):
    """A pipeline whose ColumnTransformer selects what it is told, in whatever words."""
    features = ColumnTransformer([("rest", "passthrough", selection[0]), ("texts", OneHotEncoder(), selection[1])])
    steps = [
        ("columns", RawColumns(["a", "kind", "b"], ["number", "category", "number"])),
        ("features", features),
        ("model", model or LogisticRegression()),
    ]
    return Pipeline(steps).fit(frame, target)


@pytest.mark.parametrize("selection", [([0, 1], [2]), (["a", "b"], ["kind"])], ids=["by place", "by name"])
def test_features_may_be_selected_by_place_or_by_name(selection, tmp_path):
    pipeline = plain(selection)
    path = tmp_path / "model.onnx"
    path.write_bytes(Onnx().export(pipeline, SIGNATURES["binary"], BATCH).data)

    inputs = {given.name: given.shape[1] for given in onnxruntime.InferenceSession(path).get_inputs()}
    found = Onnx().load(path, SIGNATURES["binary"])(BATCH)

    assert inputs == {"numbers": 2, "texts": 1}
    np.testing.assert_allclose(found.probabilities, pipeline.predict_proba(FRAME), atol=1e-6)


def test_a_class_without_a_training_row_is_a_reason():
    signature = Signature(task="multiclass", columns=COLUMNS, classes=("no", "yes", "perhaps"))

    with pytest.raises(NotConvertibleError, match="perhaps"):
        Onnx().export(plain(([0, 1], [2])), signature, BATCH)


def test_a_graph_of_something_else_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("result", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["picture"], ["result"])], "g", [value], [result])
    path = tmp_path / "model.onnx"
    path.write_bytes(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
        ).SerializeToString()
    )

    with pytest.raises(IntegrityError, match="picture"):
        Onnx().load(path, SIGNATURES["regression"])


SMALL = {"random_forest": {"n_estimators": 20, "max_depth": 6, "min_samples_leaf": 20}}


@pytest.mark.parametrize(
    ("family", "task"),
    [("logistic", "binary"), ("logistic", "multiclass"), ("ridge", "regression"), ("random_forest", "multiclass")],
)
def test_twenty_thousand_postcodes_are_told_by_their_mean_target(family, task, tmp_path):
    """Two such columns beside a number and a few texts; what was never seen has the mean of all."""
    rows = 60_000
    rng = np.random.default_rng(2)
    effect = rng.normal(size=20_000)
    codes = rng.integers(0, 20_000, (rows, 2))
    frame = pd.DataFrame(
        {
            "from": [f"von {code}" for code in codes[:, 0]],
            "size": rng.normal(size=rows),
            "kind": rng.choice(["x", "y"], rows),
            "to": [f"nach {code}" for code in codes[:, 1]],
        }
    )
    columns = (
        Column(name="from", kind="category", by_target=True),
        Column(name="size", kind="number"),
        Column(name="kind", kind="category"),
        Column(name="to", kind="category", by_target=True),
    )
    signal = 2 * effect[codes[:, 0]] - effect[codes[:, 1]] + 0.5 * frame["size"].to_numpy()
    count = {"binary": 2, "multiclass": 3, "regression": 0}[task]
    target = pd.qcut(signal, count, labels=False) if count else signal
    signature = Signature(task=task, columns=columns, classes=tuple("pqr"[:count]))
    fitted = np.arange(rows) < 50_000
    pipeline = build(defaults(family_named(family)) | SMALL.get(family, {}), signature, 1).fit(
        frame[fitted], target[fitted]
    )
    asked = frame[~fitted].head(2_000).copy()
    asked.iloc[:5, 0] = "never seen"
    batch = to_batch(asked, columns)
    path = tmp_path / "model.onnx"
    path.write_bytes(Onnx().export(pipeline, signature, batch).data)

    found = Onnx().load(path, signature)(batch)

    wanted = pipeline.predict_proba(asked) if count else pipeline.predict(asked)
    np.testing.assert_allclose(found.probabilities if count else found.values, wanted, atol=1e-3)
    # Two or three rows each are enough to see more than the number beside them tells, which is a twentieth.
    truth = target[~fitted][:2_000]
    if count:
        assert (found.values == truth).mean() > 1.25 / count
    else:
        assert np.corrcoef(found.values, truth)[0, 1] > 0.6
