"""A transport that sends an answer in one piece, though it is written in two.

In: a transport of the event loop. Out: `Whole`, to be used in its place.
"""

import asyncio
from typing import Any

_HEAD, _CONTINUE = b"HTTP/1.1 ", b"HTTP/1.1 100 "


class Whole:
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
        if self.is_closing():
            return  # of several requests in a row uvicorn tells the last one alone that the client has left
        if self._head is not None:
            self._write(self._head + data)
            self._head = None
        elif data.startswith(_HEAD) and not data.startswith(_CONTINUE):
            self._head = data
        else:
            self._write(data)

    def send(self, answer: bytes) -> None:
        """Send a whole answer."""
        self._write(answer)

    def flush(self) -> None:
        """Send what was kept: an answer without a body."""
        if self._head is not None and not self.is_closing():
            self._write(self._head)
        self._head = None

    def close(self) -> None:
        """Send what was kept, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
