"""A server that someone else runs.

In: its address, and the name of its model where it speaks the Open Inference Protocol v2, or the path at which it says
that it is ready. Out: an endpoint, found ready. Nothing is started and nothing is stopped; what its figures hold for
(cores, replicas, settings) only its owner knows.
"""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from harness.clock import SystemClock
from harness.errors import InfrastructureError
from harness.ports import Servable
from harness.process import address_of, wait_ready
from harness.records.candidate import Endpoint

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class External:
    """An endpoint that is there already."""

    bare: ClassVar[bool] = True

    url: str = ""
    """Where requests go, such as `https://host:8443/score`; with a `model` scheme, host and port alone."""
    model: str = ""
    """Name under `/v2/models/` of a server that speaks the Open Inference Protocol v2."""
    ready_path: str = ""
    """Where it answers 200 once it is ready, such as `/ping` (MLflow), `/readyz` (BentoML) or `/healthz`, over http;
    with a `model` the one of the protocol. Empty: it has to take a connection, for a call may have consequences."""
    ready_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        # It has a default only so that a scenario that forgets it is told so, and how to write it.
        try:
            parts = urlsplit(self.url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound or not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise ValueError(
                f"`url` is an address such as http://host:8080/score, with scheme and host, not {self.url!r}"
            )
        if parts.username is not None or parts.fragment:
            raise ValueError(
                "`url` holds no user, password or fragment (they would be recorded): name a bearer token's environment "
                "variable, or give a header"
            )
        if self.model and (parts.path.strip("/") or parts.query):
            raise ValueError(
                f"`url` is scheme, host and port where there is a `model`, as in http://host:8080, not {self.url!r}"
            )
        if self.ready_path and (parts.scheme != "http" or not self.ready_path.startswith("/")):
            raise ValueError(
                f"`ready_path` is a path such as /ping of a server with an http address, not {self.ready_path!r} of "
                f"{self.url!r}"
            )

    @contextlib.contextmanager
    def serve(self, servable: Servable) -> Iterator[Endpoint]:
        clock = SystemClock()
        began_s = clock.monotonic_s()
        parts = urlsplit(self.url)
        url = f"{parts.scheme}://{parts.netloc}"
        what = f"The server at {url}"
        ready_path = self.ready_path or ("/v2/health/ready" if self.model and parts.scheme == "http" else "")
        if ready_path:
            wait_ready(f"{url}{ready_path}", timeout_s=self.ready_timeout_s, what=what)
        else:
            self._reach(what)
        yield Endpoint(
            url=url,
            model=self.model,
            path=None if self.model else (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            startup_s=clock.monotonic_s() - began_s,
            notes=("run by someone else: its cores, replicas and settings are not known here",),
        )

    def _reach(self, what: str) -> None:
        """All that can be known of a server of any kind without asking it for what may have consequences."""
        try:
            socket.create_connection(address_of(self.url), self.ready_timeout_s).close()
        except OSError as error:
            raise InfrastructureError(
                f"{what} cannot be reached: {error}. Is it running, and are host and port right?"
            ) from None
