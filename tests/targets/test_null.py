"""The null target tells requests apart, whatever way their bytes arrive."""

import dataclasses
import socket
from urllib.parse import urlsplit

import pytest

from harness.process import LOOPBACK
from harness.targets.null import Null

POST = b"POST /v2/models/any/infer HTTP/1.1\r\nhost: here\r\nContent-Length: 7\r\n\r\n{...:1}"
GET = b"GET /anything HTTP/1.1\r\nhost: here\r\n\r\n"


@pytest.fixture(scope="module")
def port(bundle, tmp_path_factory):
    from harness.ports import Servable

    log = tmp_path_factory.mktemp("null") / "log"
    servable = Servable(entry="", bundle=None, runtime=None, model="any", replicas=1, cores=(), log=log)
    with Null().serve(servable) as endpoint:
        yield urlsplit(endpoint.url).port


def answers(port, *parts, count):
    """What arrives for some bytes, sent part by part, until `count` answers or the end."""
    with socket.create_connection((LOOPBACK, port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            sock.sendall(part)
        received = b""
        while received.count(b"HTTP/1.1 ") < count or received.count(b"}") < count:
            arrived = sock.recv(65536)
            if not arrived:
                break
            received += arrived
        return received


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        ([POST], 1),
        ([GET], 1),
        ([POST * 3], 3),
        ([GET, POST, GET], 3),
        ([POST[:20], POST[20:70], POST[70:]], 1),
        ([bytes([byte]) for byte in POST + GET], 2),
        ([POST + GET[:10], GET[10:]], 2),
    ],
    ids=["post", "get", "three at once", "mixed", "in pieces", "byte by byte", "one and a half"],
)
def test_every_request_has_one_answer(port, parts, count):
    received = answers(port, *parts, count=count)

    assert received.count(b"HTTP/1.1 200 OK\r\n") == count
    assert received.count(b'{"model_name":"null","outputs":[]}') == count


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 70_000, b"431"),
    ],
)
def test_what_it_cannot_tell_apart_it_refuses_and_hangs_up(port, sent, status):
    received = answers(port, sent, count=2)

    assert received.startswith(b"HTTP/1.1 " + status)


def test_its_parameters_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Null().port = 1
