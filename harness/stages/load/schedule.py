"""Schedule: what the load generator is to send in a step, made before the step begins.

In: a load plan, a step, the number of payloads there are. Out: `Timetable`, columns with a digest. Of the same plan and
step it is the same for every candidate and every number of generator processes. Also the audit, which follows the steps
of a cell.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.records.arrivals import parse_arrivals
from harness.records.load import AUDIT, Step
from harness.records.scenario import LoadPlan
from harness.stats.arrivals import due_ns, payload_order, step_seed

CLOSED_RPS_MAX = 250_000.0
"""Rows are made before a closed step begins; one core of this generator starts about a quarter as many a second
(63,000 against the null target). A step that fills them all is refused, never cut short in silence."""

AUDIT_S = 10.0
"""Longest audit; it ends when its requests are answered."""

_LEVELS_PER_RPS = 1000


@dataclass(frozen=True, slots=True)
class Timetable:
    """The requests of one step, in the order in which they are sent."""

    due_ns: NDArray[np.int64]
    """Since the epoch, shape (requests,); of a closed step (0,): there a request is due when one before it ends."""
    payload: NDArray[np.int32]
    """Which request body each carries, shape (requests,); of a closed step as many as could ever be sent."""

    @property
    def sha256(self) -> str:
        """Digest of both columns."""
        return hashlib.sha256(self.due_ns.tobytes() + self.payload.tobytes()).hexdigest()


def audit_step(number: int) -> Step:
    """The step that asks whether answers are remembered."""
    return Step(shape=AUDIT, number=number, mode="closed", in_flight=1, duration_s=AUDIT_S, warmup_s=0.0)


def audit_timetable(repeated: int, new: int) -> Timetable:
    """Every one of `new` payloads once, each after one of the `repeated` ones, which come before them in number."""
    turns = np.arange(new, dtype=np.int32)
    payload = np.column_stack([turns % repeated, repeated + turns]).ravel()
    return Timetable(np.empty(0, dtype=np.int64), payload.astype(np.int32))


def timetable(
    plan: LoadPlan, step: Step, payloads: int, repeat: int = 0, trace_s: NDArray[np.float64] | None = None
) -> Timetable:
    """What to send in `step`.

    `repeat` counts the steps before it under the same load; `trace_s` holds the recorded times where the plan's
    arrivals are a trace. Raises ValueError on a step without its rate or its number in flight.
    """
    if step.mode == "closed":
        if step.in_flight is None:
            raise ValueError(f"closed step {step.number} has no number in flight")
        bound = math.ceil(CLOSED_RPS_MAX * step.duration_s) + step.in_flight
        seed = step_seed(plan.seed, step.in_flight, repeat)
        return Timetable(np.empty(0, dtype=np.int64), payload_order(bound, payloads, seed))
    if step.rate_rps is None:
        raise ValueError(f"open step {step.number} has no rate")
    seed = step_seed(plan.seed, round(step.rate_rps * _LEVELS_PER_RPS), repeat)
    due = due_ns(parse_arrivals(plan.arrivals), step.rate_rps, step.duration_s, seed, trace_s=trace_s)
    return Timetable(due, payload_order(len(due), payloads, seed))
