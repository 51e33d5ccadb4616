"""Load: the step that is asked for, the exchange that came of each planned request, and what a step measured.

In: nothing. Out: `Step` (asked), `Outcome` and `EXCHANGE_COLUMNS` (the columns of `exchanges/<step id>.parquet`),
`Beat` (what a watcher is told of a step under way), `GeneratorHealth` (how the generator fared meanwhile), `Rung` (what
a shape sees of a finished step), `StepResult` (what reports read) and `Doubt` (why it has no figures).
"""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Literal

from pydantic import Field

from harness.records.frozen import Frozen

NEVER = -1
"""In an exchange's time columns: it did not happen."""

AUDIT = "audit"
"""The shape of the step that asks whether answers are remembered: it takes turns between requests that were sent before
and some that never were. Nothing else is measured in it."""

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


STAGES = ("received", "queued", "decoded", "predicted", "encoded")
"""What a server of ours does with a request, in this order, by the names that its `Server-Timing` header has."""

STAGE_COLUMNS: dict[str, str] = {f"{stage}_ns": "int64" for stage in STAGES}

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
    **STAGE_COLUMNS,
}
"""One row per planned request. Times count from the step's epoch, `NEVER` where they did not happen. Scheduled latency
is done - due, service latency done - sent, lag sent - due. In closed load a request is due when one before it ended.
Stages are lengths, as the server states them; `NEVER` where it was not asked, which is most rows, or did not say."""


class Step(Frozen):
    """One steady period of load: open (requests at their times) or closed (a fixed number in flight)."""

    shape: str
    number: int
    """From 0 within its cell."""
    mode: Literal["open", "closed"]
    rate_rps: float | None = None
    """Of an open step: planned arrivals per second."""
    in_flight: int | None = None
    """Of a closed step: requests in flight at any moment; of `users`, how many of them."""
    users: bool = False
    """It is closed load by users of Locust's, who may wait between their requests."""
    pace_rps: float | None = None
    """Of `users` that Locust comes with: what they try to send per second, all together; None: they are a locustfile's.
    """
    duration_s: float
    warmup_s: float
    """From the epoch; exchanges due before its end are recorded but not measured."""

    @property
    def label(self) -> str:
        """The step in a few words."""
        if self.rate_rps is not None:
            return f"{self.rate_rps:,.0f} req/s"
        if not self.users:
            return f"{self.in_flight} in flight"
        pace = "" if self.pace_rps is None else f" at {self.pace_rps:,.0f} req/s"
        return f"{self.in_flight} user{'' if self.in_flight == 1 else 's'}{pace}"


class Head(Frozen):
    """What all requests of a server have in common beside its address; never recorded, for it may hold a secret."""

    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    ca_file: str | None = None
    """For https: which certificates to trust; None: those that the system trusts."""


JSON_POST = Head()
"""A request of the Open Inference Protocol v2."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A step under way, over about its last second: to be looked at, and recorded nowhere."""

    elapsed_s: float
    """Since the epoch."""
    span_s: float
    """Since the beat before; every request that ends is in exactly one."""
    answered: int
    """Requests that ended in success."""
    failed: int
    """Those that ended otherwise, and those that were dropped."""
    p50_s: float | None
    p99_s: float | None
    """Of the scheduled latency of successes; None where there are none."""
    in_flight: int
    lag_p99_s: float | None
    """Of the requests that were begun; None where there are none."""


class WorkerHealth(Frozen):
    """What one process of the load generator saw of itself during a step."""

    cpu_share: float
    """Of one core: the highest over half a second, for a step that long; else the mean."""
    started_late_s: float
    """How long after the epoch it was told of it; 0 where before."""
    gc_s: float
    """Time in the garbage collector."""
    clock_moved_s: float
    """How much further the wall clock went than the monotonic one."""
    timer: Literal["timerfd", "spin", "event loop"]
    """What it waits with: a kernel timer; looking at the clock, which takes all of a core; Locust's users with timers
    that are good to a millisecond only."""
    priority: Literal["raised", "ordinary"] = "ordinary"
    """Whether it went before what else wanted its cores."""
    node: str | None = None
    """The node of the cluster that it ran on; None: the machine of the harness."""
    clock_error_s: float = 0.0
    """How far its moments may lie from those of the harness's own clock, whose epoch it was given."""


