"""A server of the user's own is asked once, and what stands between it and a load is said."""

import socket
import ssl
from pathlib import Path

import pytest
import trustme
from foreign_server import TOKEN, foreign_server

from harness.errors import InfrastructureError, UsageError
from harness.records.candidate import Endpoint
from harness.records.load import JSON_POST, Head
from harness.stages.probe import first_answer, stated_by


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with foreign_server(context) as server:
        yield server


@pytest.fixture(scope="module")
def plain():
    with foreign_server() as server:
        yield server


def at(server, path: str) -> Endpoint:
    return Endpoint(url=server.url, model="", path=path, startup_s=0.0)


def test_a_success_is_given_back(plain):
    assert first_answer(at(plain, "/score?a=1"), JSON_POST, b"{}") == b'{"score": 0.5}'
    method, path, headers, body = plain.seen[-1]
    assert (method, path, body) == ("POST", "/score?a=1", b"{}")
    assert headers["Content-Type"] == "application/json"


def test_a_get_has_no_body(plain):
    assert first_answer(at(plain, "/get"), Head(method="GET", headers=()), b"") == b"here"
    assert "Content-Length" not in plain.seen[-1][2]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/secret", "answered 401 Unauthorized .* give a bearer token or a header. It said: 'who are you"),
        ("/moved", "answered 301 Moved Permanently .* a load follows nobody"),
        ("/broken", "answered 500 Internal Server Error .*It said: '<html>a stack trace"),
        ("/none", "answered 404 Not Found .* Are path and method right"),
    ],
)
def test_what_is_no_success_is_refused_with_what_was_said(plain, path, said):
    with pytest.raises(InfrastructureError, match=said):
        first_answer(at(plain, path), JSON_POST, b"{}")


def test_a_token_opens_the_door(plain):
    head = Head(headers=(("Authorization", f"Bearer {TOKEN}"),))
    assert first_answer(at(plain, "/secret"), head, b"{}") == b"welcome"


def test_a_certificate_is_trusted_by_its_file_alone(secured, authority, tmp_path: Path):
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    assert first_answer(at(secured, "/score"), Head(ca_file=str(ca_file)), b"{}") == b'{"score": 0.5}'
    with pytest.raises(InfrastructureError, match=r"is not trusted: .* --ca-file"):
        first_answer(at(secured, "/score"), JSON_POST, b"{}")


def test_a_file_without_certificates_is_refused(secured, tmp_path: Path):
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(UsageError, match=r"ca\.pem cannot be used"):
        first_answer(at(secured, "/score"), Head(ca_file=str(tmp_path / "ca.pem")), b"{}")


def test_the_wrong_kind_of_door_is_told(secured, plain):
    wrong = plain.url.replace("http:", "https:")
    with pytest.raises(InfrastructureError, match=r"does not speak TLS as it should.*Is it plain http\?"):
        first_answer(Endpoint(url=wrong, model="", path="/score", startup_s=0.0), JSON_POST, b"{}")
    wrong = secured.url.replace("https:", "http:")
    with pytest.raises(InfrastructureError, match=r"gave no answer .* Does it want https\?"):
        first_answer(Endpoint(url=wrong, model="", path="/score", startup_s=0.0), JSON_POST, b"{}")


def test_nobody_there_is_told():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(InfrastructureError, match="gave no answer to the first request: ConnectionRefusedError"):
        first_answer(Endpoint(url=url, model="", path="/", startup_s=0.0), JSON_POST, b"{}")


def test_a_server_that_speaks_another_protocol_states_no_inputs(plain):
    with pytest.raises(InfrastructureError, match="answered 404 Not Found to GET /v2/models/m"):
        stated_by(Endpoint(url=plain.url, model="m", startup_s=0.0), JSON_POST, "v2")


def test_a_success_that_is_no_answer_of_the_protocol_is_refused(plain):
    with pytest.raises(InfrastructureError, match="is no answer of the protocol mlflow: it has no `predictions`"):
        first_answer(at(plain, "/score"), JSON_POST, b"{}", "mlflow")
