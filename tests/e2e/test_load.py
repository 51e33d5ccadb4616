"""`harness load`, as a user types it, against a server that is not ours."""

import json
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from commands import FINISHED, harness
from foreign_server import TOKEN, Server, foreign_server

from harness.cli.main import main
from harness.records.load import Outcome
from harness.store.database import Database
from harness.store.exchanges import read_exchanges

Here = Callable[..., tuple[int, str]]

ROWS = "a,b\n" + "".join(f"{row},x\n" for row in range(50))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with foreign_server() as running:
        yield running


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    """The command in this process, where it only has to say no: its exit status, and what it says."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str]:
        status = main(list(arguments))
        return status, capsys.readouterr().err

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    (tmp_path / "rows.csv").write_text(ROWS)
    return str(tmp_path / "rows.csv")


@pytest.mark.alone
def test_a_rate_is_kept_and_told(
    server: Server, rows: str, tmp_path: Path, nothing_left: Callable[[], list[str]]
) -> None:
    url, results = f"{server.url}/score?v=2", str(tmp_path / "results")
    server.seen.clear()
    done = harness("load", url, "--payload", rows, "--rate", "150", "--duration", "4", "--header", "X-Tenant: a",
                   "--run-id", "one", "--results", results)  # fmt: skip
    assert done.returncode in FINISHED, done.stderr
    assert url in done.stdout
    assert nothing_left() == []
    folder = tmp_path / "results" / "one"
    with Database.read(folder / "run.db") as database:
        ledger = database.ledger()
    (entry,) = ledger.steps
    columns = read_exchanges(folder / "exchanges" / f"{entry.id}.parquet")
    assert set(columns["status"]) == {200}
    assert len(columns["due_ns"]) == entry.planned == pytest.approx(150 * 4.8, rel=0.2)
    assert len(server.seen) >= entry.planned  # and those that warmed the connections
    method, path, headers, _ = server.seen[-1]
    assert (method, path) == ("POST", "/score?v=2")
    assert {key.lower(): value for key, value in headers.items()}["x-tenant"] == "a"
    assert {json.loads(body)["a"] for *_, body in server.seen} == set(range(50))
    assert (folder / "report" / "report.html").is_file()
    assert harness("verify", "one", "--results", results).returncode == 0
    assert harness("report", "one", "--results", results).returncode == 0


@pytest.mark.alone
def test_a_secured_server_that_wants_a_token_is_loaded_and_the_token_is_kept_nowhere(
    rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    with foreign_server(context) as secured:
        done = harness("load", f"{secured.url}/secret", "--payload", rows, "--users", "3", "--duration", "2",
                       "--bearer-env", "MY_TOKEN", "--ca-file", str(tmp_path / "ca.pem"), "--json",
                       "--run-id", "one", "--results", str(tmp_path / "results"))  # fmt: skip
    assert done.returncode in FINISHED, done.stderr
    assert json.loads(done.stdout)["failures"] == {}
    folder = tmp_path / "results" / "one"
    with Database.read(folder / "run.db") as database:
        (entry,) = database.ledger().steps
    columns = read_exchanges(folder / "exchanges" / f"{entry.id}.parquet")
    assert set(columns["status"]) == {200}
    assert len(columns["status"]) > 100
    kept = [
        path for path in (tmp_path / "results").rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert kept == []


@pytest.mark.long
@pytest.mark.alone
def test_load_from_the_nodes_of_a_cluster_is_a_run_like_any_other(
    server: Server, rows: str, tmp_path: Path, ray_cluster: Any, nothing_left: Callable[[], list[str]]
) -> None:
    done = harness("load", f"{server.url}/score", "--payload", rows, "--rate", "150", "--duration", "4", "--workers",
                   "2", "--ray-address", ray_cluster.address, "--run-id", "one",
                   "--results", str(tmp_path / "results"))  # fmt: skip
    assert done.returncode in FINISHED, done.stderr
    assert nothing_left() == []
    folder = tmp_path / "results" / "one"
    with Database.read(folder / "run.db") as database:
        (entry,) = database.ledger().steps
    columns = read_exchanges(folder / "exchanges" / f"{entry.id}.parquet")
    assert set(columns["status"]) == {200}
    assert set(columns["worker"]) == {0, 1}
    nodes = {worker.node for worker in entry.generator.workers}
    assert len(nodes) == 2
    told = (folder / "report" / "report.md").read_text()
    assert all(str(node) in told for node in nodes)
    again = harness("run", "--resume", "one", "--results", str(tmp_path / "results"))
    assert again.returncode == 2
    assert "give --ray-address" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["URL/none"], 5, "answered 404 Not Found to the first request"),
        (["URL/secret", "--payload", "ROWS"], 5, "give a bearer token"),
        (["http://127.0.0.1:1/"], 5, "cannot be reached"),
        (["nonsense"], 2, "is an address such as"),
        (["URL/get", "--bearer-env", "NOT_SET_HERE"], 2, "is not set"),
        (["URL/score", "--payload", "ROWS.none"], 2, "There is no payload"),
        (["URL/score", "--payload", "ROWS", "--slo", "p99=1ms", "--users", "2"], 2, "Give --rate instead"),
        (["URL/get", "--arrivals", "gamma:-1"], 2, "gamma"),
        (["URL/get", "--method", "get it"], 2, "method"),
        (["URL/get", "--ray-address", "127.0.0.1:1"], 5, "No Ray cluster answers at 127.0.0.1:1"),
        (["URL/get", "--ray-address", "127.0.0.1:1", "--ui"], 2, "--ui shows processes of this machine"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_paragraph_and_leaves_nothing(
    here: Here, server: Server, rows: str, tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    given = [part.replace("URL", server.url).replace("ROWS", rows) for part in arguments]
    ended, told = here("load", *given, "--results", str(tmp_path / "results"))
    assert ended == status, told
    assert said in told
    assert "Traceback" not in told
    assert list((tmp_path / "results").glob("*/run.db")) == []


LOCUSTFILE = """
from locust import HttpUser, constant, task

