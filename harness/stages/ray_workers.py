"""Workers of the search that Ray places: an actor each, on this machine or on the nodes of a cluster.

In: a table, and how many. Out: `ray_workers`, the workers that `stages.fleet` gives its work to.

Actors live as long as the run and hold the table, so that a trial costs a call and not a process. Ray Tune was
rejected: a trial that does nothing costs it 90 ms, or seconds where it starts an actor for each. What becomes of a
trial is the business of the supervisor under each actor; here is told what becomes of an actor and its node.
"""

import functools
import pickle
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import harness
from harness.clock import Clock
from harness.environments import interpreter
from harness.errors import InfrastructureError
from harness.ports import Loop, Problem, Proposal
from harness.records.candidate import Configuration, Evaluated
from harness.records.run import Cause, Failure, SearchStart
from harness.space.preprocess import to_batch
from harness.stages.data import Table
from harness.stages.fleet import Done, Ready
from harness.stages.host import differences, fingerprint
from harness.stages.supervisor import FITTER
from harness.stages.worker import Standing, Worker

LOST_PER_WORKER = 3
"""Workers may be replaced so often per worker of the fleet; then something is wrong that a new one does not cure."""

START_S = 120.0
"""How long workers of a session of our own may take to stand."""

GROWTH_S = 900.0
"""The same on a cluster: one that grows when it is asked for more brings machines in minutes. Whether it does, Ray does
not tell those who ask from outside, so one that never grows is waited for as long."""

_NODE_SILENCE_S = 2.0
"""How long a node may take to be reached before it counts as lost; and how often our own is looked at while a worker
is awaited: where that is lost, Ray says nothing, and the worker never comes."""

_LOOP_SILENCE_S = 2.0
"""How long an engine's own loop may go on by itself after its last trial should have ended."""


@contextmanager
def ray_workers(
    table: Table, count: int, clock: Clock, fitter: str = FITTER, patience_s: float = START_S
) -> Iterator["RayWorkers"]:
    """`count` actors over one table, which crosses to each node once; made inside a `ray_session`.

    `fitter` is the class that fits, by import path. They are waited for as long as `patience_s` at the start.
    """
    workers = RayWorkers(table, count, clock, fitter, patience_s)
    try:
        yield workers
    finally:
        workers.close()


