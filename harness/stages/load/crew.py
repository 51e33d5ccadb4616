"""Crew: the processes of a load generator on this machine, each with the memory that it writes its exchanges to.

In: an endpoint, how many, their cores, and the page, if there is one. Out: `crew`, which yields a `Worker` for each:
Locust alone, or Locust's workers under a master that sends no load.
"""

import contextlib
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.errors import InfrastructureError
from harness.process import LOOPBACK
from harness.records.candidate import Endpoint
from harness.records.load import EXCHANGE_COLUMNS
from harness.stages.host import available_cores
from harness.stages.load.channel import Channel, channel
from harness.stages.load.columns import COLUMNS_FILE, Columns, SharedMemory, own_columns, shared_memory
from harness.stages.load.page import PAGE, Page
from harness.stages.load.pulse import Onlooker, Window

LOCUSTFILE = Path(__file__).with_name("locustfile.py")

START_S = 60.0
"""Longest start of a child: importing Locust takes one to two seconds of an idle core."""


class LoadWorker(Protocol):
    """One process that sends load, wherever it runs. Of what it is told, `answer` fetches the answer.

    All but `look` raise InfrastructureError where the process is gone, or does not do as it is told.
    """

    def start(self, setup: dict[str, Any], bodies: Path) -> None:
        """Tell it whom to ask and how, and what: the file of request bodies."""

    def prepare(self, asked: dict[str, Any], plan: Path, rows: int, what: str) -> None:
        """Tell it of a step, `what`, in which `rows` of the plan in that file are its own."""

    def begin(self, epoch_s: float, what: str) -> None:
        """Tell it when the step that it is prepared for begins, in this process's monotonic clock."""

    def answer(self, timeout_s: float, what: str, meanwhile: Callable[[], float] | None = None) -> dict[str, Any]:
        """Its answer to what it was told last; `meanwhile` as for `Channel.answer`."""

    def look(self, from_s: float, until_s: float) -> Window:
        """What came to pass in its step since the look before; nothing where that cannot be seen."""

    def recorded(self, what: str) -> Columns:
        """The exchanges of the step that it has answered."""


@dataclass(slots=True)
class Worker:
    """A child process of this one: the way to it, the memory that it writes its exchanges to, and a file for them."""

    channel: Channel
    memory: SharedMemory
    spool: Path
    _onlooker: Onlooker = field(default_factory=lambda: Onlooker(own_columns(0)), init=False)

    def start(self, setup: dict[str, Any], bodies: Path) -> None:
        self.channel.tell({**setup, "bodies": str(bodies)}, "its start")

    def prepare(self, asked: dict[str, Any], plan: Path, rows: int, what: str) -> None:
        self.memory.resize(rows)
        self._onlooker = Onlooker(self.memory.columns(rows))
        self.channel.tell({**asked, "plan": str(plan)}, what)

    def begin(self, epoch_s: float, what: str) -> None:
        self.channel.tell({"epoch_ns": round(epoch_s * 1e9), "spool": str(self.spool)}, what)

    def answer(self, timeout_s: float, what: str, meanwhile: Callable[[], float] | None = None) -> dict[str, Any]:
        return self.channel.answer(timeout_s, what, meanwhile)

    def look(self, from_s: float, until_s: float) -> Window:
        return self._onlooker.look(from_s, until_s)

    def recorded(self, what: str) -> Columns:
        try:
            with self.spool.open("rb") as stored, np.load(stored) as file:
                return {name: file[name] for name in EXCHANGE_COLUMNS}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InfrastructureError(
                f"The exchanges of {what} that a process of the load generator left in {self.spool} cannot be read: "
                f"{error}."
            ) from error
        finally:
            self.spool.unlink(missing_ok=True)

    def quit(self) -> None:
        """Have it end in order."""
        self.channel.quit()


@contextlib.contextmanager
def crew(
    endpoint: Endpoint, count: int, cores: tuple[int, ...], folder: Path, page: Page | None
) -> Iterator[list[Worker]]:
    """`count` processes that wait for their start, gone when the block is left; their logs lie in `folder`.

    Several have a Locust master above them, and so has a single one where there is a page, which the master serves.
    """
    with contextlib.ExitStack() as stack:
        if count == 1 and page is None:
            workers = [stack.enter_context(alone(endpoint, cores, folder))]
        else:
            port = _master_port(stack, endpoint, count, cores, folder, page)
            under = ["--worker", "--master-host", LOOPBACK, "--master-port", str(port)]
            command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--loglevel", "INFO", *under]
            workers = [stack.enter_context(_worker(command, folder, f"-{index}", cores)) for index in range(count)]
        yield workers
        for worker in workers:
            worker.quit()


@contextlib.contextmanager
def alone(endpoint: Endpoint, cores: tuple[int, ...], folder: Path) -> Iterator[Worker]:
    """A process that has no master above it."""
    with _worker(_command(endpoint, 1), folder, "", cores) as worker:
        yield worker


def other_cores(cores: tuple[int, ...]) -> tuple[int, ...]:
    """The cores that a generator on `cores` leaves to others; empty where it leaves none."""
    return tuple(core for core in available_cores() if core not in cores)


def _master_port(
    stack: contextlib.ExitStack,
    endpoint: Endpoint,
    count: int,
    cores: tuple[int, ...],
    folder: Path,
    page: Page | None,
) -> int:
    """Where the workers find their master, once it is there."""
    under = ["--master", "--expect-workers", str(count), "--master-bind-host", LOOPBACK, "--master-bind-port", "0"]
    # Without a page it has nothing to do during a step; with one it must not do it where the load comes from.
    inherited, where = ({}, cores) if page is None else ({PAGE: page.listener.fileno()}, other_cores(cores))
    command = [*_command(endpoint, count), *under]
    master = stack.enter_context(channel(command, folder / "locust-master.log", where, inherited))
    port: int = master.ask({}, START_S, "the start of its master")["port"]
    # Its own end closes it last: a worker that finds its master gone complains into its log.
    stack.callback(master.quit)
    if page is not None:
        stack.enter_context(page.served_by(master))
    return port


@contextlib.contextmanager
def _worker(command: Sequence[str], folder: Path, suffix: str, cores: tuple[int, ...]) -> Iterator[Worker]:
    log, spool = folder / f"locust{suffix}.log", folder / f"spool{suffix}.npz"
    with shared_memory() as memory, channel(command, log, cores, {COLUMNS_FILE: memory.descriptor}) as way:
        try:
            yield Worker(way, memory, spool)
        finally:
            spool.unlink(missing_ok=True)


def _command(endpoint: Endpoint, users: int) -> list[str]:
    # Given in full, also where Locust's defaults would do: arguments overrule its configuration files and environment.
    return [
        sys.executable, "-m", "locust", "--headless", "--locustfile", str(LOCUSTFILE), "--host", endpoint.url,
        "--users", str(users), "--spawn-rate", str(users), "--run-time", "24h", "--stop-timeout", "0", "--only-summary",
        "--loglevel", "INFO", "--exit-code-on-error", "0",
    ]  # fmt: skip
