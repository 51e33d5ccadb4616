"""A server that someone else runs.

In: its address and the name of its model. Out: an endpoint, found ready. Nothing is started and nothing is stopped;
what its figures hold for (cores, replicas, settings) only its owner knows.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from harness.clock import SystemClock
from harness.ports import Servable
from harness.process import wait_ready
from harness.records.candidate import Endpoint

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class External:
    """An endpoint of the Open Inference Protocol v2 that is there already."""

    bare: ClassVar[bool] = True

    url: str = ""
    """Plain HTTP, host and port, such as `http://10.0.0.7:8080`."""
    model: str = ""
    """Name under `/v2/models/`."""
    ready_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        # Both have a default only so that a scenario that forgets one is told so, and how to write it.
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(
                f"`url` is scheme, host and port, as in http://host:8080, not {self.url!r}; the load generator speaks "
                "plain HTTP, so name the point behind which TLS ends"
            )
        if not self.model:
            raise ValueError("`model` is the name of the model there")

    @contextlib.contextmanager
    def serve(self, servable: Servable) -> Iterator[Endpoint]:
        clock = SystemClock()
        began_s = clock.monotonic_s()
        url = self.url.rstrip("/")
        ready = f"{url}/v2/health/ready"
        wait_ready(ready, timeout_s=self.ready_timeout_s, what=f"The server at {url}")
        yield Endpoint(
            url=url,
            model=self.model,
            startup_s=clock.monotonic_s() - began_s,
            notes=("run by someone else: its cores, replicas and settings are not known here",),
        )
