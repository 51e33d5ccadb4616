"""The steward: an actor on the head of a cluster, which sees to it that nothing of ours stays there.

In: a cluster that this process is connected to. Out: `stewarded`, a block in which this harness is the only one that
serves there, and after which its application, its files on the head, and Serve itself where we started it, are gone.
The driver's end is enough for that, however it comes: Serve's own actors outlive whoever started them, and so does the
steward, which waits for that end by a call to an actor that does not.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
from harness.clock import SystemClock
from harness.errors import HarnessError, InfrastructureError, UsageError, one_line
from harness.process import refuse_taken
from harness.ray_serving import application
from harness.ray_serving.surroundings import free_port, surroundings
from harness.sweeper import swept

_NAME = _NAMESPACE = "harness"
_HEAD = {"node:__internal_head__": 0.001}
"""Ray's own resource of the head, as Serve's controller asks for it."""

_START_S = 60.0
_END_S = 60.0
_REMOVAL_S = 180.0
"""A minute for replicas that drain, one for Serve to end, and one to spare."""

_LEAVING_S = 90.0
"""How long one harness waits for another that is taking its own away."""

_POLL_S = 0.5


class Sentinel:
    """What dies with the driver."""

    async def stand(self) -> None:
        """Without an end of its own."""
        await asyncio.Event().wait()


class Steward:
    """What runs as an actor on the head. Made to be one by `stewarded`."""

    def __init__(self, who: str, sentinel: Any) -> None:
        self._who, self._sentinel = who, sentinel
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._name: str | None = None
        self._port: int | None = None
        self._is_leaving = False
        threading.Thread(target=self._outlive, daemon=True).start()

    def who(self) -> tuple[str, bool]:
        """Whose steward it is, and whether it is about to leave."""
        return self._who, self._is_leaving

    def expect(self, version: str, name: str) -> None:
        """There will be an application of this name. Raises InfrastructureError where another harness is here."""
        if version != harness.__version__:
            raise InfrastructureError(
                f"The head of the cluster has harness {harness.__version__}, and this is {version}: install the same "
                "everywhere."
            )
        self._name = name

    def expect_serve(self, port: int) -> tuple[int, dict[str, str]]:
        """We shall start Serve: the port for its proxy, and its environment. Raises UsageError on a taken one."""
        refuse_taken(port)
        folder = self._stack.enter_context(swept("rs"))
        self._port = port or free_port()
        return self._port, surroundings(folder)

    def take_down(self) -> str:
        """Take away what is ours; what went wrong, if anything did."""
        self._is_leaving = True
        with self._lock:
            wrong = []
            for step in (self._remove, self._shut_down):
                try:
                    step()
                except HarnessError as error:
                    wrong.append(str(error))
            self._stack.close()
            return " ".join(wrong)

    def _remove(self) -> None:
        if self._name is not None and application.controller() is not None:
            application.remove(self._name)
        self._name = None

    def _shut_down(self) -> None:
        """End Serve if it is the one that we started, and nobody has put anything else on it."""
        serves, port, self._port = application.controller(), self._port, None
        if port is None or serves is None:
            return
        details = application.asked(serves.get_serve_instance_details.remote())
        if details["http_options"]["port"] != port:
            return
        if others := sorted(details["applications"]):
            raise InfrastructureError(
                f"Ray Serve was left running on the cluster: since we started it, others put {', '.join(others)} there."
            )
        # As `serve.shutdown` does, but for waiting inside a call that ends who answers it: Ray would repeat that call,
        # and say so on the driver's standard output.
        application.asked(serves.graceful_shutdown.remote(wait=False))
        clock = SystemClock()
        until_s = clock.monotonic_s() + _END_S
        while application.controller() is not None:
            if clock.monotonic_s() > until_s:
                raise InfrastructureError(f"Ray Serve, which we started on the cluster, did not end in {_END_S:g} s.")
            clock.sleep(_POLL_S)

    def _outlive(self) -> None:
        """Wait until the driver is no more, take down what it left, and end."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._sentinel.stand.remote())
        self.take_down()
        os._exit(0)


@contextlib.contextmanager
def stewarded(address: str, name: str, log: Path) -> Iterator[Any]:
    """The steward for an application of this name.

    Raises UsageError where another harness serves on this cluster, InfrastructureError where the head cannot run it.
    """
    import ray

    on_head: dict[str, Any] = {"num_cpus": 0, "resources": _HEAD, "max_restarts": 0}
    sentinel: Any = ray.remote(**on_head)(Sentinel).remote()
    steward = None
    try:
        steward = _only_one(on_head, sentinel, address)
        fetched(steward.expect.remote(harness.__version__, name), _START_S)
        yield steward
    finally:
        if ray.is_initialized():
            if steward is not None:
                try:
                    if wrong := fetched(steward.take_down.remote(), _REMOVAL_S):
                        application.append(log, wrong)
                except InfrastructureError as error:
                    application.append(log, str(error))
                ray.kill(steward, no_restart=True)
            ray.kill(sentinel, no_restart=True)


def fetched(call: Any, timeout_s: float) -> Any:
    """What a call to the steward gives; what it raises, or an InfrastructureError where it gives nothing."""
    import ray

    try:
        return ray.get(call, timeout=timeout_s)
    except UsageError as error:
        raise UsageError(str(getattr(error, "cause", error))) from None
    except InfrastructureError as error:
        # Of an error that an actor raised, Ray's text is a remote traceback.
        raise InfrastructureError(str(getattr(error, "cause", error))) from None
    except ray.exceptions.RayError as error:
        raise InfrastructureError(
            f"The head of the cluster does not run what serving needs there within {timeout_s:g} s: "
            f"{one_line(error, 600)}. It needs this harness too, in the same version."
        ) from error


def _only_one(on_head: dict[str, Any], sentinel: Any, address: str) -> Any:
    """A steward under the one name that all harnesses use: Ray gives it to one at a time."""
    import ray

    made: Any = ray.remote(**on_head)(Steward)
    who = f"process {os.getpid()} on {socket.gethostname()}"
    clock = SystemClock()
    until_s = clock.monotonic_s() + _LEAVING_S
    while True:
        try:
            named = made.options(name=_NAME, namespace=_NAMESPACE, lifetime="detached", max_concurrency=4)
            return named.remote(who, sentinel)
        except ValueError:
            other, is_leaving = _other()
        if not is_leaving or clock.monotonic_s() > until_s:
            raise UsageError(
                f"Another harness serves on the cluster at {address}: {other}. Two would share its proxies and its "
                "CPUs, and the figures of neither would be its own. Wait until it has ended, or end it."
            )
        clock.sleep(_POLL_S)


def _other() -> tuple[str, bool]:
    """Whose steward is there, and whether it will soon be gone."""
    import ray

    try:
        actor: Any = ray.get_actor(_NAME, namespace=_NAMESPACE)
        who, is_leaving = ray.get(actor.who.remote(), timeout=_START_S)
    except (ValueError, ray.exceptions.RayError):
        return "one that is ending", True
    return str(who), bool(is_leaving)
