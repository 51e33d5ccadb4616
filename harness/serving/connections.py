"""Connections of HTTP: uvicorn's, held to limits, and with a straight way for plain requests.

In: an application. Out: `connection_class`, what uvicorn makes one of per connection. uvicorn takes any number of
headers of any size, waits for ever for a request that was begun, and answers what is no HTTP in plain text: here each
has a bound, and an error in JSON. When the server is to end, uvicorn closes whatever connection it has read no request
from: here a request that has come, or is coming, is answered first.

The straight way: between a parsed request and its reply, ASGI (a task, a scope, messages, each header looked at twice)
takes a third of all the time that a small request takes here. A plain inference goes to the application's `inferences`
without it, and its reply is written as it is; whatever is not plain goes as uvicorn has it. A client sends the same
head again and again: of a plain request it is parsed once, and known by its bytes from then on.
"""

import asyncio
import logging
import select
from typing import Any, ClassVar, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from harness.clock import SystemClock
from harness.serving.app import App
from harness.serving.flow import Flow
from harness.serving.heads import Head, KnownHeads, plain_bytes
from harness.serving.inference import Headers, Inference, Reply, failure
from harness.serving.limits import Limits
from harness.serving.transport import Whole
from harness.serving.work import Job

_LINE_BYTES = 4
"""Of a header beside its name and value: a colon, a space and the end of the line."""

_PLAIN_BYTES = 2**18
"""Of a body; with a larger one a request goes to the application, which knows how much of others is on its way."""

_PIECE_BYTES = 2**13
"""What is parsed at once."""

_LINGER_S = 0.1
"""How long a connection idles before it is closed, when the server is to end: who has just connected is about to ask
something."""

_log = logging.getLogger(__name__)
_now_s = SystemClock().monotonic_s


class _RefusedHeadError(Exception):
    """Raised in a callback of the parser, which ends there."""


class _Waiting:
    """Stands where uvicorn has its own cycle of request and response, while a plain request waits for its turn.

    uvicorn looks at it when the next request comes, when the client leaves, and when the server ends.
    """

    def __init__(self, *, keep_alive: bool) -> None:
        self.message_event = asyncio.Event()
        self.keep_alive = keep_alive
        self.disconnected = self.response_started = self.response_complete = False
        self.more_body = False  # it is all there


def connection_class(app: App) -> type[HttpToolsProtocol]:
    """The protocol class of connections to an application, with its limits."""
    inferences = {path.encode(): inference for path, inference in app.inferences.items()}
    known = {"limits": app.limits, "inferences": inferences, "heads": KnownHeads()}
    return type("Connection", (_Connection,), {**known, "most_plain_bytes": min(_PLAIN_BYTES, app.limits.body_bytes)})


