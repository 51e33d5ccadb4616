"""Tables of OpenML: fetched once, from a server that answers as OpenML did, and then read without any."""

import gzip
import importlib.resources
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets.tests.data.openml as recorded
from sklearn.datasets import load_iris

from harness.errors import UsageError
from harness.records.table import DataPlan
from harness.stages.data import Table, load_table
from harness.stages.openml import openml_cache, openml_table

IRIS = {
    "/api/v1/json/data/61": "api-v1-jd-61.json.gz",
    "/api/v1/json/data/features/61": "api-v1-jdf-61.json.gz",
    "/api/v1/json/data/qualities/61": "api-v1-jdq-61.json.gz",
    "/data/v1/download/61/iris.arff": "data-v1-dl-61.arff.gz",
}
"""What is asked for, and OpenML's answers, as scikit-learn recorded them for tests of its own."""


class Here(BaseHTTPRequestHandler):
    """Answers as OpenML: with what was recorded, and where there is nothing with its own error."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = IRIS.get(self.path)
        body = gzip.compress(b'{"error":{"code":"111","message":"Unknown dataset"}}')
        if name is not None:
            body = importlib.resources.files(recorded).joinpath("id_61", name).read_bytes()
        self.send_response(412 if name is None else 200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of our own, in which nothing is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return openml_cache()


def leads_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Have every request for https://www.openml.org go to a port of this machine, unencrypted."""

    class Turned(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            assert req.host == "www.openml.org"
            turned = urllib.request.Request(f"http://127.0.0.1:{port}{req.selector}", headers=dict(req.header_items()))
            return self.parent.open(turned)

    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(Turned))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server of OpenML's answers; what it was asked for."""
    paths: list[str] = []
    kind = type("HereNow", (Here,), {"asked": paths})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    leads_to(monkeypatch, server.server_port)
    yield paths
    server.shutdown()
    server.server_close()
    thread.join()


def iris(**plan: Any) -> Table:
    return load_table(DataPlan.model_validate({"source": "openml:61", **plan}), Path())


def test_a_data_set_is_fetched_once(asked: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = iris()
    assert set(asked) == set(IRIS)
    asked.clear()
    leads_to(monkeypatch, 1)  # where nobody listens
    again = iris()
    assert asked == []
    assert again.sha256 == first.sha256
    assert (cache / "openml").is_dir()


def test_it_is_the_table_it_is_known_as(asked: list[str]) -> None:
    table = iris()
    assert table.signature.classes == ("Iris-setosa", "Iris-versicolor", "Iris-virginica")
    assert [column.name for column in table.signature.columns] == [
        "sepallength",
        "sepalwidth",
        "petallength",
        "petalwidth",
    ]
    # UCI's copy, which OpenML has, differs from Fisher's table in three cells of two rows.
    assert int((table.frame.to_numpy() != load_iris().data).sum()) <= 3
    assert list(table.target) == list(load_iris().target)


def test_the_plan_may_name_another_target(asked: list[str]) -> None:
    table = iris(target="petalwidth")
    assert table.signature.task == "regression"
    assert "class" in table.signature.text_columns


def test_a_target_that_it_does_not_have_is_told_with_the_nearest(asked: list[str]) -> None:
    with pytest.raises(UsageError, match="'petalwidht', which the table openml:61 does not have; did you mean petalw"):
        iris(target="petalwidht")


def test_without_a_network_and_a_cache_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    leads_to(monkeypatch, 1)
    with pytest.raises(UsageError, match=f"`openml:61` is not in the cache {cache} and cannot be fetched") as refused:
        iris()
    assert "XDG_CACHE_HOME" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_data_set_that_does_not_fit_into_the_memory_given_is_refused_before_its_rows_are_fetched(
    asked: list[str],
) -> None:
    told = r"`openml:61` has about 150 rows of 5 columns.*about 68\.3 KiB, and 58\.6 KiB are the limit given"
    with pytest.raises(UsageError, match=told):
        load_table(DataPlan(source="openml:61"), Path(), memory_bytes=60_000)
    assert not [path for path in asked if path.endswith(".arff")]
    assert len(load_table(DataPlan(source="openml:61"), Path(), memory_bytes=80_000).frame) == 150


def test_a_number_that_is_no_data_set_is_told(asked: list[str]) -> None:
    with pytest.raises(UsageError, match="`openml:99999999`"):
        openml_table("99999999", "target")


@pytest.mark.parametrize("number", ["iris", "", "0", "-1", "6.1"])
def test_a_name_is_no_number(number: str, asked: list[str]) -> None:
    with pytest.raises(UsageError, match="names no data set: OpenML's are numbered"):
        openml_table(number, "target")
    assert asked == []
