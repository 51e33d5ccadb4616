"""Formulas of single-server queues, held against one another, published values and a simulation."""

import math

import numpy as np
import pytest

from harness.stats.queueing import (
    md1_mean_s,
    md1_quantile_s,
    md1_waiting_share,
    mm1_mean_s,
    mm1_quantile_s,
    stays_s,
)

LOADS = (0.3, 0.5, 0.7, 0.9)


def simulated(load: float, service_s, seed: int = 7, n: int = 400_000):
    rng = np.random.default_rng(seed)
    arrived = np.cumsum(rng.exponential(1 / load, n))
    return stays_s(arrived, service_s(rng, n))[n // 20 :]


@pytest.mark.parametrize("load", LOADS)
def test_exponential_services_are_as_simulated(load):
    stays = simulated(load, lambda rng, n: rng.exponential(1.0, n))
    assert stays.mean() == pytest.approx(mm1_mean_s(load, 1.0), rel=0.05)
    assert np.quantile(stays, 0.99) == pytest.approx(mm1_quantile_s(load, 1.0, 0.99), rel=0.08)


@pytest.mark.parametrize("load", LOADS)
def test_constant_services_are_as_simulated(load):
    stays = simulated(load, lambda rng, n: np.ones(n))
    assert stays.mean() == pytest.approx(md1_mean_s(load, 1.0), rel=0.05)
    assert np.quantile(stays, 0.99) == pytest.approx(md1_quantile_s(load, 1.0, 0.99), rel=0.05)


@pytest.mark.parametrize("load", LOADS)
def test_who_finds_nobody_waits_not(load):
    assert md1_waiting_share(load, 1.0, 0.0) == pytest.approx(1 - load, abs=1e-12)
    # Below one service there is one term: (1 - rho) exp(lambda t).
    assert md1_waiting_share(load, 1.0, 0.5) == pytest.approx((1 - load) * math.exp(load / 2), abs=1e-12)


@pytest.mark.parametrize("load", LOADS[:3])
def test_the_mean_is_the_area_above_the_distribution(load):
    step = 0.02
    times = np.arange(0, 40, step)
    above = [1 - md1_waiting_share(load, 1.0, float(time)) for time in times]
    assert 1 + np.trapezoid(above, dx=step) == pytest.approx(md1_mean_s(load, 1.0), rel=1e-3)


def test_far_out_where_doubles_fail_it_is_still_a_share():
    shares = [md1_waiting_share(0.95, 1.0, wait) for wait in (20, 60, 120)]
    assert 0.8 < shares[0] < shares[1] < shares[2] < 1
    # The tail is exponential: each further stretch leaves the same part of what was left.
    left = [1 - md1_waiting_share(0.95, 1.0, wait) for wait in (40, 60, 80)]
    assert left[1] / left[0] == pytest.approx(left[2] / left[1], rel=1e-6)


def test_known_stays_come_out_one_by_one():
    assert stays_s([0, 1, 2, 10], [3, 1, 1, 2]).tolist() == [3, 3, 3, 2]


def test_units_are_those_of_the_rates():
    assert md1_quantile_s(50.0, 100.0, 0.99) == pytest.approx(md1_quantile_s(0.5, 1.0, 0.99) / 100, rel=1e-5)
    assert mm1_quantile_s(50.0, 100.0, 0.5) == pytest.approx(math.log(2) / 50)


@pytest.mark.parametrize(("arrivals", "services"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (math.nan, 1.0)])
def test_a_queue_that_grows_has_no_steady_state(arrivals, services):
    for formula in (mm1_mean_s, md1_mean_s):
        with pytest.raises(ValueError, match="no steady queue"):
            formula(arrivals, services)
