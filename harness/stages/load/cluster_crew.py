"""Cluster crew: the processes of a load generator on the nodes of a Ray cluster, each a child of an actor there.

In: an endpoint that the nodes reach, and how many. Out: `cluster_crew`, which yields a worker for each, spread over the
nodes by Ray. A worker there is the very one that runs here; its actor brings it its files and sends the exchanges back.
Nodes have clocks of their own: a step begins everywhere at the same moment of the driver's clock, as well as the
fastest of some round trips to a node can tell, and each worker says how well that is.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import harness
from harness.clock import SystemClock
from harness.errors import InfrastructureError, one_line
from harness.process import address_of
from harness.records.candidate import Endpoint
from harness.stages.load.columns import Columns, own_columns
from harness.stages.load.crew import START_S, Worker, alone
from harness.stages.load.pulse import Onlooker, Window
from harness.sweeper import swept

REACH_S = 5.0
"""Longest time a node may take to open a connection to the server."""

SLACK_S = 10.0
"""What Ray may take for a call, beyond the time that the process itself is given."""

LOOK_S = 0.5
"""Longest look at a worker; a node that does not answer by then shows nothing of this second."""

ROUND_TRIPS = 12
"""Readings of a node's clock, of which the fastest is believed."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_WATCH = {"concurrency_group": "watch"}