class _Connection(HttpToolsProtocol):
    limits: ClassVar[Limits]
    inferences: ClassVar[dict[bytes, Inference]]
    heads: ClassVar[KnownHeads]
    most_plain_bytes: ClassVar[int]

    transport: Whole  # type: ignore[assignment]
    flow: Flow

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._head_bytes = 0
        """Of a request that is not all there: what came since its start or its last piece of body."""
        self._data = b""
        """What is being parsed now."""
        self._is_at_start = False
        """Whether what is read now of a request begins with it."""
        self._is_begun = self._is_too_large = self._is_upgrade = self._is_ending = False
        self._late: asyncio.TimerHandle | None = None
        self._inference: Inference | None = None
        """What a plain request is for, from its headers to its end."""
        self._named: Headers = {}
        self._parts: list[bytes] = []
        self._missing_bytes = 0
        """Of a body whose head was known."""
        self._began_s = _now_s()
        self._answering: asyncio.Task[None] | None = None
        """The last plain request that had to wait for its turn."""
        self._idle: asyncio.TimerHandle | None = None
        if len(self.connections) >= self.limits.connections:
            transport.close()
        else:
            super().connection_made(cast("asyncio.Transport", Whole(transport)))
            self.flow = Flow(self.transport, self.pipeline, self._receive_in_pieces, self.limits.send_s)
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._close_unused)

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_whole()
        if self._idle is not None:
            self._idle.cancel()
        if self._answering is not None:
            self._answering.cancel()  # nobody needs it computed
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        self._is_at_start = not self._is_begun
        if self._missing_bytes:
            self._collect(data)
        elif not (self._is_at_start and self._is_known(data)):
            (self._receive if len(data) <= _PIECE_BYTES else self._receive_in_pieces)(data)

    def _receive_in_pieces(self, data: bytes) -> None:
        """Parse no further than to where requests wait for the one before them: each takes a hundred times its bytes,
        and time, which is lost where the client does not wait for its answers.
        """
        for at in range(0, len(data), _PIECE_BYTES):
            if self.parser is None or self.transport.is_closing():
                return
            if self.pipeline:
                self.flow.held = data[at:]
                return
            self._is_at_start = not self._is_begun
            self._receive(data[at : at + _PIECE_BYTES])

    def _receive(self, data: bytes) -> None:
        self._data = data
        super().data_received(data)
        self._data = b""
        # Nearly every request comes whole, and needs none of this.
        if self._is_begun and not self.transport.is_closing():
            if self._is_upgrade:
                self._read_without_upgrade(data)
                return
            if self._inference is None:
                self._head_bytes += len(data)
                if self._head_bytes > self.limits.headers_bytes:
                    self._refuse_head()
            self._expect_more()

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self._refuse_head()
        elif self._is_upgrade:
            pass  # to be read again
        else:
            self._refuse(400, "this is no HTTP/1.1")

    def on_message_begin(self) -> None:
        # Not what is before it, the end of another request.
        self._head_bytes = 0 if self._is_at_start else -len(self._data)
        self._is_begun = True
        # As uvicorn does, without the scope of a request that may turn out to be plain.
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        most = self.limits.headers_bytes
        # What came with the body is not to count.
        is_large = self._head_bytes + len(self._data) > most and self._size_bytes() > most
        if len(self.headers) > self.limits.headers or is_large:
            self._is_too_large = True
            raise _RefusedHeadError
        inference = self.inferences.get(self.url)
        body_bytes = self._plain_bytes() if inference is not None else None
        if inference is not None and body_bytes is not None and inference.admits(self._named):
            self._inference, self._began_s = inference, _now_s()
            if self._is_at_start:
                self.heads.remember(self._data, Head(inference, self._named, body_bytes))
            return
        if self.parser.should_upgrade():
            self._is_upgrade = True
            raise _RefusedHeadError
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers  # in place, for the scope has this list
        super().on_headers_complete()
        if self._is_ending:
            self.cycle.keep_alive = False

    def _read_without_upgrade(self, data: bytes) -> None:
        """Read a request as if it did not ask for another protocol, which nobody has to grant.

        Java's own client asks so in each first request. The parser takes what follows such a head for words of that
        protocol, so that the body would be lost, or be taken for a request.
        """
        self._is_upgrade = False
        head, end, rest = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
        if head.startswith(b"CONNECT ") or not self._is_at_start:
            self._refuse(400, "a connection cannot be used for another protocol here; ask without `upgrade`")
            return
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"upgrade:")]
        self._set_whole()
        self._is_at_start = True
        self.parser = type(self.parser)(self)
        self._receive(b"\r\n".join(lines) + end + rest)

    def _plain_bytes(self) -> int | None:
        """The size of a request's body, where it needs nothing but its reply, and nothing is before it; else None."""
        self._named = dict(self.headers)
        if not self._is_free() or self.parser.get_method() != b"POST" or not self.parser.should_keep_alive():
            return None
        size_bytes = plain_bytes(self._named, self.parser.get_http_version())
        return size_bytes if size_bytes is not None and size_bytes <= self.most_plain_bytes else None

    def _is_free(self) -> bool:
        """Whether nothing is before a request that comes now, and more may come after it."""
        return (
            (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused and not self._is_ending
        )

    def _is_known(self, data: bytes) -> bool:
        """Whether this is a request with a known head, or as much as has come of one; then it is taken."""
        found = self.heads.find(data)
        if found is None or not self._is_free():
            return False
        (inference, named, body_bytes), body = found
        if not inference.admits(named):
            return False
        self._inference, self._named, self._began_s = inference, named, _now_s()
        self._unset_keepalive_if_required()
        self._missing_bytes = body_bytes
        self._collect(body)
        return True

    def _collect(self, data: bytes) -> None:
        """Take a piece of the body behind a known head."""
        piece, rest = data[: self._missing_bytes], data[self._missing_bytes :]
        self._missing_bytes -= len(piece)
        self._parts.append(piece)
        if self._missing_bytes:
            self._is_begun = True
            self._expect_more()
        else:
            self._end_plain()
            if rest:
                self.data_received(rest)

    def _expect_more(self) -> None:
        if self._late is None:
            most_s = self.limits.end_s if self._is_ending else self.limits.send_s
            self._late = self.loop.call_later(most_s, self._refuse_late)

    def on_body(self, body: bytes) -> None:
        if self._inference is None:
            self._head_bytes = -len(self._data)  # headers may follow a body in chunks, without an end
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self._is_at_start = False
        if self._inference is None:
            self._set_whole()
            super().on_message_complete()
        else:
            self._end_plain()

    def _end_plain(self) -> None:
        """Answer a plain request, which is whole, or begin to."""
        self._set_whole()
        inference, self._inference = cast("Inference", self._inference), None
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        begun = inference.begun(self._named, body, self._began_s)
        if isinstance(begun, Reply):
            self._send(begun, closes=self._is_ending)
            self.server_state.total_requests += 1
            if self._idle is None:
                self._idle = self.loop.call_later(self.timeout_keep_alive, self._close_unused)
        else:
            self.cycle = cast("Any", _Waiting(keep_alive=not self._is_ending))
            self._answering = self.loop.create_task(self._send_later(inference, begun, cast("Any", self.cycle)))
            self._answering.add_done_callback(self.tasks.discard)
            self.tasks.add(self._answering)

    async def _send_later(self, inference: Inference, job: Job, waiting: _Waiting) -> None:
        try:
            reply = await inference.finished(job)
        except Exception:
            _log.exception("a request was not answered")
            reply = failure(500, "the request was not answered; the server's log says why")
        waiting.response_complete = True
        if not self.transport.is_closing():
            self._send(reply, closes=not waiting.keep_alive)
            self.on_response_complete()

    def _send(self, reply: Reply, *, closes: bool) -> None:
        status, body, content_type, headers = reply
        parts = [STATUS_LINE[status], b"content-type: ", content_type, b"\r\ncontent-length: %d\r\n" % len(body)]
        for name, value in (*self.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"connection: close\r\n\r\n" if closes else b"\r\n", body)
        self.transport.send(b"".join(parts))
        if closes:
            self.transport.close()

    def on_response_complete(self) -> None:
        self.transport.flush()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close when what has come is answered; the last answer says that it is. Once is enough."""
        if self._is_ending:
            return
        self._is_ending = True
        if self._is_begun:
            if self._late is not None:
                self._late.cancel()
            self._late = self.loop.call_later(self.limits.end_s, self._refuse_late)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # with several in a row this is the last
        else:
            self.loop.call_later(_LINGER_S, self._close_idle)

    def _close_idle(self) -> None:
        """Close, unless a request has come since, or its bytes have: closing would reset whoever sent them."""
        answers = self.cycle is not None and not self.cycle.response_complete
        if self._is_begun or answers or self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        if poll.poll(0):
            self.loop.call_later(_LINGER_S, self._close_idle)
        else:
            self.transport.close()

    def _close_unused(self) -> None:
        """Close a connection that nobody has used for long. uvicorn makes and cancels a timer for each request, and has
        none for a connection on which no request ever came.
        """
        self._idle = None
        left_s = self._began_s + self.timeout_keep_alive - _now_s()
        if left_s > 0:
            self._idle = self.loop.call_later(left_s, self._close_unused)
        elif (
            not self._is_begun
            and self.timeout_keep_alive_task is None
            and (self.cycle is None or self.cycle.response_complete)
        ):
            self.transport.close()

    def _size_bytes(self) -> int:
        size_bytes = len(self.url)
        for name, value in self.headers:
            size_bytes += len(name) + len(value) + _LINE_BYTES
        return size_bytes

    def _set_whole(self) -> None:
        self._is_begun = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse_head(self) -> None:
        most = f"{self.limits.headers} headers of {self.limits.headers_bytes:,} bytes together"
        self._refuse(431, f"a request may have {most}")

    def _refuse_late(self) -> None:
        self._late = None
        if self._is_ending:
            self._refuse(503, "the server ends")
        else:
            self._refuse(408, f"a request may take {self.limits.send_s:g} s to send")

    def _refuse(self, status: int, message: str) -> None:
        """Answer, unless an answer is on its way already, and close.

        Where a request before it waits for its own answer, that is the last one: this would be taken for it.
        """
        self._set_whole()
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if not (self.pipeline or (answering and self.cycle.response_started)):
            body = orjson.dumps({"error": message})
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
