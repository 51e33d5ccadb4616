"""The candidate on uvicorn: one process per replica, all on one port.

In: a servable. Out: an endpoint on the loopback interface. The kernel spreads connections, not requests, over the
processes, so a client needs several connections per replica to load them evenly.
"""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from harness.clock import SystemClock
from harness.errors import UsageError
from harness.ports import Servable
from harness.process import LOOPBACK, ONE_THREAD, child_servers, wait_ready
from harness.records.candidate import Endpoint
from harness.records.server import COUNTED_TOGETHER, METRICS_FOLDER
from harness.sweeper import swept

REQUIRES = ("uvicorn", "uvloop", "httptools")


_LAST_S = 3.0
"""A process that has waited for its last request to the end has so long to be gone, before it is killed."""


@dataclass(frozen=True, slots=True)
class Asgi:
    """uvicorn with uvloop and httptools; a replica is a process of one thread."""

    bare: ClassVar[bool] = False

    port: int = 0
    """0: the system's choice."""
    ready_timeout_s: float = 120.0

    @contextlib.contextmanager
    def serve(self, servable: Servable) -> Iterator[Endpoint]:
        if servable.bundle is None or servable.runtime is None:
            raise UsageError("The target asgi serves a candidate in a runtime, and was given none.")
        clock = SystemClock()
        began_s = clock.monotonic_s()
        command = [sys.executable, "-m", servable.entry, "serve", "--runtime", servable.runtime]
        command += ["--settings", servable.settings.model_dump_json()]
        for name, folder in servable.bundles.items():
            command += ["--model", f"{name}={folder}"]
        with (
            _shared_metrics(servable.replicas) as environment,
            child_servers(
                command,
                what=f"The server of {servable.model}",
                log=servable.log,
                count=servable.replicas,
                port=self.port,
                cores=servable.cores,
                environment={**ONE_THREAD, **environment},
                timeout_s=self.ready_timeout_s,
                stop_s=servable.settings.drain_s + _LAST_S,
            ) as (port, processes),
        ):
            url = f"http://{LOOPBACK}:{port}"
            wait_ready(f"{url}/v2/health/ready", timeout_s=10.0, what="The server", log=servable.log)
            logs = "off" if servable.settings.access_log is None else "on"
            yield Endpoint(
                url=url,
                model=servable.model,
                startup_s=clock.monotonic_s() - began_s,
                cores=servable.cores,
                processes=processes,
                notes=(f"uvicorn (uvloop, httptools), access log {logs}, one thread per replica",),
            )


@contextlib.contextmanager
def _shared_metrics(processes: int) -> Iterator[dict[str, str]]:
    """The environment in which several processes count together; one by itself does without, which is faster."""
    if processes == 1:
        yield {}
        return
    with swept("harness-metrics-") as folder:
        yield {METRICS_FOLDER: str(folder), COUNTED_TOGETHER: "1"}
