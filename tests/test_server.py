"""The entry of a serving process: a fresh process answers as the one that fitted, and refuses what was changed."""

import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from harness.errors import ExitCode, NotConvertibleError
from harness.records.candidate import Artifact, Column, Signature
from harness.records.rows import ROWS_LIMIT
from harness.runtimes.onnx import Onnx
from harness.runtimes.sklearn_native import SklearnNative
from harness.server import main
from harness.serving.protocol import decode_response, encode_request
from harness.space.build import build
from harness.space.families import defaults, families_for
from harness.space.preprocess import to_batch
from harness.stages.export import exported, loaded
from harness.stages.validate import computed, reload_check
from harness.store.bundle import read_bundle, write_bundle
from tests.bundles import candidate_of

FRAME = pd.DataFrame(np.random.default_rng(2).normal(size=(60, 3)), columns=list("abc"))
FRAME["c"] = 1_760_000_000 + 3600 * FRAME["c"]
"""Seconds since 1970: with floats alone, a served answer would differ from the fitted pipeline's by a hundredth."""
SIGNATURE = Signature(task="regression", columns=tuple(Column(name=name, kind="number") for name in "abc"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The fitted pipeline, its bundle, and what it says of the table."""
    pipeline = build({"family": "ridge"}, SIGNATURE, 1).fit(FRAME, FRAME["a"] * 3 + (FRAME["c"] - 1_760_000_000) / 3600)
    runtimes = {"sklearn_native": SklearnNative(), "onnx": Onnx()}
    batch = to_batch(FRAME, SIGNATURE.columns)
    forms = {name: made.export(pipeline, SIGNATURE, batch) for name, made in runtimes.items()}
    assert forms["onnx"].precision == "float64"
    files = {made.artifact: forms[name].data for name, made in runtimes.items()}
    artifacts = [
        Artifact(
            runtime=name,
            file=made.artifact,
            sha256=hashlib.sha256(files[made.artifact]).hexdigest(),
            size_bytes=len(files[made.artifact]),
            precision=forms[name].precision,
            note=forms[name].note,
        )
        for name, made in runtimes.items()
    ]
    folder = tmp_path_factory.mktemp("candidates") / "c1"
    write_bundle(
        folder,
        candidate_of("c1", "ridge", SIGNATURE, (*artifacts, Artifact(runtime="abacus", reason="too slow"))),
        files,
    )
    return folder, pipeline.predict(FRAME), batch


def predict(folder, runtime, body):
    command = [sys.executable, "-m", "harness.server", "predict", "--bundle", str(folder), "--runtime", runtime]
    return subprocess.run(command, input=body, capture_output=True, timeout=120)


@pytest.mark.parametrize(("runtime", "apart"), [("sklearn_native", 0.0), ("onnx", 1e-4)])
def test_a_fresh_process_answers_as_the_fitted_pipeline_did(written, runtime, apart):
    folder, wanted, batch = written

    answered = predict(folder, runtime, encode_request(batch, SIGNATURE))

    assert answered.returncode == ExitCode.GOOD, answered.stderr.decode()
    found = decode_response(answered.stdout, SIGNATURE)
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=apart)


def test_each_line_is_a_request_and_the_first_bad_one_is_named(written):
    folder, wanted, batch = written
    requests = [encode_request(batch.take(slice(start, start + 20)), SIGNATURE) for start in (0, 20, 40)]

    answered = predict(folder, "onnx", b"\n".join(requests))

    parts = [decode_response(line, SIGNATURE).values for line in answered.stdout.splitlines()]
    assert [len(part) for part in parts] == [20, 20, 20]
    np.testing.assert_allclose(np.concatenate(parts), wanted, rtol=0, atol=1e-4)
    refused = predict(folder, "onnx", b"\n".join([*requests[:2], b"{}"]))
    assert refused.returncode == ExitCode.USAGE
    assert b"in line 3 of stdin" in refused.stderr


def test_a_holdout_of_more_rows_than_a_request_takes_is_compared_whole(written):
    folder, _, batch = written
    many = batch.take(np.arange(ROWS_LIMIT + 500) % len(batch))
    candidate, compute = loaded(folder, "onnx")

    check = reload_check(candidate, many, computed(compute, many), "onnx", "harness.server", folder)

    assert check.passed, check.detail
    wrong = computed(compute, many)
    wrong.values[ROWS_LIMIT + 400] += 1
    assert not reload_check(candidate, many, wrong, "onnx", "harness.server", folder).passed


@pytest.mark.parametrize(
    ("runtime", "body", "code", "said"),
    [
        ("onnx", b"{}", ExitCode.USAGE, "inputs: must be a list"),
        ("abacus", b"", NotConvertibleError.exit_code, "too slow"),
        ("slide_rule", b"", ExitCode.USAGE, "was not made for the runtime"),
    ],
)
def test_what_cannot_be_answered_ends_with_the_errors_own_status(written, runtime, body, code, said):
    answered = predict(written[0], runtime, body)

    assert (answered.returncode, answered.stdout) == (code, b"")
    assert said in answered.stderr.decode()
    assert "Traceback" not in answered.stderr.decode()


def test_a_changed_file_is_not_even_loaded(written, tmp_path, capsys):
    folder = tmp_path / "c1"
    folder.mkdir()
    for path in written[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    changed = bytearray((folder / "model.onnx").read_bytes())
    changed[len(changed) // 2] ^= 1
    (folder / "model.onnx").write_bytes(changed)

    for runtime in ("onnx", "sklearn_native"):
        assert main(["predict", "--bundle", str(folder), "--runtime", runtime]) == ExitCode.INTEGRITY
        assert "model.onnx is not the file that was written" in capsys.readouterr().err


WATCHED = """
import asyncio, sys
from pathlib import Path

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"pickle was reached for {arguments}")

sys.addaudithook(refuse)
from harness.records.server import ServerSettings
from harness.server import application

runtime, body, *folders = sys.argv[1:]
bundles = {Path(folder).name: Path(folder) for folder in folders}
app = application(bundles, runtime, ServerSettings())
sent = []

async def ask():
    async def receive():
        return {"type": "http.request", "body": body.encode(), "more_body": False}

    async def send(message):
        sent.append(message)

    for name in bundles:
        await app({"type": "http", "method": "POST", "path": f"/v2/models/{name}/infer", "headers": []}, receive, send)

asyncio.run(ask())
statuses = [message["status"] for message in sent if "status" in message]
sys.exit(0 if statuses == [200] * len(bundles) else f"answered {sent}")
"""


@pytest.fixture(scope="module")
def of_every_family(tmp_path_factory):
    """A bundle of each family, by the runtimes that it has a form in."""
    folder, batch, found = tmp_path_factory.mktemp("families"), to_batch(FRAME, SIGNATURE.columns), {}
    for family in families_for("regression"):
        pipeline = build(defaults(family), SIGNATURE, 1).fit(FRAME, FRAME["a"])
        files, artifacts = exported(pipeline, SIGNATURE, batch)
        write_bundle(folder / family.name, candidate_of(family.name, family.name, SIGNATURE, artifacts), files)
        for artifact in artifacts:
            if artifact.file is not None:
                found.setdefault(artifact.runtime, []).append(folder / family.name)
    return found


def watched(runtime, bundles):
    body = encode_request(to_batch(FRAME[:2], SIGNATURE.columns), SIGNATURE).decode()
    command = [sys.executable, "-c", WATCHED, runtime, body, *map(str, bundles)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("runtime", ["sklearn_native", "onnx"])
def test_no_pickle_is_read_in_a_serving_process(written, runtime):
    """Whatever a file holds: `pickle.find_class` is what every unpickling that builds anything has to pass."""
    done = watched(runtime, [written[0]])
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["sklearn_native", "onnx"])
def test_no_pickle_is_read_of_any_family(of_every_family, runtime):
    bundles = of_every_family[runtime]
    assert len(bundles) == len(families_for("regression"))
    done = watched(runtime, bundles)
    assert done.returncode == 0, done.stderr


def test_the_watch_on_pickle_sees_one():
    code = (
        WATCHED.split("from harness")[0]
        + "import collections, pickle; pickle.loads(pickle.dumps(collections.Counter()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "pickle was reached" in done.stderr


def test_a_file_of_another_minor_version_is_refused_with_the_reason(written, tmp_path, capsys):
    candidate = read_bundle(written[0])
    files = {artifact.file: (written[0] / artifact.file).read_bytes() for artifact in candidate.artifacts[:2]}
    older = [one.model_copy(update={"made_with": {"scikit-learn": "1.2.3"}}) for one in candidate.artifacts[:2]]
    folder = tmp_path / "c1"
    write_bundle(folder, candidate.model_copy(update={"artifacts": tuple(older)}), files)
    assert main(["predict", "--bundle", str(folder), "--runtime", "sklearn_native"]) == ExitCode.INTEGRITY
    assert "was written by scikit-learn 1.2.3" in capsys.readouterr().err
