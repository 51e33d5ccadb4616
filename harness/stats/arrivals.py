"""Arrivals: when the requests of an open step are due, and which payload each request carries.

In: an arrival law, a rate, a length, a seed. Out: columns, made before the step begins, so that two candidates can be
given the very same requests and no random number is drawn while the clock runs.
"""

import math
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from harness.records.scenario import Arrivals

_NS_PER_S = 1e9
_SEND_TIMES, _ORDER = 0, 1
"""Keys of the two independent random streams that one seed gives."""


def due_ns(arrivals: Arrivals, rate_rps: float, duration_s: float, seed: int) -> NDArray[np.int64]:
    """Sorted send times of one step, in nanoseconds since its epoch, all in [0, `duration_s`).

    `poisson`: independent exponential gaps with mean 1/rate, summed and cut at the duration, so the count is Poisson
    with mean rate x duration. `constant`: equal gaps from zero on (to the nanosecond), of which the seed says nothing.
    Raises ValueError where the rate or the duration is not a positive, finite number.
    """
    for name, value in (("rate_rps", rate_rps), ("duration_s", duration_s)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, not {value}")
    match arrivals:
        case "constant":
            # The small margin keeps 0.1 s x 30 req/s at three requests, where floats make it 3.0000000000000004.
            count = math.ceil(rate_rps * duration_s * (1 - 1e-12))
            times: NDArray[np.int64] = np.rint(np.arange(count) * (_NS_PER_S / rate_rps)).astype(np.int64)
            return times
        case "poisson":
            return _poisson_ns(rate_rps, duration_s, np.random.default_rng([seed, _SEND_TIMES]))
        case _:
            assert_never(arrivals)


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


def step_seed(seed: int, number: int) -> int:
    """The seed of step `number` under a plan's `seed`: the same for every candidate, another for every step.

    Not their sum: then neighbouring plans would share the steps that seemed to repeat the measurement.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _poisson_ns(rate_rps: float, duration_s: float, random: np.random.Generator) -> NDArray[np.int64]:
    expected = rate_rps * duration_s
    # Six standard deviations suffice but once in a thousand million; then the loop goes round again.
    chunk = math.ceil(expected + 6 * math.sqrt(expected)) + 16
    times = np.cumsum(random.exponential(1 / rate_rps, chunk))
    while times[-1] < duration_s:
        times = np.concatenate([times, times[-1] + np.cumsum(random.exponential(1 / rate_rps, chunk))])
    return np.floor(times[times < duration_s] * _NS_PER_S).astype(np.int64)
