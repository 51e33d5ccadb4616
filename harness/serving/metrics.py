"""What a server tells Prometheus: requests by model, runtime and code, how long they took, and how many are at work.

In: what happens to requests. Out: `Metrics`, and its text, in the exposition format. Of several processes on one port,
whichever is asked answers for all: they share files in the folder that `METRICS_FOLDER` names, which costs some
microseconds a request, so that a single process does without.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from harness.records.server import METRICS_FOLDER

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LABELS = ("model", "runtime")


class Metrics:
    """Of all models of a server."""

    def __init__(self) -> None:
        self._shared = METRICS_FOLDER in os.environ
        self._registry = CollectorRegistry()
        if not self._shared:
            ProcessCollector(registry=self._registry)
        made: dict[str, Any] = {"registry": None if self._shared else self._registry}
        self._requests = Counter("inference_requests", "Requests answered, by status.", (*_LABELS, "code"), **made)
        self._seconds = Histogram(
            "inference_request_seconds", "From a request's headers to its answer.", _LABELS, buckets=_SECONDS, **made
        )
        self._rejected = Counter("inference_rejected", "Requests that found the queue full.", _LABELS, **made)
        self._in_flight = Gauge(
            "inference_in_flight", "Requests waiting or computed now.", _LABELS, multiprocess_mode="livesum", **made
        )

    def of(self, model: str, runtime: str) -> "ModelMetrics":
        """Those of one model."""
        labels = (model, runtime)
        return ModelMetrics(
            observe=self._seconds.labels(*labels).observe,
            counter=partial(self._requests.labels, *labels),
            reject=self._rejected.labels(*labels).inc,
            in_flight=self._in_flight.labels(*labels),
            is_shared=self._shared,
        )

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        if not self._shared:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class ModelMetrics:
    """What is counted of one model, with its labels looked up once."""

    def __init__(
        self,
        observe: Callable[[float], None],
        counter: Callable[[str], Any],
        reject: Callable[[], None],
        in_flight: Any,
        is_shared: bool,
    ) -> None:
        self.reject = reject
        self._in_flight = 0
        # Shared, it must be written down at every change; by itself it is asked for when somebody wants to know.
        self._tell: Callable[[float], None] | None = in_flight.set if is_shared else None
        if not is_shared:
            in_flight.set_function(lambda: float(self._in_flight))
        self._observe = observe
        self._counter = counter
        self._by_status: dict[int, Callable[[], None]] = {}

    def begun(self) -> None:
        """A request is here."""
        self._in_flight += 1
        if self._tell is not None:
            self._tell(self._in_flight)

    def ended(self, status: int, took_s: float) -> None:
        """A request that was begun has its answer."""
        self._in_flight -= 1
        if self._tell is not None:
            self._tell(self._in_flight)
        self._observe(took_s)
        count = self._by_status.get(status)
        if count is None:
            count = self._by_status[status] = self._counter(str(status)).inc
        count()
