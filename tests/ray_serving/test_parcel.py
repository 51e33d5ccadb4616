"""Candidates on their way to another node: the same bytes, and nothing left of them there."""

import os
from pathlib import Path

import pytest

import harness
from harness.errors import InfrastructureError, UsageError
from harness.ports import Servable
from harness.ray_serving.below import Below
from harness.ray_serving.parcel import application, packed
from harness.records.server import ServerSettings


@pytest.fixture
def servable(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "signature.json").write_text(name)
    return Servable(
        entry="parcel_entry",
        bundle=tmp_path / "one",
        runtime="onnx",
        model="m",
        replicas=1,
        cores=(),
        log=tmp_path / "log",
        beside={"m2": tmp_path / "two"},
        settings=ServerSettings(token_env="PARCEL_TOKEN", batch_requests=4),
    )


ENTRY = """
import os
def application(bundles, runtime, settings, *told):
    files = {name: (folder / "signature.json").read_text() for name, folder in bundles.items()}
    return files, runtime, settings, list(bundles.values()), os.environ["PARCEL_TOKEN"], told
"""


def test_a_replica_finds_the_files_and_the_token_and_leaves_no_file(servable, tmp_path, monkeypatch):
    (tmp_path / "parcel_entry.py").write_text(ENTRY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PARCEL_TOKEN", "secret")
    parcel = {**packed(servable), "address": "http://here", "replica": "a1"}
    monkeypatch.setenv("PARCEL_TOKEN", "of the node")
    settings = servable.settings.model_dump_json()
    files, runtime, told, folders, token, where = application(parcel, "parcel_entry", "onnx", settings, "The node")
    assert (files, runtime, told, token) == ({"m": "one", "m2": "two"}, "onnx", servable.settings, "secret")
    assert where == ("http://here", "a1")
    assert not any(Path(folder).exists() for folder in folders)
    assert os.environ["PARCEL_TOKEN"] == "secret"


def test_a_token_that_is_not_here_and_a_node_with_another_harness_are_refused(servable, monkeypatch):
    monkeypatch.delenv("PARCEL_TOKEN", raising=False)
    with pytest.raises(UsageError, match="PARCEL_TOKEN holds no token"):
        packed(servable)
    monkeypatch.setenv("PARCEL_TOKEN", "secret")
    parcel = {**packed(servable), "version": "9.9"}
    with pytest.raises(InfrastructureError, match=rf"The node has harness {harness.__version__}, and this is 9\.9"):
        application(parcel, "parcel_entry", "onnx", "{}", "The node")


@pytest.mark.parametrize(
    ("path", "root", "seen"),
    [("/h/v2", "/h", "/v2"), ("/h", "/h", "/"), ("/v2", "", "/v2")],
)
def test_below_a_prefix_an_application_sees_its_own_paths(path, root, seen):
    asked = []

    async def app(scope, receive, send):
        asked.append((scope["path"], scope["root_path"]))

    call = Below(app)({"type": "http", "path": path, "root_path": root}, None, None)
    with pytest.raises(StopIteration):
        call.send(None)
    assert asked == [(seen, root)]
