"""The wire: the connections of the load generator, each a small state machine that the event loop calls.

In: requests ready to be written, and the rows of a step that ask for them. Out: what came back for each row, with the
moments of writing and of the answer's last byte. A greenlet per request would cost more than the request; here a
request is one write and one call back. Only the generator's processes import this, after Locust has patched the
interpreter.
"""

import contextlib
import errno
import functools
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import gevent
import numpy as np
from gevent.monkey import get_original
from geventhttpclient._parser import HTTPParseError

from harness.records.load import NEVER, Outcome
from harness.stages.load.answers import Answer, TimedAnswer
from harness.stages.load.generator import unpack

READ, WRITE = 1, 2
"""What gevent's event loop watches a descriptor for."""

_RECEIVE_BYTES = 65536

_plain_socket = get_original("socket", "socket")

now_ns: Callable[[], int] = time.monotonic_ns
"""The clock of all exchanges; kernel timers run on the same one."""


class Traffic(Protocol):
    """What a connection tells of the row it is busy with."""

    answer: ClassVar[type[Answer]]
    timed: bytes
    """Of each row, whether its answer is a `TimedAnswer` instead."""
    payload: Sequence[int]
    sent: "memoryview[int]"
    epoch_ns: int
    fault: Exception | None

    def connect(self, row: int) -> None:
        """The row needs a new connection after all."""
        ...

    def answered(self, row: int, done_ns: int, answer: Answer) -> None:
        """A whole answer came."""
        ...

    def finished(self, row: int, done_ns: int, outcome: Outcome) -> None:
        """The row came to its end."""
        ...


class Tls:
    """What secured connections to one server have in common."""

    def __init__(self, host: str, ca_file: str | None) -> None:
        self._context = ssl.create_default_context(cafile=ca_file)
        self._host = host

    def secured(self) -> "Secured":
        """The state of a new connection."""
        arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        return Secured(self._context.wrap_bio(arrived, leaving, server_hostname=self._host), arrived, leaving)


class Secured:
    """TLS on one connection, apart from its socket: bytes of the one go in, bytes of the other come out."""

    def __init__(self, session: ssl.SSLObject, arrived: ssl.MemoryBIO, leaving: ssl.MemoryBIO) -> None:
        self._session, self._arrived, self._leaving = session, arrived, leaving
        self.ready = False
        """The handshake is done."""

    def shake_hands(self, data: bytes) -> bytes:
        """Go on with what the server sent; what it is to be sent. Raises ssl.SSLError where it is not to be trusted."""
        self._arrived.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._session.do_handshake()
            self.ready = True
        return self._leaving.read()

    def encrypted(self, data: bytes) -> bytes:
        """As it travels."""
        self._session.write(data)
        return self._leaving.read()

    def decrypted(self, data: bytes) -> bytes:
        """What of it was sent to us; empty where a whole record is not there yet."""
        self._arrived.write(data)
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self._session.read(_RECEIVE_BYTES):
                parts.append(part)
        return b"".join(parts)


