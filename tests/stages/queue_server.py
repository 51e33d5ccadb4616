"""A server that is a queue: requests are served one at a time, in the order in which they came, each for as many
seconds as its body says, to some microseconds. Or it freezes: `freeze EVERY FOR` in the command answers at once, but
not for FOR seconds at the end of every EVERY seconds.

In: a file for its port, and how it serves. Its own work on a request is part of the service, so that the time a request
stays is the queue's and nothing else's.
"""

import selectors
import socket
import sys
import time
from collections import deque
from pathlib import Path

from harness.process import die_with_parent

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SPIN_S = 0.0015
"""Before a moment, from which on it is not slept for: epoll sleeps for whole milliseconds."""


def main(port_file: str, freeze: tuple[float, float] | None) -> None:
    die_with_parent()
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    part = Path(f"{port_file}.part")
    part.write_text(str(listener.getsockname()[1]))
    part.replace(port_file)
    began_s = free_s = time.perf_counter()
    waiting: deque[tuple[float, socket.socket]] = deque()
    unread: dict[socket.socket, bytes] = {}
    while True:
        left_s = waiting[0][0] - time.perf_counter() if waiting else 1.0
        ready = selector.select(0 if left_s <= SPIN_S else left_s - SPIN_S)
        now_s = time.perf_counter()
        for key, _ in ready:
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if connection is listener:
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(accepted, selectors.EVENT_READ)
                unread[accepted] = b""
                continue
            data = connection.recv(65536)
            if not data:
                selector.unregister(connection)
                connection.close()
                del unread[connection]
                continue
            head, found, body = (unread[connection] + data).partition(b"\r\n\r\n")
            if not found or (head.startswith(b"POST") and not body):
                unread[connection] += data
                continue
            unread[connection] = b""
            if freeze is not None:
                every_s, for_s = freeze
                place_s = (now_s - began_s) % every_s
                free_s = now_s + max(0.0, every_s - place_s) * (place_s >= every_s - for_s)
            else:
                free_s = max(now_s, free_s) + (float(body) if body else 0.0)
            waiting.append((free_s, connection))
        while waiting and waiting[0][0] <= time.perf_counter():
            waiting.popleft()[1].sendall(ANSWER)


if __name__ == "__main__":
    main(sys.argv[1], (float(sys.argv[2]), float(sys.argv[3])) if len(sys.argv) > 2 else None)
