"""Locust's side of the generator: what it runs in the child processes of a crew. Nothing imports this file.

In: work from the channel that the environment names, two JSON lines a step: what to prepare, then when to begin.
Out: one `.npz` file of exchange columns a step, how this process fared meanwhile, and Locust's own summary at the end,
or its page meanwhile.
Locust brings the processes, their events and the summary; what is sent when is ours (see `stages.load.traffic`).
"""

import locust  # first, before anything that uses sockets: it patches the interpreter

# isort: split
import gc
import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import gevent
import numpy as np
from gevent.pywsgi import WSGIServer
from locust.runners import MasterRunner
from locust.stats import RequestStats, setup_distributed_stats_event_listeners
from numpy.typing import NDArray

from harness.process import LOOPBACK, die_with_parent
from harness.records.load import NEVER, Outcome, WorkerHealth
from harness.stages.load.channel import DESCRIPTOR
from harness.stages.load.columns import COLUMNS_FILE, SharedMemory, own_columns
from harness.stages.load.page import PAGE, only_to_look_at, summary, worker_report
from harness.stages.load.pulse import Onlooker
from harness.stages.load.timer import Timer
from harness.stages.load.timing import chosen
from harness.stages.load.traffic import ClosedTraffic, Traffic, roll_call, warm
from harness.stages.load.wire import Wire, now_ns

# A worker ends with its channel. Locust's would end after a minute without a word from the master above it, though all
# that the master is good for is a page.
locust.runners.MASTER_HEARTBEAT_TIMEOUT = 10**9

AUTOGROUP = Path("/proc/self/autogroup")

