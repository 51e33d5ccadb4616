"""A server that computes nothing: the least any server in Python can cost.

In: a servable, of which only model, replicas, cores and log matter. Out: an endpoint that gives one fixed answer to
every request. Loading it measures the load generator and the network stack: figures of real targets are held against
it, never compared with it. Also the parts of such a server, for a target that computes nothing either: `served`, which
starts its processes, and `parser` and `answer_until_stopped`, which these are made of.
"""

import argparse
import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, cast

from harness.clock import SystemClock
from harness.ports import Servable
from harness.process import BACKLOG, LOOPBACK, announce_ready, child_servers, die_with_parent, wait_ready
from harness.records.candidate import Endpoint

REQUIRES: tuple[str, ...] = ()

_BODY = b'{"model_name":"null","outputs":[]}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: " + b"%d" % len(_BODY) + b"\r\n\r\n" + _BODY
)
_REFUSAL = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,15})\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_HEAD_LIMIT_BYTES = 64 * 2**10
_BODY_LIMIT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Null:
    """Reads requests, answers all of them with the same bytes."""

    bare: ClassVar[bool] = True

    port: int = 0
    """0: the system's choice."""

    def serve(self, servable: Servable) -> AbstractContextManager[Endpoint]:
        return served("null", servable, self.port, "answers every request with the same bytes; computes nothing")


@contextlib.contextmanager
def served(name: str, servable: Servable, port: int, note: str, arguments: Sequence[str] = ()) -> Iterator[Endpoint]:
    """The target `name`, as processes of its own that run its file with `arguments`."""
    clock = SystemClock()
    began_s = clock.monotonic_s()
    what = f"The {name} server"
    with child_servers(
        [sys.executable, "-m", f"harness.targets.{name}", *arguments],
        what=what,
        log=servable.log,
        count=servable.replicas,
        port=port,
        cores=servable.cores,
    ) as (bound, processes):
        url = f"http://{LOOPBACK}:{bound}"
        wait_ready(f"{url}/v2/health/ready", timeout_s=10.0, what=what, log=servable.log)
        yield Endpoint(
            url=url,
            model=servable.model,
            startup_s=clock.monotonic_s() - began_s,
            cores=servable.cores,
            processes=processes,
            notes=(note,),
        )


class _Connection(asyncio.Protocol):
    """One client. Requests are only told apart, which takes their length and nothing else."""

    __slots__ = ("_rest", "_transport")

    def __init__(self) -> None:
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        answers = at = 0
        while (head_end := data.find(b"\r\n\r\n", at)) >= 0:
            length = _LENGTH.search(data, at, head_end + 2)
            if length is None:
                end = head_end + 4
                if _CHUNKED.search(data, at, head_end + 2):
                    self._refuse(b"411 Length Required")
                    return
            else:
                end = head_end + 4 + int(length[1])
                if end - at > _BODY_LIMIT_BYTES:
                    self._refuse(b"413 Content Too Large")
                    return
            if end > len(data):
                break
            answers += 1
            at = end
        if answers and self._transport is not None:
            self._transport.write(_ANSWER if answers == 1 else _ANSWER * answers)
        self._rest = data[at:]
        if head_end < 0 and len(self._rest) > _HEAD_LIMIT_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def _refuse(self, status: bytes) -> None:
        self._rest = b""
        if self._transport is not None:
            self._transport.write(_REFUSAL % status)
            self._transport.close()


def parser(name: str) -> argparse.ArgumentParser:
    """What a process of the target `name` is told by `served`."""
    made = argparse.ArgumentParser(prog=f"python -m harness.targets.{name}")
    made.add_argument("--fd", type=int, required=True, help="an inherited socket that listens already")
    made.add_argument("--ready-fd", type=int, help="an inherited pipe that is told when requests are answered")
    return made


def answer_until_stopped(given: argparse.Namespace, *beside: Coroutine[None, None, None]) -> None:
    """Answer on the inherited socket, and do what else there is to be done `beside` it."""
    die_with_parent()
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_answer_forever(socket.socket(fileno=given.fd), given.ready_fd, *beside))


async def _answer_forever(sock: socket.socket, ready_fd: int | None, *beside: Coroutine[None, None, None]) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, sock=sock, backlog=BACKLOG)
    if ready_fd is not None:
        announce_ready(ready_fd)
    await asyncio.gather(server.serve_forever(), *beside)


if __name__ == "__main__":
    answer_until_stopped(parser("null").parse_args())
