"""A rate, and how far chance may have moved it."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.rate import rate_error


def test_events_at_even_distances_are_a_rate_without_an_error() -> None:
    assert rate_error(np.arange(1000) / 100, 0.0, 10.0) == 0.0


def test_the_error_is_students_over_ten_slots() -> None:
    counts = [8, 12, 9, 11, 10, 10, 14, 6, 10, 10]
    times = np.concatenate([slot + (np.arange(count) + 0.5) / count for slot, count in enumerate(counts)])
    low, high = stats.t.interval(0.95, 9, loc=np.mean(counts), scale=stats.sem(counts))
    assert rate_error(times, 0.0, 10.0) == pytest.approx((high - low) / 2)


def test_of_a_poisson_process_it_holds_in_95_of_100_windows() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        times = rng.uniform(0, 5.0, rng.poisson(500))
        error = rate_error(times, 0.0, 5.0)
        assert error is not None
        held += abs(len(times) / 5.0 - 100.0) <= error
    assert abs(held - 950) <= 3 * math.sqrt(1000 * 0.95 * 0.05)


@pytest.mark.parametrize(("times", "start", "end"), [([], 0.0, 1.0), ([5.0], 0.0, 1.0), ([0.5], 1.0, 1.0)])
def test_without_events_or_time_there_is_none(times: list[float], start: float, end: float) -> None:
    assert rate_error(times, start, end) is None
