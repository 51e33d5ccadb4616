"""Heads of requests: whether one is plain, and what those say that were read before.

In: headers by name, and bytes as they were received. Out: `plain_bytes`; and `KnownHeads`, which finds by its bytes
what a head says: a client sends the same one again and again, and to parse it takes longer than most else that is done
for a small request.
"""

from typing import NamedTuple

from harness.serving.inference import Headers, Inference, whole_number

_NOT_PLAIN = frozenset((b"connection", b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"))
"""A request with one of these headers may need more than to be answered..."""

_KEPT = b"keep-alive"
"""... but not where it only says what is so anyway."""

_POST, _END = b"POST ", b"\r\n\r\n"

_LONGEST = 2**10
"""Bytes of a head that is remembered, at most..."""

_MOST = 2**9
"""... and of so many; then it begins anew. Each length of a body makes another head."""


def plain_bytes(named: Headers, version: str) -> int | None:
    """The size of a request's body, where the request needs nothing but its reply; else None."""
    # To keep the connection is the rule in HTTP/1.1 alone; in 1.0 the answer would have to say that it is.
    if _NOT_PLAIN.isdisjoint(named) or (
        version == "1.1" and named.get(b"connection", b"").lower() == _KEPT and len(_NOT_PLAIN.intersection(named)) == 1
    ):
        return whole_number(named.get(b"content-length", b""))
    return None


class Head(NamedTuple):
    """What the head of a plain request says."""

    inference: Inference
    named: Headers
    body_bytes: int


class KnownHeads:
    """Those of plain requests to one server."""

    def __init__(self) -> None:
        self._by_bytes: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head with which these bytes begin, where it is known, and what of its body is behind it.

        None where more is behind it than its body.
        """
        end = data.find(_END, 0, _LONGEST) + len(_END)
        head = self._by_bytes.get(data[:end])
        return None if head is None or len(data) > end + head.body_bytes else (head, data[end:])

    def remember(self, data: bytes, head: Head) -> None:
        """Know a head from now on, with which `data` begins.

        A request must begin with `data` too: in the midst of one, what looks like a head may be the end of a header,
        and whoever sends that would decide what others' requests are for.
        """
        found = data[: data.find(_END, 0, _LONGEST) + len(_END)]
        # The parser may take a line feed by itself for the end of a line; then the head would have ended sooner.
        if found.startswith(_POST) and found.count(b"\n") == found.count(b"\r\n"):
            if len(self._by_bytes) >= _MOST:
                self._by_bytes.clear()
            self._by_bytes[found] = head
