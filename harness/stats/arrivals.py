"""Arrivals: when the requests of an open step are due, and which payload each request carries.

In: an arrival law, a rate, a length, a seed. Out: columns, made before the step begins, so that two candidates can be
given the very same requests and no random number is drawn while the clock runs. At another rate the same seed gives
the same arrivals in another time scale.
"""

import math
from typing import assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.records.arrivals import Arrivals, Constant, Gamma, Poisson, Ramp, Trace

_NS_PER_S = 1e9
_SEND_TIMES, _ORDER = 0, 1
"""Keys of the two independent random streams that one seed gives."""


def due_ns(
    law: Arrivals, rate_rps: float, duration_s: float, seed: int, *, trace_s: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Sorted send times of one step, in nanoseconds since its epoch, all in [0, `duration_s`).

    Gaps are drawn (poisson, gamma, ramp), equal from zero on (constant), or those of `trace_s`, the recorded times of a
    trace in seconds; of the last two the seed says nothing. A ramp is a Poisson process in the time in which its rate
    is constant (inversion of the cumulative rate; Lewis and Shedler 1979, section 2). Raises ValueError where the rate
    or the duration is not a positive, finite number, and for a trace as `trace_gaps` does.
    """
    for name, value in (("rate_rps", rate_rps), ("duration_s", duration_s)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, not {value}")
    random = np.random.default_rng([seed, _SEND_TIMES])
    expected = rate_rps * duration_s
    match law:
        case Constant():
            # The small margin keeps 0.1 s x 30 req/s at three requests, where floats make it 3.0000000000000004.
            arrived = np.arange(math.ceil(expected * (1 - 1e-12)), dtype=np.float64)
        case Poisson():
            arrived = _renewals(random, 1.0, expected)
        case Gamma(burstiness):
            arrived = _renewals(random, burstiness, expected)
        case Ramp(start):
            arrived = _ramped(_renewals(random, 1.0, expected), start, expected)
        case Trace():
            arrived = _repeated(trace_gaps(() if trace_s is None else trace_s), expected)
        case _:
            assert_never(law)
    # Rounding must not move a request that is due just before the end to the end itself.
    return np.minimum(np.rint(arrived * (_NS_PER_S / rate_rps)), math.ceil(duration_s * _NS_PER_S) - 1).astype(np.int64)


def trace_gaps(times: ArrayLike) -> NDArray[np.float64]:
    """The gaps after each of the recorded `times` (shape (n,), any unit), as multiples of their mean.

    The last one, after which the trace begins anew, is the mean. Raises ValueError on fewer than two times, on one
    that is no finite number, on times that do not rise, and where all are equal.
    """
    recorded = np.asarray(times, dtype=np.float64)
    if recorded.ndim != 1 or len(recorded) < 2:
        raise ValueError("a trace needs at least two times")
    if not np.isfinite(recorded).all():
        raise ValueError(f"time {int(np.argmin(np.isfinite(recorded))) + 1} of the trace is no finite number")
    gaps = np.diff(recorded)
    if (gaps < 0).any():
        raise ValueError(f"time {int(np.argmax(gaps < 0)) + 2} of the trace lies before the one above it")
    if recorded[-1] == recorded[0]:
        raise ValueError("all times of the trace are equal")
    return np.append(gaps / gaps.mean(), 1.0)


def payload_order(count: int, payloads: int, seed: int) -> NDArray[np.int32]:
    """Which of `payloads` (0 to payloads - 1) each of `count` requests carries.

    Shuffled round after round, each round holding every payload once: every payload is used equally often, give or
    take one, and neighbours never repeat a fixed pattern that a cache could learn. Raises ValueError without payloads.
    """
    if payloads < 1:
        raise ValueError("there must be at least one payload")
    if count < 0:
        raise ValueError(f"count must not be negative, it is {count}")
    rounds = -(-count // payloads)
    ordered = np.tile(np.arange(payloads, dtype=np.int32), (rounds, 1))
    shuffled = np.random.default_rng([seed, _ORDER]).permuted(ordered, axis=1)
    return shuffled.ravel()[:count]


def step_seed(seed: int, level: int, repeat: int) -> int:
    """The seed of a step under a plan's `seed`: its own for every `level` of load and every `repeat` of one.

    Not by the step's number: two candidates come to the same load in different steps, and are to be given the same
    requests there. Not a sum: then neighbouring plans would share the steps that seem to repeat the measurement.
    """
    return int(np.random.SeedSequence([seed, level, repeat]).generate_state(1)[0])


def _renewals(random: np.random.Generator, burstiness: float, expected: float) -> NDArray[np.float64]:
    """Arrivals before `expected`, at gaps of mean 1: gamma distributed, for burstiness 1 exponential."""

    def gaps() -> NDArray[np.float64]:
        # Six standard deviations suffice but once in a thousand million; then the loop goes round again.
        count = math.ceil(expected + 6 * math.sqrt(burstiness * expected)) + 16
        return random.exponential(1.0, count) if burstiness == 1 else random.gamma(1 / burstiness, burstiness, count)

    times = np.cumsum(gaps())
    while times[-1] < expected:
        times = np.concatenate([times, times[-1] + np.cumsum(gaps())])
    return times[times < expected]


def _ramped(arrived: NDArray[np.float64], start: float, expected: float) -> NDArray[np.float64]:
    """Arrivals of rate 1 moved to where a rate from `start` to 2 - `start` has brought as many.

    Solves y = start t + (1 - start) t**2 / expected for t, in the form that loses no digits near a level rate.
    """
    return 2 * arrived / (start + np.sqrt(start**2 + 4 * (1 - start) * arrived / expected))


def _repeated(gaps: NDArray[np.float64], expected: float) -> NDArray[np.float64]:
    times = np.concatenate([[0.0], np.cumsum(np.tile(gaps, math.ceil(expected / len(gaps)) + 1))])
    return times[times < expected]
