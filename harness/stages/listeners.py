"""Listeners: who on this machine can be reached while Ray runs, and on which ports.

In: nothing. Out: `ray_listeners`, a `Listener` for each port that a Ray session of our own opens. They are read off the
processes of a real session, not out of Ray's documents: which ports there are changes with Ray's version, and no
setting of Ray's says how to have none.
"""

import contextlib
import os
from pathlib import Path

import psutil

from harness.clock import Clock
from harness.ray_session import ray_session
from harness.records.diagnosis import Listener

DRIVER = "driver"
"""What this process is called, which is a part of the session too."""

_TITLE = "ray::"
"""What Ray has the names of its processes in Python begin with; a worker that does nothing is IDLE."""

_QUIET_S = 2.0
"""All are there when no more have come for so long: Ray's agents take seconds to start."""

_AT_MOST_S = 20.0
_POLL_S = 0.25


def ray_listeners(clock: Clock) -> tuple[Listener, ...]:
    """What a session with one CPU listens on, by the name of the process and the port.

    Raises InfrastructureError where Ray does not start.
    """
    with ray_session(1):
        found, began_s = _listening(), clock.monotonic_s()
        changed_s = now_s = began_s
        while now_s - changed_s < _QUIET_S and now_s - began_s < _AT_MOST_S:
            clock.sleep(_POLL_S)
            now_s, before, found = clock.monotonic_s(), found, _listening()
            if found != before:
                changed_s = now_s
    return tuple(sorted(found, key=lambda one: (one.process, one.port, one.address)))


def _listening() -> set[Listener]:
    """Of this process and all below it."""
    found: set[Listener] = set()
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            name = DRIVER if process.pid == os.getpid() else _named(process)
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    address, port = connection.laddr
                    found.add(Listener(process=name, address=address, port=port))
    return found


def _named(process: psutil.Process) -> str:
    """As Ray calls it; of a Python that runs a script, the script's name."""
    command = process.cmdline()
    if command and command[0].startswith(_TITLE):
        title = str(command[0]).removeprefix(_TITLE).split()[0]
        return "worker" if title == "IDLE" else title
    scripts = [Path(part).stem for part in command[1:] if part.endswith(".py")]
    return scripts[0] if scripts else str(process.name())
