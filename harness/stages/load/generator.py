"""The load generator: drives the steps of one served cell with Locust in child processes.

In: an endpoint, request bodies, the answers they must get, a load plan. Out: `generator`, which yields a `Generator`
that turns one `Step` after the other into a `Recording`. Locust patches the interpreter it is imported into, so it
lives in children; starting one takes seconds, so the same ones walk all steps of the cell. Several send one plan
between them, each every n-th request of it, under a Locust master that keeps their statistics together.
"""

import contextlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from harness.clock import SystemClock
from harness.errors import InfrastructureError, UsageError
from harness.process import address_of, on_cores
from harness.records.candidate import Endpoint
from harness.records.load import AUDIT, EXCHANGE_COLUMNS, JSON_POST, Beat, GeneratorHealth, Head, Step, WorkerHealth
from harness.records.scenario import LoadPlan
from harness.stages.host import available_cores
from harness.stages.load.cluster_crew import cluster_crew
from harness.stages.load.columns import Columns
from harness.stages.load.crew import START_S, LoadWorker, crew, other_cores
from harness.stages.load.page import Page
from harness.stages.load.pulse import Pulse, Window, beat
from harness.stages.load.schedule import Timetable, audit_step, audit_timetable, timetable

WARM_S = 5.0
"""Longest time a child spends on opening connections before a step."""
MARGIN_S = 30.0
"""What a step may take beyond its own length, the drain and the warming, on a busy machine."""
LEAD_S = {"host": 0.02, "cluster": 0.5}
"""From the moment at which the workers are told of the epoch to the epoch; on a cluster their clocks are read between.
"""

Done = TypeVar("Done")

_CONNECTIONS_MIN = 8
_STALL_S = 0.5


@dataclass(frozen=True, slots=True)
class Recording:
    """What a step left behind."""

    columns: Columns
    """The exchanges that came back, as `EXCHANGE_COLUMNS` names them, in the order in which they were due."""
    planned: int
    """The exchanges that there should be."""
    plan_sha256: str
    health: GeneratorHealth
    requests: tuple[str, ...] = ()
    """What the column `payload` counts, where that is not the bodies that were given."""


