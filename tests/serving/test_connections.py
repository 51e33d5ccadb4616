"""What connections promise to clients that send more, less or something else than one request at a time.

A real server, in a thread of the test, with limits that are soon reached.
"""

import contextlib
import socket
import threading
import time

import orjson
import pytest
import uvicorn

from harness.records.candidate import Column, Signature
from harness.records.rows import Prediction
from harness.serving.app import App
from harness.serving.connections import connection_class
from harness.serving.limits import Limits
from harness.serving.work import Model
from tests.raw_http import send_parts

SIGNATURE = Signature(task="regression", columns=(Column(name="x", kind="number"),))
LIMITS = Limits(headers_bytes=2**10, coming_bytes=2**20, send_s=3.0)
READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: h\r\n\r\n"


COMPUTED = set()


def slowly_double(batch):
    COMPUTED.add(batch.numbers[0, 0])
    if batch.numbers[0, 0] < 0:
        time.sleep(0.5)
    return Prediction(values=2 * batch.numbers[:, 0], probabilities=None)


def body(*values):
    given = {"name": "rows", "datatype": "FP64", "shape": [len(values), 1], "data": list(values)}
    return orjson.dumps({"inputs": [given]})


def post(sent, *headers, length=None):
    stated = f"content-length: {len(sent) if length is None else length}"
    lines = ["POST /v2/models/double/infer HTTP/1.1", "host: h", *headers, *([stated] if length != "" else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + sent


SLOW = body(-1.0, *[1.0] * 60)


def chunked(sent, behind=b""):
    return post(b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(sent), sent, behind), "transfer-encoding: chunked", length="")


@pytest.fixture(scope="module")
def server():
    app = App([Model("double", None, "none", SIGNATURE, slowly_double, body(1.0))], limits=LIMITS)
    config = uvicorn.Config(app, http=connection_class(app), loop="uvloop", ws="none", log_level="error")
    made = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listening]})
        thread.start()
        made.address = listening.getsockname()
        yield made
        made.should_exit = True
        thread.join()


def said(server, *parts, answers=None, pause_s=0.05):
    """What is said to these parts, sent one after the other; until so many answers are there, or the server ends it."""
    with socket.create_connection(server.address, timeout=10) as sock:
        send_parts(sock, parts, pause_s)
        found = b""
        with contextlib.suppress(OSError):
            while answers is None or found.count(b"HTTP/1.1 ") < answers or not found.endswith(b"}"):
                piece = sock.recv(65_536)
                if not piece:
                    break
                found += piece
    return found


def statuses(answer):
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_the_end_of_one_request_is_not_counted_as_the_head_of_the_next(server):
    together = post(body(1.0)) * 20
    assert len(together) > 2 * LIMITS.headers_bytes
    cut = len(together) - len(post(body(1.0))) + 40
    assert statuses(said(server, together[:cut], together[cut:], answers=20)) == [200] * 20


def test_headers_behind_a_body_have_a_bound_too(server):
    few, many = (b"".join(b"x-%d: 1\r\n" % number for number in range(count)) for count in (3, 10**5))
    assert statuses(said(server, chunked(body(1.0), few), answers=1)) == [200]
    # More than one read takes: what comes together with the body is not looked at.
    begun = chunked(body(1.0))[:-2]
    assert statuses(said(server, begun, many)) == [431]
    assert statuses(said(server, begun, b"x: " + b"y" * 10**6)) == [431]


def test_requests_that_wait_for_the_one_before_them_are_not_all_taken_in(server):
    many = 2000
    with socket.create_connection(server.address, timeout=10) as sock:
        sock.sendall(post(SLOW) + READY * many)
        time.sleep(0.2)  # while the first is computed
        (connection,) = server.server_state.connections
        assert 1 < len(connection.pipeline) < many / 4
        found = b""
        while found.count(b"HTTP/1.1 200 ") < many + 1 or not found.endswith(b"}"):
            found += sock.recv(65_536)
    assert found.index(b"value") < found.index(b"ready")


