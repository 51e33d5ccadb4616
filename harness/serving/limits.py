"""Limits: what one client may ask of a server, so that it cannot take it away from the others.

In: nothing. Out: `Limits`, which every part of the server is given.
"""

from dataclasses import dataclass

from harness.records.rows import ROWS_LIMIT


@dataclass(frozen=True, slots=True)
class Limits:
    """Whatever goes beyond one of them is refused with a status that says so."""

    body_bytes: int = 32 * 2**20
    """Of a body, also of what a compressed one is unpacked to: 413."""
    coming_bytes: int = 256 * 2**20
    """Of larger bodies that are on their way or wait to be unpacked, all together: 503."""
    rows: int = ROWS_LIMIT
    """Of one request: 400."""
    text_characters: int = 10_000
    """Of one text: 400."""
    headers: int = 100
    headers_bytes: int = 32 * 2**10
    """Of a request, its first line included: 431."""
    send_s: float = 20.0
    """For a client to send a request, from its first byte to its last: 408. Who takes nothing of an answer for as long
    is let go of."""
    end_s: float = 5.0
    """The same where it had begun to when the server was told to end: 503."""
    connections: int = 4096
    """Open at a time; one more is closed at once."""