class Generator:
    """A running load generator; made by `generator`."""

    def __init__(
        self,
        workers: Sequence[LoadWorker],
        plan: LoadPlan,
        payloads: int,
        new: int,
        trace_s: NDArray[np.float64] | None,
        folder: Path,
        cores: tuple[int, ...],
        method: str,
        page: Page | None,
    ) -> None:
        self._workers = workers
        self._plan = plan
        self._other_cores = other_cores(cores)
        """Where a step may be watched from."""
        self._method = method
        """Of all requests."""
        self._page = page
        self.payloads = payloads
        """How many request bodies it repeats; those that are new have the numbers after them."""
        self.new = new
        """How many bodies there are that were never sent."""
        self._trace_s = trace_s
        self._folder = folder
        self._driven: Counter[tuple[str, float | None, int | None]] = Counter()
        """How many steps there were under a load."""
        self._lost: dict[int, str] = {}
        """Of each worker that is of no use any more, why."""

    def drive(self, step: Step, watch: Callable[[Beat], object] | None = None) -> Recording:
        """Run one step; `watch` is told of it once a second.

        Open step: the rows of the plan; its n-th step at a rate has the same due times and payloads for every
        candidate. Closed step: a row per request started; due is the moment it started. Where one of several
        workers is lost on the way, the rows of the others come back, and the loss is told with them. Raises
        InfrastructureError where none is left, or where one was lost in a step before.
        """
        load = (step.mode, step.rate_rps, step.in_flight)
        planned = timetable(self._plan, step, self.payloads, self._driven[load], self._trace_s)
        self._driven[load] += 1
        return self._walked(step, planned, _shares(self._connections(step), len(self._workers)), watch)

    def audit(self, number: int) -> Recording:
        """Ask, one request at a time, whether answers are remembered; there must be `new` bodies."""
        return self._walked(audit_step(number), audit_timetable(self.payloads, self.new), [1])

    def _walked(
        self,
        step: Step,
        planned: Timetable,
        connections: Sequence[int],
        watch: Callable[[Beat], object] | None = None,
    ) -> Recording:
        """The step as the first workers walk it, one per number of connections."""
        if self._lost:
            raise InfrastructureError(self._first_loss())
        what = f"step {step.number} ({step.label})"
        limit_s = step.duration_s + self._plan.timeout_s + WARM_S + MARGIN_S
        taking_part = range(len(connections))
        rows = _shares(len(planned.payload), len(connections))
        asked = {
            "mode": step.mode,
            "duration_s": step.duration_s,
            "workers": len(connections),
            "all": step.shape == AUDIT,
        }
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=f"step-{step.number}-") as scratch:
            plan = Path(scratch) / "plan.npz"
            np.savez(plan, due_ns=planned.due_ns, payload=planned.payload)

            def prepare(index: int, worker: LoadWorker) -> None:
                worker.prepare({**asked, "connections": connections[index]}, plan, rows[index], what)

            self._of_each(taking_part, prepare)
            ready = self._of_each(taking_part, lambda _, worker: worker.answer(limit_s, what))
        if not ready:
            raise InfrastructureError(self._first_loss())
        done = self._sent(step, list(ready), what, limit_s, watch)
        parts = self._of_each(done, lambda _, worker: worker.recorded(what))
        if not parts:
            raise InfrastructureError(self._first_loss())
        return Recording(
            columns=_merged(list(parts.values())),
            planned=len(planned.due_ns) if step.mode == "open" else sum(answer["rows"] for answer in done.values()),
            plan_sha256=planned.sha256,
            health=GeneratorHealth(
                workers=tuple(WorkerHealth.model_validate(answer["health"]) for answer in done.values()),
                lost=tuple(self._lost.values()),
                servers_before=_added(answer["servers"] for answer in ready.values()),
                servers_after=_added(answer["servers"] for answer in done.values()),
            ),
        )

    def _sent(
        self,
        step: Step,
        ready: Sequence[int],
        what: str,
        limit_s: float,
        watch: Callable[[Beat], object] | None,
    ) -> dict[int, dict[str, Any]]:
        """What those workers answer that are ready, once they have sent the step, which is looked at meanwhile."""

        def show(window: Window) -> None:
            if self._page:
                self._page.tell(step, self._method, window)
            # What comes after the last answer is no load any more.
            if watch and (window.until_s < step.duration_s or window.in_flight or len(window.done_ns)):
                watch(beat(window))

        with on_cores(self._other_cores):
            pulse = Pulse([self._workers[index].look for index in ready], SystemClock(), show)
            epoch_s = SystemClock().monotonic_s() + LEAD_S[self._plan.placement]
            pulse.begin(epoch_s)
            self._of_each(ready, lambda _, worker: worker.begin(epoch_s, what))
            meanwhile = pulse.look_when_due if watch or self._page else None
            done = self._of_each(ready, lambda _, worker: worker.answer(limit_s, what, meanwhile))
            if self._page:
                self._page.tell(step, self._method, pulse.look())  # what ended after its last whole second
        return done

    def _of_each(self, indexes: Iterable[int], do: Callable[[int, LoadWorker], Done]) -> dict[int, Done]:
        """What `do` gives for each of these workers that is not lost; one for which it fails is from then on."""
        given = {}
        for index in indexes:
            if index in self._lost:
                continue
            try:
                given[index] = do(index, self._workers[index])
            except InfrastructureError as error:
                self._lost[index] = str(error)
        return given

    def _first_loss(self) -> str:
        return next(iter(self._lost.values()))

    def _connections(self, step: Step) -> int:
        """How many connections to open before the epoch.

        A closed step needs its requests in flight. An open one gets what would pile up in half a second's stall of the
        server: opened during the stall they overflow its listen backlog, and the kernel's repeated SYN puts a whole
        second into the tail.
        """
        if step.in_flight is not None:
            return step.in_flight
        wanted = max(_CONNECTIONS_MIN, math.ceil((step.rate_rps or 0.0) * _STALL_S))
        return min(self._plan.in_flight_max, wanted)


