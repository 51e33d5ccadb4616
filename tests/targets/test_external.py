"""The external target finds a server that is there, and says so where none is."""

import socket

import pytest

from harness.errors import InfrastructureError
from harness.process import LOOPBACK
from harness.targets.external import External


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://host", "http://", "http://host/v2", "http://host?x=1"])
def test_an_address_is_scheme_host_and_port(url):
    with pytest.raises(ValueError, match="scheme, host and port"):
        External(url=url, model="m")


def test_a_model_has_a_name():
    with pytest.raises(ValueError, match="name of the model"):
        External(url="http://host:80")


def test_a_server_that_is_not_there_is_an_error(servable):
    with socket.create_server((LOOPBACK, 0)) as sock:
        port = sock.getsockname()[1]
    absent = External(url=f"http://{LOOPBACK}:{port}", model="m", ready_timeout_s=0.2)

    with pytest.raises(InfrastructureError, match=f"The server at .*{port} was not ready"), absent.serve(servable):
        pytest.fail("entered")
