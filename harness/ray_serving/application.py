"""The application on Ray Serve: started, deployed, looked at, and taken away, on whatever Ray this process has.

In: a servable, its `Place`, and how it is scaled. Out: an application whose replicas all run, and `Replicas`, what they
and Serve's controller say of themselves. What goes wrong is one InfrastructureError, in a line.
"""

import contextlib
import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.clock import SystemClock
from harness.errors import InfrastructureError
from harness.ports import Servable
from harness.process import SERVER_HEADER, direct
from harness.sweeper import is_swept

SWITCHES = {"haproxy": "RAY_SERVE_ENABLE_HA_PROXY", "throughput_optimized": "RAY_SERVE_THROUGHPUT_OPTIMIZED"}
"""Parameters of the target, and where Serve's processes read them from when they start."""

_CONTROLLER, _NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"
_DEPLOYMENT = "candidate"
_QUIET = {"enable_access_log": False, "log_level": "WARNING"}
_KEEP_ALIVE_S = 3600
"""Serve's own 90 s would close what a load generator keeps open at a low rate, and count as errors of the model."""

_LOOKS, _LOOK_S = 5, 0.1
"""So many looks in a row, so far apart, are to find all replicas."""

_ANSWER_S = 30.0
"""Longest time that Serve's controller, or a replica, may take to say what it is asked."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an application may be deployed."""

    url: str
    """Where it will answer, without a slash at the end."""
    name: str
    """Of the application."""
    prefix: str
    """Of its paths, as Serve has it: `/` where it has them all."""
    parcel: Any
    """What its replicas are given: a value, or its place in Ray's store."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its replicas see beside what Serve's own processes do."""
    notes: tuple[str, ...] = ()
    is_ours: bool = True
    """We started Serve."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """An application's replicas, each by its name in Ray, and what its processes were started with."""

    nodes: Mapping[str, str]
    """The address of each one's node."""
    switches: Mapping[str, Sequence[str]]
    """Of each of `SWITCHES`, by its name in the environment: what holds in the controller, and in each replica."""


def start(host: str, port: int, environment: Mapping[str, str]) -> None:
    """Start Serve, with one proxy, on the head; its processes see `environment`.

    With a proxy on every node only one of them would be loaded, and on one machine they would share a port.
    """
    import ray
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    listening = {"host": host, "port": port, "keep_alive_timeout_s": _KEEP_ALIVE_S}
    # What the controller sees, the proxies and replicas see that it starts.
    seeing = _seeing(environment)
    try:
        serve.start(
            proxy_location="HeadOnly", http_options=listening, logging_config=_QUIET, controller_options=seeing or None
        )
    except (RuntimeError, OSError, ray.exceptions.RayError) as error:
        raise InfrastructureError(f"Ray Serve does not start: {_last_line(str(error))}") from error


def deploy(servable: Servable, place: Place, scale: Mapping[str, Any], timeout_s: float) -> None:
    """Have an application of one deployment, and wait until every replica runs."""
    import ray
    from ray import serve
    from ray.serve.config import BackpressureConfig

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    deployment: Any = serve.deployment(
        serve.ingress(_builder(servable, place))(),
        name=_DEPLOYMENT,
        **scale,
        backpressure_config=BackpressureConfig(retry_after_s=1.0),
        max_constructor_retry_count=1,
        ray_actor_options={"num_cpus": 1, **_seeing(place.environment)},
        # A replica is gone as soon as it has answered all that it was sent; Serve looks every two seconds otherwise.
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=servable.settings.drain_s,
        logging_config=_QUIET,
    )
    target = serve.RunTarget(deployment.bind(), name=place.name, route_prefix=place.prefix)
    try:
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        _wait_running(servable, place.name, scale, timeout_s)
    except (RuntimeError, OSError, ray.exceptions.RayError) as error:
        raise _failed("Ray Serve does not start", str(error), servable.log) from error


def wait_answering(url: str, count: int, timeout_s: float) -> None:
    """Wait until so many replicas answer, and go on to.

    For HAProxy, which learns of each some time after it runs, and may have the first alone once more, though the others
    have answered. Serve's own proxy prefers those of its node, so that others may never be seen. Raises
    InfrastructureError where it takes longer than `timeout_s` seconds.
    """
    clock = SystemClock()
    until_s = clock.monotonic_s() + timeout_s
    in_a_row = 0
    while in_a_row < _LOOKS:
        # They take turns where nothing else is asked; four times as many, for others may ask there too.
        seen = {_who_answers(url) for _ in range(4 * count)} - {None}
        in_a_row = in_a_row + 1 if len(seen) >= count else 0
        if clock.monotonic_s() > until_s:
            raise InfrastructureError(
                f"{len(seen)} of {count} replicas answer at {url} within {timeout_s:g} s: Ray Serve's proxy sends "
                "nothing to the others, though they run."
            )
        clock.sleep(_LOOK_S)


def _who_answers(url: str) -> str | None:
    with contextlib.suppress(OSError), direct().open(f"{url}/v2/health/live", timeout=2.0) as answer:
        return str(answer.headers[SERVER_HEADER])
    return None


def remove(name: str) -> None:
    """Have the replicas answer what they were sent, while the proxy still stands; it refuses what comes meanwhile.

    Raises InfrastructureError where that does not end.
    """
    import ray
    from ray import serve

    try:
        serve.delete(name)
    except (RuntimeError, OSError, ray.exceptions.RayError) as error:
        raise InfrastructureError(f"Ray Serve did not end in order: {error}") from error


