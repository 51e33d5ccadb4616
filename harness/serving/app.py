"""The ASGI application that answers for models.

In: loaded candidates with their signatures. Out: an ASGI 3 application that speaks the Open Inference Protocol v2; any
ASGI server can run it. There is no framework under it: to look up a dozen paths costs less than a framework's
middleware. What belongs to connections and not to requests is `serving.connections`.
"""

import hmac
import logging
import math
import secrets
import zlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import orjson

import harness
from harness.clock import SystemClock
from harness.process import SERVER_HEADER
from harness.records.server import ServerSettings
from harness.serving.limits import Limits
from harness.serving.metrics import CONTENT_TYPE, Metrics, ModelMetrics
from harness.serving.openapi import openapi
from harness.serving.page import page
from harness.serving.protocol import metadata
from harness.serving.queue import Queue, QueueFullError
from harness.serving.work import Job, Model, Outcome, Wire

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_JSON, _BYTES, _HTML = b"application/json", b"application/octet-stream", b"text/html; charset=utf-8"

_COMPRESSIONS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""Content encodings that are taken, with the window bits that zlib knows them by."""

_OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""Asked by whoever looks whether a server is there; they say nothing, and need no token."""

_now_s = SystemClock().monotonic_s
_access = logging.getLogger("harness.access")


class _Reply(NamedTuple):
    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _GoneError(Exception):
    """The client has closed the connection; nobody waits for an answer."""


class _RefusedError(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.reply = _failure(status, message, *headers)


_Headers: TypeAlias = dict[bytes, bytes]


def application(
    models: Sequence[Model],
    settings: ServerSettings | None = None,
    limits: Limits | None = None,
    token: str | None = None,
) -> Application:
    """An ASGI application that answers for models; their names differ.

    `token` is what clients must send; None: nothing. Raises UsageError where a model does not answer its own example.
    """
    made = _App(models, settings or ServerSettings(), limits or Limits(), token)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await made.answer(scope, receive, send)  # a function, for uvicorn takes a method for an older kind

    return app


class _App:
    def __init__(self, models: Sequence[Model], settings: ServerSettings, limits: Limits, token: str | None) -> None:
        self._limits = limits
        self._queue = Queue(settings.waiting_s, settings.batch_requests, settings.batch_wait_s)
        self._metrics = Metrics()
        self._token = f"Bearer {token}".encode() if token is not None else None
        self._logs = settings.access_log is not None
        self._infer: dict[str, tuple[Wire, ModelMetrics]] = {}
        self._pages = {path: _Reply(200, orjson.dumps(said)) for path, said in _pages(models).items()}
        # Not the process id, which would tell strangers something, and of a process in a container is always the same.
        signed = ((SERVER_HEADER.encode(), secrets.token_hex(8).encode()),)
        self._pages["/v2/health/live"] = self._pages["/v2/health/live"]._replace(headers=signed)
        self._pages["/"] = _Reply(200, b"", _HTML)
        self._models = tuple(models)
        for model in models:
            wire = Wire.of(model, limits)
            self._queue.warm(wire)
            entry = wire, self._metrics.of(model.name, model.runtime)
            for path in _paths(model):
                self._infer[f"{path}/infer"] = entry

    async def answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """As ASGI 3 has it."""
        if scope["type"] == "http":
            began_s = _now_s()
            headers = dict(scope["headers"])
            entry = self._infer.get(scope["path"])
            try:
                self._authorize(scope["path"], headers)
                reply = (
                    self._page(scope)
                    if entry is None
                    else await self._inferred(scope, headers, receive, began_s, *entry)
                )
            except _GoneError:
                return
            except _RefusedError as error:
                reply = error.reply
            if self._logs:
                _log_access(scope, reply, _now_s() - began_s)
            length = b"%d" % len(reply.body)
            headers_sent = [(b"content-type", reply.content_type), (b"content-length", length), *reply.headers]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers_sent})
            await send({"type": "http.response.body", "body": reply.body})
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    async def _inferred(
        self, scope: Message, headers: _Headers, receive: Receive, began_s: float, wire: Wire, metrics: ModelMetrics
    ) -> _Reply:
        metrics.begun()
        status = 499  # nginx's word for a client that left
        try:
            if scope["method"] != "POST":
                raise _not_allowed(scope["method"], "POST")
            message = await receive()
            body = message.get("body", b"")
            if message.get("more_body", False) or len(body) > self._limits.body_bytes or "body" not in message:
                body = await _joined(message, headers, receive, self._limits.body_bytes)
            if b"content-encoding" in headers:
                body = _unpacked(body, headers[b"content-encoding"], self._limits.body_bytes)
            job = Job(wire, body, _json_length(headers), began_s, _now_s())
            if not self._queue.computed_at_once(job):
                await self._queue.answered(job)
            reply = _reply(job)
            status = reply.status
        except _RefusedError as error:
            status = error.reply.status
            raise
        except QueueFullError as full:
            status = 503
            metrics.reject()
            after = str(max(1, math.ceil(full.retry_after_s))).encode()
            raise _RefusedError(503, "too many requests are waiting", (b"retry-after", after)) from None
        finally:
            metrics.ended(status, _now_s() - began_s)
        return reply

    def _page(self, scope: Message) -> _Reply:
        path, method = scope["path"], scope["method"]
        reply = self._metrics_page() if path == "/metrics" else self._pages.get(path)
        if reply is None:
            return _failure(404, _not_found(path, self._models))
        if method not in ("GET", "HEAD"):
            raise _not_allowed(method, "GET")
        if path == "/":
            address = _address(scope)
            return reply._replace(body=page(self._models, address, self._token is not None).encode())
        return reply

    def _metrics_page(self) -> _Reply:
        return _Reply(200, self._metrics.text(), CONTENT_TYPE)

    def _authorize(self, path: str, headers: _Headers) -> None:
        if self._token is None or path in _OPEN_PATHS:
            return
        # In constant time: how much of a guess is right must not show in how long the answer takes.
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._token):
            challenge = (b"www-authenticate", b"Bearer")
            raise _RefusedError(401, "this server wants `Authorization: Bearer` with its token", challenge)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            ends = message["type"] == "lifespan.shutdown"
            if ends:
                self._queue.close()
            await send({"type": f"{message['type']}.complete"})
            if ends:
                return