@contextlib.contextmanager
def generator(
    endpoint: Endpoint,
    payloads: Sequence[bytes],
    expected: Sequence[bytes] | None,
    plan: LoadPlan,
    cores: tuple[int, ...],
    folder: Path,
    trace_s: NDArray[np.float64] | None = None,
    new: Sequence[bytes] = (),
    head: Head = JSON_POST,
    page: Page | None = None,
) -> Iterator[Generator]:
    """A load generator for one endpoint, on `cores` (empty: any), ready for steps; gone when the block is left.

    `payloads` are request bodies; `expected`, where given, the answer to each, byte for byte; `trace_s` the recorded
    times where the plan's arrivals are a trace; `new` bodies that were never sent, for the audit; `head` what all
    requests have in common; `page` shows the steps. Its logs (`locust*.log`) and passing files lie in `folder`. Raises
    UsageError on an endpoint it cannot load, InfrastructureError where a child does not start.
    """
    if expected is not None and len(expected) != len(payloads):
        raise ValueError(f"{len(payloads)} payloads but {len(expected)} expected answers")
    setup = _setup(endpoint, plan, cores, head)
    folder.mkdir(parents=True, exist_ok=True)
    bodies = folder / "bodies.npz"
    parts = {"payloads": [*payloads, *new]}
    if expected is not None:
        parts["expected"] = [*expected, *[b""] * len(new)]
    with contextlib.ExitStack() as stack:
        stack.callback(bodies.unlink, missing_ok=True)
        np.savez(
            bodies,
            allow_pickle=False,
            **{key: column for name, texts in parts.items() for key, column in pack(name, texts).items()},
        )
        workers: Sequence[LoadWorker] = stack.enter_context(
            cluster_crew(endpoint, plan.workers, folder)
            if plan.placement == "cluster"
            else crew(endpoint, plan.workers, cores, folder, page)
        )
        for index, (worker, in_flight_max) in enumerate(
            zip(workers, _shares(plan.in_flight_max, len(workers)), strict=True)
        ):
            mine = {"worker": index, "in_flight_max": in_flight_max, "repeated": len(payloads)}
            worker.start({**setup, **mine, "reports": page is None}, bodies)
        for worker in workers:
            worker.answer(START_S, "its start")
        yield Generator(workers, plan, len(payloads), len(new), trace_s, folder, cores, head.method, page)


def pack(name: str, texts: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """Byte strings as two arrays, one of their bytes and one of their lengths."""
    return {
        name: np.frombuffer(b"".join(texts), dtype=np.uint8),
        f"{name}_lengths": np.array([len(text) for text in texts], dtype=np.int64),
    }


def unpack(name: str, arrays: dict[str, NDArray[Any]]) -> list[bytes]:
    """What `pack` was given."""
    ends = np.cumsum(arrays[f"{name}_lengths"])
    whole = arrays[name].tobytes()
    return [whole[end - length : end] for end, length in zip(ends, arrays[f"{name}_lengths"], strict=True)]


def _shares(total: int, count: int) -> list[int]:
    """`total` in `count` whole parts that differ by one at most."""
    return [total // count + (index < total % count) for index in range(count)]


def _merged(parts: Sequence[Columns]) -> Columns:
    """The rows of all workers in one sequence, by due time; those of one worker are so already."""
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([part["due_ns"] for part in parts]), kind="stable")
    return {name: np.concatenate([part[name] for part in parts])[order] for name in EXCHANGE_COLUMNS}


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _setup(endpoint: Endpoint, plan: LoadPlan, cores: tuple[int, ...], head: Head) -> dict[str, Any]:
    url = urlsplit(endpoint.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(
            f"Cannot load {endpoint.url}: the generator speaks HTTP, so give a URL such as http://127.0.0.1:8000."
        )
    host, port = address_of(endpoint.url)
    return {
        "host": host,
        "port": port,
        "authority": url.netloc.rpartition("@")[2],
        "tls": url.scheme == "https",
        "head": head.model_dump(),
        "path": url.path.rstrip("/") + endpoint.infer_path,
        # Of another protocol it is not known how to ask a server who it is.
        "live_path": url.path.rstrip("/") + "/v2/health/live" if endpoint.path is None else None,
        "timeout_s": plan.timeout_s,
        # Not where the server would have no core to itself.
        "first": 0 < len(cores) < len(available_cores()),
    }
