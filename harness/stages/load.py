"""Load: the steps of one served cell, driven by Locust in a child process of its own.

In: an endpoint, request bodies, the answers they must get, a load plan. Out: `generator`, which yields a `Generator`
that turns one `Step` after the other into exchange columns. Locust patches the interpreter it is imported into, so it
lives in a child; starting one takes seconds, so one child walks all steps of the cell. Both talk in JSON lines over a
socket pair, arrays travel as `.npz` files.
"""

import contextlib
import json
import math
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from harness.clock import Clock, SystemClock
from harness.errors import InfrastructureError, UsageError
from harness.process import child, log_tail
from harness.records.candidate import Endpoint
from harness.records.load import EXCHANGE_COLUMNS, Step
from harness.records.scenario import LoadPlan
from harness.stats.arrivals import due_ns, payload_order, step_seed

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
CHANNEL = "HARNESS_GENERATOR_FD"
"""Environment variable that tells the child which file descriptor to listen on."""

START_S = 60.0
"""Longest start of the child: importing Locust takes one to two seconds of an idle core."""
WARM_S = 5.0
"""Longest time the child spends on opening connections before a step."""
MARGIN_S = 30.0
"""What a step may take beyond its own length, the drain and the warming, on a busy machine."""
QUIT_S = 5.0

_CLOSED_RPS_MAX = 250_000.0
"""Rows are made before a closed step begins; one core of this generator starts about a quarter as many a second
(63,000 against the null target). A step that fills them all is refused, never cut short in silence."""
_CONNECTIONS_MIN = 8
_STALL_S = 0.5


