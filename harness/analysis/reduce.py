"""From the raw exchanges of a step to what it measured.

In: a step as recorded and its exchange columns. Out: `StepResult`, and the `Rung` that load shapes see of it.

What is measured. Of an open step: the exchanges due from the end of the warm-up to the end of the step, however late
they were answered; leaving out the late ones would leave out the slow ones. Of a closed step, where a request is due
when the one before it ends: the exchanges that ended in that window, and those due in it that never ended. Exchanges
without a success (dropped and censored ones too) are failures; latencies are of successes. Throughput is the successes
that arrived inside the window, whenever they were due, over its length: the flow at the reader's end. The
warm-up ends when the step says so, or later where the latency is steady only from then on.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.anatomy import anatomy
from harness.records.ledger import StepEntry
from harness.records.load import NEVER, Latency, Observed, Outcome, RequestResult, Rung, Step, StepResult
from harness.stats.quantile import Quantile, quantiles, sample_floor
from harness.stats.rate import rate_error
from harness.stats.validity import Steadiness, backlog_growth, gap_distance, slower, steadiness
from harness.units import Unit, format_number

PERCENTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

GAP_RESOLUTION_S = 2e-4
"""Gaps that differ by less are alike: a request takes the generator a fraction of it to send, and the next one waits.
At 4,000 requests/s of a sound step a tenth of all gaps differs from the plan by that alone."""

LAG_SHARE = 0.1
"""The generator's lag is a part of the tail that one can see where its p99 is more than this of the scheduled p99."""

FIRST_FEW = 20
"""Exchanges that had at most one other in flight, whose latency is that of an idle server."""

CURVE_POINTS = 96

_REFUSED = 503
_NS = 1e9

Columns = Mapping[str, NDArray[Any]]


def reduce_step(entry: StepEntry, exchanges: Columns) -> StepResult:
    """What a step measured; `exchanges` has the columns of `EXCHANGE_COLUMNS`, shape (requests,) each.

    The same exchanges give the same result.
    """
    step = entry.step
    start_ns, end_ns = round(step.warmup_s * _NS), round(step.duration_s * _NS)
    outcome = exchanges["outcome"]
    growth = _backlog_growth(step, exchanges, start_ns, end_ns)
    steady = _steadiness(exchanges, start_ns, end_ns)
    if growth == 0 and steady.start is not None:
        start_ns = max(start_ns, round(steady.start))
    measured = _measured(step, exchanges, start_ns, end_ns)
    succeeded = measured & (outcome == Outcome.OK)
    counts = np.bincount(outcome[measured], minlength=len(Outcome))
    planned, successes = int(measured.sum()), int(counts[Outcome.OK])
    due, sent, done = (exchanges[name][succeeded] for name in ("due_ns", "sent_ns", "done_ns"))
    scheduled = _latencies(done - due, due)
    lag_p99_s = _lag_p99_s(exchanges, measured)
    arrived = (outcome == Outcome.OK) & (exchanges["done_ns"] >= start_ns) & (exchanges["done_ns"] < end_ns)
    failed = {kind.name.lower(): int(counts[kind]) for kind in Outcome if kind is not Outcome.OK and counts[kind]}
    window_s = (end_ns - start_ns) / _NS
    distance, bound = _gap_distance(step, exchanges, start_ns, end_ns)
    return StepResult(
        id=entry.id,
        cell=entry.cell,
        step=step,
        planned=planned,
        succeeded=successes,
        failed=failed,
        refused=int((measured & (outcome == Outcome.HTTP_ERROR) & (exchanges["status"] == _REFUSED)).sum()),
        throughput_rps=int(arrived.sum()) / window_s if window_s > 0 else 0.0,
        throughput_error_rps=rate_error(exchanges["done_ns"][arrived] / _NS, start_ns / _NS, end_ns / _NS),
        # Where nothing was measured nothing succeeded: a step without requests must not look like one without errors.
        error_share=(planned - successes) / planned if planned else 1.0,
        scheduled=scheduled,
        service=_latencies(done - sent, due),
        lag_p99_s=lag_p99_s,
        measured_from_s=start_ns / _NS,
        observed=Observed(
            missing=max(0, entry.planned - len(outcome)),
            rate_off=_rate_off(step, exchanges, start_ns, end_ns),
            gap_distance=distance,
            gap_bound=bound,
            little_off=_little_off(step, exchanges, measured, window_s),
            drifting=steady.drifting,
            backlog_growth=growth,
            remembered=_remembered(entry, exchanges),
            slowdown=_slowdown(exchanges, measured),
        ),
        by_request=_by_request(entry, exchanges, measured),
        locust_p99_s=entry.generator.locust_p99_s,
        anatomy=anatomy(exchanges, succeeded, scheduled["p50"].value_s),
        curve=_curve(np.sort(done - due)),
        warnings=(
            *_lag_warnings(lag_p99_s, scheduled["p99"].value_s),
            *_failure_warnings(failed, planned),
        ),
    )


def rung(result: StepResult) -> Rung:
    """What a load shape is told of a finished step."""
    return Rung(
        step=result.step,
        throughput_rps=result.throughput_rps or 0.0,
        throughput_error_rps=result.throughput_error_rps or 0.0,
        p99_s=result.scheduled["p99"].value_s,
        error_share=result.error_share,
    )


def _lag_p99_s(exchanges: Columns, measured: NDArray[np.bool_]) -> float | None:
    was_sent = measured & (exchanges["sent_ns"] != NEVER)
    lag = quantiles(exchanges["sent_ns"][was_sent] - exchanges["due_ns"][was_sent], (0.99,))[0]
    return None if lag.value is None else lag.value / _NS


