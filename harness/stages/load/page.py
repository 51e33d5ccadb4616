"""Page: Locust's own web page, on which the steps of the served cells show while they go on.

In: windows of the step under way. Out: for the driver `Page`, one address for a whole run, at which Locust's master of
the present cell serves; for that master `worker_report`, the rows as it would have them from a worker, and
`only_to_look_at`, so that no button of the page changes the plan. The master sends no load, and the workers tell it
nothing: the driver does, of the rows that it has looked at.
"""

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import InfrastructureError
from harness.process import LOOPBACK
from harness.records.load import Outcome, Step
from harness.stages.load.channel import Channel
from harness.stages.load.pulse import Window

PAGE = "HARNESS_GENERATOR_PAGE_FD"
"""Environment variable that tells Locust's master which file descriptor listens for the page's readers."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""As WSGI has it."""


class Page:
    """The address of the page, and the master that serves there for the time being; made by `page`."""

    def __init__(self, listener: socket.socket, announce: Callable[[str], object]) -> None:
        self.listener = listener
        self.address = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        """Where to look at it; the same for all cells of a run, and somebody answers while one is under load."""
        self._announce = announce
        self._announced = False
        self._master: Channel | None = None

    @contextlib.contextmanager
    def served_by(self, master: Channel) -> Iterator[None]:
        """Somebody answers at the address until the block is left."""
        self._master = master
        if not self._announced:
            self._announce(f"Locust's page is up: {self.address}")
        self._announced = True
        try:
            yield
        finally:
            self._master = None

    def tell(self, step: Step, method: str, window: Window) -> None:
        """Show what came to pass with requests of that method. A page that is gone costs no measurement."""
        if self._master is None or not len(window.done_ns):
            return
        try:
            self._master.tell(summary(f"{step.number:02} {step.shape}: {step.label}", method, window), "its page")
        except InfrastructureError as error:
            self._master = None
            self._announce(f"Locust's page is gone: {error}")


@contextlib.contextmanager
def page(announce: Callable[[str], object]) -> Iterator[Page]:
    """A page on a port of the system's choice; `announce` is told when there is something to see."""
    # It listens for the whole run, so that a reader who stays need not follow from cell to cell.
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield Page(listener, announce)


def summary(name: str, method: str, window: Window) -> dict[str, Any]:
    """A window's rows, under a name, in as few numbers as Locust's statistics keep."""
    latency_ns = np.maximum(window.done_ns - window.due_ns, 1)
    wrong = window.outcome != Outcome.OK
    seconds, of_second = np.unique(window.done_ns // 1_000_000_000, return_inverse=True)
    response_ms, counts = np.unique(bucket_ns(latency_ns), return_counts=True)
    outcomes, failures = np.unique(window.outcome[wrong], return_counts=True)
    return {
        "name": name,
        "method": method,
        "until_s": window.until_s,
        "requests": len(latency_ns),
        "total_ms": float(latency_ns.sum()) / 1e6,
        "least_ms": float(latency_ns.min()) / 1e6,
        "most_ms": float(latency_ns.max()) / 1e6,
        "bytes": int(window.bytes.sum()),
        "response_ms": [(response_ms / 1e6).tolist(), counts.tolist()],
        "requests_in_s": [seconds.tolist(), np.bincount(of_second).tolist()],
        "failures_in_s": [seconds.tolist(), np.bincount(of_second, weights=wrong).astype(int).tolist()],
        "failures": {Outcome(value).name.lower(): int(count) for value, count in zip(outcomes, failures, strict=True)},
    }


def bucket_ns(latency_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Latencies with three significant digits. Locust's own have two, and whole milliseconds: 0.4 ms would be none."""
    unit = 10 ** np.maximum(np.floor(np.log10(latency_ns)).astype(np.int64) - 2, 0)
    rounded: NDArray[np.int64] = (latency_ns + unit // 2) // unit * unit
    return rounded


def worker_report(told: dict[str, Any], present_s: float) -> dict[str, Any]:
    """A `summary`, told at the `present_s` of the calendar, as a report of a Locust worker (`StatsEntryDict` there)."""
    epoch_s = present_s - told["until_s"]

    def by_second(name: str) -> dict[int, int]:
        return {int(epoch_s + second): count for second, count in zip(*told[name], strict=True)}

    entry = {
        "name": told["name"],
        "method": told["method"],
        "start_time": epoch_s,
        "last_request_timestamp": present_s,
        "num_requests": told["requests"],
        "num_none_requests": 0,
        "num_failures": sum(told["failures"].values()),
        "total_response_time": told["total_ms"],
        "min_response_time": told["least_ms"],
        "max_response_time": told["most_ms"],
        "total_content_length": told["bytes"],
        "response_times": dict(zip(*told["response_ms"], strict=True)),
        "num_reqs_per_sec": by_second("requests_in_s"),
        "num_fail_per_sec": by_second("failures_in_s"),
    }
    errors = {
        f"{told['name']} {outcome}": {
            "name": told["name"],
            "method": told["method"],
            "error": outcome,
            "occurrences": count,
            "first_seen": present_s,
            "last_seen": present_s,
        }
        for outcome, count in told["failures"].items()
    }
    return {"stats": [entry], "stats_total": {**entry, "name": "Aggregated", "method": ""}, "errors": errors}


def only_to_look_at(application: Application) -> Application:
    """`application` for readers on this machine: none of its buttons does anything, and no other site reads it."""
    ours = (LOOPBACK, "localhost")

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # A browser sends the name it was given, which someone else's name server may have led here, and the site
        # whose script asks.
        asked, asking = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN", f"http://{LOOPBACK}")
        near = asked.partition(":")[0] in ours and asking.partition("://")[2].partition(":")[0] in ours
        if near and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"The plan of a run is fixed: this page shows it and changes nothing. Ctrl-C at the harness ends it.\n"]

    return guarded