def _pages(models: Sequence[Model]) -> dict[str, Any]:
    """What can be asked of a server, and what it says."""
    found: dict[str, Any] = {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2": {"name": "automl-harness", "version": harness.__version__, "extensions": ["binary_tensor_data"]},
        "/openapi.json": openapi(models),
    }
    for model in models:
        for path in _paths(model):
            found[path] = metadata(model.signature, model.name, model.version)
            found[f"{path}/ready"] = {"name": model.name, "ready": True}
    return found


def _paths(model: Model) -> tuple[str, ...]:
    path = f"/v2/models/{model.name}"
    return (path,) if model.version is None else (path, f"{path}/versions/{model.version}")


def _not_found(path: str, models: Sequence[Model]) -> str:
    if path.startswith("/v2/models/"):
        named = ", ".join(model.name for model in models[:10])
        return f"no such model, version or path; this server answers for {named}"
    return "no such path; GET / says what there is"


def _json_length(headers: _Headers) -> int | None:
    given = headers.get(b"inference-header-content-length")
    if given is None:
        return None
    if not given.isdigit():
        raise _RefusedError(400, "inference-header-content-length: must be a number of bytes")
    return int(given[:18])  # a number of thousands of digits is an attack, and one of 18 is too large already


async def _joined(message: Message, headers: _Headers, receive: Receive, most: int) -> bytes:
    """The whole of a body that comes in pieces; refused where it is larger, before it is all in memory."""
    stated = headers.get(b"content-length", b"")
    if stated.isdigit() and int(stated[:18]) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size_bytes = 0
    while True:
        if message["type"] == "http.disconnect":
            raise _GoneError
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


def _unpacked(body: bytes, encoding: bytes, most: int) -> bytes:
    if encoding == b"identity":
        return body
    bits = _COMPRESSIONS.get(encoding)
    if bits is None:
        known = (b"accept-encoding", b"gzip, deflate")
        raise _RefusedError(415, "content-encoding: gzip and deflate are taken, and none", known)
    unpacking = zlib.decompressobj(bits)
    try:
        whole = unpacking.decompress(body, most + 1)
    except zlib.error:
        raise _RefusedError(400, f"body: is no {encoding.decode()}") from None
    if len(whole) > most:
        raise _too_large(most)
    if not unpacking.eof or unpacking.unused_data:
        raise _RefusedError(400, f"body: is no whole {encoding.decode()}, or has more behind it")
    return whole


def _reply(job: Job) -> _Reply:
    outcome = job.outcome or Outcome(500, None, "the request was not answered; the server's log says why")
    timing = (b"server-timing", _server_timing(job))
    if outcome.answer is None:
        return _failure(outcome.status, outcome.error or "", timing)
    body, header_bytes = outcome.answer
    if header_bytes is None:
        return _Reply(200, body, _JSON, (timing,))
    return _Reply(200, body, _BYTES, (timing, (b"inference-header-content-length", b"%d" % header_bytes)))


def _server_timing(job: Job) -> bytes:
    """Milliseconds of each stage, as W3C's Server Timing has them."""
    return b"received;dur=%.3f, queued;dur=%.3f, decoded;dur=%.3f, predicted;dur=%.3f, encoded;dur=%.3f" % (
        1e3 * (job.received_s - job.began_s),
        1e3 * (job.taken_s - job.received_s),
        1e3 * (job.decoded_s - job.taken_s),
        1e3 * (job.predicted_s - job.decoded_s),
        1e3 * (job.encoded_s - job.predicted_s),
    )


def _failure(status: int, message: str, *headers: tuple[bytes, bytes]) -> _Reply:
    return _Reply(status, orjson.dumps({"error": message}), _JSON, headers)


def _too_large(most: int) -> _RefusedError:
    # The rest of the body is still on its way: this connection has no next request.
    return _RefusedError(413, f"a body may have at most {most:,} bytes", (b"connection", b"close"))


def _not_allowed(method: str, allowed: str) -> _RefusedError:
    return _RefusedError(405, f"{method[:20]} is not allowed here, {allowed} is", (b"allow", allowed.encode()))


def _address(scope: Message) -> str:
    """As the server knows it: the client's own word for it could hold anything."""
    host, port = (*(scope.get("server") or ()), None, None)[:2]
    return f"{scope.get('scheme', 'http')}://{host or '127.0.0.1'}{f':{port}' if port else ''}"


def _log_access(scope: Message, reply: _Reply, took_s: float) -> None:
    line = {
        "method": scope["method"],
        "path": scope["path"],
        "status": reply.status,
        "bytes": len(reply.body),
        "took_ms": round(1e3 * took_s, 3),
    }
    _access.info(orjson.dumps(line).decode())
