"""The load generator's timer: waits for a moment to a tenth of a millisecond, while the event loop works.

In: moments of the monotonic clock. Out: control, when they have come. Only rooms of the generator's process import
this, after Locust has patched the interpreter.
"""

import ctypes
import os
import sys
import time
from typing import Literal

import gevent

from harness.stages.load.wire import READ, now_ns

TFD_TIMER_ABSTIME = 1

SPIN_S = 2e-3
"""Before a moment from which on the clock is looked at all the time, where the kernel has no timerfd."""


class Timer:
    """Waits to the tenth of a millisecond: a kernel timer (timerfd) that the event loop watches.

    gevent's own timers are rounded up to milliseconds. Where the kernel has no timerfd they serve for all but the last
    of them, in which this spins: that takes a core, and is late by as long as the event loop takes to go round. Waiting
    always lets the event loop look at the sockets, also for a moment that has passed, which `gevent.sleep(0)` does not.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._specification = (ctypes.c_long * 4)()  # struct itimerspec: interval s, ns; first expiry s, ns
        self._descriptor = self._created()
        self._watcher = gevent.get_hub().loop.io(self._descriptor, READ) if self._descriptor >= 0 else None

    @property
    def kind(self) -> Literal["timerfd", "spin"]:
        """What it waits with."""
        return "spin" if self._watcher is None else "timerfd"

    def wait(self, until_ns: int) -> None:
        """Until a moment of the monotonic clock."""
        if self._watcher is None:
            _spin(until_ns)
            return
        # Setting it anew also makes the descriptor unreadable again, so nobody needs to read it.
        self._set(until_ns)
        gevent.get_hub().wait(self._watcher)

    if sys.version_info >= (3, 13):

        def _created(self) -> int:
            if not hasattr(os, "timerfd_create"):
                return -1
            return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

        def _set(self, until_ns: int) -> None:
            os.timerfd_settime_ns(self._descriptor, flags=os.TFD_TIMER_ABSTIME, initial=until_ns)

    else:

        def _created(self) -> int:
            if not hasattr(self._libc, "timerfd_create"):
                return -1
            return int(self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))

        def _set(self, until_ns: int) -> None:
            self._specification[2], self._specification[3] = divmod(until_ns, 1_000_000_000)
            if self._libc.timerfd_settime(self._descriptor, TFD_TIMER_ABSTIME, self._specification, None) != 0:
                raise OSError(ctypes.get_errno(), "timerfd_settime failed")


def _spin(until_ns: int) -> None:
    left_s = (until_ns - now_ns()) / 1e9
    if left_s > SPIN_S:
        gevent.sleep(left_s - SPIN_S)
    gevent.idle()  # one turn of the event loop, which does not wait for anything
    while now_ns() < until_ns:
        gevent.idle()