def _by_request(entry: StepEntry, exchanges: Columns, measured: NDArray[np.bool_]) -> tuple[RequestResult, ...]:
    def result(number: int, name: str) -> RequestResult:
        own = measured & (exchanges["payload"] == number)
        good = own & (exchanges["outcome"] == Outcome.OK)
        latency = _latencies((exchanges["done_ns"] - exchanges["due_ns"])[good], exchanges["due_ns"][good])
        return RequestResult(name=name, requests=int(own.sum()), failed=int((own & ~good).sum()), latency=latency)

    return tuple(result(number, name) for number, name in enumerate(entry.requests))


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
    found = (quantile.value, quantile.low, quantile.high, quantile.certified)
    value, low, high, certified = (None if end is None else end / _NS for end in found)
    return Latency(value_s=value, low_s=low, high_s=high, certified_s=certified, reason=quantile.reason)


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


def _steadiness(exchanges: Columns, start_ns: int, end_ns: int) -> Steadiness:
    """Of the latency from the due time."""
    good = exchanges["outcome"] == Outcome.OK
    times = exchanges["due_ns"][good]
    return steadiness(times, exchanges["done_ns"][good] - times, start_ns, end_ns)


def _backlog_growth(step: Step, exchanges: Columns, start_ns: int, end_ns: int) -> float:
    """As a share of the rate. Where the limit in flight is reached it stops growing: then `_slowdown` tells."""
    if step.rate_rps is None:
        return 0.0
    begun = exchanges["due_ns"][exchanges["outcome"] != Outcome.DROPPED]
    ended = exchanges["done_ns"][exchanges["done_ns"] != NEVER]
    return backlog_growth(begun, ended, start_ns, end_ns) * _NS / step.rate_rps


def _rate_off(step: Step, exchanges: Columns, start_ns: int, end_ns: int) -> float | None:
    """How far what left the generator inside the window is from what the plan had there.

    What was dropped at the limit in flight and what found nobody listening were not the generator's to send.
    """
    if step.mode == "closed":
        return None
    due, sent = exchanges["due_ns"], exchanges["sent_ns"]
    theirs = (exchanges["outcome"] == Outcome.DROPPED) | ((exchanges["dispatch_ns"] != NEVER) & (sent == NEVER))
    asked = int(((due >= start_ns) & (due < end_ns) & ~theirs).sum())
    left = int(((sent >= start_ns) & (sent < end_ns)).sum())
    # The two that straddle the window's edges say nothing of the generator.
    return 0.0 if asked == 0 or abs(left - asked) <= 2 else left / asked - 1


def _gap_distance(step: Step, exchanges: Columns, start_ns: int, end_ns: int) -> tuple[float | None, float | None]:
    if step.mode == "closed":
        return None, None
    due, sent = exchanges["due_ns"], exchanges["sent_ns"]
    chosen = (due >= start_ns) & (due < end_ns) & (sent != NEVER)
    found = gap_distance(due[chosen], np.sort(sent[chosen]), GAP_RESOLUTION_S * _NS)
    return found if found is not None else (None, None)


def _little_off(step: Step, exchanges: Columns, measured: NDArray[np.bool_], window_s: float) -> float | None:
    """X R / N - 1, over all exchanges that ended, well or not: whoever is in flight is in flight.

    R counts from the due time. From the moment of sending, the generator's own time between two requests would be
    missing, which on a server of 0.3 ms is a tenth; that much is its lag.
    """
    if step.in_flight is None or window_s <= 0:
        return None
    ended = measured & (exchanges["done_ns"] != NEVER) & (exchanges["sent_ns"] != NEVER)
    busy_s = float((exchanges["done_ns"] - exchanges["due_ns"])[ended].sum()) / _NS
    return busy_s / window_s / step.in_flight - 1


def _remembered(entry: StepEntry, exchanges: Columns) -> float | None:
    if entry.new_from is None:
        return None
    good = exchanges["outcome"] == Outcome.OK
    latency = (exchanges["done_ns"] - exchanges["sent_ns"])[good]
    new = exchanges["payload"][good] >= entry.new_from
    return slower(latency[new], latency[~new])


def _slowdown(exchanges: Columns, measured: NDArray[np.bool_]) -> float | None:
    outcome = exchanges["outcome"]
    if not (outcome == Outcome.DROPPED).any():
        return None
    good = outcome == Outcome.OK
    latency = exchanges["done_ns"] - exchanges["sent_ns"]
    in_order = np.flatnonzero(good)[np.argsort(exchanges["sent_ns"][good], kind="stable")]
    ended = np.searchsorted(np.sort(exchanges["done_ns"][good]), exchanges["sent_ns"][in_order], side="right")
    alone = in_order[np.arange(len(in_order)) - ended <= 1][:FIRST_FEW]
    crowded = good & measured
    return float(np.median(latency[crowded]) / np.median(latency[alone])) if len(alone) and crowded.any() else None


def _lag_warnings(lag_p99_s: float | None, p99_s: float | None) -> list[str]:
    """How much of the tail is the generator's own, where it is a part that one can see."""
    if not lag_p99_s or not p99_s or lag_p99_s <= LAG_SHARE * p99_s:
        return []
    share = format_number(lag_p99_s / p99_s, Unit.SHARE)
    return [f"p99 of the generator's lag is {format_number(lag_p99_s, Unit.SECONDS)}, {share} of the scheduled p99."]


def _failure_warnings(failed: Mapping[str, int], planned: int) -> list[str]:
    told = {
        "dropped": "were dropped: the limit of requests in flight was reached",
        "censored": "had no answer when the step was cut off",
        "wrong_answer": "got a wrong answer",
    }
    return [
        f"{count:,} of {planned:,} requests {told[kind]}." for kind, count in failed.items() if kind in told and count
    ]