def controller() -> Any:
    """The actor that is Serve here, whoever started it; None where there is none."""
    import ray

    try:
        return ray.get_actor(_CONTROLLER, namespace=_NAMESPACE)
    except ValueError:
        return None


def asked(call: Any) -> Any:
    """What a call to one of Serve's actors gives. Raises InfrastructureError where it gives nothing in time."""
    import ray

    try:
        return ray.get(call, timeout=_ANSWER_S)
    except ray.exceptions.RayError as error:
        raise InfrastructureError(f"Ray Serve does not say how it is: {_last_line(str(error))}") from error


def running() -> dict[str, tuple[str, str]]:
    """The replicas that run here, of all applications: the application of each, and the address of its node."""
    serves = controller()
    details = asked(serves.get_serve_instance_details.remote()) if serves is not None else {"applications": {}}
    return {
        str(one["actor_name"]): (name, str(one["node_ip"]))
        for name, application in details["applications"].items()
        for deployment in application["deployments"].values()
        for one in deployment["replicas"]
        if one["state"] == "RUNNING"
    }


def replicas(name: str) -> Replicas:
    """Those of an application that run. Raises InfrastructureError where they do not say how they are."""
    nodes = {replica: node for replica, (application, node) in running().items() if application == name}
    return Replicas(nodes, switches_of(list(nodes)))


def switches_of(names: Sequence[str]) -> dict[str, list[str]]:
    """As they hold in the controller and those replicas: our own environment says nothing of a Serve of others."""
    import ray

    wanted = tuple(SWITCHES.values())

    def read(_: Any) -> list[str]:
        """Runs in the process itself, and travels by value."""
        from ray.serve._private import constants

        return [str(int(getattr(constants, one))) for one in wanted]

    actors = [controller(), *(ray.get_actor(one, namespace=_NAMESPACE) for one in names)]
    told = asked([actor.__ray_call__.remote(read) for actor in actors])
    return {name: [values[index] for values in told] for index, name in enumerate(wanted)}


def _seeing(environment: Mapping[str, str]) -> dict[str, Any]:
    """The option of an actor that sees this in its environment, beside what it would see anyhow."""
    return {"runtime_env": {"env_vars": dict(environment)}} if environment else {}


def _builder(servable: Servable, place: Place) -> Any:
    """What a replica calls. It travels by value, and so names nothing of ours: its node may have no harness."""
    entry, runtime = servable.entry, servable.runtime
    settings, parcel, is_below = servable.settings.model_dump_json(), place.parcel, place.prefix != "/"
    url = place.url

    def build() -> Any:
        import ray
        from ray import serve

        where = f"The node {ray.util.get_node_ip_address()}"  # type: ignore[no-untyped-call]
        try:
            room = importlib.import_module("harness.ray_serving.parcel")
        except ModuleNotFoundError as error:
            raise RuntimeError(f"{where} has no harness, or another one ({error}): install ours there.") from None
        there = ray.get(parcel) if isinstance(parcel, ray.ObjectRef) else parcel
        # In the parcel and not beside it: another harness is to say that it is one, not that it knows no such argument.
        there = {**there, "address": url, "replica": serve.get_replica_context().replica_id.unique_id}
        made = room.application(there, entry, runtime, settings, where)
        return importlib.import_module("harness.ray_serving.below").Below(made) if is_below else made

    return build


def _wait_running(servable: Servable, name: str, scale: Mapping[str, Any], timeout_s: float) -> None:
    import ray
    from ray import serve

    clock = SystemClock()
    deadline_s = clock.monotonic_s() + timeout_s
    status = "unknown"
    while clock.monotonic_s() < deadline_s:
        found = serve.status().applications.get(name)
        if found is not None:
            status = str(found.status.value)
            if status == "RUNNING":
                return
            if status == "DEPLOY_FAILED":
                said = "\n".join([found.message, *(deployment.message for deployment in found.deployments.values())])
                raise _failed(f"Ray Serve could not start {servable.model}", said, servable.log)
        clock.sleep(0.05)
    up = sum(application == name for application, _ in running().values())
    free = ray.available_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
    most = f", at most {scale['max_replicas_per_node']} on a node" if scale.get("max_replicas_per_node") else ""
    raise InfrastructureError(
        f"Ray Serve did not start {servable.model} within {timeout_s:g} s; its state is {status}. {up} of "
        f"{servable.replicas} replicas run. Each takes a CPU{most}, and {free:g} are free beside theirs: ask for fewer "
        "replicas, bring more nodes, or give it longer (ready_timeout_s)."
    )


def _failed(what: str, said: str, log: Path) -> InfrastructureError:
    """An error in a line: Ray's are remote tracebacks in tracebacks, whose last line is what the code itself said."""
    append(log, said)
    kept = "" if is_swept(log) else f" The whole of it is in {log}."
    return InfrastructureError(f"{what}: {_last_line(said).rstrip('.')}.{kept}")


def _last_line(said: str) -> str:
    lines = said.strip().splitlines() or ["no reason given"]
    return lines[-1].strip()


def append(log: Path, text: str) -> None:
    """Add a line to the log of a server."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as kept:
        kept.write(f"{text}\n")