class Wire:
    """The way to the endpoint: its address, the requests ready to be written, and the idle connections."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.family, self.address = _resolved(setup["host"], setup["port"], setup["timeout_s"])
        self.path: str = setup["path"]
        self.worker: int = setup["worker"]
        self.timeout_ns = round(setup["timeout_s"] * 1e9)
        self.in_flight_max: int = setup["in_flight_max"]
        with np.load(setup["bodies"]) as file:
            arrays = dict(file)
        self.tls = Tls(setup["host"], setup["head"]["ca_file"]) if setup["tls"] else None
        host = f"HTTP/1.1\r\nHost: {setup['authority']}\r\n"
        self.method: str = setup["head"]["method"]
        head = f"{self.method} {self.path} {host}" + "".join(
            f"{name}: {value}\r\n" for name, value in setup["head"]["headers"]
        )
        self.requests = [
            f"{head}{_length(self.method, body)}\r\n".encode() + body for body in unpack("payloads", arrays)
        ]
        self.repeated: int = setup["repeated"]
        """How many of the requests are there to be repeated; those after them are to be sent once."""
        self.roll_call: int | None = None
        """The request that asks a server who it is; None: it speaks a protocol that has none."""
        if setup["live_path"] is not None:
            self.roll_call = len(self.requests)
            self.requests.append(f"GET {setup['live_path']} {host}\r\n".encode())
        self.expected = unpack("expected", arrays) if "expected" in arrays else None
        """Of each payload; empty: anything that the server calls a success."""
        # First in, first out: a server of several processes holds some connections in each, and the last used one
        # again and again would load one process and rest the others.
        self.idle: deque[Connection] = deque()

    def idle_connection(self) -> "Connection | None":
        """One that is open; those that the server has closed meanwhile are dropped."""
        while self.idle:
            connection = self.idle.popleft()
            if connection.usable():
                return connection
            connection.close()
        return None


class Connection:
    """One connection, called by the event loop: connecting, idle, or busy with the exchange of one row."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._traffic: Traffic | None = None
        self._row = NEVER
        self._answer = Answer()
        self._unsent = memoryview(b"")
        self._used = False
        self._secured = None if wire.tls is None else wire.tls.secured()
        self._socket = _plain_socket(wire.family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = gevent.get_hub().loop
        self._reader = loop.io(self._socket.fileno(), READ)
        self._writer = loop.io(self._socket.fileno(), WRITE)

    def connect(self, traffic: Traffic, row: int) -> None:
        """Connect, then send the request of `row`."""
        self._traffic, self._row = traffic, row
        if self._socket.connect_ex(self._wire.address) in (0, errno.EINPROGRESS):
            self._writer.start(self._guarded, self._connected)
        else:
            self._fail()

    def usable(self) -> bool:
        """Whether an idle connection still stands; its end may have come and the event loop not have seen it yet."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # the end, or bytes that nobody asked for

    def send(self, traffic: Traffic, row: int) -> None:
        """Send the request of `row` on a connection that stands."""
        self._traffic, self._row = traffic, row
        self._answer = TimedAnswer() if traffic.timed[row] else traffic.answer()
        request = self._wire.requests[traffic.payload[row]]
        if self._secured is not None:
            request = self._secured.encrypted(request)
        traffic.sent[row] = now_ns() - traffic.epoch_ns
        try:
            count = self._socket.send(request)
        except BlockingIOError:
            count = 0
        except OSError:
            traffic.sent[row] = NEVER
            if self._used:  # closed since it was looked at, and not a byte has left: no failure of an exchange
                self.close()
                traffic.connect(row)
            else:
                self._fail()
            return
        if count < len(request):
            self._unsent = memoryview(request)[count:]
            self._writer.start(self._guarded, self._writable)

    def close(self) -> None:
        """Close it; of an exchange that is under way nothing is recorded here."""
        for watcher in (self._reader, self._writer):
            watcher.stop()
            watcher.close()
        self._socket.close()

    def _guarded(self, step: Callable[[], None]) -> None:
        # The event loop would print what is raised and go on; a step that met a bug of ours must not look measured.
        traffic = self._traffic
        try:
            step()
        except Exception as error:
            if traffic is None:
                raise
            traffic.fault = error

    def _connected(self) -> None:
        self._writer.stop()
        if self._traffic is None or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self._fail()
            return
        if self._secured is None:
            self._reader.start(self._guarded, self._readable)
            self.send(self._traffic, self._row)
        else:
            self._reader.start(self._guarded, functools.partial(self._shake_hands, self._secured))
            self._shake_hands(self._secured)

    def _shake_hands(self, secured: Secured) -> None:
        """Begin the handshake of TLS, or go on with it; done, the request follows."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
            ended = not data
        except BlockingIOError:
            data, ended = b"", False
        except OSError:
            data, ended = b"", True
        try:
            # A few kilobytes at most, which the buffer of a new socket takes whole.
            self._socket.sendall(secured.shake_hands(data))
        except OSError:  # errors of ssl are of that kind
            ended = True
        if ended or self._traffic is None:
            self._fail()
        elif secured.ready:
            self._reader.stop()
            self._reader.start(self._guarded, self._readable)
            self.send(self._traffic, self._row)

    def _writable(self) -> None:
        try:
            count = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        self._unsent = self._unsent[count:]
        if not self._unsent:
            self._writer.stop()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
            done_ns = now_ns()
            if self._secured is not None and data:
                data = self._secured.decrypted(data)
                if not data:  # part of a record, or what TLS tells for itself
                    return
            if self._traffic is not None:
                self._answer.read(data)
        except BlockingIOError:
            return
        except (OSError, HTTPParseError):
            self._fail()
            return
        if self._traffic is None or not (data or self._answer.complete):
            self._fail()
        elif self._answer.complete:
            self._answered(self._traffic, done_ns)

    def _answered(self, traffic: Traffic, done_ns: int) -> None:
        row, answer = self._row, self._answer
        self._traffic, self._used = None, True
        if answer.reusable and not self._unsent:
            self._wire.idle.append(self)
        else:
            self.close()
        traffic.answered(row, done_ns, answer)

    def _fail(self) -> None:
        """It broke: a failed exchange, or where it was idle, none."""
        self.close()
        if self._traffic is not None:
            self._traffic.finished(self._row, now_ns(), Outcome.CONNECTION)
        elif self in self._wire.idle:
            self._wire.idle.remove(self)


def _length(method: str, body: bytes) -> str:
    return "" if method == "GET" and not body else f"Content-Length: {len(body)}\r\n"


def _resolved(host: str, port: int, timeout_s: float) -> tuple[int, Any]:
    """Family and address of the endpoint; of several, such as both of localhost, the first that takes a connection."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, _, _, _, address in found:
        try:
            socket.create_connection((str(address[0]), int(address[1])), timeout_s).close()
        except OSError:
            continue
        return family, address
    return found[0][0], found[0][4]
