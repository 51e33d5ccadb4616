"""Queues whose latencies are known exactly: one server, Poisson arrivals, first come first served.

In: arrivals per second, the mean service time, a share. Out: the mean and the quantiles of the sojourn time (waiting
and service together, what a client sees) where service times are exponential (M/M/1) and where all are equal (M/D/1);
`sojourns_s`, the same for any given requests, one by one. Rates and times of a system that is not steady (as many
arrivals as services, or more) are a ValueError.
"""

import decimal
import math
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

DIGITS = 17
"""Decimal digits of a share that are right, whatever the load."""


def mm1_mean_s(arrival_rps: float, service_s: float) -> float:
    """Mean sojourn time of M/M/1: 1 / (mu - lambda) (Kleinrock, Queueing Systems, volume 1, 1975, section 3.2)."""
    return service_s / (1 - _load(arrival_rps, service_s))


def mm1_quantile_s(arrival_rps: float, service_s: float, share: float) -> float:
    """Quantile of M/M/1's sojourn time, which is exponential (Kleinrock 1975, section 5.7)."""
    return -math.log1p(-_checked(share)) * mm1_mean_s(arrival_rps, service_s)


def md1_mean_s(arrival_rps: float, service_s: float) -> float:
    """Mean sojourn time of M/D/1, by the formula of Pollaczek and Khinchine for a service time without variance."""
    load = _load(arrival_rps, service_s)
    return service_s * (1 + load / (2 * (1 - load)))


def md1_quantile_s(arrival_rps: float, service_s: float, share: float) -> float:
    """Quantile of M/D/1's sojourn time: that of the waiting time, and one service."""
    load = _load(arrival_rps, service_s)
    if _checked(share) <= 1 - load:
        return service_s
    longest = 1.0
    while md1_waiting_share(load, longest) < share:
        longest *= 2

    def beyond(waited: float) -> float:
        return md1_waiting_share(load, waited) - share

    return service_s * (1 + float(optimize.brentq(beyond, 0.0, longest, xtol=1e-12)))


def md1_waiting_share(load: float, services: float) -> float:
    """Share of M/D/1's requests that wait no longer than `services` service times.

    Erlang 1909; Crommelin 1932 has it for several servers: (1 - load) times the sum over k from 0 to floor(services) of
    (-x)**k e**x / k! with x = load (services - k). Its terms alternate and grow with the wait, so in floating point
    nothing is left of the sum of a long one (Iversen and Staalhagen 1999): it is taken in as many decimal digits more.
    """
    if not 0 < load < 1:
        raise ValueError(f"the load must lie between 0 and 1, it is {load}")
    if services < 0:
        return 0.0
    with decimal.localcontext() as context:
        # No x is above load * services, and no x**k / k! above e**x, so no term is above this power of ten.
        context.prec = DIGITS + math.ceil(2 * load * services / math.log(10)) + 3
        total, factorial = Decimal(0), Decimal(1)
        for k in range(math.floor(services) + 1):
            factorial *= k or 1
            x = Decimal(load) * (Decimal(services) - k)
            total += (-x) ** k * x.exp() / factorial if k else x.exp()
        return float((1 - Decimal(load)) * total)


def sojourns_s(arrived_s: ArrayLike, service_s: ArrayLike) -> NDArray[np.float64]:
    """Sojourn times of the very requests that `arrived_s` (sorted) and took `service_s`; shapes (n,).

    Lindley's recursion (1952), each waits for what is left of those before it: W' = max(0, W + S - A'). Unrolled, the
    end of a request is the sum of all services up to it plus the largest idle time that any arrival up to it has left.
    """
    arrived, service = np.asarray(arrived_s, dtype=np.float64), np.asarray(service_s, dtype=np.float64)
    worked = np.cumsum(service)
    return np.asarray(worked + np.maximum.accumulate(arrived - (worked - service)) - arrived)


def _load(arrival_rps: float, service_s: float) -> float:
    load = arrival_rps * service_s
    if not 0 < load < 1:
        raise ValueError(f"{arrival_rps} arrivals/s of {service_s} s each are a load of {load}, not between 0 and 1")
    return load


def _checked(share: float) -> float:
    if not 0 < share < 1:
        raise ValueError(f"a share must lie between 0 and 1, it is {share}")
    return share
