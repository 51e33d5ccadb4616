"""The load generator's reading of HTTP, and what it makes of connections that have ended."""

import itertools
import socket

import gevent
import numpy as np
import pytest
from geventhttpclient._parser import HTTPParseError
from hypothesis import given
from hypothesis import strategies as st

from harness.records.load import JSON_POST, NEVER, Outcome
from harness.stages.load.answers import Answer, SignedAnswer, TimedAnswer
from harness.stages.load.generator import pack
from harness.stages.load.wire import Connection, Wire

SIZED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\nhello world"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED
CLOSING = SIZED.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
OLD = SIZED.replace(b"HTTP/1.1", b"HTTP/1.0")


def read(*parts):
    answer = Answer()
    for part in parts:
        answer.read(part)
    return answer


@pytest.mark.parametrize(
    ("raw", "reusable"), [(SIZED, True), (CHUNKED, True), (INTERIM, True), (CLOSING, False), (OLD, False)]
)
@given(cuts=st.sets(st.integers(1, 200), max_size=12))
def test_an_answer_is_the_same_however_the_network_cuts_it(raw, reusable, cuts):
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    answer = read(*(raw[low:high] for low, high in itertools.pairwise(edges)))
    assert (answer.complete, answer.status, bytes(answer.body)) == (True, 200, b"hello world")
    assert answer.reusable is reusable


@given(st.integers(1, len(SIZED) - 1))
def test_an_answer_that_ends_early_is_no_answer(length):
    answer = read(SIZED[:length])
    assert not answer.complete
    with pytest.raises(HTTPParseError):
        answer.read(b"")


def test_an_answer_without_a_length_ends_with_its_connection():
    answer = read(b"HTTP/1.1 200 OK\r\n\r\nhello", b" world")
    assert not answer.complete
    answer.read(b"")
    assert (answer.complete, bytes(answer.body), answer.reusable) == (True, b"hello world", False)


@pytest.mark.parametrize("more", [SIZED, CHUNKED, b"garbage", SIZED[:20]])
def test_what_follows_an_answer_spoils_the_connection_and_not_the_answer(more):
    answer = read(SIZED + more)
    assert (answer.complete, answer.status, bytes(answer.body)) == (True, 200, b"hello world")
    assert not answer.reusable


@pytest.mark.parametrize("raw", [b"220 mail.example ESMTP\r\n", b"\x16\x03\x01\x02\x00", b"HTTP/1.1 abc OK\r\n\r\n"])
def test_what_is_no_http_is_refused(raw):
    with pytest.raises(HTTPParseError):
        read(raw)


@given(cuts=st.sets(st.integers(1, 200), max_size=12))
def test_a_signed_answer_says_which_server_gave_it_however_it_is_cut(cuts):
    raw = SIZED.replace(b"\r\n", b"\r\nX-Server-Process: ab12\r\nX-Other: x\r\n", 1)
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    answer = SignedAnswer()
    for low, high in itertools.pairwise(edges):
        answer.read(raw[low:high])
    assert (answer.complete, answer.said) == (True, "ab12")


def test_an_unsigned_answer_names_no_server():
    answer = SignedAnswer()
    answer.read(SIZED)
    assert (answer.complete, answer.said) == (True, "")


TIMED = SIZED.replace(
    b"\r\n",
    b"\r\nServer-Timing: received;dur=0.001, queued;dur=0.020\r\nX-Other: x\r\nserver-timing: edge;dur=7\r\n",
    1,
)


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\nServer-Timing: hint;dur=1\r\n\r\n"])
@given(cuts=st.sets(st.integers(1, 250), max_size=12))
def test_a_header_that_comes_twice_is_one_list_and_what_came_before_the_real_answer_is_not_in_it(before, cuts):
    raw = before + TIMED + TIMED.replace(b"received", b"after")
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    answer = TimedAnswer()
    for low, high in itertools.pairwise(edges):
        answer.read(raw[low:high])
    assert answer.said == "received;dur=0.001, queued;dur=0.020, edge;dur=7"
    assert (answer.complete, bytes(answer.body)) == (True, b"hello world")


