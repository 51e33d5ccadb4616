"""Inference: one request for predictions, whose body is whole, to its reply.

In: headers and a body, from an ASGI server or from a connection itself. Out: a `Reply`, at once where nobody waits and
the model is quick, else later; a request is authorised, counted and logged on the way, whatever becomes of it.
"""

import hmac
import logging
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

import orjson

from harness.clock import SystemClock
from harness.serving.metrics import ModelMetrics
from harness.serving.queue import Queue, QueueFullError
from harness.serving.work import Job, Outcome, Wire

JSON, BYTES = b"application/json", b"application/octet-stream"

Headers: TypeAlias = Mapping[bytes, bytes]
"""By their names in small letters."""

_COMPRESSIONS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""Content encodings that are taken, with the window bits that zlib knows them by."""

CLOSES = (b"connection", b"close")
"""Of an answer to a body whose rest is still on its way: the connection has no next request."""

_PIECE_BYTES = 2**14
"""Of what is unpacked: zlib begins with a block of so many, and puts several together while nobody else can run."""

_LEFT = 499
"""nginx's word for a client that left."""

_now_s = SystemClock().monotonic_s
_access = logging.getLogger("harness.access")


class Reply(NamedTuple):
    """What is sent back."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class RefusedError(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.reply = failure(status, message, *headers)


class Guard:
    """Who may ask."""

    def __init__(self, token: str | None) -> None:
        self._expected = f"Bearer {token}".encode() if token is not None else None
        self.is_open = token is None
        """Everybody may."""

    def admits(self, headers: Headers) -> bool:
        """Whether who sent these may ask."""
        # In constant time: how much of a guess is right must not show in how long the answer takes.
        return self._expected is None or hmac.compare_digest(headers.get(b"authorization", b""), self._expected)

    def check(self, headers: Headers) -> None:
        """Raises RefusedError."""
        if not self.admits(headers):
            challenge = (b"www-authenticate", b"Bearer")
            raise RefusedError(401, "this server wants `Authorization: Bearer` with its token", challenge)


class Inference:
    """What stands behind the path at which a model is asked for predictions."""

    def __init__(self, path: str, wire: Wire, queue: Queue, metrics: ModelMetrics, guard: Guard, *, logs: bool) -> None:
        self.path = path
        self._wire = wire
        self._queue = queue
        self._metrics = metrics
        self._guard = guard
        self._logs = logs

    def admits(self, headers: Headers) -> bool:
        """Whether who sent these headers may ask; to be known before anything is kept or unpacked of a stranger's."""
        return self._guard.admits(headers)

    def begun(self, headers: Headers, body: bytes, began_s: float) -> Reply | Job:
        """The reply to a request; or the job that it is, where it has to wait for its turn: then `finished` has it.

        `began_s` is when its headers were there, of the monotonic clock.
        """
        self._metrics.begun()
        try:
            job = Job(self._wire, body, _json_length(headers), began_s, _now_s())
            if not self._queue.computed_at_once(job):
                return job
            reply = _reply(job)
        except RefusedError as error:
            reply = error.reply
        self._ended(reply.status, len(reply.body), began_s)
        return reply

    async def finished(self, job: Job) -> Reply:
        """The reply to a job, when its turn has come."""
        status, size_bytes = _LEFT, 0
        try:
            await self._queue.answered(job)
            reply = _reply(job)
            status, size_bytes = reply.status, len(reply.body)
        except QueueFullError as full:
            reply = self._full(full)
            status = reply.status
        finally:
            self._ended(status, size_bytes, job.began_s)
        return reply

    def refused_at_the_door(self, headers: Iterable[tuple[bytes, bytes]]) -> Reply | None:
        """The reply to whoever would have to wait for too long, before anything is read or done for them; None: go on.

        For servers in which the way to `finished` costs more than the refusal.
        """
        try:
            self._queue.refuse_full()
        except QueueFullError as full:
            if not self._guard.is_open and not self._guard.admits(dict(headers)):
                return None  # strangers are told what they are told at any time
            began_s = _now_s()
            self._metrics.begun()
            reply = self._full(full)
            self._ended(reply.status, len(reply.body), began_s)
            return reply
        return None

    def refused(self, error: RefusedError, began_s: float) -> Reply:
        """The reply to a request that was refused before it was begun."""
        self._metrics.begun()
        self._ended(error.reply.status, len(error.reply.body), began_s)
        return error.reply

    def _full(self, full: QueueFullError) -> Reply:
        self._metrics.reject()
        after = str(max(1, math.ceil(full.retry_after_s))).encode()
        return failure(503, "too many requests are waiting", (b"retry-after", after))

    def _ended(self, status: int, size_bytes: int, began_s: float) -> None:
        took_s = _now_s() - began_s
        self._metrics.ended(status, took_s)
        if self._logs:
            log_access("POST", self.path, status, size_bytes, took_s)