class Someone(HttpUser):
    wait_time = constant(0.01)

    @task(9)
    def score(self):
        self.client.post("/score", json={"a": 1})

    @task
    def fail(self):
        self.client.get("/nowhere")
"""

LONG = pytest.mark.long

SHAPE = """
from locust import LoadTestShape

class Mine(LoadTestShape):
    def tick(self):
        return None
"""


@pytest.mark.alone
def test_users_of_a_locustfile_run_unchanged_and_are_recorded_like_any_load(
    server: Server, tmp_path: Path, nothing_left: Callable[[], list[str]]
) -> None:
    (tmp_path / "users.py").write_text(LOCUSTFILE)
    server.seen.clear()
    done = harness("load", server.url, "--locustfile", str(tmp_path / "users.py"), "--users", "3", "--duration", "3",
                   "--run-id", "one", "--results", str(tmp_path / "results"))  # fmt: skip
    assert done.returncode == 4, done.stderr  # every tenth request fails
    assert "Nothing can be said of" in done.stdout and "of the requests failed" in done.stdout
    assert nothing_left() == []
    folder = tmp_path / "results" / "one"
    with Database.read(folder / "run.db") as database:
        (entry,) = database.ledger().steps
    assert entry.step.label == "3 users"
    columns = read_exchanges(folder / "exchanges" / f"{entry.id}.parquet")
    counted = {status: int((columns["status"] == status).sum()) for status in (200, 404)}
    asked = [path for _, path, _, _ in server.seen]
    for status, path in ((200, "/score"), (404, "/nowhere")):
        # What is sent after the step's last second, or is open at its end, is on no record.
        assert 0.7 * asked.count(path) <= counted[status] <= asked.count(path)
    assert set(columns["outcome"][columns["status"] == 404]) == {Outcome.HTTP_ERROR}
    assert (columns["done_ns"] > columns["sent_ns"]).all()
    assert set(entry.requests) == {"POST /score", "GET /nowhere"}
    assert {entry.requests[which] for which in columns["payload"][columns["status"] == 404]} == {"GET /nowhere"}
    assert "| GET /nowhere |" in (folder / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("raise RuntimeError('broken here')", ["--users", "2"], "RuntimeError: broken here"),
        pytest.param("def f(:", ["--users", "2"], "SyntaxError", marks=LONG),
        pytest.param("import locust", ["--users", "2"], "defines no class of users", marks=LONG),
        (LOCUSTFILE + SHAPE, ["--users", "2"], "a load shape of its own (Mine)"),
        (LOCUSTFILE, ["--rate", "5"], "--locustfile needs --users"),
        pytest.param(LOCUSTFILE, ["--users", "2", "--protocol", "v2"], "the address names the model", marks=LONG),
        pytest.param(LOCUSTFILE, ["--users", "2", "--method", "PUT"], "locustfile method has no meaning", marks=LONG),
    ],
)  # fmt: skip
def test_a_locustfile_that_cannot_be_used_is_refused(
    here: Here, server: Server, tmp_path: Path, text: str, arguments: list[str], said: str
) -> None:
    (tmp_path / "users.py").write_text(text)
    ended, told = here("load", server.url, "--locustfile", str(tmp_path / "users.py"), *arguments,
                       "--results", str(tmp_path / "results"))  # fmt: skip
    assert ended == 2, told
    assert said in told
    assert list((tmp_path / "results").glob("*/run.db")) == []
