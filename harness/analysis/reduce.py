"""From the raw exchanges of a step to what it measured.

In: a step as recorded and its exchange columns. Out: `StepResult`, and the `Rung` that load shapes see of it.

What is measured. Of an open step: the exchanges due from the end of the warm-up to the end of the step, however late
they were answered; leaving out the late ones would leave out the slow ones. Of a closed step, where a request is due
when the one before it ends: the exchanges that ended in that window, and those due in it that never ended. Exchanges
without a success (dropped and censored ones too) are failures; latencies are of successes. Throughput is the successes
that arrived inside the window, whenever they were due, over its length: the flow at the reader's end.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records.ledger import StepEntry
from harness.records.load import NEVER, Latency, Outcome, Rung, Step, StepResult
from harness.stats.quantile import Quantile, quantiles, sample_floor
from harness.units import Unit, format_number

PERCENTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

LATE_S = 1e-3
LATE_SHARE = 0.1
"""The generator was late where p99 of its lag passes both: a millisecond, and a tenth of the scheduled p99."""

RATE_SLACK = 0.01
"""Share of the planned requests that may be missing from, or added to, those sent inside the window."""

CURVE_POINTS = 96

_NS = 1e9

Columns = Mapping[str, NDArray[Any]]


def reduce_step(entry: StepEntry, exchanges: Columns) -> StepResult:
    """What a step measured; `exchanges` has the columns of `EXCHANGE_COLUMNS`, shape (requests,) each.

    The same exchanges give the same result.
    """
    step = entry.step
    start_ns, end_ns = round(step.warmup_s * _NS), round(step.duration_s * _NS)
    measured = _measured(step, exchanges, start_ns, end_ns)
    outcome = exchanges["outcome"]
    succeeded = measured & (outcome == Outcome.OK)
    counts = np.bincount(outcome[measured], minlength=len(Outcome))
    planned, successes = int(measured.sum()), int(counts[Outcome.OK])
    due, sent, done = (exchanges[name][succeeded] for name in ("due_ns", "sent_ns", "done_ns"))
    latency = np.sort(done - due)
    scheduled = _latencies(done - due, due)
    was_sent = measured & (exchanges["sent_ns"] != NEVER)
    lag = quantiles(exchanges["sent_ns"][was_sent] - exchanges["due_ns"][was_sent], (0.99,))[0]
    arrived = (outcome == Outcome.OK) & (exchanges["done_ns"] >= start_ns) & (exchanges["done_ns"] < end_ns)
    failed = {kind.name.lower(): int(counts[kind]) for kind in Outcome if kind is not Outcome.OK and counts[kind]}
    window_s = (end_ns - start_ns) / _NS
    lag_p99_s = None if lag.value is None else lag.value / _NS
    return StepResult(
        id=entry.id,
        cell=entry.cell,
        step=step,
        planned=planned,
        succeeded=successes,
        failed=failed,
        throughput_rps=int(arrived.sum()) / window_s if window_s > 0 else 0.0,
        # Where nothing was measured nothing succeeded: a step without requests must not look like one without errors.
        error_share=(planned - successes) / planned if planned else 1.0,
        scheduled=scheduled,
        service=_latencies(done - sent, due),
        lag_p99_s=lag_p99_s,
        curve=_curve(latency),
        warnings=(
            *_sample_warnings(planned, successes, scheduled),
            *(_generator_warnings(exchanges, measured, start_ns, end_ns) if step.mode == "open" else ()),
            *_lag_warnings(step, lag_p99_s, scheduled["p99"].value_s),
            *_failure_warnings(failed, planned),
        ),
    )


def rung(result: StepResult) -> Rung:
    """What a load shape is told of a finished step."""
    return Rung(
        step=result.step,
        throughput_rps=result.throughput_rps,
        p99_s=result.scheduled["p99"].value_s,
        error_share=result.error_share,
    )


def _measured(step: Step, exchanges: Columns, start_ns: int, end_ns: int) -> NDArray[np.bool_]:
    due = exchanges["due_ns"]
    if step.mode == "open":
        return np.asarray(due >= start_ns)
    ended = np.where(exchanges["done_ns"] == NEVER, due, exchanges["done_ns"])
    return np.asarray((ended >= start_ns) & (ended < end_ns))


def _latencies(samples_ns: NDArray[np.int64], due_ns: NDArray[np.int64]) -> dict[str, Latency]:
    found = quantiles(samples_ns, tuple(PERCENTILES.values()), times=due_ns)
    return {name: _latency(quantile) for name, quantile in zip(PERCENTILES, found, strict=True)}


def _latency(quantile: Quantile) -> Latency:
    value, low, high = (None if end is None else end / _NS for end in (quantile.value, quantile.low, quantile.high))
    return Latency(value_s=value, low_s=low, high_s=high, reason=quantile.reason)


def _curve(order_ns: NDArray[np.int64]) -> tuple[tuple[float, float], ...]:
    """Points at even distances on an axis of nines: a million samples draw no better than a hundred."""
    n = len(order_ns)
    if n < sample_floor(0.5):
        return ()
    # The share whose floor is n; beyond it stand one or two observations.
    top = 0.025 ** (1 / n)
    shares = 1 - np.logspace(0, np.log10(1 - top), CURVE_POINTS)
    ranks = np.clip(np.ceil(shares * n), 1, n).astype(np.int64)
    return tuple((float(share), float(order_ns[rank - 1]) / _NS) for share, rank in zip(shares, ranks, strict=True))


def _sample_warnings(planned: int, successes: int, scheduled: Mapping[str, Latency]) -> list[str]:
    if planned == 0:
        return ["No request fell into the measured part of the step."]
    if scheduled["p99"].value_s is None:
        return [f"Few samples: {successes:,} successes, and p99 needs {sample_floor(0.99):,}."]
    return []


def _generator_warnings(exchanges: Columns, measured: NDArray[np.bool_], start_ns: int, end_ns: int) -> list[str]:
    """Whether what left the generator inside the window is what the plan had there."""
    planned = int((measured & (exchanges["due_ns"] < end_ns)).sum())
    sent = exchanges["sent_ns"]
    left = int(((sent >= start_ns) & (sent < end_ns)).sum())
    # The two that straddle the window's edges say nothing of the generator.
    if planned == 0 or abs(left - planned) <= max(2, RATE_SLACK * planned):
        return []
    off = f"{format_number(abs(left / planned - 1), Unit.SHARE)} {'more' if left > planned else 'less'}"
    return [f"While the step was measured the generator sent {left:,} requests where {planned:,} were due ({off})."]


def _lag_warnings(step: Step, lag_p99_s: float | None, p99_s: float | None) -> list[str]:
    if step.mode == "closed" or lag_p99_s is None or lag_p99_s <= LATE_S:
        return []
    if p99_s is not None and lag_p99_s <= LATE_SHARE * p99_s:
        return []
    of = "" if p99_s is None else f", {format_number(lag_p99_s / p99_s, Unit.SHARE)} of the scheduled p99"
    return [f"The generator was late: p99 of its lag is {format_number(lag_p99_s, Unit.SECONDS)}{of}."]


def _failure_warnings(failed: Mapping[str, int], planned: int) -> list[str]:
    told = {
        "dropped": "were dropped: the limit of requests in flight was reached",
        "censored": "had no answer when the step was cut off",
        "wrong_answer": "got a wrong answer",
    }
    return [
        f"{count:,} of {planned:,} requests {told[kind]}." for kind, count in failed.items() if kind in told and count
    ]
