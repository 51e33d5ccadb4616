"""Connections of HTTP: uvicorn's, held to limits before any application sees a request.

In: limits. Out: `limited`, the protocol class that uvicorn makes one of per connection. uvicorn takes any number of
headers of any size, waits for ever for a request that was begun, and answers what is no HTTP in plain text: here each
has a bound, and an error in JSON.
"""

import asyncio
from typing import Any, ClassVar, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from harness.serving.limits import Limits

_HEAD, _CONTINUE = b"HTTP/1.1 ", b"HTTP/1.1 100 "

_LINE_BYTES = 4
"""Of a header beside its name and value: a colon, a space and the end of the line."""


class _Whole:
    """A transport that sends the head of an answer together with its body: two writes are two system calls, which cost
    more than everything else that is done for a small request.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write = transport.write
        self._head: bytes | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send it, or keep it where it is the head of an answer."""
        if self._head is not None:
            self._write(self._head + data)
            self._head = None
        elif data.startswith(_HEAD) and not data.startswith(_CONTINUE):
            self._head = data
        else:
            self._write(data)

    def flush(self) -> None:
        """Send what was kept: an answer without a body."""
        if self._head is not None:
            self._write(self._head)
            self._head = None

    def close(self) -> None:
        """Send what was kept, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _HeadersTooLargeError(Exception):
    """Raised in a callback of the parser, which ends there."""


def limited(limits: Limits) -> type[HttpToolsProtocol]:
    """The protocol class of connections with these limits."""
    return type("Connection", (_Connection,), {"limits": limits})


class _Connection(HttpToolsProtocol):
    limits: ClassVar[Limits]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._head_bytes = 0
        """Of a request whose headers are not all there."""
        self._data_bytes = 0
        """Of what is being read now."""
        self._is_begun = self._is_head = self._is_too_large = False
        self._late: asyncio.TimerHandle | None = None
        if len(self.connections) >= self.limits.connections:
            transport.close()
        else:
            super().connection_made(cast("asyncio.Transport", _Whole(transport)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_whole()
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        self._data_bytes = len(data)
        super().data_received(data)
        # Nearly every request comes whole, and needs none of this.
        if self._is_begun and not self.transport.is_closing():
            if self._is_head:
                self._head_bytes += len(data)
                if self._head_bytes > self.limits.headers_bytes:
                    self._refuse_head()
            if self._late is None:
                self._late = self.loop.call_later(self.limits.send_s, self._refuse_late)

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self._refuse_head()
        else:
            self._refuse(400, "this is no HTTP/1.1")

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._is_begun = self._is_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_head = False
        most = self.limits.headers_bytes
        is_large = self._data_bytes > most and self._size_bytes() > most  # what came with the body is not to count
        if len(self.headers) > self.limits.headers or is_large:
            self._is_too_large = True
            raise _HeadersTooLargeError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._set_whole()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        cast("_Whole", self.transport).flush()
        super().on_response_complete()

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
        self._refuse(408, f"a request may take {self.limits.send_s:g} s to send")

    def _refuse(self, status: int, message: str) -> None:
        """Answer, unless an answer is on its way already, and close."""
        self._set_whole()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = orjson.dumps({"error": message})
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
