"""A single server with a queue: run as a child process by the tests that hold the load stage against queueing theory.

`python queue_server.py PORT_FILE` binds a port of the system's choice and writes its number to PORT_FILE. Any number of
connections are read at once, but their requests are served one at a time, in the order in which they were read, each
for as many seconds as its body says, and answered with that body. A GET is answered at once, with the p99 in seconds of
how late the answers since the last `GET /late` were.

An answer is due at the time at which its request was read, or at which the one before it was due, and the service time
after that. So this program's own work lies inside the service time, and an answer that the machine delays does not
delay those after it. It sleeps until shortly before an answer is due and then looks at the clock until it is. Where the
system permits it, it goes before whatever else wants its core.
"""

import contextlib
import os
import re
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

from harness.process import BACKLOG, LOOPBACK, die_with_parent

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
SPIN_S = 2e-4


def whole_requests(buffer: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Method with path and body of each request in `buffer`, and what is left of it."""
    requests: list[tuple[bytes, bytes]] = []
    while True:
        head, found, rest = buffer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        if not found or len(rest) < size:
            return requests, buffer
        requests.append((head.partition(b" HTTP/")[0], rest[:size]))
        buffer = rest[size:]


def serve(listener: socket.socket) -> None:
    talks: dict[int, socket.socket] = {}
    unread: dict[int, bytes] = {}
    queue: deque[tuple[int, socket.socket, bytes]] = deque()
    late_ns = [0]
    free_ns = 0
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    while True:
        # In whole milliseconds, which is what it can wait: the rest is looked at.
        left_ns = queue[0][0] - time.monotonic_ns() if queue else None
        for descriptor, _ in poll.poll(None if left_ns is None else max(0, int(left_ns / 1e6 - SPIN_S * 1e3)) / 1e3):
            if descriptor == listener.fileno():
                talk, _ = listener.accept()
                talk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                talks[talk.fileno()], unread[talk.fileno()] = talk, b""
                poll.register(talk.fileno(), select.EPOLLIN)
                continue
            talk = talks[descriptor]
            received = receive(talk)
            read_ns = time.monotonic_ns()
            if not received:
                poll.unregister(descriptor)
                talks.pop(descriptor).close()
                continue
            requests, unread[descriptor] = whole_requests(unread[descriptor] + received)
            for asked, body in requests:
                if asked.startswith(b"GET "):
                    answer(talk, b"%.6f" % (sorted(late_ns)[len(late_ns) * 99 // 100] / 1e9))
                    late_ns = [0] if asked == b"GET /late" else late_ns
                    continue
                free_ns = max(read_ns, free_ns) + round(float(body) * 1e9)
                queue.append((free_ns, talk, body))
        while queue and queue[0][0] <= (present_ns := time.monotonic_ns()):
            due_ns, talk, body = queue.popleft()
            answer(talk, body)
            late_ns.append(present_ns - due_ns)


def receive(talk: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        return talk.recv(65536)
    return b""


def answer(talk: socket.socket, body: bytes) -> None:
    with contextlib.suppress(OSError):  # the client may have gone
        talk.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def main(port_file: Path) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    with socket.create_server((LOOPBACK, 0), backlog=BACKLOG) as listener:
        ready = port_file.with_suffix(".new")
        ready.write_text(str(listener.getsockname()[1]))
        ready.replace(port_file)
        serve(listener)


if __name__ == "__main__":
    die_with_parent()
    main(Path(sys.argv[1]))
