"""Queueing: how long requests stay with a single server that answers them in turn.

In: arrivals per second (Poisson), services per second, a share of the requests; or the arrivals and services of
requests that are known one by one. Out: times in seconds, from arrival to the end of service, of a queue that is
steady or of each request.
"""

import decimal
import math
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DIGITS = 40


def mm1_mean_s(arrival_rps: float, service_rps: float) -> float:
    """Mean stay with exponential service times: 1 / (mu - lambda). Raises ValueError unless lambda < mu.

    Source: Kleinrock, Queueing Systems, volume 1 (1975), section 3.2.
    """
    _refuse_unsteady(arrival_rps, service_rps)
    return 1 / (service_rps - arrival_rps)


def mm1_quantile_s(arrival_rps: float, service_rps: float, share: float) -> float:
    """The stay that `share` of the requests do not exceed, with exponential service times: it is exponential itself.

    Source: Kleinrock, Queueing Systems, volume 1 (1975), section 5.7.
    """
    return -math.log1p(-share) * mm1_mean_s(arrival_rps, service_rps)


def md1_mean_s(arrival_rps: float, service_rps: float) -> float:
    """Mean stay where every service takes 1 / mu: service plus rho / (2 mu (1 - rho)) of waiting.

    Source: the formula of Pollaczek and Khinchine; Kleinrock, Queueing Systems, volume 1 (1975), section 5.6.
    """
    _refuse_unsteady(arrival_rps, service_rps)
    load = arrival_rps / service_rps
    return (1 + load / (2 * (1 - load))) / service_rps


def md1_waiting_share(arrival_rps: float, service_rps: float, wait_s: float) -> float:
    """Share of the requests that wait no longer than `wait_s` where every service takes 1 / mu.

    (1 - rho) * sum over k = 0 .. floor(mu t) of exp(-x) x**k / k!, x = lambda (k / mu - t). The terms alternate in sign
    and grow far beyond their sum, so they are added in decimals with digits to spare.
    Source: Crommelin, Delay probability formulae when the holding times are constant, The Post Office Electrical
    Engineers' Journal 25 (1932).
    """
    _refuse_unsteady(arrival_rps, service_rps)
    if wait_s < 0:
        return 0.0
    with decimal.localcontext() as context:
        context.prec = _DIGITS + math.ceil(arrival_rps * wait_s)
        arrivals, services, wait = Decimal(arrival_rps), Decimal(service_rps), Decimal(wait_s)
        total = Decimal(0)
        for k in range(math.floor(services * wait) + 1):
            x = arrivals * (k / services - wait)
            total += (-x).exp() * x**k / math.factorial(k) if k else (-x).exp()
        return float((1 - arrivals / services) * total)


def md1_quantile_s(arrival_rps: float, service_rps: float, share: float) -> float:
    """The stay that `share` of the requests do not exceed, where every service takes 1 / mu; exact to a millionth."""
    low_s, high_s = 0.0, 1 / service_rps
    while md1_waiting_share(arrival_rps, service_rps, high_s) < share:
        high_s *= 2
    while high_s - low_s > 1e-6 / service_rps:
        middle_s = (low_s + high_s) / 2
        if md1_waiting_share(arrival_rps, service_rps, middle_s) < share:
            low_s = middle_s
        else:
            high_s = middle_s
    return high_s + 1 / service_rps


def stays_s(arrived_s: ArrayLike, service_s: ArrayLike) -> NDArray[np.float64]:
    """The stay of each request, shape (n,), that arrives at `arrived_s` (rising) and is served for `service_s`.

    Source: Lindley, The theory of queues with a single server, Proceedings of the Cambridge Philosophical Society 48
    (1952), here without a loop: the end of a service is the latest, over all requests up to it, of an arrival and all
    services from there on.
    """
    arrived, service = np.asarray(arrived_s, dtype=np.float64), np.asarray(service_s, dtype=np.float64)
    done = np.cumsum(service)
    stays: NDArray[np.float64] = np.maximum.accumulate(arrived - done + service) + done - arrived
    return stays


def _refuse_unsteady(arrival_rps: float, service_rps: float) -> None:
    if not 0 < arrival_rps < service_rps:
        raise ValueError(f"{arrival_rps:g} arrivals and {service_rps:g} services a second are no steady queue")