def failure(status: int, message: str, *headers: tuple[bytes, bytes]) -> Reply:
    """A reply that says what is wrong."""
    return Reply(status, orjson.dumps({"error": message}), JSON, headers)


def too_large(most: int) -> RefusedError:
    """Of a body."""
    return RefusedError(413, f"a body may have at most {most:,} bytes", CLOSES)


def unpacked(body: bytes, encoding: bytes, most: int) -> bytes:
    """A compressed body as it was. Raises RefusedError, before it is larger than `most` bytes.

    For a thread: 30 kilobytes may hold 30 million, and zlib lets others work meanwhile.
    """
    if encoding == b"identity":
        return body
    bits = _COMPRESSIONS.get(encoding)
    if bits is None:
        known = (b"accept-encoding", b"gzip, deflate")
        raise RefusedError(415, "content-encoding: gzip and deflate are taken, and none", known)
    unpacking, parts, size_bytes = zlib.decompressobj(bits), list[bytes](), 0
    while body:
        try:
            parts.append(unpacking.decompress(body, _PIECE_BYTES))
        except zlib.error:
            raise RefusedError(400, f"body: is no {encoding.decode()}") from None
        size_bytes += len(parts[-1])
        if size_bytes > most:
            raise too_large(most)
        body = unpacking.unconsumed_tail
    if not unpacking.eof or unpacking.unused_data:
        raise RefusedError(400, f"body: is no whole {encoding.decode()}, or has more behind it")
    return b"".join(parts)


def whole_number(digits: bytes) -> int | None:
    """What a header states in digits; None where there are others.

    Zeros in front say nothing, and Python reads no number of thousands of digits: whatever has twenty is too large.
    """
    return int(digits.lstrip(b"0")[:20] or b"0") if digits.isdigit() else None


def log_access(method: str, path: str, status: int, size_bytes: int, took_s: float) -> None:
    """A line of JSON for one request."""
    line = {"method": method, "path": path, "status": status, "bytes": size_bytes, "took_ms": round(1e3 * took_s, 3)}
    _access.info(orjson.dumps(line).decode())


def _json_length(headers: Headers) -> int | None:
    given = headers.get(b"inference-header-content-length")
    if given is None:
        return None
    length = whole_number(given)
    if length is None:
        raise RefusedError(400, "inference-header-content-length: must be a number of bytes")
    return length


def _reply(job: Job) -> Reply:
    outcome = job.outcome or Outcome(500, None, "the request was not answered; the server's log says why")
    timing = (b"server-timing", _server_timing(job))
    if outcome.answer is None:
        return failure(outcome.status, outcome.error or "", timing)
    body, header_bytes = outcome.answer
    if header_bytes is None:
        return Reply(200, body, JSON, (timing,))
    return Reply(200, body, BYTES, (timing, (b"inference-header-content-length", b"%d" % header_bytes)))


def _server_timing(job: Job) -> bytes:
    """Milliseconds of each stage, as W3C's Server Timing has them."""
    return b"received;dur=%.3f, queued;dur=%.3f, decoded;dur=%.3f, predicted;dur=%.3f, encoded;dur=%.3f" % (
        1e3 * (job.received_s - job.began_s),
        1e3 * (job.taken_s - job.received_s),
        1e3 * (job.decoded_s - job.taken_s),
        1e3 * (job.predicted_s - job.decoded_s),
        1e3 * (job.encoded_s - job.predicted_s),
    )
