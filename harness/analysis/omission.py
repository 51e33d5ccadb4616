"""Coordinated omission: where closed load hides what open load shows.

In: the judged steps of one cell. Out: `omission`, a sentence for its reader, or None. A client that waits for its
answers does not send while the server stalls, so the requests that would have waited are never made (Tene, "How NOT to
measure latency", 2013).
"""

from collections.abc import Sequence

from harness.records.load import StepResult
from harness.units import Unit, format_number

FACTOR = 10.0
"""Between the two p99. At half load a queue with exponential service times has nine services, of five that one has
alone: what is further apart is no queue."""

BUSY_SHARE = 0.5
"""Of the highest closed throughput: beyond it a queue alone may do it."""


def omission(steps: Sequence[StepResult]) -> str | None:
    """What closed load leaves out of the latency that open load finds, at the open step where that is most."""
    closed = [step for step in steps if step.step.mode == "closed" and not step.doubts and step.throughput_rps]
    unpaced = [step for step in closed if not step.step.users]
    if not unpaced:
        return None
    peak_rps = max(step.throughput_rps or 0.0 for step in unpaced)
    alone = min(unpaced, key=lambda step: step.step.in_flight or 0)
    alone_s = alone.service["p99"].value_s
    easy = [
        (p99_s, step)
        for step in steps
        if step.step.mode == "open"
        and (step.step.rate_rps or 0.0) <= BUSY_SHARE * peak_rps
        and step.overloaded is None
        and (p99_s := step.scheduled["p99"].value_s) is not None
    ]
    if alone_s is None or not easy:
        return None
    p99_s, step = max(easy, key=lambda pair: pair[0])
    if p99_s < FACTOR * alone_s:
        return None
    others = [f"closed load with {alone.step.label} {format_number(alone_s, Unit.SECONDS)}"]
    others += [
        f"Locust itself {format_number(one.locust_p99_s, Unit.SECONDS)} with {one.step.label}"
        for one in closed
        if one.locust_p99_s is not None
    ]
    return (
        f"At {step.step.label} requests that come at their own time have p99 {format_number(p99_s, Unit.SECONDS)}; "
        f"{' and '.join(others)}. The server stalls now and then, and a client that waits for its answers does not ask "
        "meanwhile: believe the first."
    )
