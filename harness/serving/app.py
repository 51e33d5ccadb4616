"""The ASGI application that answers for models.

In: loaded candidates with their signatures. Out: `App`, an ASGI 3 application that speaks the Open Inference Protocol
v2; any ASGI server can run it. There is no framework under it: to look up a dozen paths costs less than a framework's
middleware. What belongs to connections and not to requests is `serving.connections`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import orjson

import harness
from harness.clock import SystemClock
from harness.process import SERVER_HEADER, yield_to_others
from harness.records.server import ServerSettings
from harness.serving.inference import (
    CLOSES,
    Guard,
    Headers,
    Inference,
    RefusedError,
    Reply,
    failure,
    log_access,
    too_large,
    unpacked,
    whole_number,
)
from harness.serving.limits import Limits
from harness.serving.metrics import CONTENT_TYPE, metrics
from harness.serving.openapi import model_paths, openapi
from harness.serving.page import page
from harness.serving.protocol import metadata
from harness.serving.queue import Queue
from harness.serving.work import Model, Wire

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_HTML = b"text/html; charset=utf-8"

_OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""Asked by whoever looks whether a server is there; they say nothing, and need no token."""

_now_s = SystemClock().monotonic_s


class _GoneError(Exception):
    """The client has closed the connection; nobody waits for an answer."""