def test_a_header_without_an_end_is_not_kept_whole():
    answer = TimedAnswer()
    answer.read(b"HTTP/1.1 200 OK\r\nServer-Timing: ")
    for _ in range(1000):
        answer.read(b"x" * 1000)
    assert len(answer.said) <= 3000


class Row:
    """One row's traffic, with what it is told."""

    answer = Answer
    timed = b"\0"

    def __init__(self):
        self.payload, self.sent, self.epoch_ns, self.fault = [0], [NEVER], 0, None
        self.ended = []
        self.wire = None

    def connect(self, row):
        Connection(self.wire).connect(self, row)

    def answered(self, row, done_ns, answer):
        self.ended.append(Outcome.OK)

    def finished(self, row, done_ns, outcome):
        self.ended.append(outcome)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


@pytest.fixture
def wire(listener, tmp_path):
    np.savez(tmp_path / "bodies.npz", **pack("payloads", [b"body"]))
    host, port = listener.getsockname()
    setup = {"host": host, "port": port, "authority": f"{host}:{port}", "path": "/x", "bodies": tmp_path / "bodies.npz"}
    setup |= {"tls": False, "head": JSON_POST.model_dump()}
    made = Wire({**setup, "live_path": "/live", "repeated": 1, "worker": 0, "timeout_s": 5.0, "in_flight_max": 4})
    listener.accept()[0].close()  # it has tried the address
    return made


def let_pass(ready):
    """Let the event loop work until something is so."""
    for _ in range(1000):
        if ready():
            return
        gevent.sleep(0.01)
    raise AssertionError("it did not happen within 10 s")


def exchange(wire, listener, then):
    """One exchange on a new connection; `then` does something to the server's end of it."""
    row = Row()
    row.wire = wire
    row.connect(0)
    server, _ = listener.accept()
    let_pass(lambda: row.sent[0] != NEVER)
    request = server.recv(65536)
    then(server)
    return row, server, request


def test_a_request_is_written_whole_with_its_length(wire, listener):
    row, server, request = exchange(wire, listener, lambda server: server.sendall(SIZED))
    let_pass(lambda: row.ended)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nContent-Type: application/json\r\nContent-Length: 4" in head and body == b"body"
    assert row.ended == [Outcome.OK] and len(wire.idle) == 1
    server.close()
    wire.idle.popleft().close()


def test_an_idle_connection_whose_end_was_not_seen_yet_is_not_used(wire, listener):
    row, server, _ = exchange(wire, listener, lambda server: server.sendall(SIZED))
    let_pass(lambda: row.ended)
    server.close()  # and the event loop has no time to see it
    assert len(wire.idle) == 1
    assert wire.idle_connection() is None and not wire.idle


def test_an_idle_connection_whose_end_is_seen_is_forgotten(wire, listener):
    row, server, _ = exchange(wire, listener, lambda server: server.sendall(SIZED))
    let_pass(lambda: row.ended)
    server.close()
    let_pass(lambda: not wire.idle)
    assert row.ended == [Outcome.OK]


def test_a_connection_that_breaks_before_a_byte_has_left_is_replaced(wire, listener):
    row, server, _ = exchange(wire, listener, lambda server: server.sendall(SIZED))
    let_pass(lambda: row.ended)
    connection = wire.idle.popleft()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    server.close()  # a reset: the next write fails at once
    connection.send(row, 0)
    again, _ = listener.accept()
    let_pass(lambda: row.sent[0] != NEVER)
    again.recv(65536)
    again.sendall(SIZED)
    let_pass(lambda: len(row.ended) == 2)
    assert row.ended == [Outcome.OK, Outcome.OK]
    again.close()
    wire.idle.popleft().close()


def test_a_connection_that_breaks_after_the_request_is_a_failure(wire, listener):
    row, _, _ = exchange(wire, listener, lambda server: server.close())
    let_pass(lambda: row.ended)
    assert row.ended == [Outcome.CONNECTION] and row.sent[0] != NEVER and not wire.idle
