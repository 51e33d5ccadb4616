"""Descendants: all processes below one, what they take, and their end.

In: the id of a process. Out: `descendants`, `memory_bytes`, `cpu_seconds`; of this process itself, `forget_peak`,
`base_memory_bytes`, `peak_memory_bytes`, and `end_descendants`, after which none is left. Who they are the kernel says
in `/proc`: psutil would read every process of the machine.
"""

import ctypes
import gc
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from harness.clock import SystemClock

_POLL_S = 0.002


def descendants(pid: int) -> list[int]:
    """Ids of all processes below one, in the order of their birth within a family."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                for below in map(int, (task / "children").read_text().split()):
                    found += [below, *descendants(below)]
    return found


def end_descendants(within_s: float) -> None:
    """Kill and reap every descendant of this process, to which orphans come; gives up after `within_s` seconds.

    All are stopped before the first is killed, for what is stopped starts nothing. Killed one after the other,
    processes that go on forking are born as fast as they go. That none is left the kernel says when there is nothing to
    wait for: its lists may lack a process whose parent ends just then.
    """
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + within_s
    with suppress(ChildProcessError):
        while clock.monotonic_s() < deadline_s:
            stopped: set[int] = set()
            while (running := set(descendants(os.getpid())) - stopped) and clock.monotonic_s() < deadline_s:
                _signal(running, signal.SIGSTOP)
                stopped |= running
            _signal(stopped, signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            clock.sleep(_POLL_S)


def memory_bytes(above: int, trial: int) -> int:
    """Of one descendant of a process, and of all others; of those, pages that they share with others count in parts."""
    total = 0
    with suppress(OSError, ValueError, IndexError):
        total = int(Path(f"/proc/{trial}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    for pid in descendants(above):
        if pid != trial:
            with suppress(OSError, ValueError, StopIteration):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, and of children that it has waited for; 0 of one that is gone."""
    with suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def forget_peak() -> None:
    """From here on the kernel's own record of this process's most memory counts anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def base_memory_bytes() -> int:
    """Memory that this process holds now, from which on its peak counts anew.

    What was freed is given back first: a fit that takes it again would seem to need nothing. Where the kernel does not
    let a peak be begun anew, the old one is the base, and what a fit needs is told too low rather than too high.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    forget_peak()
    return peak_memory_bytes() or 0


def peak_memory_bytes() -> int | None:
    """The most memory that this process had since."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return None


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
