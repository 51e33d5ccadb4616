"""The external target finds a server that is there, and says so where none is."""

import socket

import pytest
from foreign_server import foreign_server

from harness.errors import InfrastructureError
from harness.process import LOOPBACK
from harness.targets.external import External


@pytest.mark.parametrize(
    "url",
    ["", "localhost:80", "ftp://host", "http://", "http:///path", "http://host:0", "http://host:port", "http://a b"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="is an address such as"):
        External(url=url)


@pytest.mark.parametrize("url", ["http://user:secret@host/", "http://host/#part"])
def test_what_would_be_recorded_and_not_sent_is_refused(url):
    with pytest.raises(ValueError, match="no user, password or fragment"):
        External(url=url)


@pytest.mark.parametrize("url", ["http://host/v2", "http://host?x=1"])
def test_with_a_model_an_address_is_scheme_host_and_port(url):
    with pytest.raises(ValueError, match="scheme, host and port"):
        External(url=url, model="m")


@pytest.mark.parametrize(
    ("rest", "path"), [("", "/"), ("/score", "/score"), ("/a/b?x=1&y=2", "/a/b?x=1&y=2"), ("?x=1", "/?x=1")]
)
def test_without_a_model_requests_go_to_the_whole_address(servable, rest, path):
    with socket.create_server((LOOPBACK, 0)) as there:
        url = f"http://{LOOPBACK}:{there.getsockname()[1]}"
        with External(url=url + rest).serve(servable) as endpoint:
            assert (endpoint.url, endpoint.infer_path) == (url, path)


def test_what_is_no_path_of_a_server_over_http_is_refused():
    for url, ready_path in (("http://host/", "ping"), ("https://host/", "/ping")):
        with pytest.raises(ValueError, match="`ready_path` is a path such as /ping"):
            External(url=url, ready_path=ready_path)


def test_a_server_that_never_says_that_it_is_ready_is_an_error(servable):
    with foreign_server() as server:
        with External(url=f"{server.url}/score", ready_path="/get").serve(servable) as endpoint:
            assert endpoint.infer_path == "/score"
        never = External(url=f"{server.url}/score", ready_path="/none", ready_timeout_s=0.2)
        with pytest.raises(InfrastructureError, match=r"was not ready at .*/none within"), never.serve(servable):
            pytest.fail("entered")


def test_a_server_that_is_not_there_is_an_error(servable):
    with socket.create_server((LOOPBACK, 0)) as sock:
        port = sock.getsockname()[1]
    absent = External(url=f"http://{LOOPBACK}:{port}", model="m", ready_timeout_s=0.2)

    with pytest.raises(InfrastructureError, match=f"The server at .*{port} was not ready"), absent.serve(servable):
        pytest.fail("entered")
    unknown = External(url=f"https://{LOOPBACK}:{port}/score", ready_timeout_s=0.2)
    with pytest.raises(InfrastructureError, match=f"The server at .*{port} cannot be reached"), unknown.serve(servable):
        pytest.fail("entered")
