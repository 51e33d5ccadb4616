"""Drain: how a serving process ends, so that whoever it let in is answered.

In: a configuration of uvicorn, and what is to be called when requests are answered. Out: `DrainingServer`, uvicorn's
server, which on SIGTERM or SIGINT takes nobody in any more, answers those that are there, and ends by itself. A second
signal ends it at once.

uvicorn by itself closes its listening socket with those still in it that the kernel has let in already (they are
reset), closes connections that idle although a request has just come in on one, ends by the signal and not with a
status, and waits on at a second SIGTERM. The second of these is mended in `serving/connections`.
"""

import asyncio
import ctypes
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from harness.clock import SystemClock

_SAME_S = 1.0
"""Signals that come together are one wish: a service manager tells every process to end, and our parent tells us."""

_LATE_S = 0.1
"""How often it is looked for connections that nobody told to end."""

_SO_ATTACH_FILTER = 26
"""From `asm-generic/socket.h`."""

_now_s = SystemClock().monotonic_s


class DrainingServer(uvicorn.Server):
    """See above."""

    def __init__(self, config: uvicorn.Config, is_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._is_ready = is_ready
        self._told_s = 0.0
        self.has_drained = True
        """Whether all were answered in the time that there was for it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests from now on, and say so."""
        await super().startup(sockets)
        self._is_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, or end."""
        if not self.should_exit:
            self.should_exit = True
            self._told_s = _now_s()
        elif _now_s() - self._told_s > _SAME_S:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in those that the kernel has let in already, and then nobody; wait until all are answered."""
        for sock in sockets or []:
            _let_nobody_in(sock)
            await self._take_in(sock)
        began_s = _now_s()
        late = asyncio.create_task(self._end_late())
        await super().shutdown(sockets)
        late.cancel()
        most_s = self.config.timeout_graceful_shutdown
        self.has_drained = most_s is None or _now_s() - began_s < most_s

    async def _end_late(self) -> None:
        """Tell connections to end that the loop had accepted, and not made yet, when uvicorn told all others."""
        while True:
            await asyncio.sleep(_LATE_S)
            for connection in list(self.server_state.connections):
                connection.shutdown()

    async def _take_in(self, sock: socket.socket) -> None:
        def connection() -> Any:
            protocol: Any = self.config.http_protocol_class
            return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        sock.setblocking(False)
        with suppress(OSError):  # BlockingIOError: that was the last one
            while True:
                accepted, _ = sock.accept()
                await self.servers[0].get_loop().connect_accepted_socket(connection, accepted)


def _let_nobody_in(sock: socket.socket) -> None:
    """Have the kernel drop what comes to a listening socket, but keep those that it has let in.

    Closing it, or `shutdown`, resets them; to accept them first leaves a moment between the last and the close, which a
    busy server falls into. Those who knock are refused as soon as it is closed, when they knock again a second later.
    Linux only; elsewhere that moment remains.
    """
    if not sys.platform.startswith("linux"):
        return
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # the one instruction `ret #0`
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop_all)))