class Generator:
    """A running load generator; made by `generator`."""

    def __init__(
        self, process: subprocess.Popen[bytes], channel: socket.socket, plan: LoadPlan, payloads: int, log: Path
    ) -> None:
        self._process = process
        self._channel = channel
        self._plan = plan
        self._payloads = payloads
        self._log = log
        self._unread = b""
        self._clock: Clock = SystemClock()

    def drive(self, step: Step) -> dict[str, NDArray[Any]]:
        """Run one step; its exchanges as columns of `EXCHANGE_COLUMNS`, a row per planned request.

        Open step: the rows of the plan, in due order; the same plan, rate and step number give the same due times and
        payloads for every candidate. Closed step: a row per request started; due is the moment it started. Raises
        InfrastructureError, with the end of its log, where the generator dies, fails, or does not answer in time; it
        is of no use afterwards.
        """
        due, payload = self._planned(step)
        folder = self._log.parent
        plan_file, spool = folder / f"plan-{step.number}.npz", folder / f"spool-{step.number}.npz"
        try:
            np.savez(plan_file, due_ns=due, payload=payload)
            self.ask(
                {
                    "plan": str(plan_file),
                    "spool": str(spool),
                    "mode": step.mode,
                    "duration_s": step.duration_s,
                    "connections": self._connections(step),
                },
                step.duration_s + self._plan.timeout_s + WARM_S + MARGIN_S,
                f"step {step.number} ({step.label})",
            )
            with np.load(spool) as file:
                columns = {name: file[name] for name in EXCHANGE_COLUMNS}
        finally:
            plan_file.unlink(missing_ok=True)
            spool.unlink(missing_ok=True)
        rows = len(columns["due_ns"])
        if (rows != len(due)) if step.mode == "open" else (rows == len(payload)):
            raise InfrastructureError(
                f"The load generator returned {rows} exchanges of step {step.number} ({step.label}), where "
                f"{len(due)} were planned and {len(payload)} was the bound. Its figures cannot be used."
            )
        return columns

    def ask(self, message: dict[str, Any], timeout_s: float, what: str) -> None:
        """Send the child one message and wait until it reports the thing done; raises as `drive` does."""
        answer = self._exchange(message, timeout_s, what)
        if "error" in answer:
            raise InfrastructureError(f"The load generator failed in {what}: {answer['error']}.{self._tail()}")

    def _exchange(self, message: dict[str, Any], timeout_s: float, what: str) -> dict[str, Any]:
        deadline_s = self._clock.monotonic_s() + timeout_s
        try:
            self._channel.settimeout(timeout_s)
            self._channel.sendall(json.dumps(message).encode() + b"\n")
            while b"\n" not in self._unread:
                # A child that sends a byte now and then must not reset the limit.
                self._channel.settimeout(max(1e-3, deadline_s - self._clock.monotonic_s()))
                received = self._channel.recv(65536)
                if not received:
                    raise ConnectionResetError
                self._unread += received
        except TimeoutError as error:
            raise InfrastructureError(
                f"The load generator did not answer within {timeout_s:g} s in {what}.{self._tail()}"
            ) from error
        except OSError as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(QUIT_S)
            raise InfrastructureError(
                f"The load generator died in {what} (exit status {self._process.returncode}).{self._tail()}"
            ) from error
        line, self._unread = self._unread.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _planned(self, step: Step) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Due times (none for a closed step) and payloads: of the plan and the step, whatever the candidate."""
        seed = step_seed(self._plan.seed, step.number)
        if step.mode == "open":
            if step.rate_rps is None:
                raise ValueError(f"open step {step.number} has no rate")
            due = due_ns(self._plan.arrivals, step.rate_rps, step.duration_s, seed)
            return due, payload_order(len(due), self._payloads, seed)
        bound = math.ceil(_CLOSED_RPS_MAX * step.duration_s) + (step.in_flight or 0)
        return np.empty(0, dtype=np.int64), payload_order(bound, self._payloads, seed)

    def _connections(self, step: Step) -> int:
        """How many connections to open before the epoch.

        A closed step needs its requests in flight. An open one gets what would pile up in half a second's stall of the
        server: opened during the stall they overflow its listen backlog, and the kernel's repeated SYN puts a whole
        second into the tail.
        """
        if step.mode == "closed":
            if step.in_flight is None:
                raise ValueError(f"closed step {step.number} has no number in flight")
            return step.in_flight
        wanted = max(_CONNECTIONS_MIN, math.ceil((step.rate_rps or 0.0) * _STALL_S))
        return min(self._plan.in_flight_max, wanted)

    def _tail(self) -> str:
        return f" The end of its log, {self._log}:\n{log_tail(self._log)}"


@contextlib.contextmanager
def generator(
    endpoint: Endpoint,
    payloads: Sequence[bytes],
    expected: Sequence[bytes] | None,
    plan: LoadPlan,
    cores: tuple[int, ...],
    folder: Path,
) -> Iterator[Generator]:
    """A load generator for one endpoint, on `cores` (empty: any), ready for steps; gone when the block is left.

    `payloads` are request bodies; `expected`, where given, the answer to each, byte for byte. Its log (`locust.log`)
    and passing files lie in `folder`. Raises UsageError on an endpoint it cannot load, InfrastructureError where the
    child does not start.
    """
    if expected is not None and len(expected) != len(payloads):
        raise ValueError(f"{len(payloads)} payloads but {len(expected)} expected answers")
    setup = _setup(endpoint, plan)
    folder.mkdir(parents=True, exist_ok=True)
    log, bodies = folder / "locust.log", folder / "bodies.npz"
    parts = {"payloads": payloads} if expected is None else {"payloads": payloads, "expected": expected}
    with contextlib.ExitStack() as stack:
        stack.callback(bodies.unlink, missing_ok=True)
        np.savez(
            bodies,
            allow_pickle=False,
            **{key: column for name, texts in parts.items() for key, column in pack(name, texts).items()},
        )
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs:
            process = stack.enter_context(
                child(
                    _command(endpoint),
                    log=log,
                    cores=cores,
                    environment={CHANNEL: str(theirs.fileno())},
                    pass_fds=(theirs.fileno(),),
                )
            )
        running = Generator(process, ours, plan, len(payloads), log)
        running.ask({**setup, "bodies": str(bodies)}, START_S, "its start")
        yield running
        # The end of the channel is the sign to quit; only an orderly end leaves Locust's own summary in the log.
        ours.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(QUIT_S)


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


def _setup(endpoint: Endpoint, plan: LoadPlan) -> dict[str, Any]:
    url = urlsplit(endpoint.url)
    if url.scheme != "http" or not url.hostname:
        raise UsageError(
            f"Cannot load {endpoint.url}: the generator speaks plain HTTP, so give a URL such as "
            "http://127.0.0.1:8000, and put the load behind the point where TLS ends."
        )
    return {
        "host": url.hostname,
        "port": url.port or 80,
        "authority": url.netloc.rpartition("@")[2],
        "path": url.path.rstrip("/") + endpoint.infer_path,
        "timeout_s": plan.timeout_s,
        "in_flight_max": plan.in_flight_max,
    }


def _command(endpoint: Endpoint) -> list[str]:
    # Given in full, also where Locust's defaults would do: arguments overrule its configuration files and environment.
    return [
        sys.executable, "-m", "locust", "--headless", "--locustfile", str(LOCUSTFILE), "--host", endpoint.url,
        "--users", "1", "--spawn-rate", "1", "--run-time", "24h", "--stop-timeout", "0", "--only-summary",
        "--loglevel", "INFO", "--exit-code-on-error", "0",
    ]  # fmt: skip