WATCH_S = 0.5
"""Over how long the share of a core is taken, of which the highest is told."""


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection: a full one takes tens of milliseconds, just when a request is due."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def go_first() -> Literal["raised", "ordinary"]:
    """Go before whatever else wants these cores, where the system allows it; which priority that comes to.

    A process in between costs its time slice, milliseconds that the server would be charged with. The kernel shares a
    core among sessions first (autogroup) and among the processes of one then, so both have their say.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        AUTOGROUP.write_text("-20")
    except FileNotFoundError:  # a kernel without it looks at processes alone
        return "raised"
    except OSError:
        return "ordinary"
    return "raised"


class Watch:
    """What this process sees of itself while it is entered."""

    def __enter__(self) -> "Watch":
        self._gc_s = self._gc_began_s = 0.0
        self._busiest = 0.0
        self._offset_ns = time.time_ns() - now_ns()
        gc.callbacks.append(self._collecting)
        self._sampler = gevent.spawn(self._sample)
        return self

    def __exit__(self, *_: object) -> None:
        self._sampler.kill()
        gc.callbacks.remove(self._collecting)
        self._moved_ns = time.time_ns() - now_ns() - self._offset_ns

    def health(self, started_late_s: float, timer: Timer, priority: Literal["raised", "ordinary"]) -> WorkerHealth:
        """What was seen, once it is left."""
        return WorkerHealth(
            cpu_share=self._busiest,
            started_late_s=started_late_s,
            gc_s=self._gc_s,
            clock_moved_s=self._moved_ns / 1e9,
            timer=timer.kind,
            priority=priority,
        )

    def _sample(self) -> None:
        while True:
            wall_s, busy_s = time.perf_counter(), time.process_time()
            gevent.sleep(WATCH_S)
            share = (time.process_time() - busy_s) / (time.perf_counter() - wall_s)
            self._busiest = max(self._busiest, share)

    def _collecting(self, phase: str, _: object) -> None:
        if phase == "start":
            self._gc_began_s = time.perf_counter()
        else:
            self._gc_s += time.perf_counter() - self._gc_began_s


class Worker:
    """One process that sends its share of every step."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lines = channel.makefile("rb")
        setup = json.loads(self._lines.readline())
        self._wire, self._timer = Wire(setup), Timer()
        self._priority: Literal["raised", "ordinary"] = go_first() if setup["first"] else "ordinary"
        self._memory = SharedMemory(int(os.environ[COLUMNS_FILE]))
        self.reports: bool = setup["reports"]
        """To Locust, that is; where there is a page, its master is told by the driver."""
        self._answer({})

    def steps(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Walk steps for as long as the channel is open; the exchanges of each, once they are told."""
        for line in self._lines:
            yield self._walk(json.loads(line))

    @property
    def method(self) -> str:
        """That of the requests."""
        return self._wire.method

    @property
    def path(self) -> str:
        """Where the requests go."""
        return self._wire.path

    def _walk(self, asked: dict[str, Any]) -> dict[str, NDArray[Any]]:
        with np.load(asked["plan"]) as file:
            share = slice(self._wire.worker, None, asked["workers"])
            payload, due = (file[name][share].tolist() for name in ("payload", "due_ns"))
        warm(self._wire, self._timer, asked["connections"])
        servers = roll_call(self._wire, self._timer)
        warm(self._wire, self._timer, asked["connections"])
        shared = self._memory.columns(len(payload), writing=True)
        is_open = asked["mode"] == "open"
        timed = chosen(len(payload), planned=is_open)
        traffic = (
            Traffic(self._wire, self._timer, payload, due, shared, timed)
            if is_open
            else ClosedTraffic(
                self._wire, self._timer, payload, asked["connections"], shared, timed, every=asked["all"]
            )
        )
        with quiet(), Watch() as watch:
            self._answer({"servers": servers})
            begin = json.loads(self._lines.readline())
            started_late_s = max(0, now_ns() - begin["epoch_ns"]) / 1e9
            traffic.run(begin["epoch_ns"], asked["duration_s"])
        columns = traffic.columns()
        np.savez(begin["spool"], allow_pickle=False, **columns)
        servers = roll_call(self._wire, self._timer)
        health = watch.health(started_late_s, self._timer, self._priority).model_dump()
        self._answer({"rows": len(columns["due_ns"]), "servers": servers, "health": health})
        return columns

    def _answer(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")


def report(environment: Any, method: str, path: str, columns: dict[str, NDArray[Any]]) -> None:
    """Tell Locust of a step's exchanges, after the step: during it every event would cost as much as a request."""
    failures = {int(outcome): RuntimeError(outcome.name.lower()) for outcome in Outcome if outcome != Outcome.OK}
    ended = columns["done_ns"] != NEVER
    latency_ms = (columns["done_ns"] - columns["due_ns"])[ended] / 1e6
    for latency, size, outcome in zip(
        latency_ms.tolist(), columns["bytes"][ended].tolist(), columns["outcome"][ended].tolist(), strict=True
    ):
        environment.events.request.fire(
            request_type=method,
            name=path,
            response_time=latency,
            response_length=size,
            exception=failures.get(outcome),
            context={},
        )


class Walker(locust.User):
    """Locust's one user in a process: walks the steps of a cell for as long as the channel is open."""

    wait_time = locust.constant(0)

    @locust.task
    def work(self) -> None:
        """Everything; Locust's own loop around it goes round once."""
        with answering(self.environment.runner) as channel:
            worker = Worker(channel)
            for columns in worker.steps():
                if worker.reports:
                    report(self.environment, worker.method, worker.path, columns)


@locust.events.init.add_listener  # type: ignore[untyped-decorator]
def lead(environment: Any, **_: Any) -> None:
    """In the master: say where workers find it, and stay until the channel closes."""
    if isinstance(environment.runner, MasterRunner):
        gevent.spawn(_lead, environment)


def _lead(environment: Any) -> None:
    runner = environment.runner
    with answering(runner) as channel:
        lines = channel.makefile("rb")
        lines.readline()
        if PAGE in os.environ:
            open_page(environment)
        channel.sendall(json.dumps({"port": runner.server.port}).encode() + b"\n")
        for line in lines:
            # One of those that the runner knows, for it discards what others report; that one's users stay as they are.
            client = next(iter(runner.clients), "")
            users = {"user_classes_count": runner.clients[client].user_classes_count if client else {}}
            told = worker_report(json.loads(line), time.time_ns() / 1e9)
            environment.events.worker_report.fire(client_id=client, data={**told, **users})


def open_page(environment: Any) -> None:
    """Serve Locust's page on the socket that was inherited."""
    probe()
    locust.stats.PERCENTILES_TO_CHART = [0.5, 0.99]
    made = environment.create_web_ui(LOOPBACK, 0, delayed_start=True)
    listener = socket.socket(fileno=int(os.environ[PAGE]))
    made.server = WSGIServer(listener, only_to_look_at(made.app), log=None)
    made.server.start()


def probe() -> None:
    """Raises RuntimeError where a request of 0.4 ms would not show as one: Locust's statistics are not ours."""
    events: Any = locust.event.Events()  # type: ignore[no-untyped-call]
    stats = RequestStats()
    setup_distributed_stats_event_listeners(events, stats)
    columns = own_columns(1)
    columns["done_ns"][:] = 400_000
    told = worker_report(summary("probe", "POST", Onlooker(columns).look(0.0, 1.0)), 1.0)
    events.worker_report.fire(client_id="", data=told)
    if (shown_ms := stats.total.get_response_time_percentile(0.5)) != 0.4:
        raise RuntimeError(f"Locust {locust.__version__} shows a request of 0.4 ms as one of {shown_ms} ms")


@contextmanager
def answering(runner: Any) -> Iterator[socket.socket]:
    """The channel; an error is told over it, and its end is the end of this process."""
    channel = socket.socket(fileno=int(os.environ[DESCRIPTOR]))
    try:
        yield channel
    except Exception as error:
        traceback.print_exc()
        channel.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
    finally:
        # From a greenlet of its own: quitting ends the one that works here.
        gevent.spawn(runner.quit)
        gevent.sleep(60)


die_with_parent()
