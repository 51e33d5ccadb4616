"""What a server tells Prometheus: requests by model, runtime and code, how long they took, and how many are at work.

In: what happens to requests. Out: `Metrics`, and its text, in the exposition format. A process by itself counts in
plain numbers, of which the text is made when somebody asks; prometheus-client's own would take a lock for each. Of
several processes on one port (`COUNTED_TOGETHER`), whichever is asked answers for all: they share files in the folder
that `METRICS_FOLDER` names, which costs some microseconds a request. Replicas behind a proxy may be on several nodes
and share none: each answers for itself alone, and all that it says has its name as the label `replica`. Without it
one's numbers would follow on another's, and Prometheus would take each that is lower for a new beginning.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from harness.records.server import COUNTED_TOGETHER

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LABELS = ("model", "runtime")
_LABELS_OF_REQUESTS = (*_LABELS, "code")

_REQUESTS = "inference_requests", "Requests answered, by status."
_REQUEST_SECONDS = "inference_request_seconds", "From a request's headers to its answer."
_REJECTED = "inference_rejected", "Requests that found the queue full."
_IN_FLIGHT = "inference_in_flight", "Requests waiting or computed now."


class ModelMetrics(Protocol):
    """What is counted of one model."""

    def begun(self) -> None:
        """A request is here."""

    def reject(self) -> None:
        """It found the queue full."""

    def ended(self, status: int, took_s: float) -> None:
        """A request that was begun has its answer."""


class Metrics(Protocol):
    """Of all models of a server."""

    def of(self, model: str, runtime: str) -> ModelMetrics:
        """Those of one model."""
        ...

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        ...


def metrics(replica: str | None = None) -> Metrics:
    """Those of this process; `replica` is its name among those behind a proxy."""
    return _Shared() if COUNTED_TOGETHER in os.environ else _Own(replica)


class _Own(Collector):
    """Of one process by itself."""

    def __init__(self, replica: str | None) -> None:
        self._named = {} if replica is None else {"replica": replica}
        self._models: dict[tuple[str, str], _Counted] = {}

    def of(self, model: str, runtime: str) -> ModelMetrics:
        return self._models.setdefault((model, runtime), _Counted())

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client wants it."""
        for family in (*ProcessCollector(registry=None).collect(), *self._counts()):
            family.samples = [one._replace(labels={**one.labels, **self._named}) for one in family.samples]
            yield family

    def _counts(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(*_REQUESTS, labels=_LABELS_OF_REQUESTS)
        seconds = HistogramMetricFamily(*_REQUEST_SECONDS, labels=_LABELS)
        rejected = CounterMetricFamily(*_REJECTED, labels=_LABELS)
        in_flight = GaugeMetricFamily(*_IN_FLIGHT, labels=_LABELS)
        bounds = [*map(str, _SECONDS), "+Inf"]
        for labels, counted in self._models.items():
            for status, count in counted.by_status.items():
                requests.add_metric([*labels, str(status)], count)
            buckets = list(zip(bounds, accumulate(counted.by_time), strict=True))
            seconds.add_metric(labels, buckets, counted.seconds)
            rejected.add_metric(labels, counted.rejected)
            in_flight.add_metric(labels, counted.in_flight)
        yield from (requests, seconds, rejected, in_flight)


class _Counted:
    """In one event loop: nobody else counts meanwhile."""

    def __init__(self) -> None:
        self.by_status: dict[int, int] = {}
        self.by_time = [0] * (len(_SECONDS) + 1)
        """Those that took no longer than a bound, and longer than the one before."""
        self.seconds = 0.0
        self.rejected = self.in_flight = 0

    def begun(self) -> None:
        self.in_flight += 1

    def reject(self) -> None:
        self.rejected += 1

    def ended(self, status: int, took_s: float) -> None:
        self.in_flight -= 1
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.by_time[bisect_left(_SECONDS, took_s)] += 1
        self.seconds += took_s


class _Shared:
    """Of all processes that have the same folder."""

    def __init__(self) -> None:
        self._requests = Counter(*_REQUESTS, _LABELS_OF_REQUESTS, registry=None)
        self._seconds = Histogram(*_REQUEST_SECONDS, _LABELS, buckets=_SECONDS, registry=None)
        self._rejected = Counter(*_REJECTED, _LABELS, registry=None)
        self._in_flight = Gauge(*_IN_FLIGHT, _LABELS, multiprocess_mode="livesum", registry=None)

    def of(self, model: str, runtime: str) -> ModelMetrics:
        labels = (model, runtime)
        return _Written(
            partial(self._requests.labels, *labels),
            self._seconds.labels(*labels),
            self._rejected.labels(*labels),
            self._in_flight.labels(*labels),
        )

    def text(self) -> bytes:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class _Written:
    """Each change is written down, for whichever process is asked."""

    def __init__(self, requests: Any, seconds: Any, rejected: Any, in_flight: Any) -> None:
        self._requests = requests
        self._observe = seconds.observe
        self.reject = rejected.inc
        self._in_flight = in_flight

    def begun(self) -> None:
        self._in_flight.inc()

    def ended(self, status: int, took_s: float) -> None:
        self._in_flight.dec()
        self._observe(took_s)
        self._requests(str(status)).inc()
