"""A bundle in every runtime, written once, and what is needed to ask a server."""

import hashlib
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
import pytest

from harness.ports import Servable
from harness.records.candidate import Artifact, Column, Signature
from harness.runtimes.onnx import Onnx
from harness.runtimes.sklearn_native import SklearnNative
from harness.serving.protocol import encode_request
from harness.space.build import build
from harness.space.preprocess import to_batch
from harness.store.bundle import write_bundle
from tests.bundles import candidate_of

COLUMNS = (
    Column(name="height", kind="number"),
    Column(name="colour", kind="category"),
    Column(name="sold", kind="date"),
    Column(name="new", kind="boolean"),
)
SIGNATURE = Signature(task="binary", columns=COLUMNS, classes=("no", "yes"))


@pytest.fixture(scope="session")
def frame():
    rng = np.random.default_rng(11)
    made = pd.DataFrame(
        {
            "height": rng.normal(size=120),
            "colour": rng.choice(["red", "green"], 120),
            "sold": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 300, 120), unit="D"),
            "new": rng.random(120) < 0.5,
        }
    )
    made.loc[::9, "height"] = np.nan
    made.loc[::8, "sold"] = pd.NaT
    return made


@pytest.fixture(scope="session")
def bundle(frame, tmp_path_factory):
    """Folder of a candidate with both artifacts, and a row to show."""
    pipeline = build({"family": "logistic"}, SIGNATURE, 1).fit(frame, (frame["height"].fillna(0) > 0).astype(int))
    sample = to_batch(frame[:3], COLUMNS)
    runtimes = {"sklearn_native": SklearnNative(), "onnx": Onnx()}
    files = {made.artifact: made.export(pipeline, SIGNATURE, sample).data for made in runtimes.values()}
    artifacts = tuple(
        Artifact(
            runtime=name,
            file=made.artifact,
            sha256=hashlib.sha256(files[made.artifact]).hexdigest(),
            size_bytes=len(files[made.artifact]),
        )
        for name, made in runtimes.items()
    )
    folder = tmp_path_factory.mktemp("candidates") / "c1"
    write_bundle(
        folder,
        candidate_of("c1", "logistic", SIGNATURE, artifacts),
        files,
        encode_request(to_batch(frame[:1], COLUMNS), SIGNATURE),
    )
    return folder


@pytest.fixture(scope="session")
def batch(frame):
    return to_batch(frame[:20], COLUMNS)


@pytest.fixture(scope="session")
def signature():
    return SIGNATURE


@pytest.fixture
def servable(bundle, tmp_path):
    return Servable(
        entry="harness.server",
        bundle=bundle,
        runtime="onnx",
        model="c1",
        replicas=1,
        cores=(),
        log=tmp_path / "server.log",
    )


@pytest.fixture(scope="session")
def ask():
    """Status and body of a request, with a body (POST) or without (GET)."""

    def asked(url, body=None):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(urllib.request.Request(url, data=body), timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    return asked
