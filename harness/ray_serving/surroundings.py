"""Surroundings of Ray Serve: the environment that it starts in, and a port that is free for its proxy.

In: a folder for HAProxy's files, on the machine where the proxy runs. Out: settings that keep two runs on one machine,
or two users, out of each other's way; a port.
"""

import contextlib
import secrets
import socket
from pathlib import Path

from harness.errors import InfrastructureError
from harness.process import ONE_THREAD

_PORTS = range(20_000, 30_000)
"""Below the range from which the system gives ports (32,768 and up), between Ray's workers' and its replicas'."""

HOOK_SETTING, HOOK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "harness.ray_serving.ingress.middlewares"
"""Where a replica looks for what is to stand before Serve's own way, and what stands there."""


def surroundings(folder: Path) -> dict[str, str]:
    """Settings for a Serve of ours, whose proxy runs on this machine."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "h" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "h" / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "h" / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "h"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "h" / "state"),
        # Where nobody listens: it would send a line for each request to port 514, where a machine's own log may be.
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(folder / "h" / "log"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        # On a machine that is busy its proxy takes longer than Serve's own 5 s, and would be killed three times.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        **ONE_THREAD,
    }


def free_port() -> int:
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
