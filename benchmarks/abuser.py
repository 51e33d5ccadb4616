"""A client that means no good: malformed, bloated and unfinished requests, one after the other at a steady rate.

In: host, port, the path of an inference, a rate per second and for how many seconds, on the command line. Out: a line
when it begins, and one with how many it sent. It waits for the beginning of an answer, and never longer than a second.
It leaves its core to the generator of the good requests, whose figures would otherwise be its own.
"""

import contextlib
import gzip
import itertools
import socket
import sys

import orjson

from harness.clock import SystemClock
from harness.process import die_with_parent, yield_to_others

_COLUMNS = 30


def bodies() -> list[tuple[bytes, bytes]]:
    """Bodies and a header more that each needs."""
    rows = {"name": "rows", "datatype": "FP64", "shape": [1, _COLUMNS]}
    good = [1.5] * _COLUMNS
    return [
        (b"", b""),
        (b'{"inputs": [', b""),
        (b'{"inputs":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b""),
        (b'{"inputs": [{"name": "rows", "data": [' + b"9" * 10**6 + b"]}]}", b""),
        (b'{"inputs": [{"name": "rows", "data": [' + b"0," * 10**6 + b"0]}]}", b""),
        (orjson.dumps({"inputs": [{**rows, "data": ["x", *good[1:]]}]}), b""),
        (orjson.dumps({"inputs": [{**rows, "data": good[1:]}]}), b""),
        (orjson.dumps({"inputs": [{**rows, "shape": [10**9, _COLUMNS], "data": good}]}), b""),
        (orjson.dumps({"inputs": [{**rows, "data": [1e300, *good[1:]]}]}), b""),
        (gzip.compress(b" " * (32 * 2**20 + 1)), b"content-encoding: gzip\r\n"),
        (b"\x00" * 65_536, b"content-encoding: gzip\r\n"),
    ]


def main() -> None:
    host, port, path, rate, seconds = sys.argv[1:]
    die_with_parent()
    yield_to_others()
    clock, every_s = SystemClock(), 1.0 / float(rate)
    heads = [
        b"POST %s HTTP/1.1\r\nhost: h\r\n%scontent-length: %d\r\n\r\n" % (path.encode(), more, len(body)) + body
        for body, more in bodies()
    ]
    # One byte of a request that never comes, and no HTTP at all.
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    began_s = clock.monotonic_s()
    sent, unfinished = 0, [b"P", b"\x16\x03\x01\x02\x00\x01"]
    for request in itertools.cycle(heads + unfinished):
        due_s = began_s + sent * every_s
        if due_s - began_s > float(seconds):
            break
        clock.sleep(max(0.0, due_s - clock.monotonic_s()))
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0) as sock:
            sock.sendall(request)
            if request not in unfinished:
                sock.recv(1024)
        sent += 1
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main()