class Outpost:
    """What runs as an actor on a node: the parent of one worker there.

    Made to be a Ray actor by `cluster_crew`. What its worker raises, it raises.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._folder = Path()
        self._worker: Worker | None = None

    def station(self, endpoint: Endpoint, driver: str, version: str) -> str:
        """Start the process; the name of the node.

        Raises InfrastructureError on a node that cannot reach the server, or has another version of the harness.
        """
        import ray

        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        node = f"{address} (node {ray.get_runtime_context().get_node_id()[:8]})"
        if version != harness.__version__:
            raise InfrastructureError(
                f"{node} has harness {harness.__version__}, and this is {version}: install the same everywhere."
            )
        _refuse_out_of_reach(endpoint, node, driver)
        self._folder = self._stack.enter_context(swept("harness-load-"))
        # Its cores are those that Ray's processes have there: which of them are free, only the node's owner knows.
        self._worker = self._stack.enter_context(alone(endpoint, (), self._folder))
        return node

    def start(self, setup: dict[str, Any], bodies: bytes) -> None:
        """As `LoadWorker.start`, with the contents of the file."""
        self._worker_there.start(setup, self._kept("bodies.npz", bodies))

    def prepare(self, asked: dict[str, Any], plan: bytes, rows: int, what: str) -> None:
        """As `LoadWorker.prepare`, with the contents of the file."""
        self._worker_there.prepare(asked, self._kept("plan.npz", plan), rows, what)

    def begin(self, epoch_s: float, what: str) -> None:
        """As `LoadWorker.begin`, in the clock of the node."""
        self._worker_there.begin(epoch_s, what)

    def answer(self, timeout_s: float, what: str) -> dict[str, Any]:
        """As `LoadWorker.answer`."""
        return self._worker_there.answer(timeout_s, what)

    def look(self, from_s: float, until_s: float) -> Window:
        """As `LoadWorker.look`."""
        return self._worker_there.look(from_s, until_s)

    def recorded(self, what: str) -> Columns:
        """As `LoadWorker.recorded`."""
        return self._worker_there.recorded(what)

    def clock_s(self) -> float:
        """The monotonic clock of the node."""
        return SystemClock().monotonic_s()

    def close(self) -> bytes:
        """End the process in order; its log."""
        self._worker_there.quit()
        log = (self._folder / "locust.log").read_bytes()
        self._stack.close()
        return log

    @property
    def _worker_there(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("an outpost is given its station before it is asked for anything")
        return self._worker

    def _kept(self, name: str, contents: bytes) -> Path:
        file = self._folder / name
        file.write_bytes(contents)
        return file


class ClusterWorker:
    """A `LoadWorker` on a node, by way of its actor."""

    def __init__(self, actor: Any, node: str) -> None:
        self._actor = actor
        self.node = node
        self._told: Any = None
        self._clock = SystemClock()
        self._clock_error_s = 0.0

    def start(self, setup: dict[str, Any], bodies: Path) -> None:
        self._told = self._actor.start.remote(setup, bodies.read_bytes())

    def prepare(self, asked: dict[str, Any], plan: Path, rows: int, what: str) -> None:
        self._told = self._actor.prepare.remote(asked, plan.read_bytes(), rows, what)

    def begin(self, epoch_s: float, what: str) -> None:
        ahead_s, self._clock_error_s = self._ahead_s(what)
        self._told = self._actor.begin.remote(epoch_s + ahead_s, what)

    def answer(self, timeout_s: float, what: str, meanwhile: Callable[[], float] | None = None) -> dict[str, Any]:
        import ray

        self._fetched(self._told, SLACK_S, what)
        call = self._actor.answer.remote(timeout_s, what)
        limit_s = timeout_s + SLACK_S
        deadline_s = self._clock.monotonic_s() + limit_s
        while (left_s := deadline_s - self._clock.monotonic_s()) > 0:
            idle_s = left_s if meanwhile is None else min(left_s, meanwhile())
            if ray.wait([call], timeout=max(0.0, idle_s))[0]:
                break
        else:
            raise InfrastructureError(f"The load worker on {self.node} did not answer within {limit_s:g} s in {what}.")
        answer: dict[str, Any] = self._fetched(call, SLACK_S, what)
        if "health" in answer:
            answer["health"] |= {"node": self.node, "clock_error_s": self._clock_error_s}
        return answer

    def look(self, from_s: float, until_s: float) -> Window:
        try:
            window: Window = self._fetched(self._actor.look.options(**_WATCH).remote(from_s, until_s), LOOK_S, "a look")
        except InfrastructureError:
            return Onlooker(own_columns(0)).look(from_s, until_s)
        return window

    def recorded(self, what: str) -> Columns:
        fetched = self._fetched(self._actor.recorded.remote(what), START_S, what)
        # Copied out of Ray's shared memory, which is gone when the connection to the cluster is.
        return {name: column.copy() for name, column in fetched.items()}

    def close(self, log: Path) -> None:
        """End the process in order, and keep its log."""
        log.write_bytes(self._fetched(self._actor.close.remote(), SLACK_S, "its end"))

    def _ahead_s(self, what: str) -> tuple[float, float]:
        """How far the node's clock is ahead of ours, and how wrong that may be: half of the fastest round trip
        (Cristian 1989, "Probabilistic clock synchronization")."""
        readings = []
        for _ in range(ROUND_TRIPS):
            asked_s = self._clock.monotonic_s()
            theirs_s = self._fetched(self._actor.clock_s.options(**_WATCH).remote(), SLACK_S, what)
            answered_s = self._clock.monotonic_s()
            readings.append(((answered_s - asked_s) / 2, theirs_s - (asked_s + answered_s) / 2))
        error_s, ahead_s = min(readings)
        return ahead_s, error_s

    def _fetched(self, call: Any, timeout_s: float, what: str) -> Any:
        return _fetched(call, timeout_s, f"The load worker on {self.node}", what)


@contextlib.contextmanager
def cluster_crew(endpoint: Endpoint, count: int, folder: Path) -> Iterator[list[ClusterWorker]]:
    """`count` processes on the nodes of the cluster that Ray is connected to, which wait for their start.

    Gone when the block is left; then their logs lie in `folder`. Raises InfrastructureError where the cluster has no
    room for them, or a node does not reach the endpoint.
    """
    import ray

    options: dict[str, Any] = {
        "num_cpus": 1,
        "max_restarts": 0,
        "scheduling_strategy": "SPREAD",
        "concurrency_groups": {"watch": 1},  # answers while a step goes on: it has a thread of its own
    }
    outpost: Any = ray.remote(**options)(Outpost)
    actors = [outpost.remote() for _ in range(count)]
    try:
        nodes = _nodes([actor.station.remote(endpoint, _machine(), harness.__version__) for actor in actors])
        workers = [ClusterWorker(actor, node) for actor, node in zip(actors, nodes, strict=True)]
        yield workers
        for index, worker in enumerate(workers):
            with contextlib.suppress(InfrastructureError):
                worker.close(folder / f"locust-{index}.log")
    finally:
        if ray.is_initialized():
            for actor in actors:
                ray.kill(actor, no_restart=True)


def _nodes(stations: Sequence[Any]) -> list[str]:
    """Where the actors are, once all are there."""
    import ray

    there, waiting = ray.wait(list(stations), num_returns=len(stations), timeout=START_S)
    nodes = {call: _fetched(call, SLACK_S, "A load worker on the cluster", "its start") for call in there}
    if waiting:
        free = ray.available_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
        raise InfrastructureError(
            f"{len(there)} of {len(stations)} load workers started on the cluster within {START_S:g} s. Each takes a "
            f"CPU, of which {free:g} are free: lower load.workers, or bring more nodes."
        )
    return [nodes[call] for call in stations]


def _refuse_out_of_reach(endpoint: Endpoint, node: str, driver: str) -> None:
    host, port = address_of(endpoint.url)
    if _is_loopback(host) and _machine() != driver:
        raise InfrastructureError(
            f"{node} is another machine, and {endpoint.url} is where only the harness's own reaches it: have the "
            "server listen where the nodes do reach it, or leave out load.placement."
        )
    try:
        socket.create_connection((host, port), timeout=REACH_S).close()
    except OSError as error:
        raise InfrastructureError(f"{node} does not reach {endpoint.url}: {error}.") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _machine() -> str:
    """What tells this machine from any other, and one container on it from the next."""
    booted = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return f"{socket.gethostname()} {booted}"


def _fetched(call: Any, timeout_s: float, who: str, what: str) -> Any:
    """What a call to an actor gives; whatever else becomes of it is one InfrastructureError."""
    import ray

    try:
        return ray.get(call, timeout=timeout_s)
    except InfrastructureError as error:
        # Of an error that an actor raised, Ray's text is a remote traceback.
        raise InfrastructureError(f"{who}: {getattr(error, 'cause', error)}") from None
    except ray.exceptions.GetTimeoutError:
        raise InfrastructureError(f"{who} did not answer within {timeout_s:.0f} s in {what}.") from None
    except ray.exceptions.RayError as error:
        raise InfrastructureError(f"{who} was lost in {what}: {one_line(error)}") from error
