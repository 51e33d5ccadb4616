"""The send times of open steps: what law they follow, and that a seed says it all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.records.arrivals import Constant, Gamma, Poisson, Ramp, Trace
from harness.stats.arrivals import due_ns, payload_order, step_seed, trace_gaps

RATES = st.floats(0.5, 5_000)
DURATIONS = st.floats(0.01, 2.0)
SEEDS = st.integers(0, 2**32 - 1)


def test_constant_arrivals_come_at_equal_gaps_from_the_epoch_on():
    assert due_ns(Constant(), 4.0, 1.0, seed=1).tolist() == [0, 250_000_000, 500_000_000, 750_000_000]


@pytest.mark.parametrize(("rate_rps", "duration_s", "count"), [(30.0, 0.1, 3), (1000.0, 3.0, 3000), (3.0, 0.5, 2)])
def test_constant_arrivals_count_those_due_before_the_end(rate_rps, duration_s, count):
    assert len(due_ns(Constant(), rate_rps, duration_s, seed=1)) == count


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_gaps_are_exponential(seed):
    gaps_s = np.diff(due_ns(Poisson(), 1000.0, 20.0, seed), prepend=0) / 1e9
    assert stats.kstest(gaps_s, stats.expon(scale=1e-3).cdf).pvalue > 0.01


def test_poisson_counts_have_the_mean_and_the_spread_of_their_law():
    counts = [len(due_ns(Poisson(), 200.0, 2.0, seed)) for seed in range(300)]
    low, high = stats.poisson.ppf([1e-6, 1 - 1e-6], 400)
    assert low <= min(counts) and max(counts) <= high
    # The mean of 300 Poisson(400) counts has a standard deviation of 20 / sqrt(300).
    assert abs(np.mean(counts) - 400) < 4 * 20 / np.sqrt(300)
    # (n - 1) s^2 / mean follows chi-squared with n - 1 degrees of freedom.
    dispersion = 299 * np.var(counts, ddof=1) / 400
    assert stats.chi2.ppf(0.001, 299) < dispersion < stats.chi2.ppf(0.999, 299)


def test_poisson_arrivals_are_uniform_over_the_step():
    times_s = due_ns(Poisson(), 2000.0, 3.0, seed=5) / 1e9
    assert stats.kstest(times_s, stats.uniform(0, 3.0).cdf).pvalue > 0.01


LAWS = [Poisson(), Constant(), Gamma(8.0), Gamma(0.2), Ramp(0.0), Ramp(2.0), Ramp(1.0), Trace("t.csv")]
RECORDED_S = [3.0, 3.0, 3.5, 7.0, 7.25]


@pytest.mark.parametrize("arrivals", LAWS, ids=repr)
@given(rate_rps=RATES, duration_s=DURATIONS, seed=SEEDS)
def test_every_plan_is_sorted_inside_the_step_and_repeatable(arrivals, rate_rps, duration_s, seed):
    times = due_ns(arrivals, rate_rps, duration_s, seed, trace_s=RECORDED_S)
    assert times.dtype == np.int64
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < duration_s * 1e9 + 1))
    assert np.array_equal(times, due_ns(arrivals, rate_rps, duration_s, seed, trace_s=RECORDED_S))


@pytest.mark.parametrize("arrivals", [law for law in LAWS if law != Trace("t.csv")], ids=repr)
def test_the_mean_rate_is_the_steps_whatever_the_law(arrivals):
    counts = [len(due_ns(arrivals, 100.0, 4.0, seed)) for seed in range(400)]
    # Of renewals the count's variance is burstiness times its mean; of 400 plans the mean has a 20th of that spread.
    spread = np.sqrt(400 * getattr(arrivals, "burstiness", 1.0)) / 20
    assert abs(np.mean(counts) - 400) < 4 * spread + 4  # what a renewal process has more at its start is (b - 1) / 2


@pytest.mark.parametrize("burstiness", [0.1, 1.0, 8.0])
def test_gamma_gaps_follow_their_law(burstiness):
    gaps_s = np.diff(due_ns(Gamma(burstiness), 1000.0, 30.0, seed=4), prepend=0) / 1e9
    law = stats.gamma(1 / burstiness, scale=burstiness / 1000)
    # Times are whole nanoseconds, and of bursts a good share of the gaps is less than one.
    least = law.cdf(1e-6)
    seen = gaps_s[gaps_s > 1e-6]
    assert stats.kstest(seen, lambda gap: (law.cdf(gap) - least) / (1 - least)).pvalue > 0.01
    assert stats.binomtest(len(gaps_s) - len(seen), len(gaps_s), least).pvalue > 0.01


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0, 2.0])
def test_a_ramps_arrivals_lie_under_a_straight_line(start):
    """Of a Poisson process with a varying rate, the times are a sample of the rate as a density."""
    times = due_ns(Ramp(start), 1000.0, 20.0, seed=6) / 20e9
    assert stats.kstest(times, lambda share: start * share + (1 - start) * share**2).pvalue > 0.01


def test_a_trace_is_stretched_to_the_rate_and_begun_anew():
    recorded = [10.0, 11.0, 11.5, 13.0]  # three gaps of a mean of 1 s
    times_s = due_ns(Trace("t.csv"), 2.0, 4.0, seed=1, trace_s=recorded) / 1e9
    assert times_s.tolist() == [0, 0.5, 0.75, 1.5, 2.0, 2.5, 2.75, 3.5]


def test_the_gaps_of_a_trace_have_a_mean_of_one_the_last_one_being_the_mean():
    assert trace_gaps([1.0, 3.0, 4.0]).tolist() == pytest.approx([4 / 3, 2 / 3, 1.0])


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ([], "at least two"),
        ([1.0], "at least two"),
        ([1.0, float("nan"), 2.0], "time 2 of the trace is no finite number"),
        ([1.0, 3.0, 2.0], "time 3 of the trace lies before"),
        ([2.0, 2.0], "equal"),
    ],
)
def test_what_cannot_be_replayed_is_refused(recorded, told):
    with pytest.raises(ValueError, match=told):
        trace_gaps(recorded)


def test_at_another_rate_a_seed_gives_the_same_arrivals_in_another_time_scale():
    slow, fast = (due_ns(Poisson(), rate_rps, 600 / rate_rps, seed=3) for rate_rps in (100.0, 300.0))
    assert np.abs(slow - 3 * fast).max() <= 3


def test_another_seed_is_another_poisson_plan():
    assert not np.array_equal(due_ns(Poisson(), 100.0, 1.0, 1)[:20], due_ns(Poisson(), 100.0, 1.0, 2)[:20])


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_or_duration_that_is_no_positive_number_is_refused(value):
    with pytest.raises(ValueError, match="rate_rps"):
        due_ns(Poisson(), value, 1.0, 1)
    with pytest.raises(ValueError, match="duration_s"):
        due_ns(Constant(), 1.0, value, 1)


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
    seeds = {step_seed(seed, level, repeat) for seed in range(20) for level in range(20) for repeat in range(3)}
    assert len(seeds) == 1200 and all(0 <= seed < 2**32 for seed in seeds)
