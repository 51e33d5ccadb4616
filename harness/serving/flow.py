"""The flow of a connection: uvicorn's, with a bound for those that ask on and on, and one for those that do not listen.

In: a transport, and the requests that wait on it. Out: `Flow`, which says when to read and when to write, and holds
what was read and is to be parsed later.
"""

import asyncio
import math
from collections.abc import Callable, Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Of one connection. Its client is let go of when it has taken nothing of its answers for `most_s` seconds."""

    def __init__(self, transport: Any, waiting: Sized, parse: Callable[[bytes], None], most_s: float) -> None:
        """`waiting` are requests behind the one that is being answered; `parse` is given what was held."""
        super().__init__(transport)
        self.held = b""
        """Behind those that wait: read, and not parsed."""
        self._is_due = False
        self._waiting = waiting
        self._parse = parse
        self._most_s = most_s
        self._unread: asyncio.TimerHandle | None = None

    def resume_reading(self) -> None:
        """Unless some wait: the answer to the last of them resumes it. uvicorn reads on after each."""
        if self._waiting or self._is_due:
            return
        if self.held:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            super().resume_reading()

    def _go_on(self) -> None:
        self._is_due = False
        held, self.held = self.held, b""
        self._parse(held)
        if not self._transport.is_closing():
            self.resume_reading()

    def pause_writing(self) -> None:
        """More is to be sent than the client takes."""
        super().pause_writing()
        if self._unread is None:
            self._watch_unread()

    def resume_writing(self) -> None:
        """The client has taken it, or has left."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch_unread(self, before_bytes: float = math.inf) -> None:
        left_bytes = self._transport.get_write_buffer_size()
        if left_bytes < before_bytes:
            self._unread = asyncio.get_running_loop().call_later(self._most_s, self._watch_unread, left_bytes)
        else:
            self._transport.abort()
