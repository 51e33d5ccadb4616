"""Crew: the processes of a load generator, each with the memory that it writes its exchanges to.

In: an endpoint, how many, their cores, and the page, if there is one. Out: `crew`, which yields a `Worker` for each:
Locust alone, or Locust's workers under a master that sends no load.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.process import LOOPBACK
from harness.records.candidate import Endpoint
from harness.stages.channel import Channel, channel
from harness.stages.columns import COLUMNS_FILE, SharedMemory, shared_memory
from harness.stages.host import available_cores
from harness.stages.page import PAGE, Page

LOCUSTFILE = Path(__file__).with_name("locustfile.py")

START_S = 60.0
"""Longest start of a child: importing Locust takes one to two seconds of an idle core."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process that sends load: the way to it, and the memory that it writes its exchanges to."""

    channel: Channel
    memory: SharedMemory


@contextlib.contextmanager
def crew(
    endpoint: Endpoint, count: int, cores: tuple[int, ...], folder: Path, page: Page | None
) -> Iterator[list[Worker]]:
    """`count` processes that wait for their start, gone when the block is left; their logs lie in `folder`.

    Several have a Locust master above them, and so has a single one where there is a page, which the master serves.
    """
    with contextlib.ExitStack() as stack:
        if count == 1 and page is None:
            workers = [_worker(stack, _command(endpoint, 1), folder / "locust.log", cores)]
        else:
            port = _master_port(stack, endpoint, count, cores, folder, page)
            under = ["--worker", "--master-host", LOOPBACK, "--master-port", str(port)]
            command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--loglevel", "INFO", *under]
            logs = [folder / f"locust-{index}.log" for index in range(count)]
            workers = [_worker(stack, command, log, cores) for log in logs]
        yield workers
        for worker in workers:
            worker.channel.quit()


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


def _worker(stack: contextlib.ExitStack, command: Sequence[str], log: Path, cores: tuple[int, ...]) -> Worker:
    memory = stack.enter_context(shared_memory())
    return Worker(stack.enter_context(channel(command, log, cores, {COLUMNS_FILE: memory.descriptor})), memory)


def _command(endpoint: Endpoint, users: int) -> list[str]:
    # Given in full, also where Locust's defaults would do: arguments overrule its configuration files and environment.
    return [
        sys.executable, "-m", "locust", "--headless", "--locustfile", str(LOCUSTFILE), "--host", endpoint.url,
        "--users", str(users), "--spawn-rate", str(users), "--run-time", "24h", "--stop-timeout", "0", "--only-summary",
        "--loglevel", "INFO", "--exit-code-on-error", "0",
    ]  # fmt: skip
