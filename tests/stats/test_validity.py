"""The arithmetic of the verdict: its error rates where nothing is wrong, and its answers where something is."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.validity import Steadiness, backlog_growth, gap_distance, steadiness


def waiting_s(load: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrival times and times in system of an M/M/1 queue of 1,000 services a second (Lindley's recursion)."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1e-3 / load, n))
    services = rng.exponential(1e-3, n)
    departures = np.empty(n)
    last = 0.0
    for place, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
        last = max(last, arrival) + service
        departures[place] = last
    return arrivals, departures


def test_the_distance_of_gaps_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    planned, delivered = (np.cumsum(rng.exponential(scale, 500)) for scale in (1.0, 1.3))
    found = gap_distance(planned, delivered, 0.0)
    expected = stats.ks_2samp(np.diff(planned), np.diff(delivered), method="asymp")
    assert found is not None
    assert found[0] == pytest.approx(expected.statistic)
    assert (found[0] > found[1]) == (expected.pvalue < 0.001)


@pytest.mark.parametrize("jitter_ns", [60_000, 500_000, 2_000_000])
def test_equal_gaps_with_jitter_are_as_far_apart_as_the_share_that_one_could_notice(jitter_ns: int) -> None:
    planned = np.arange(4000) * 20_000_000
    jitter = np.random.default_rng(1).exponential(jitter_ns, 4000)
    found = gap_distance(planned, planned + jitter.astype(np.int64), 200_000.0)
    # The difference of two exponential delays is Laplace distributed: this much of it lies beyond either side.
    assert found is not None and found[0] == pytest.approx(math.exp(-200_000 / jitter_ns) / 2, abs=0.02)


def test_gaps_that_differ_by_less_than_the_resolution_are_alike() -> None:
    assert gap_distance([0, 1, 2, 3], [0, 2, 4, 6], 10.0) == (0.0, pytest.approx(1.59, abs=0.01))
    assert gap_distance([0], [0, 1], 1.0) is None


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_queue_that_is_not_full_is_hardly_ever_called_unsteady_or_overloaded(load: float) -> None:
    """Of 60 steps of 5 s, one or two at most: queues wander, the more the fuller they are."""
    unsteady = overloaded = 0
    for seed in range(60):
        arrivals, departures = waiting_s(load, round(5_000 * load), seed)
        end = float(arrivals[-1])
        unsteady += steadiness(arrivals, departures - arrivals, 0.2 * end, end).drifting
        overloaded += backlog_growth(arrivals, departures, 0.2 * end, end) > 0.02 * load * 1000
    assert unsteady <= 2 and overloaded <= 1


@pytest.mark.parametrize("load", [1.1, 1.5, 3.0])
def test_a_queue_beyond_its_capacity_grows_by_the_difference_of_the_rates(load: float) -> None:
    for seed in range(20):
        arrivals, departures = waiting_s(load, round(5_000 * load), seed)
        growth = backlog_growth(arrivals, departures, 1.0, 5.0)
        assert growth == pytest.approx(1000 * (load - 1), rel=0.5)


def test_a_start_that_is_slow_is_cropped() -> None:
    times = np.arange(0, 10, 0.01)
    assert steadiness(times, np.where(times < 2.3, 9.0, 1.0), 0, 10) == Steadiness(2.5, drifting=False)
    assert steadiness(times, np.ones(1000), 0, 10) == Steadiness(0.0, drifting=False)


@pytest.mark.parametrize("values", [np.linspace(1, 9, 1000), np.linspace(9, 1, 1000), np.arange(1000) // 600 * 8 + 1.0])
def test_what_changes_to_the_end_is_never_steady(values: np.ndarray) -> None:
    assert steadiness(np.arange(0, 10, 0.01), values, 0, 10) == Steadiness(None, drifting=True)


def test_a_hiccup_in_the_middle_is_part_of_the_steady_state() -> None:
    times = np.arange(0, 10, 0.01)
    assert steadiness(times, np.where((times > 6) & (times < 7), 50.0, 1.0), 0, 10) == Steadiness(0.0, drifting=False)


def test_too_few_samples_say_nothing() -> None:
    assert steadiness([], [], 0, 10) == Steadiness(None, drifting=False)
    assert steadiness(np.arange(0, 10, 0.2), np.arange(50), 0, 10) == Steadiness(None, drifting=False)
