"""Ingress: what stands before Ray Serve's own way to the application, in each of its replicas.

In: the application of this process, from `stand_before`. Out: `middlewares`, which Serve calls by its name (`HOOK` of
the surroundings) and puts in front of the HTTP server of each replica.

On Serve's way a request costs 200 microseconds before and after ours, and three things are left out of it here. Who
would have to wait for too long is refused before it: beside a model that is at its limit, refusals would take most of
the interpreter from it. Serve watches each request for the client's leaving, with two tasks and a queue of messages:
it has a header by which a client does without, and each has it here. And uvicorn sends an answer in two pieces, each
a system call here and one or two in HAProxy.
"""

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from harness.serving.app import App, Message, Receive, Send, replied
from harness.serving.transport import Whole

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.types import ASGIApp

_UNWATCHED = (b"x-request-disconnect-disabled", b"?1")

_here: list[App] = []
"""The application of this process; none where it is no replica's, for Serve's own proxies call `middlewares` too."""


def stand_before(app: App) -> App:
    """The application, before which `middlewares` stand from now on."""
    _here[:] = [app]
    return app


def middlewares() -> "list[Middleware]":
    """As Ray Serve wants them."""
    from starlette.middleware import Middleware

    return [Middleware(Ingress, app=app) for app in _here]


class Ingress:
    """See above. `inner` is Serve's own way to `app`."""

    def __init__(self, inner: "ASGIApp", app: App) -> None:
        self._inner: Any = inner
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """As ASGI 3 has it."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        whole = None
        # uvicorn's, whose method `send` is; with another server answers go in two pieces, as they would without this.
        cycle = getattr(send, "__self__", None)
        if isinstance(cycle, RequestResponseCycle):
            whole = Whole(cycle.transport)
            cycle.transport = whole  # type: ignore[assignment]
        try:
            reply = self._app.refused_at_the_door(scope)
            if reply is not None:
                await replied(reply, send)
            else:
                scope["headers"].append(_UNWATCHED)
                await self._inner(scope, receive, send)
        finally:
            if whole is not None:
                whole.flush()