class RayWorkers:
    """`stages.fleet.Workers`, by Ray. A worker that is lost fails its trial with `worker_lost` or `node_lost`, and is
    replaced.
    """

    def __init__(
        self, table: Table, count: int, clock: Clock, fitter: str = FITTER, patience_s: float = START_S
    ) -> None:
        import ray

        self.count = count
        self._patience_s = patience_s
        self.clock = clock
        self._table = table
        self._put_s = 0.0
        self._target = self._put(pickle.dumps(table.target[table.train], protocol=5))
        self._rows: dict[bool, Any] = {}
        self._fitter = fitter
        self._environment: str | None = None
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, Any] = {}
        """The id of each actor's node, as an answer to come: it is here before an actor gets its first work."""
        self._starting: dict[Any, int] = {}
        self._running: dict[Any, tuple[int, int, Proposal, float]] = {}
        self._task: tuple[Any, ...] = ()
        self._lost = 0
        self._start_error: Exception | None = None
        """Why the last worker that was to replace another one did not start."""
        self._own_node: str = ray.get_runtime_context().get_node_id()

    def start(self, problem: Problem, folds: Sequence[Any]) -> SearchStart:
        """Make all of them ready for a problem. Raises InfrastructureError where they do not get ready."""
        import ray

        began_s, self._lost, self._start_error = self.clock.monotonic_s(), 0, None
        environment = problem.foreign.environment if problem.foreign else None
        if environment != self._environment:
            self.close()
            self._environment = environment
        for worker in range(self.count):
            if worker not in self._actors:
                self._actors[worker] = self._actor(worker)
        try:
            machines = ray.get([actor.machine.remote() for actor in self._actors.values()], timeout=self._patience_s)
            self._task = (problem, self._put(folds), tuple(machines))
            self._starting = {actor.start.remote(*self._task): worker for worker, actor in self._actors.items()}
            left_s = self._patience_s - (self.clock.monotonic_s() - began_s)
            standing = ray.get(list(self._starting), timeout=max(0.0, left_s))
            fetched_s = ray.get([actor.fetched_s.remote() for actor in self._actors.values()])
        except ray.exceptions.GetTimeoutError:
            free = ray.available_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
            also = f", or look whether each node has {interpreter(environment)}" if environment else ""
            raise InfrastructureError(
                f"Ray did not start {self.count} search workers within {self._patience_s:g} s ({free:g} CPUs "
                f"are free): lower `search.workers`, or bring more cores{also}; then resume the run."
            ) from None
        except ray.exceptions.RayError as error:
            raise InfrastructureError(f"A search worker died while it started: {_told(error)}.") from error
        self._starting = {}
        self._refuse_unlike(standing)
        put_s, self._put_s = self._put_s, 0.0
        took_s = self.clock.monotonic_s() - began_s
        return SearchStart(took_s=took_s, put_s=put_s, fetched_s=tuple(fetched_s))

    def send(self, worker: int, number: int, proposal: Proposal, folds: Sequence[int] | None, limit_s: float) -> None:
        """Give a worker that is ready a proposal."""
        call = self._actors[worker].evaluate.remote(proposal, folds, limit_s)
        self._running[call] = (worker, number, proposal, self.clock.monotonic_s())

    def receive(self, timeout_s: float) -> list[Done | Ready]:
        """The next answer, and who is ready for more; nothing after `timeout_s` seconds."""
        import ray

        end_s = self.clock.monotonic_s() + timeout_s
        while True:
            self._refuse_too_many_losses()
            done = self._first(end_s - self.clock.monotonic_s())
            if not done:
                return []
            (call,) = done
            if call in self._starting:
                worker = self._starting.pop(call)
                if self._stands(worker, call):
                    return [Ready(worker)]
                continue  # another one starts in its place, for as long as there is time
            worker, number, proposal, began_s = self._running.pop(call)
            there_s = self.clock.monotonic_s()
            try:
                evaluated = ray.get(call)
                return [Ready(worker), Done(number, evaluated, self.clock.monotonic_s() - there_s)]
            except Exception as error:
                lost = self._lost_with(worker, proposal, began_s, error)
                self._replace(worker)
                return [Done(number, lost)]

    def _first(self, timeout_s: float) -> Sequence[Any]:
        """The first call that is over; none after `timeout_s` seconds."""
        import ray

        end_s = self.clock.monotonic_s() + timeout_s
        while True:
            left_s = max(0.0, end_s - self.clock.monotonic_s())
            look_s = min(left_s, _NODE_SILENCE_S) if self._starting else left_s
            done, _ = ray.wait([*self._running, *self._starting], timeout=look_s)
            if done or look_s == left_s:
                return list(done)
            self._refuse_no_session()

    def stop(self, worker: int) -> None:
        """End what a worker is at; it is `Ready` again some time later."""
        self._running = {call: sent for call, sent in self._running.items() if sent[0] != worker}
        self._replace(worker)

    def inside(
        self, loop: Loop, told: Sequence[Evaluated], seconds: float, grace_s: float
    ) -> Iterator[Evaluated | None]:
        """Run a loop in worker 0; yield what it yields, and a failure at last where it breaks or does not end."""
        import ray

        stream = self._actors[0].inside.options(num_returns="streaming").remote(loop, told, seconds, grace_s)
        last_s = self.clock.monotonic_s()
        # Until the first answer, None, the worker imports the engine's libraries, which is not search time.
        end_s = last_s + START_S
        ended = False
        try:
            while not ended:
                done, _ = ray.wait([stream], timeout=max(0.0, end_s - self.clock.monotonic_s()))
                if not done:
                    text = "the engine's own loop was stopped: it went on after its time was over"
                    yield self._without_score(0, {}, last_s, Failure.of(Cause.TIME, text))
                    return
                try:
                    evaluated = ray.get(next(stream))
                except StopIteration:
                    ended = True
                    return
                except Exception as error:
                    lost = self._lost_with(0, Proposal({}), last_s, error)
                    # An error of the loop's own, and the worker goes on.
                    ended = lost.failure is not None and lost.failure.cause is Cause.ENGINE_ERROR
                    yield lost
                    return
                last_s = self.clock.monotonic_s()
                if evaluated is None:
                    end_s = last_s + seconds + grace_s + _LOOP_SILENCE_S
                yield evaluated
        finally:
            if not ended:
                self._replace(0)

    def close(self) -> None:
        """End all of them."""
        for worker in list(self._actors):
            self._kill(worker)

    def _actor(self, worker: int) -> Any:
        """A new actor, in the environment of the problem."""
        import ray

        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0}
        if self._environment is not None:
            options["runtime_env"] = {"py_executable": str(interpreter(self._environment))}
        made: Any = ray.remote(**options)(Worker)
        # By a call that the worker makes itself: of what Ray hands over as an argument, nobody knows how long it took.
        rows = functools.partial(ray.get, [self._rows_there(), self._target])
        actor = made.remote(worker, rows, self._fitter)
        # A function without a name travels by value: this room cannot be imported in every environment.
        self._nodes[worker] = actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
        return actor

    def _rows_there(self) -> Any:
        """The training rows in Ray's store, as bytes: only a worker's supervisor makes a table of them again."""
        table, foreign = self._table, self._environment is not None
        if foreign not in self._rows:
            frame = table.frame.iloc[table.train].reset_index(drop=True)
            # A pickled frame is read by the pandas that wrote it.
            rows = to_batch(frame, table.signature.columns) if foreign else frame
            target = table.target[table.train]
            self._rows[foreign] = self._put(pickle.dumps((rows, target, table.signature), protocol=5))
        return self._rows[foreign]

    def _put(self, value: object) -> Any:
        """Into Ray's store."""
        import ray

        began_s = self.clock.monotonic_s()
        there = ray.put(value)
        self._put_s += self.clock.monotonic_s() - began_s
        return there

    def _refuse_too_many_losses(self) -> None:
        if self._lost <= LOST_PER_WORKER * self.count:
            return
        last = f" The last one did not start again: {_told(self._start_error)}" if self._start_error else ""
        raise InfrastructureError(
            f"Search workers died {self._lost} times, and new ones do not cure it: look at the failures of the "
            f"trials. Free memory, lower `search.workers`, or leave out the family they have in common.{last}"
        )

    def _stands(self, worker: int, call: Any) -> bool:
        """Whether a new worker came to stand; where it did not, another one is on its way."""
        import ray

        try:
            standing = ray.get(call)
        except ray.exceptions.RayError as error:
            self._start_error = error
            self._replace(worker)
            return False
        self._refuse_unlike([standing])
        return True

    def _refuse_unlike(self, standing: Sequence[Standing]) -> None:
        """Raises InfrastructureError where a worker stands on a node whose times do not compare with ours."""
        own, unlike = fingerprint(), {}
        for one in standing:
            if one.harness_version != harness.__version__:
                raise InfrastructureError(
                    f"The node {one.node} of the cluster has harness {one.harness_version}, and this is "
                    f"{harness.__version__}: install the same everywhere."
                )
            # In an environment of its own libraries are others on purpose.
            if found := differences(one.host, own, libraries=self._environment is None):
                unlike[one.node] = ", ".join(found)
        if unlike:
            nodes = "; ".join(f"{node} has {what}" for node, what in sorted(unlike.items()))
            raise InfrastructureError(
                f"Not all nodes of the cluster are like this machine: {nodes}. Times of unlike machines are never "
                "pooled, and those of this one stand beside them in the report: search on nodes of one kind, and start "
                "the run on such a node."
            )

    def _replace(self, worker: int) -> None:
        """A new actor in a lost one's place; it can be sent something when it is ready."""
        import ray

        self._kill(worker)
        self._lost += 1
        if not ray.is_initialized() or self._node_is_lost(self._own_node):
            return
        self._actors[worker] = self._actor(worker)
        self._starting[self._actors[worker].start.remote(*self._task)] = worker

    def _kill(self, worker: int) -> None:
        import ray

        actor = self._actors.pop(worker, None)
        # A session that has ended took its actors along, and Ray would start a new one to kill them in.
        if actor is not None and ray.is_initialized():
            ray.kill(actor, no_restart=True)

    def _lost_with(self, worker: int, proposal: Proposal, began_s: float, error: Exception) -> Evaluated:
        self._refuse_no_session()
        failure = Failure.of(self._cause(worker, error), _told(error))
        return self._without_score(worker, proposal.configuration, began_s, failure)

    def _without_score(self, worker: int, configuration: Configuration, began_s: float, failure: Failure) -> Evaluated:
        duration_s = self.clock.monotonic_s() - began_s
        return Evaluated(configuration=configuration, duration_s=duration_s, worker=worker, failure=failure)

    def _cause(self, worker: int, error: Exception) -> Cause:
        """Of what a call of an actor raised; `engine_error` where the actor itself goes on."""
        import ray

        match error:
            case ray.exceptions.OutOfMemoryError():
                return Cause.MEMORY
            case ray.exceptions.NodeDiedError():
                return Cause.NODE_LOST
            case ray.exceptions.RayActorError() | ray.exceptions.WorkerCrashedError():
                return Cause.NODE_LOST if self._node_of_is_lost(worker) else Cause.WORKER_LOST
            case InfrastructureError():
                return Cause.WORKER_LOST
            case ray.exceptions.RayTaskError():
                return Cause.ENGINE_ERROR
            case _:
                return Cause.UNKNOWN

    def _refuse_no_session(self) -> None:
        """Raises InfrastructureError where the node of this process is lost. What was under way is then no trial that
        failed: it is done anew when the run is resumed.
        """
        if self._node_is_lost(self._own_node):
            raise InfrastructureError(
                "Ray's own process on this machine, its raylet, is gone. Every trial that was finished is kept: look "
                "for what ended it, such as memory that ran out, and resume the run."
            )

    def _node_of_is_lost(self, worker: int) -> bool:
        """Whether the node of an actor that was lost is gone too."""
        import ray

        try:
            return self._node_is_lost(ray.get(self._nodes[worker], timeout=0))
        except ray.exceptions.RayError:
            return False  # it was lost before it could say where it stands

    def _node_is_lost(self, node_id: str) -> bool:
        """Whether a node is gone.

        Ray says the same of both, "unavailable", for as long as it takes to find the node dead by its own checks, and
        lists it as alive meanwhile. But nobody listens any more where the node did.
        """
        import ray

        listed = ray.nodes()  # type: ignore[no-untyped-call]
        node = next((node for node in listed if node["NodeID"] == node_id), None)
        if node is None or not node["Alive"]:
            return True
        try:
            place = (node["NodeManagerAddress"], node["NodeManagerPort"])
            socket.create_connection(place, timeout=_NODE_SILENCE_S).close()
        except OSError:
            return True
        return False


def _told(error: Exception) -> Exception:
    """Of an error of a worker's own code, Ray's text is a coloured traceback; the error itself says it better."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
