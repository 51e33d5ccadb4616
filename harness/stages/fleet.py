"""The fleet: Ray actors, which fit and score what an engine asks for.

In: a table and a problem. Out: evaluations as they finish, within a budget that is kept.

Engines ask and are told in this process. Actors live as long as the run and hold the table, so that a trial costs a
call and not a process. Ray Tune was rejected: a trial that does nothing costs it 90 ms, or seconds where it starts an
actor for each.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from harness.clock import Clock
from harness.errors import InfrastructureError
from harness.ports import Problem, Workbench
from harness.records.candidate import Configuration, Evaluated
from harness.records.run import Cause, Failure
from harness.stages.data import Table, fold_rows
from harness.stages.worker import Worker

GRACE_S = 2.0
GRACE_SHARE = 0.1
"""Once the seconds of a budget are spent, running trials may go on for the longer of both; then they are stopped."""

LOST_PER_WORKER = 3
"""Workers may be replaced so often per worker of the fleet; then something is wrong that a new one does not cure."""

_START_TIMEOUT_S = 120.0
_WATCH_TIMEOUT_S = 1.0


class RayFleet:
    """Persistent Ray actors over one table, which crosses to them once.

    Made inside a `ray_session`; a context manager. `evaluate` and `inside` are described in `ports.Fleet`. A trial that
    outlives the budget and its grace fails with cause `time`, one whose worker died with `worker_lost`; both cost the
    worker, which is replaced. Raises InfrastructureError where workers do not start, or keep dying.
    """

    def __init__(self, table: Table, workers: int, clock: Clock, worker_class: type[Worker] = Worker) -> None:
        import ray

        self.workers = workers
        self._clock = clock
        self._target = table.target[table.train]
        frame = table.frame.iloc[table.train].reset_index(drop=True)
        self._holds = (ray.put(frame), ray.put(self._target), table.signature)
        # `watch` answers while a trial runs: it has a thread of its own.
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "concurrency_groups": {"watch": 1}}
        self._actor_class: Any = ray.remote(**options)(worker_class)
        self._actors: dict[int, Any] = {}
        self._problem: Problem | None = None
        self._task: tuple[Any, ...] = ()
        self._lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        for worker in range(self.workers):
            self._stop(worker)

    def start(self, problem: Problem) -> None:
        """Make every worker ready for a problem: folds, and the libraries of its families."""
        import ray

        folds = fold_rows(self._target, problem.task, problem.folds, problem.seed)
        self._problem = problem
        self._lost = 0
        self._task = (problem, ray.put(folds))
        try:
            actors = [self._actor(worker) for worker in range(self.workers)]
            ray.get([actor.start.remote(*self._task) for actor in actors], timeout=_START_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            free = ray.available_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
            raise InfrastructureError(
                f"Ray did not start {self.workers} search workers within {_START_TIMEOUT_S:g} s ({free:g} CPUs are "
                "free): lower `search.workers`, or bring more cores."
            ) from None
        except ray.exceptions.RayActorError as error:
            raise InfrastructureError(f"A search worker died while it started: {error}.") from error

    def evaluate(self, ask: Callable[[], Configuration | None]) -> Iterator[Evaluated]:
        """Keep every worker busy with what `ask` returns; yield evaluations as they finish."""
        import ray

        problem = self._asked
        deadline_s = self._clock.monotonic_s() + problem.seconds
        running: dict[Any, tuple[int, Configuration, float]] = {}
        idle = list(range(self.workers))
        asked = 0
        try:
            while True:
                while idle and asked < problem.trials and self._clock.monotonic_s() < deadline_s:
                    configuration = ask()
                    if configuration is None:
                        asked = problem.trials
                        break
                    asked += 1
                    worker = idle.pop(0)
                    call = self._actor(worker).evaluate.remote(configuration)
                    running[call] = (worker, configuration, self._clock.monotonic_s())
                if not running:
                    return
                left_s = deadline_s + _grace_s(problem) - self._clock.monotonic_s()
                done, _ = ray.wait(list(running), timeout=max(0.0, left_s))
                for call in done or list(running):
                    worker, configuration, began_s = running.pop(call)
                    if done:
                        yield self._answer(call, worker, configuration, began_s)
                    else:
                        yield self._timed_out(worker, configuration, began_s)
                    idle.append(worker)
        finally:
            # Left early: what still runs would hold its worker back from the next search.
            for worker, _, _ in running.values():
                self._stop(worker)

    def inside(self, loop: Callable[[Workbench, Problem], Iterable[Evaluated]]) -> Iterator[Evaluated]:
        """Run an engine's own loop in the first worker; yield what it yields, while it goes on."""
        import ray

        problem = self._asked
        stream = self._actor(0).inside.options(num_returns="streaming").remote(loop)
        last_s = self._clock.monotonic_s()
        # Until the first answer, None, the worker imports the engine's libraries, which is not search time.
        end_s = last_s + _START_TIMEOUT_S
        ended = False
        try:
            while not ended:
                done, _ = ray.wait([stream], timeout=max(0.0, end_s - self._clock.monotonic_s()))
                if not done:
                    ended = True
                    yield self._timed_out(0, self._watched(0), last_s)
                    return
                try:
                    evaluated = ray.get(next(stream))
                except StopIteration:
                    ended = True
                    return
                except Exception as error:
                    ended = True
                    yield self._failed(0, {}, last_s, error)
                    return
                last_s = self._clock.monotonic_s()
                if evaluated is None:
                    end_s = last_s + problem.seconds + _grace_s(problem)
                else:
                    yield evaluated
        finally:
            if not ended:
                self._stop(0)

    @property
    def _asked(self) -> Problem:
        if self._problem is None:
            raise RuntimeError("a fleet is given a problem with `start` before it is asked for anything")
        return self._problem

    def _actor(self, worker: int) -> Any:
        if worker not in self._actors:
            if self._lost > LOST_PER_WORKER * self.workers:
                raise InfrastructureError(
                    f"Search workers died {self._lost} times, and new ones do not cure it: look at the failures of the "
                    "trials. Free memory, lower `search.workers`, or leave out the family they have in common."
                )
            self._actors[worker] = self._actor_class.remote(worker, *self._holds)
            # Not awaited: an actor answers its calls in order.
            self._actors[worker].start.remote(*self._task)
        return self._actors[worker]

    def _stop(self, worker: int) -> None:
        import ray

        actor = self._actors.pop(worker, None)
        # A session that has ended took its actors along, and Ray would start a new one to kill them in.
        if actor is not None and ray.is_initialized():
            ray.kill(actor, no_restart=True)

    def _answer(self, call: Any, worker: int, configuration: Configuration, began_s: float) -> Evaluated:
        import ray

        try:
            evaluated: Evaluated = ray.get(call)
        except ray.exceptions.RayError as error:
            return self._failed(worker, configuration, began_s, error)
        return evaluated

    def _failed(self, worker: int, configuration: Configuration, began_s: float, error: Exception) -> Evaluated:
        cause = _cause(error)
        if cause is not Cause.ENGINE_ERROR:
            self._lost += 1
            self._stop(worker)
        # Of an error of the worker's own code, Ray's text is a coloured traceback; the error itself says it better.
        shown = getattr(error, "cause", None) if cause is Cause.ENGINE_ERROR else None
        return self._without_score(worker, configuration, began_s, Failure.of(cause, shown or error))

    def _timed_out(self, worker: int, configuration: Configuration, began_s: float) -> Evaluated:
        self._stop(worker)
        problem = self._asked
        text = f"stopped: still running {_grace_s(problem):g} s after the budget of {problem.seconds:g} s was spent"
        return self._without_score(worker, configuration, began_s, Failure.of(Cause.TIME, text))

    def _without_score(self, worker: int, configuration: Configuration, began_s: float, failure: Failure) -> Evaluated:
        duration_s = self._clock.monotonic_s() - began_s
        return Evaluated(configuration=configuration, duration_s=duration_s, worker=worker, failure=failure)

    def _watched(self, worker: int) -> Configuration:
        """What a worker is at, asked through its second thread; empty where it does not answer."""
        import ray

        try:
            call = self._actor(worker).running.options(concurrency_group="watch").remote()
            running: Configuration = ray.get(call, timeout=_WATCH_TIMEOUT_S)
        except ray.exceptions.RayError:
            return {}
        return running


def _grace_s(problem: Problem) -> float:
    return max(GRACE_S, GRACE_SHARE * problem.seconds)


def _cause(error: Exception) -> Cause:
    """Of an error that Ray reports of a worker; `engine_error` where the worker itself goes on."""
    import ray

    match error:
        case ray.exceptions.OutOfMemoryError():
            return Cause.MEMORY
        case ray.exceptions.NodeDiedError():
            return Cause.NODE_LOST
        case ray.exceptions.RayActorError() | ray.exceptions.WorkerCrashedError():
            return Cause.NODE_LOST if "node has died" in str(error) else Cause.WORKER_LOST
        case _:
            return Cause.ENGINE_ERROR