class App:
    """An ASGI application that answers for models; their names differ.

    `token` is what clients must send; None: nothing. `address` is where clients ask, and `replica` the name of this
    process among those that answer there, where others stand in front; None: it is asked itself. Raises UsageError
    where a model does not answer its own example.
    """

    def __init__(
        self,
        models: Sequence[Model],
        settings: ServerSettings | None = None,
        limits: Limits | None = None,
        token: str | None = None,
        address: str | None = None,
        replica: str | None = None,
    ) -> None:
        settings = settings or ServerSettings()
        self.limits = limits or Limits()
        self._guard = Guard(token)
        self._queue = Queue(settings.waiting_s, settings.batch_requests, settings.batch_wait_s)
        self._metrics = metrics(replica)
        self._address = address
        self._logs = settings.access_log is not None
        self.inferences: dict[str, Inference] = {}
        """By their paths."""
        self._pages = {path: Reply(200, orjson.dumps(said)) for path, said in _pages(models, token is not None).items()}
        # Not the process id, which would tell strangers something, and of a process in a container is always the same.
        signed = ((SERVER_HEADER.encode(), secrets.token_hex(8).encode()),)
        self._pages["/v2/health/live"] = self._pages["/v2/health/live"]._replace(headers=signed)
        self._pages["/"] = Reply(200, b"", _HTML)
        self._coming_bytes = 0
        """Of bodies that are not whole, or still packed."""
        # One at a time, and only with what the loop leaves of the core: a bomb keeps its own sender waiting.
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="unpack", initializer=yield_to_others)
        self._models = tuple(models)
        for model in models:
            wire = Wire.of(model, self.limits)
            self._queue.warm(wire)
            counted = self._metrics.of(model.name, model.runtime)
            for path in (f"{one}/infer" for one in model_paths(model)):
                self.inferences[path] = Inference(path, wire, self._queue, counted, self._guard, logs=self._logs)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """As ASGI 3 has it."""
        if scope["type"] == "http":
            inference = self.inferences.get(scope["path"])
            try:
                if inference is not None and scope["method"] == "POST":
                    reply = await self._inferred(inference, dict(scope["headers"]), receive)
                else:
                    reply = self._other(scope)
            except _GoneError:
                return
            await replied(reply, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    def refused_at_the_door(self, scope: Message) -> Reply | None:
        """The reply to a request that would have to wait for too long, before it is read; None: let it in."""
        inference = self.inferences.get(scope["path"])
        if inference is None or scope["method"] != "POST":
            return None
        return inference.refused_at_the_door(scope["headers"])

    async def _inferred(self, inference: Inference, headers: Headers, receive: Receive) -> Reply:
        began_s = _now_s()
        try:
            self._guard.check(headers)
            body = await self._body(headers, receive)
        except RefusedError as error:
            return inference.refused(error, began_s)
        begun = inference.begun(headers, body, began_s)
        return begun if isinstance(begun, Reply) else await inference.finished(begun)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole of it, unpacked; refused where it is too large, before it is all in memory, or takes too long."""
        most, parts, size_bytes = self.limits.body_bytes, list[bytes](), 0
        stated = whole_number(headers.get(b"content-length", b""))
        if stated is not None and stated > most:
            raise too_large(most)
        try:
            # Our own connections are quicker to refuse; behind another server nobody else counts the whole time.
            async with asyncio.timeout(self.limits.send_s):
                async for part in _parts(receive):
                    parts.append(part)
                    size_bytes += len(part)
                    self._coming_bytes += len(part)
                    if size_bytes > most:
                        raise too_large(most)
                    if self._coming_bytes > self.limits.coming_bytes:
                        later = (b"retry-after", b"1")
                        raise RefusedError(503, "too many large bodies are on their way", later, CLOSES)
            body = b"".join(parts)
            encoding = headers.get(b"content-encoding")
            if encoding is None:
                return body
            return await asyncio.get_running_loop().run_in_executor(self._aside, unpacked, body, encoding.lower(), most)
        except TimeoutError:
            raise RefusedError(408, f"a body may take {self.limits.send_s:g} s to send", CLOSES) from None
        finally:
            self._coming_bytes -= size_bytes

    def _other(self, scope: Message) -> Reply:
        """To whatever is no inference."""
        began_s, path = _now_s(), scope["path"]
        try:
            if path not in _OPEN_PATHS:
                self._guard.check(dict(scope["headers"]))
            if path in self.inferences:
                raise _not_allowed(scope["method"], "POST")
            reply = self._page(scope)
        except RefusedError as error:
            reply = error.reply
        if self._logs:
            log_access(scope["method"], path, reply.status, len(reply.body), _now_s() - began_s)
        return reply

    def _page(self, scope: Message) -> Reply:
        path, method = scope["path"], scope["method"]
        reply = Reply(200, self._metrics.text(), CONTENT_TYPE) if path == "/metrics" else self._pages.get(path)
        if reply is None:
            return failure(404, _not_found(path, self._models))
        if method not in ("GET", "HEAD"):
            raise _not_allowed(method, "GET")
        if path == "/":
            address = self._address or _address(scope)
            return reply._replace(body=page(self._models, address, not self._guard.is_open).encode())
        return reply

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            ends = message["type"] == "lifespan.shutdown"
            if ends:
                self._queue.close()
                self._aside.shutdown(wait=False)
            await send({"type": f"{message['type']}.complete"})
            if ends:
                return


def _pages(models: Sequence[Model], with_token: bool) -> dict[str, Any]:
    """What can be asked of a server, and what it says."""
    found: dict[str, Any] = {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2": {"name": "automl-harness", "version": harness.__version__, "extensions": ["binary_tensor_data"]},
        "/openapi.json": openapi(models, with_token),
    }
    for model in models:
        for path in model_paths(model):
            found[path] = metadata(model.signature, model.name, model.version)
            found[f"{path}/ready"] = {"name": model.name, "ready": True}
    return found


def _not_found(path: str, models: Sequence[Model]) -> str:
    if path.startswith("/v2/models/"):
        named = ", ".join(model.name for model in models[:10])
        return f"no such model, version or path; this server answers for {named}"
    return "no such path; GET / says what there is"


async def replied(reply: Reply, send: Send) -> None:
    """Send a reply as ASGI has it."""
    headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    """Of a body, as they come."""
    is_whole = False
    while not is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        yield message.get("body", b"")
        is_whole = not message.get("more_body", False)


def _not_allowed(method: str, allowed: str) -> RefusedError:
    return RefusedError(405, f"{method[:20]} is not allowed here, {allowed} is", (b"allow", allowed.encode()))


def _address(scope: Message) -> str:
    """As the server itself knows it: the client's own word for it could hold anything."""
    host, port = (*(scope.get("server") or ()), None, None)[:2]
    return (
        f"{scope.get('scheme', 'http')}://{host or '127.0.0.1'}{f':{port}' if port else ''}{scope.get('root_path', '')}"
    )
