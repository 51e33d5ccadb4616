"""The ASGI application that answers for one model.

In: a loaded candidate and its signature. Out: an ASGI 3 application that speaks the Open Inference Protocol v2; any
ASGI server can run it. There is no framework under it: routing five paths costs less than a framework's middleware, and
the prediction runs in the event loop itself, because a replica is one core and a thread hand-over would cost more than
most predictions do.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import orjson

import harness
from harness.process import SERVER_HEADER
from harness.records.candidate import Signature
from harness.records.rows import Batch, Prediction
from harness.serving.protocol import BadRequestError, Request, metadata, request_reader, response_writer

BODY_LIMIT_BYTES = 32 * 2**20
"""Largest request body; beyond it the answer is 413, however the body was sent."""

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _GoneError(Exception):
    """The client has closed the connection; nobody waits for an answer."""


def application(predict: Callable[[Batch], Prediction], signature: Signature, model: str) -> Application:
    """An ASGI application that answers for `model` with what `predict` computes."""
    infer_path = f"/v2/models/{model}/infer"
    read, write = request_reader(signature), response_writer(signature, model)
    pages = {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2": {"name": "automl-harness", "version": harness.__version__, "extensions": []},
        f"/v2/models/{model}": metadata(signature, model),
        f"/v2/models/{model}/ready": {"name": model, "ready": True},
    }
    rendered = {path: _Answer(200, orjson.dumps(page)) for path, page in pages.items()}
    # Not the process id, which would tell strangers something, and of a process in a container is always the same.
    signed = ((SERVER_HEADER.encode(), secrets.token_hex(8).encode()),)
    rendered["/v2/health/live"] = replace(rendered["/v2/health/live"], headers=signed)

    async def answer(scope: Message, receive: Receive) -> _Answer:
        path, method = scope["path"], scope["method"]
        if path == infer_path:
            if method != "POST":
                return _not_allowed(method, "POST")
            body = await _body(scope, receive)
            if body is None:
                return _failure(413, f"a body may have at most {BODY_LIMIT_BYTES:,} bytes")
            return _inferred(body, read, predict, write)
        if path in rendered:
            return rendered[path] if method == "GET" else _not_allowed(method, "GET")
        return _failure(404, f"no such path; this server answers for one model, at {infer_path}")

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await _send(send, await answer(scope, receive))
            except _GoneError:
                return
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    return app


def _inferred(
    body: bytes,
    read: Callable[[bytes], Request],
    predict: Callable[[Batch], Prediction],
    write: Callable[[Prediction, str | None, tuple[str, ...] | None], bytes],
) -> _Answer:
    try:
        request = read(body)
    except BadRequestError as error:
        return _failure(400, str(error))
    try:
        return _Answer(200, write(predict(request.batch), request.id, request.outputs))
    except Exception:  # the client learns that it failed; why stays in the log
        _log.exception("the model failed on a request of %d rows", len(request.batch))
        return _failure(500, "the model failed on this request; the server's log says why")


async def _body(scope: Message, receive: Receive) -> bytes | None:
    """The whole body; None where it is larger than the limit, found out before it is all in memory."""
    if _stated_bytes(scope) > BODY_LIMIT_BYTES:
        return None
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        return whole if len(whole) <= BODY_LIMIT_BYTES else None
    parts: list[bytes] = []
    size_bytes = 0
    while True:
        if message["type"] == "http.disconnect":
            raise _GoneError
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > BODY_LIMIT_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


def _stated_bytes(scope: Message) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:18])  # a number of thousands of digits is an attack, and one of 18 is too large already
    return 0


async def _send(send: Send, answer: _Answer) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
    headers += answer.headers
    if answer.status == 413:
        # The rest of the body is still on its way: this connection has no next request.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _failure(status: int, message: str) -> _Answer:
    return _Answer(status, orjson.dumps({"error": message}))


def _not_allowed(method: str, allowed: str) -> _Answer:
    return _Answer(
        405, orjson.dumps({"error": f"{method} is not allowed here, {allowed} is"}), ((b"allow", allowed.encode()),)
    )
