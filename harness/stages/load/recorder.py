"""The recorder: what Locust loads beside a user's own locustfile, in the child that `stages.load.locust_users` starts.

In: the requests that the user's classes make, as Locust's `request` event tells of them. Out: one `.npz` file of
exchange columns, and how the process fared, where the environment names it. Nothing imports this file; run by itself it
prints what a locustfile defines.
"""

import locust  # first, before anything that uses sockets: it patches the interpreter

# isort: split
import json
import os
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from locust.util.load_locustfile import load_locustfile

from harness.process import die_with_parent
from harness.records.load import EXCHANGE_COLUMNS, NEVER, NO_STATUS, STAGE_COLUMNS, Outcome
from harness.stages.load.locust_users import SPOOL

WATCH_S = 0.5


class Recorder:
    """The exchanges of one run of Locust, and what this process saw of itself."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._began_ns = self._offset_ns = 0
        self._sent, self._done, self._bytes = array("q"), array("q"), array("i")
        self._status, self._outcome, self._which = array("h"), array("b"), array("i")
        self._requests: dict[str, int] = {}
        """What was asked, by method and name, each with its number."""
        self._busiest = 0.0

    def begin(self, **_: Any) -> None:
        """The test starts: what is recorded counts from here."""
        # Of the wall clock: the moments that Locust tells are of no other.
        self._began_ns = time.time_ns()
        self._offset_ns = self._began_ns - time.monotonic_ns()
        gevent.spawn(self._watch)

    def record(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        response_length: int | None,
        exception: Any,
        start_time: float | None = None,
        response: Any = None,
        **_: Any,
    ) -> None:
        """One request came to its end."""
        latency_ns = round((response_time or 0.0) * 1e6)
        sent_ns = time.time_ns() - latency_ns if start_time is None else round(start_time * 1e9)
        status = int(getattr(response, "status_code", 0) or 0)
        self._sent.append(sent_ns - self._began_ns)
        self._done.append(sent_ns - self._began_ns + latency_ns)
        self._bytes.append(min(int(response_length or 0), 2**31 - 1))
        self._status.append(status or NO_STATUS)
        self._outcome.append(_outcome(exception, status))
        self._which.append(self._requests.setdefault(f"{request_type} {name}", len(self._requests)))

    def keep(self, environment: Any, **_: Any) -> None:
        """The test is over: write what there is, in the order in which it began, and what Locust says of it."""
        moved_s = (time.time_ns() - time.monotonic_ns() - self._offset_ns) / 1e9
        sent_ns = np.array(self._sent, dtype=np.int64)
        found = {
            "due_ns": sent_ns,
            "dispatch_ns": sent_ns,
            "sent_ns": sent_ns,
            "done_ns": self._done,
            "status": self._status,
            "outcome": self._outcome,
            "bytes": self._bytes,
            "payload": self._which,
            "worker": np.zeros(len(sent_ns)),
            **{name: np.full(len(sent_ns), NEVER) for name in STAGE_COLUMNS},
        }
        order = np.argsort(sent_ns, kind="stable")
        order = order[sent_ns[order] >= 0]
        columns = {name: np.array(found[name], dtype=dtype)[order] for name, dtype in EXCHANGE_COLUMNS.items()}
        total = environment.stats.total
        np.savez(
            self._spool,
            allow_pickle=False,
            **columns,
            requests=np.array(list(self._requests), dtype=np.str_),
            cpu_share=self._busiest,
            clock_moved_s=moved_s,
            # A whole step without one request is none that Locust says anything of.
            locust_p99_ms=total.get_response_time_percentile(0.99) if total.num_requests else np.nan,
        )

    def _watch(self) -> None:
        while True:
            wall_s, busy_s = time.perf_counter(), time.process_time()
            gevent.sleep(WATCH_S)
            share = (time.process_time() - busy_s) / (time.perf_counter() - wall_s)
            self._busiest = max(self._busiest, share)


def _outcome(exception: Any, status: int) -> int:
    if exception is None:
        return Outcome.OK
    if "timeout" in type(exception).__name__.lower() or isinstance(exception, TimeoutError):
        return Outcome.TIMEOUT
    if status == 0:
        return Outcome.CONNECTION
    # A catch_response block may call a 200 a failure: the answer was wrong.
    return Outcome.HTTP_ERROR if status >= 400 else Outcome.WRONG_ANSWER


def defined(path: str) -> dict[str, list[str]]:
    """Names of the user and shape classes of a locustfile; raises whatever it raises."""
    users, shapes = load_locustfile(path)
    return {"users": sorted(users), "shapes": [type(shape).__name__ for shape in shapes]}


if __name__ == "__main__":
    sys.stdout.write(f"\n{json.dumps(defined(sys.argv[1]))}\n")
elif SPOOL in os.environ:
    recorder = Recorder(Path(os.environ[SPOOL]))
    locust.events.test_start.add_listener(recorder.begin)  # type: ignore[no-untyped-call]
    locust.events.request.add_listener(recorder.record)  # type: ignore[no-untyped-call]
    locust.events.test_stop.add_listener(recorder.keep)  # type: ignore[no-untyped-call]
    die_with_parent()