class GeneratorHealth(Frozen):
    """What is known of a step beside its exchanges, for judging whether these can be believed."""

    workers: tuple[WorkerHealth, ...]
    """Of the processes that came to the end of the step."""
    lost: tuple[str, ...] = ()
    """Of every other process, what became of it."""
    servers_before: dict[str, int] = Field(default={})
    """How many of the connections led to which server process before the step; empty where servers do not say."""
    servers_after: dict[str, int] = Field(default={})
    locust_p99_s: float | None = None
    """Where Locust's users made the requests: what Locust itself says, of the whole step and rounded as it rounds."""


@dataclass(frozen=True, slots=True)
class Rung:
    """What a load shape is told of a finished step."""

    step: Step
    throughput_rps: float
    """Successful answers per second, after the warm-up."""
    throughput_error_rps: float = field(default=0.0, kw_only=True)
    """Half of its 95 % interval."""
    p99_s: float | None
    """Of the scheduled latency of successes; None where there are too few."""
    error_share: float
    """Share of planned requests that did not end in success."""


class Reason(StrEnum):
    """Why a step's figures are not to be believed."""

    ROWS_MISSING = "rows_missing"
    WORKER_LOST = "worker_lost"
    STARTED_LATE = "started_late"
    CLOCK_MOVED = "clock_moved"
    GARBAGE_COLLECTED = "garbage_collected"
    GENERATOR_BUSY = "generator_busy"
    GENERATOR_LATE = "generator_late"
    RATE_OFF = "rate_off"
    GAPS_OFF = "gaps_off"
    LITTLES_LAW = "littles_law"
    NEAR_ROOFLINE = "near_roofline"
    GENERATOR_LIMITED = "generator_limited"
    POOL_TOO_SMALL = "pool_too_small"
    SERVERS_CHANGED = "servers_changed"
    ANSWERS_CACHED = "answers_cached"
    ERRORS = "errors"
    NOT_STEADY = "not_steady"
    FEW_SAMPLES = "few_samples"


ADVICE: dict[Reason, str] = {
    Reason.ROWS_MISSING: "Look into the generator's log, and run the step again.",
    Reason.WORKER_LOST: "Look into its log: a killed one says nothing, which on Linux is often the memory's end.",
    Reason.STARTED_LATE: "Give the generator cores of its own, and run nothing beside it.",
    Reason.CLOCK_MOVED: "Wait until the machine's clock has been set, and run again.",
    Reason.GARBAGE_COLLECTED: "Something in the generator's process collects garbage: take it out.",
    Reason.GENERATOR_BUSY: "Raise load.workers where there are cores for them, or lower the rate.",
    Reason.GENERATOR_LATE: "Give the generator cores of its own, raise load.workers, or lower the rate.",
    Reason.RATE_OFF: "Raise load.workers where there are cores for them, or lower the rate.",
    Reason.GAPS_OFF: "Give the generator cores of its own, and run nothing beside it.",
    Reason.LITTLES_LAW: "Raise load.workers where there are cores for them, or lower the number in flight.",
    Reason.NEAR_ROOFLINE: "Raise load.workers where there are cores for them, or lower the rate.",
    Reason.GENERATOR_LIMITED: "Raise load.workers where there are cores for them, or lower the rate.",
    Reason.POOL_TOO_SMALL: "Raise load.in_flight_max: it held back requests that the server had room for.",
    Reason.SERVERS_CHANGED: "Keep the number of servers fixed, and see in their log why one was restarted.",
    Reason.ANSWERS_CACHED: "Switch the cache off, or have requests that do not repeat.",
    Reason.ERRORS: "See in the server's log why it fails; a fast error is no fast answer.",
    Reason.NOT_STEADY: "Make the step longer, or its warm-up; where it never settles, the rate is too near the peak.",
    Reason.FEW_SAMPLES: "Make the step longer.",
}
"""What to do about each."""


class Doubt(Frozen):
    """One reason not to believe a step, with what was seen."""

    reason: Reason
    text: str

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self.reason]


