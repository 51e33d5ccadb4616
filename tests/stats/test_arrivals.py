"""The send times of open steps: what law they follow, and that a seed says it all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.stats.arrivals import due_ns, payload_order, step_seed

RATES = st.floats(0.5, 5_000)
DURATIONS = st.floats(0.01, 2.0)
SEEDS = st.integers(0, 2**32 - 1)


def test_constant_arrivals_come_at_equal_gaps_from_the_epoch_on():
    assert due_ns("constant", 4.0, 1.0, seed=1).tolist() == [0, 250_000_000, 500_000_000, 750_000_000]


@pytest.mark.parametrize(("rate_rps", "duration_s", "count"), [(30.0, 0.1, 3), (1000.0, 3.0, 3000), (3.0, 0.5, 2)])
def test_constant_arrivals_count_those_due_before_the_end(rate_rps, duration_s, count):
    assert len(due_ns("constant", rate_rps, duration_s, seed=1)) == count


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_gaps_are_exponential(seed):
    gaps_s = np.diff(due_ns("poisson", 1000.0, 20.0, seed), prepend=0) / 1e9
    assert stats.kstest(gaps_s, stats.expon(scale=1e-3).cdf).pvalue > 0.01


def test_poisson_counts_have_the_mean_and_the_spread_of_their_law():
    counts = [len(due_ns("poisson", 200.0, 2.0, seed)) for seed in range(300)]
    low, high = stats.poisson.ppf([1e-6, 1 - 1e-6], 400)
    assert low <= min(counts) and max(counts) <= high
    # The mean of 300 Poisson(400) counts has a standard deviation of 20 / sqrt(300).
    assert abs(np.mean(counts) - 400) < 4 * 20 / np.sqrt(300)
    # (n - 1) s^2 / mean follows chi-squared with n - 1 degrees of freedom.
    dispersion = 299 * np.var(counts, ddof=1) / 400
    assert stats.chi2.ppf(0.001, 299) < dispersion < stats.chi2.ppf(0.999, 299)


def test_poisson_arrivals_are_uniform_over_the_step():
    times_s = due_ns("poisson", 2000.0, 3.0, seed=5) / 1e9
    assert stats.kstest(times_s, stats.uniform(0, 3.0).cdf).pvalue > 0.01


@given(st.sampled_from(["poisson", "constant"]), RATES, DURATIONS, SEEDS)
def test_every_plan_is_sorted_inside_the_step_and_repeatable(arrivals, rate_rps, duration_s, seed):
    times = due_ns(arrivals, rate_rps, duration_s, seed)
    assert times.dtype == np.int64
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < duration_s * 1e9 + 1))
    assert np.array_equal(times, due_ns(arrivals, rate_rps, duration_s, seed))


def test_another_seed_is_another_poisson_plan():
    assert not np.array_equal(due_ns("poisson", 100.0, 1.0, 1)[:20], due_ns("poisson", 100.0, 1.0, 2)[:20])


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_or_duration_that_is_no_positive_number_is_refused(value):
    with pytest.raises(ValueError, match="rate_rps"):
        due_ns("poisson", value, 1.0, 1)
    with pytest.raises(ValueError, match="duration_s"):
        due_ns("constant", 1.0, value, 1)


@given(st.integers(0, 500), st.integers(1, 60), SEEDS)
def test_payloads_are_used_equally_often_in_a_repeatable_order(count, payloads, seed):
    order = payload_order(count, payloads, seed)
    assert order.dtype == np.int32 and len(order) == count
    used = np.bincount(order, minlength=payloads)
    assert used.max() - used.min() <= 1 and len(used) == payloads
    assert np.array_equal(order, payload_order(count, payloads, seed))


def test_payload_rounds_differ_from_one_another_and_between_seeds():
    order = payload_order(200, 100, seed=3)
    assert not np.array_equal(order[:100], order[100:])
    assert not np.array_equal(order, payload_order(200, 100, seed=4))


def test_an_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one payload"):
        payload_order(10, 0, 1)
    with pytest.raises(ValueError, match="negative"):
        payload_order(-1, 5, 1)


def test_every_step_of_every_plan_has_a_seed_of_its_own():
    seeds = {step_seed(seed, number) for seed in range(50) for number in range(20)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**32 for seed in seeds)
