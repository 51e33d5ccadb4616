"""The queues against simulation, against another solution of the same queue, and against cases worked out by hand."""

import math

import numpy as np
import pytest

from harness.stats.queueing import (
    md1_mean_s,
    md1_quantile_s,
    md1_waiting_share,
    mm1_mean_s,
    mm1_quantile_s,
    sojourns_s,
)

LOADS = [0.3, 0.5, 0.7, 0.9]


def held_against_a_simulation(load: float, service: np.ndarray, mean_s: float, quantiles_s: dict[float, float]) -> None:
    """Within four standard errors of 50 batches of a long queue, its random start left out."""
    arrived = np.cumsum(np.random.default_rng(1).exponential(1 / load, len(service)))
    batches = sojourns_s(arrived, service)[len(service) // 51 :].reshape(50, -1)
    for expected, seen in [
        (mean_s, batches.mean(axis=1)),
        *((share, (batches <= quantile).mean(axis=1)) for share, quantile in quantiles_s.items()),
    ]:
        assert expected == pytest.approx(seen.mean(), abs=4 * seen.std(ddof=1) / math.sqrt(50))
        assert seen.std(ddof=1) / math.sqrt(50) < 0.02 * expected, "a simulation that could not tell"


def franx(load: float, services: float) -> float:
    """M/D/1's waiting time by Franx (2001), whose terms are all positive: from how many wait, and how many arrive.

    The number in the system follows from arrivals during one service (Kendall's imbedded chain), solved as a linear
    system of 200 states.
    """
    states = np.arange(200)
    arrivals = np.exp(-load + states * math.log(load) - [math.lgamma(n + 1) for n in states])
    chain = np.zeros((200, 200))
    for state in states:
        chain[state, max(0, state - 1) :] = arrivals[: 200 - max(0, state - 1)]
    chain[:, -1] += 1 - chain.sum(axis=1)
    held = np.linalg.solve(np.vstack([(chain.T - np.eye(200))[1:], np.ones(200)]), np.eye(200)[-1])
    waiting_at_most = np.cumsum(held)[1:]
    whole = math.floor(services) + 1
    rate = load * (whole - services)
    return sum(waiting_at_most[whole - 1 - n] * math.exp(-rate) * rate**n / math.factorial(n) for n in range(whole))


@pytest.mark.parametrize("load", LOADS)
def test_exponential_services_have_the_mean_and_the_quantiles_of_a_long_simulation(load: float) -> None:
    service = np.random.default_rng(2).exponential(1.0, 51 * 40_000)
    quantiles_s = {share: mm1_quantile_s(load, 1.0, share) for share in (0.5, 0.9, 0.99)}
    held_against_a_simulation(load, service, mm1_mean_s(load, 1.0), quantiles_s)


@pytest.mark.parametrize("load", LOADS)
def test_equal_services_have_the_mean_and_the_quantiles_of_a_long_simulation(load: float) -> None:
    # Above 1 - load: below it every quantile is one service, whatever the share.
    quantiles_s = {share: md1_quantile_s(load, 1.0, share) for share in (0.8, 0.9, 0.99)}
    held_against_a_simulation(load, np.ones(51 * 40_000), md1_mean_s(load, 1.0), quantiles_s)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("services", [0.0, 0.4, 1.0, 2.5, 7.25, 30.0])
def test_waits_for_equal_services_are_distributed_as_another_solution_says(load: float, services: float) -> None:
    assert md1_waiting_share(load, services) == pytest.approx(franx(load, services), abs=1e-9)


def test_a_wait_of_less_than_one_service_depends_on_an_empty_server_alone() -> None:
    # Nobody has waited before: the share without a wait, 1 - load, grown by those who find it nearly done.
    assert md1_waiting_share(0.6, 0.0) == pytest.approx(0.4)
    assert md1_waiting_share(0.6, 0.5) == pytest.approx(0.4 * math.exp(0.3))
    assert md1_waiting_share(0.6, -0.1) == 0.0
    assert md1_quantile_s(60.0, 0.01, 0.3) == 0.01


def test_a_long_wait_near_saturation_keeps_its_digits() -> None:
    """The terms of the sum pass 10**60, and its tail falls by one factor with every service (Cramer and Lundberg)."""
    tails = [1 - md1_waiting_share(0.95, services) for services in (148.0, 149.0, 150.0)]
    decay = next(root for root in np.linspace(0.08, 0.12, 400_001) if 0.95 * math.expm1(root) >= root)
    assert tails[1] / tails[0] == pytest.approx(math.exp(-decay), rel=1e-4)
    assert tails[2] / tails[1] == pytest.approx(tails[1] / tails[0], rel=1e-6)


def test_the_mean_of_half_a_load_is_known_by_heart() -> None:
    assert mm1_mean_s(50.0, 0.01) == pytest.approx(0.02)
    assert md1_mean_s(50.0, 0.01) == pytest.approx(0.015)
    assert mm1_quantile_s(50.0, 0.01, 0.99) == pytest.approx(0.02 * math.log(100))


def test_each_request_waits_for_what_is_left_of_those_before_it() -> None:
    arrived, service = [0.0, 1.0, 1.5, 9.0, 9.0], [2.0, 3.0, 0.5, 1.0, 1.0]
    assert sojourns_s(arrived, service).tolist() == [2.0, 4.0, 4.0, 1.0, 2.0]


@pytest.mark.parametrize("load", [0.0, 1.0, 1.2, math.nan])
def test_a_queue_that_is_never_steady_has_no_figures(load: float) -> None:
    for figure in (mm1_mean_s, md1_mean_s):
        with pytest.raises(ValueError, match="between 0 and 1"):
            figure(load, 1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        md1_waiting_share(load, 1.0)
    with pytest.raises(ValueError, match="a share must lie"):
        mm1_quantile_s(0.5, 1.0, 1.0)