def test_who_takes_no_answer_is_let_go(server):
    large = post(body(*(number / 7 for number in range(10_000))))
    with socket.create_connection(server.address, timeout=5) as sock:
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(large)
        ended_s = time.monotonic() + 30
        while server.server_state.connections and time.monotonic() < ended_s:
            time.sleep(0.05)
        assert not server.server_state.connections
    assert statuses(said(server, READY, answers=1)) == [200]


UPGRADE = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)


@pytest.mark.parametrize("upgrade", [UPGRADE, ("connection: upgrade", "UPGRADE: websocket")], ids=["h2c", "websocket"])
def test_a_request_for_another_protocol_is_answered_in_this_one(server, upgrade):
    whole = post(body(1.5), *upgrade)
    head = whole[: -len(body(1.5))]
    in_chunks = chunked(body(1.5)).replace(b"host: h\r\n", b"host: h\r\n" + "\r\n".join(upgrade).encode() + b"\r\n")
    for parts in (
        [whole],
        [head, body(1.5)],
        [whole[:-5], whole[-5:]],
        [in_chunks],
        [in_chunks[:-12], in_chunks[-12:]],
    ):
        answer = said(server, *parts, READY, answers=2)
        assert statuses(answer) == [200, 200] and b'"data":[3.0]' in answer


def test_the_body_of_such_a_request_is_not_taken_for_a_request(server):
    head = post(READY, *UPGRADE)[: -len(READY)]
    assert statuses(said(server, head, READY, READY, answers=2)) == [400, 200]


@pytest.mark.parametrize(
    "parts",
    [
        [b"CONNECT h:80 HTTP/1.1\r\nhost: h\r\n\r\n"],
        [b"CONNECT /v2 HTTP/1.1\r\nhost: h\r\n\r\n" + READY],
    ],
    ids=["connect", "connect to a path"],
)
def test_where_it_cannot_be_read_in_this_one_that_is_said(server, parts):
    answer = said(server, *parts)
    assert statuses(answer) == [400] and b"another protocol" in answer


NO_HTTP, FLOOD = b"no HTTP\r\n\r\n", post(b"", "x: " + "y" * 10**5)


@pytest.mark.parametrize(
    "parts",
    [[first + broken] for first in (READY, post(SLOW)) for broken in (NO_HTTP, FLOOD, post(body(1.0), *UPGRADE))]
    + [[post(SLOW), broken] for broken in (NO_HTTP, FLOOD)],
)
def test_what_is_wrong_behind_a_request_is_not_said_in_place_of_its_answer(server, parts):
    answer = b'"ready":true' if parts[0].startswith(READY) else b'"data":[-2.0,'
    found = said(server, *parts)
    assert statuses(found) == [200] and answer in found and b"connection: close" in found


def test_who_leaves_before_its_turn_is_not_computed(server):
    with socket.create_connection(server.address, timeout=10) as first:
        first.sendall(post(SLOW))
        time.sleep(0.1)
        with socket.create_connection(server.address) as second:
            second.sendall(post(body(7.0)))
            time.sleep(0.1)
        assert first.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert b'"data":[16.0]' in said(server, post(body(8.0)), answers=1)
    assert 8.0 in COMPUTED and 7.0 not in COMPUTED


def test_large_bodies_on_their_way_have_a_bound_all_together(server):
    large = b" " * 700_000 + body(2.0)
    whole = post(large)
    with socket.create_connection(server.address, timeout=5) as first:
        first.sendall(whole[:-10])
        time.sleep(0.2)
        # No more than is looked at: what is unread when a connection is closed may take the answer with it.
        just_too_much = len(whole) - len(large) + LIMITS.coming_bytes - len(large) + 100
        refused = said(server, whole[:just_too_much])
        assert statuses(refused) == [503] and b"retry-after: 1" in refused
        assert statuses(said(server, post(body(1.0)), answers=1)) == [200]  # small ones do not suffer from it
        first.sendall(whole[-10:])
        assert first.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert statuses(said(server, whole, answers=1)) == [200]
