"""Serving on a cluster that is there already: where Serve runs and listens there, found or started.

In: a servable with the address of a cluster, and what the target wants. Out: `on_cluster`, a block with a `Place` in
which an application may be deployed; the cluster is left as it was found. A Serve that runs there already is used as
it is, by a prefix of our own beside whatever else it serves: its port, proxies and switches are those of its owner.
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from harness.errors import UsageError
from harness.ports import Servable
from harness.process import LOOPBACK, ONE_THREAD
from harness.ray_serving import application
from harness.ray_serving.application import Place
from harness.ray_serving.parcel import packed
from harness.ray_serving.steward import fetched, stewarded
from harness.ray_session import ray_session

_EVERYWHERE = "0.0.0.0"  # asked for by the user's own `opened`
_BIND_S = 30.0


@dataclass(frozen=True, slots=True)
class Nodes:
    """The machines of a cluster, by their addresses."""

    here: str
    head: str
    working: tuple[str, ...]
    """Those with CPUs, one for each node."""


@contextlib.contextmanager
def on_cluster(servable: Servable, port: int, opened: bool, switches: Mapping[str, str]) -> Iterator[Place]:
    """A place on the cluster of the servable.

    Raises UsageError where what is asked for cannot be had there, InfrastructureError where nothing answers.
    """
    address = str(servable.ray_address)
    parcel = packed(servable)
    name = f"harness-{secrets.token_hex(3)}"
    with ray_session(0, address), stewarded(address, name, servable.log) as steward:
        import ray

        nodes = _nodes()
        serves = application.controller()
        if serves is None:
            refuse_out_of_reach(nodes, opened, switches[application.SWITCHES["haproxy"]] == "1")
            port, environment = fetched(steward.expect_serve.remote(port), _BIND_S)
            application.start(_EVERYWHERE if opened else LOOPBACK, port, {**environment, **switches})
            url, prefix = f"http://{_bracketed(nodes.head if opened else LOOPBACK)}:{port}", "/"
        else:
            config = application.asked(serves.get_http_config.remote())
            details = application.asked(serves.get_serve_instance_details.remote())
            proxies = [str(proxy["node_ip"]) for proxy in details["proxies"].values()]
            prefix = f"/{name}"
            (haproxy,) = application.switches_of(())[application.SWITCHES["haproxy"]]
            url = f"{found_at(config, proxies, nodes, port, haproxy == '1')}{prefix}"
        yield Place(
            url=url,
            name=name,
            prefix=prefix,
            parcel=ray.put(parcel),
            environment=ONE_THREAD,
            notes=tuple(_notes(address, nodes, serves is None)),
            is_ours=serves is None,
        )


def refuse_out_of_reach(nodes: Nodes, opened: bool, haproxy: bool) -> None:
    """Raises UsageError where loopback is not enough for the proxy to be reached, or to reach the replicas."""
    if opened:
        return
    opens = "`opened = true` among the parameters of ray_serve has Serve listen on every interface of its nodes"
    if nodes.head != nodes.here:
        raise UsageError(
            f"Ray Serve's proxy runs on the head of the cluster, {nodes.head}, where it listens on loopback, and this "
            f"is {nodes.here}: nobody here would reach it. {opens}, where others may reach it too; or start the "
            "harness on the head."
        )
    others = sorted(set(nodes.working) - {nodes.head})
    if haproxy and others:
        raise UsageError(
            f"HAProxy on the head, {nodes.head}, sends requests to replicas at the addresses of their nodes, and those "
            f"on {', '.join(others)} would listen on loopback. {opens}, where others may reach them too; or have "
            "`haproxy = false`, for Serve's own proxy, which is slower and needs no such port."
        )


def found_at(config: Any, proxies: Sequence[str], nodes: Nodes, port: int, haproxy: bool) -> str:
    """Where a Serve that others started answers. Raises UsageError where nobody here could ask it."""
    told = f"Ray Serve runs on the cluster already, and whoever started it decides how it listens ({config.host}:"
    told += f"{config.port}). "
    if port not in (0, config.port):
        raise UsageError(f"{told}Leave out the port {port}, or have it shut down (`serve shutdown`).")
    if config.ssl_certfile or not proxies or config.host is None:
        what = "has no proxy" if not proxies or config.host is None else "speaks https"
        raise UsageError(f"{told}It {what}, and the load goes over plain http: have it started anew, or shut down.")
    if not _is_local(config.host):
        nearest = [one for one in (nodes.here, nodes.head) if one in proxies]
        host = nodes.here if config.host == nodes.here else [*nearest, *proxies][0]
        return f"http://{_bracketed(host)}:{config.port}"
    others = sorted(set(nodes.working) - {nodes.head})
    if haproxy and others:
        raise UsageError(
            f"{told}That is loopback, and its HAProxy would not reach replicas on {', '.join(others)}: have Serve "
            "started anew with the host 0.0.0.0."
        )
    if nodes.here not in proxies:
        raise UsageError(
            f"{told}That is loopback on {', '.join(proxies)}, and this is {nodes.here}: start the harness there, or "
            "have Serve started anew with the host 0.0.0.0."
        )
    return f"http://{_bracketed(LOOPBACK)}:{config.port}"


def _nodes() -> Nodes:
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    heads = [node["NodeManagerAddress"] for node in alive if "node:__internal_head__" in node["Resources"]]
    return Nodes(
        here=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
        head=str(heads[0]),
        working=tuple(str(node["NodeManagerAddress"]) for node in alive if node["Resources"].get("CPU", 0) > 0),
    )


def _notes(address: str, nodes: Nodes, is_ours: bool) -> Iterator[str]:
    machines = len(set(nodes.working))
    yield (
        f"on the Ray cluster at {address}, {len(nodes.working)} nodes with CPUs on {machines} "
        f"machine{'' if machines == 1 else 's'}, one proxy loaded"
    )
    yield "no cores are pinned there, and neither CPU nor memory of its processes is measured"
    if not is_ours:
        yield "Ray Serve ran there before and was used as it is, its proxies and their limits shared with whatever else"


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