class Observed(Frozen):
    """What was seen of a step beside its figures; a verdict is drawn from it. None: nothing to compare."""

    missing: int
    """Rows that should be there and are not."""
    rate_off: float | None
    """Of an open step: requests sent inside the window over those due and not dropped, minus 1."""
    gap_distance: float | None
    """Of an open step: largest difference between the distributions of the planned and the delivered gaps."""
    gap_bound: float | None
    """What chance makes of that distance in one of a thousand steps."""
    little_off: float | None
    """Of a closed step: throughput times mean latency from the due time over the number in flight, minus 1."""
    drifting: bool
    """The latency is never steady, and there are enough samples to tell."""
    backlog_growth: float
    """Of an open step: by what share of its rate the number in flight grew throughout; 0 where it did not."""
    remembered: float | None
    """Of an audit: median service latency of new requests over that of repeated ones; None: not apart, or no audit."""
    slowdown: float | None
    """Where requests were dropped: the median service latency over that of the first few, with nobody before them."""


class Latency(Frozen):
    """One percentile of a latency, exact from the raw exchanges, with the interval it can stand behind."""

    value_s: float | None
    low_s: float | None = None
    high_s: float | None = None
    """95 % interval; an end is None where the sample cannot bound it."""
    certified_s: float | None = None
    """With 99 % confidence the percentile is no more than this, by MLPerf's early-stopping rule, which takes requests
    for independent; None where the sample is too small for it."""
    reason: str | None = None
    """Why `value_s` is None."""


PARTS = ("lag", "network", *STAGES)
"""Of a request's latency, in the order in which they pass but for the network, which is also what follows the last."""


class Anatomy(Frozen):
    """Where the time of a step's median request went; by what the server says of itself."""

    p50_s: float | None
    """Of the scheduled latency over all successes."""
    sampled: int
    """Successes that said where the server's time went."""
    averaged: int = 0
    """Those of them around the median, whose means the parts are."""
    parts_s: dict[str, float] = Field(default={})
    """By name, as `PARTS` has them; empty where they are not told."""
    reason: str | None = None
    """Why they are not."""

    @property
    def total_s(self) -> float | None:
        """What the parts come to."""
        return sum(self.parts_s.values()) if self.parts_s else None


class RequestResult(Frozen):
    """The requests of one name in a step by users of a locustfile."""

    name: str
    """Method and name, as Locust has them."""
    requests: int
    failed: int
    latency: dict[str, Latency]
    """Percentiles as of a `StepResult`."""


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
    refused: int = 0
    """Of those answered with an error of HTTP: 503, by which a server says that its queue is full."""
    throughput_rps: float | None
    """None where there are doubts."""
    throughput_error_rps: float | None = None
    """Half of its 95 % interval, as slots of time differ; None where it has none."""
    error_share: float
    scheduled: dict[str, Latency]
    """p50, p90, p99, p99.9 of done - due over successes."""
    service: dict[str, Latency]
    """The same of done - sent."""
    lag_p99_s: float | None
    """p99 of sent - due: how late the generator was."""
    measured_from_s: float
    """Where the warm-up ended: where the step says so, or later where the latency was steady only then."""
    observed: Observed
    doubts: tuple[Doubt, ...] = ()
    """With any, the step has no figures."""
    overloaded: str | None = None
    """What shows that the server could not keep up with the rate. A result and no doubt: the step has its figures, but
    they would be worse the longer it lasted."""
    by_request: tuple[RequestResult, ...] = ()
    """Of a step by users of a locustfile, by name; figures are missing where the step's are."""
    locust_p99_s: float | None = None
    """What Locust itself says where its users made the requests; nothing is concluded from it."""
    anatomy: Anatomy | None = None
    """None where the server says nothing of its own time, or the step has no figures."""
    curve: tuple[tuple[float, float], ...] = ()
    """The distribution of the scheduled latency, thinned for drawing: (share, seconds), up to the last share that the
    sample supports."""
    warnings: tuple[str, ...] = ()

    @property
    def failed_share(self) -> float:
        """Share of planned requests that the server failed: what the limit in flight held back while it kept up was
        never sent to it.
        """
        held_back = self.failed.get("dropped", 0) if self.overloaded is None else 0
        return self.error_share - held_back / self.planned if self.planned else self.error_share
