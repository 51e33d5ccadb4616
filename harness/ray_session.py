"""Ray, for as long as it is needed: a session of our own, or a cluster that is there already.

In: CPUs and settings, or an address. Out: blocks inside which `ray` can be used. Of a session of our own nothing is
left afterwards, neither process nor file, however the block ends; a cluster is left as it was found.
"""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import InfrastructureError, one_line
from harness.process import LOOPBACK, on_cores, own_signals
from harness.sweeper import swept

_OBJECT_STORE_BYTES = 256 * 2**20
_CONNECT_TIMEOUT_S = 10.0
_REASON_LENGTH = 600

_SETTINGS: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # `uv run` would have every worker build an environment of its own.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray announces what it will do about GPUs one day; nothing here uses one.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_MODE, _GUARDED = "RAY_AUTH_MODE", "token"
_TOKEN_SETTINGS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOKEN = secrets.token_hex(32)
"""Ray's ports are open on every interface, and this guards them, in place of the file that Ray would make in the home
folder. One for all sessions of this process."""

_BREAKPOINT = "PYTHONBREAKPOINT"

_connected: list[str] = []
"""The address of the cluster that this process is connected to, if it is to one."""


@contextlib.contextmanager
def ray_session(cpus: int, address: str | None = None) -> Iterator[None]:
    """A session of our own with `cpus` CPUs, or the cluster at `address`.

    Inside another block for the same cluster it shares that connection. Raises InfrastructureError with the reason
    where Ray does not start, or nothing answers at the address.
    """
    if address is None:
        with swept("harness-") as folder, local_ray(folder, cpus):
            yield
        return
    if address in _connected:
        yield  # a process has one Ray at a time, and who is inside another such block shares it
        return
    refuse_silent(address)
    with _ray(f"at {address}", {}, address=address):
        _connected.append(address)
        try:
            yield
        finally:
            _connected.remove(address)


@contextlib.contextmanager
def local_ray(
    folder: Path, cpus: int, *, cores: tuple[int, ...] = (), settings: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A session of our own that keeps its files in `folder`, a swept one.

    Its processes run on `cores` (empty: any) and see `settings` in their environment. Raises InfrastructureError with
    the reason where Ray does not start.
    """
    brought = any(name in os.environ for name in _TOKEN_SETTINGS)
    with _ray(
        "on this machine",
        # Unset, for Ray looks at its own default only then, and takes a mode that is set as decided: `disabled` too.
        {_MODE: None, **({} if brought else {"RAY_AUTH_TOKEN": _TOKEN}), **(settings or {})},
        cores,
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _node_ip_address=LOOPBACK,
        _temp_dir=str(folder),
    ):
        _refuse_unguarded()
        yield


@contextlib.contextmanager
def _ray(where: str, settings: Mapping[str, str | None], cores: tuple[int, ...] = (), **options: Any) -> Iterator[None]:
    with _environment({**_SETTINGS, **settings}), contextlib.ExitStack() as stack:
        stack.callback(_shut_down)
        _start(where, cores, options)
        yield


def _start(where: str, cores: tuple[int, ...], options: Mapping[str, Any]) -> None:
    import ray

    # Its first words are spoken before it knows that it is to be quiet.
    logging.getLogger("ray").setLevel(logging.ERROR)
    _forget_token()
    try:
        # Every process of Ray's inherits the cores of the thread that starts it.
        with own_signals(), on_cores(cores):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        reason = one_line(error, _REASON_LENGTH)
        raise InfrastructureError(
            f"Ray did not start {where}: {reason}. Check the address, the free memory, and the free space in the "
            "temporary folder."
        ) from error


def _forget_token() -> None:
    """Have Ray read anew whether there is a token, and which: it does so once in a process.

    After a session of our own, a cluster that has none would be refused when it calls back, and take us for dead: then
    it ends each actor as soon as it is asked for. Ray has no public way; it does the same itself, where it finds a
    token late.
    """
    from ray import _raylet

    raylet: Any = _raylet  # compiled, and its types say nothing of these
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    raylet.Config.initialize("")


def _shut_down() -> None:
    import ray

    with own_signals():
        ray.shutdown()


def _refuse_unguarded() -> None:
    if os.environ.get(_MODE) != _GUARDED:
        raise InfrastructureError(
            "Ray on this machine started without asking for its token, so that whoever reaches its ports could run "
            "code here: this version of Ray has another default than the one that the harness was made for. Install "
            "the version of requirements.lock."
        )


@contextlib.contextmanager
def _environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """The settings are in force inside (None: unset); what Ray itself adds to our environment is gone afterwards."""
    before = dict(os.environ)
    for name, value in settings.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        ours = {name for name in {*before, *os.environ} if name.startswith("RAY_") or name == _BREAKPOINT}
        for name in ours | set(settings):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def refuse_silent(address: str) -> None:
    """Raises InfrastructureError where nothing listens at HOST:PORT: Ray itself would go on asking for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S):
            return
    except OSError as error:
        raise InfrastructureError(
            f"No Ray cluster answers at {address} ({error}): check the address, and that the cluster is up."
        ) from None
