"""Load: the step that is asked for, the exchange that came of each planned request, and what a step measured.

In: nothing. Out: `Step` (asked), `Outcome` and `EXCHANGE_COLUMNS` (the columns of `exchanges/<step id>.parquet`),
`Rung` (what a shape sees of a finished step) and `StepResult` (what reports read).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from harness.records.frozen import Frozen

NEVER = -1
"""In an exchange's time columns: it did not happen."""

NO_STATUS = 0
"""In an exchange's status column: no HTTP answer arrived."""


class Outcome(IntEnum):
    """What became of a planned request; the number is what Parquet holds."""

    OK = 0
    HTTP_ERROR = 1
    TIMEOUT = 2
    CONNECTION = 3
    WRONG_ANSWER = 4
    DROPPED = 5
    CENSORED = 6


EXCHANGE_COLUMNS: dict[str, str] = {
    "due_ns": "int64",
    "dispatch_ns": "int64",
    "sent_ns": "int64",
    "done_ns": "int64",
    "status": "int16",
    "outcome": "int8",
    "bytes": "int32",
    "payload": "int32",
    "worker": "int16",
}
"""One row per planned request. Times count from the step's epoch, `NEVER` where they did not happen. Scheduled latency
is done - due, service latency done - sent, lag sent - due."""


class Step(Frozen):
    """One steady period of load: open (requests at their times) or closed (a fixed number in flight)."""

    shape: str
    number: int
    """From 0 within its cell."""
    mode: Literal["open", "closed"]
    rate_rps: float | None = None
    """Of an open step: planned arrivals per second."""
    in_flight: int | None = None
    """Of a closed step: requests in flight at any moment."""
    duration_s: float
    warmup_s: float
    """From the epoch; exchanges due before its end are recorded but not measured."""

    @property
    def label(self) -> str:
        """The step in a few words."""
        return f"{self.rate_rps:,.0f} req/s" if self.rate_rps is not None else f"{self.in_flight} in flight"


@dataclass(frozen=True, slots=True)
class Rung:
    """What a load shape is told of a finished step."""

    step: Step
    throughput_rps: float
    """Successful answers per second, after the warm-up."""
    p99_s: float | None
    """Of the scheduled latency of successes; None where there are too few."""
    error_share: float
    """Share of planned requests that did not end in success."""


class Latency(Frozen):
    """One percentile of a latency, exact from the raw exchanges, with the interval it can stand behind."""

    value_s: float | None
    low_s: float | None = None
    high_s: float | None = None
    """95 % interval from order statistics; an end is None where the sample is too small to have one."""
    reason: str | None = None
    """Why `value_s` is None."""


class StepResult(Frozen):
    """One step, reduced from its raw exchanges."""

    id: str
    cell: str
    step: Step
    planned: int
    """Requests planned after the warm-up; the counts below are of these."""
    succeeded: int
    failed: dict[str, int]
    """Count per outcome other than OK, by its lower-case name."""
    throughput_rps: float
    error_share: float
    scheduled: dict[str, Latency]
    """p50, p90, p99, p99.9 of done - due over successes."""
    service: dict[str, Latency]
    """The same of done - sent."""
    lag_p99_s: float | None
    """p99 of sent - due: how late the generator was."""
    curve: tuple[tuple[float, float], ...] = ()
    """The distribution of the scheduled latency, thinned for drawing: (share, seconds), up to the last share that the
    sample supports."""
    warnings: tuple[str, ...] = ()
