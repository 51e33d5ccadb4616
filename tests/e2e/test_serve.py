"""`harness serve` as a user meets it: what it prints can be used as it stands, and what its server logs is seen."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton
from commands import started

import harness.targets.asgi as asgi
from harness.clock import SystemClock
from harness.errors import ExitCode, InfrastructureError, IntegrityError
from harness.pipeline.serve import served, wait_for_its_end
from harness.process import LOOPBACK
from harness.records.candidate import Column, Signature
from harness.records.rows import Batch
from harness.records.server import ServerSettings
from harness.serving.protocol import decode_response, encode_request
from harness.space.build import build
from harness.space.preprocess import to_batch
from harness.stages.export import exported, loaded
from harness.store.bundle import read_bundle, write_bundle
from tests.bundles import candidate_of

COLUMNS = (Column(name="height", kind="number"), Column(name='it\'s "named"', kind="category"))
SIGNATURE = Signature(task="binary", columns=COLUMNS, classes=("no", "yes"))
RUNTIME = "sklearn_native"


@pytest.fixture(scope="module")
def rows() -> Batch:
    random = np.random.default_rng(3)
    values = {COLUMNS[0].name: random.normal(size=60), COLUMNS[1].name: random.choice(["$HOME", "isn't"], 60)}
    return to_batch(pd.DataFrame(values), COLUMNS)


@pytest.fixture(scope="module")
def bundle(rows: Batch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a candidate whose example is its first row, with all that a shell has a meaning for."""
    frame = pd.DataFrame({COLUMNS[0].name: rows.numbers[:, 0], COLUMNS[1].name: rows.texts[:, 0]})
    pipeline = build({"family": "logistic"}, SIGNATURE, 1).fit(frame, (frame["height"] > 0).astype(int))
    files, artifacts = exported(pipeline, SIGNATURE, rows)
    folder = tmp_path_factory.mktemp("candidates") / "c1"
    write_bundle(
        folder,
        candidate_of("c1", "logistic", SIGNATURE, artifacts),
        files,
        encode_request(rows.take(slice(1)), SIGNATURE),
    )
    return folder


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_what_it_prints_asks_it_and_it_answers_as_the_model_does(
    bundle: Path, rows: Batch, nothing_left: Callable[[], list[str]]
) -> None:
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    with started(["serve", str(bundle), "--runtime", RUNTIME, "--port", str(port)]) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == f"http://{LOOPBACK}:{port}/v2/models/c1/infer\n"
        told = []
        while "Ctrl-C ends it." not in "".join(told[-1:]):
            told.append(process.stderr.readline())
            assert told[-1], f"it ended: {told}"
        assert told[0] == 'c1: binary, from height (number), it\'s "named" (category).\n'
        assert told[1] == "  It answers a label and probabilities of no, yes.\n"
        line = told[2].removeprefix("  Ask it: ")
        asked = subprocess.run(
            ["sh", "-c", line], env={**os.environ, "no_proxy": LOOPBACK}, capture_output=True, check=True
        )
        given = [triton.InferInput(COLUMNS[0].name, [1], "FP64"), triton.InferInput(COLUMNS[1].name, [1], "BYTES")]
        given[0].set_data_from_numpy(rows.numbers[:1, 0])
        given[1].set_data_from_numpy(rows.texts[:1, 0].astype(object))
        client = triton.InferenceServerClient(f"{LOOPBACK}:{port}")
        to_triton = client.infer("c1", given).as_numpy("probabilities")
        client.close()
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)
    wanted = loaded(bundle, RUNTIME)[1](rows.take(slice(1)))
    found = decode_response(asked.stdout, SIGNATURE)
    assert np.array_equal(found.values, wanted.values)
    assert np.array_equal(found.probabilities, wanted.probabilities)
    assert np.array_equal(to_triton, wanted.probabilities)
    assert (process.returncode, rest) == (ExitCode.GOOD, ("", "Stopping.\n"))
    assert nothing_left() == []


FAILING = """
import sys
import harness.server as server

usual = server.loaded

def loaded(bundle, runtime):
    candidate, predict = usual(bundle, runtime)
    def one_row(batch):
        if len(batch) > 1:
            raise ZeroDivisionError("of two rows")
        return predict(batch)
    return candidate, one_row

server.loaded = loaded
sys.exit(server.main())
"""
"""A server whose model answers its example, and fails on more."""


def test_what_the_server_logs_is_told_and_no_file_is_named_that_is_gone(
    bundle: Path, rows: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = asgi.child_servers
    monkeypatch.setattr(
        asgi, "child_servers", lambda command, **more: usual([sys.executable, "-c", FAILING, *command[3:]], **more)
    )
    told: list[str] = []
    with served([str(bundle)], "asgi", RUNTIME, 1, {}, ServerSettings(), told.append) as server:
        endpoint = server.endpoint
        body = encode_request(rows.take(slice(2)), SIGNATURE)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open(f"{endpoint.url}{endpoint.infer_path}", body, timeout=30)
        with refused.value as answer:
            assert (answer.code, b"the server's log says why" in answer.read()) == (500, True)
        os.kill(endpoint.processes[0], signal.SIGKILL)
        with pytest.raises(InfrastructureError, match=r"ended by signal SIGKILL while it was in use\.$"):
            wait_for_its_end(server, SystemClock())
        assert "ZeroDivisionError: of two rows" in told
        before = list(told)
    assert told == before, "no line is told twice"


def test_another_minor_version_is_refused_before_anything_is_started(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = read_bundle(bundle)
    older = tuple(one.model_copy(update={"made_with": {"scikit-learn": "1.2.3"}}) for one in candidate.artifacts)
    files = {str(one.file): (bundle / str(one.file)).read_bytes() for one in older}
    write_bundle(tmp_path / "c1", candidate.model_copy(update={"artifacts": older}), files)
    monkeypatch.setattr(asgi, "child_servers", lambda *_, **__: pytest.fail("started"))
    asked = ([str(tmp_path / "c1")], "asgi", RUNTIME, 1, {}, ServerSettings(), print)
    with pytest.raises(IntegrityError, match=r"was written by scikit-learn 1\.2\.3, and here is"), served(*asked):
        pytest.fail("entered")
