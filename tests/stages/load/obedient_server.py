"""An HTTP server that does what each request's body says; run as a child process by the tests of the load stage.

`python obedient_server.py PORT_FILE` binds a port of the system's choice and writes its number to PORT_FILE.
Bodies: `echo ...` is answered with the body; for others see `Talk.obey` and `Talk.misbehave`. A body
`freeze AFTER LENGTH` is answered at once, and AFTER seconds later the whole server stands still for LENGTH seconds. A
GET is answered with the name of the server in a header; `name AFTER NAME` is answered at once and gives it another.
SIGUSR1 makes it close all connections that are idle.
"""

import asyncio
import re
import signal
import sys
import time
from pathlib import Path

from harness.process import die_with_parent

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
END, RESET = b"(end)", b"(reset)"
idle: set["Talk"] = set()
names = ["first"]
seen: set[bytes] = set()


class Talk(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""
        idle.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        idle.discard(self)

    def data_received(self, data: bytes) -> None:
        idle.discard(self)
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) >= size:
            self.buffer = rest[size:]
            if head.startswith(b"GET "):
                self.answer(b"", header=b"X-Server-Process: %s\r\n" % names[-1].encode())
            else:
                self.obey(rest[:size])

    def obey(self, body: bytes) -> None:
        order, *words = body.split(b" ")
        match order:
            case b"echo":
                self.answer(body)
            case b"slow":  # slow SECONDS: after a while, without standing still
                asyncio.get_running_loop().call_later(float(words[0]), self.answer, body)
            case b"once":  # once SECONDS: after a while, and at once ever after
                asyncio.get_running_loop().call_later(0.0 if body in seen else float(words[0]), self.answer, body)
                seen.add(body)
            case b"freeze":
                asyncio.get_running_loop().call_later(float(words[0]), time.sleep, float(words[1]))
                self.answer(body)
            case b"name":
                asyncio.get_running_loop().call_later(float(words[0]), names.append, words[1].decode())
                self.answer(body)
            case b"fail":
                self.answer(b"it hurts", status=b"500 Internal Server Error")
            case b"redirect":
                self.answer(b"", status=b"307 Temporary Redirect")
            case _:
                self.misbehave(order, body)

    def misbehave(self, order: bytes, body: bytes) -> None:
        """What is within HTTP but rare, and what is not."""
        plain = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        parts = {
            b"silent": [],
            b"half": [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf", END],
            b"reset": [RESET],
            b"end": [END],
            b"nonsense": [b"220 mail.example ESMTP\r\n"],
            b"announced": [plain.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), END],
            b"chunked": [chunked, b"%x\r\n%s\r\n" % (len(body[:3]), body[:3]), b"4\r\n%s\r\n0\r\n\r\n" % body[3:]],
            b"unsized": [b"HTTP/1.1 200 OK\r\n\r\n", body, END],
            b"interim": [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", plain],
            b"twice": [plain + plain],
            b"dribble": [bytes([byte]) for byte in plain],
        }[order]
        for place, part in enumerate(parts):
            asyncio.get_running_loop().call_later(0.0005 * place, self.play, part)

    def play(self, part: bytes) -> None:
        if part is RESET:
            self.transport.abort()
        elif part is END:
            self.transport.close()
        else:
            self.transport.write(part)

    def answer(self, body: bytes, status: bytes = b"200 OK", header: bytes = b"") -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, header, len(body), body))
            idle.add(self)


def close_idle() -> None:
    for talk in tuple(idle):
        talk.transport.close()


async def main(port_file: Path) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, close_idle)
    server = await loop.create_server(Talk, "127.0.0.1", 0)
    ready = port_file.with_suffix(".new")
    ready.write_text(str(server.sockets[0].getsockname()[1]))
    ready.replace(port_file)
    await server.serve_forever()


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(main(Path(sys.argv[1])))
