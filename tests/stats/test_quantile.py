"""Quantiles: what is observed, and how far from the truth it may be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from harness.stats.quantile import quantiles, rank_interval, sample_floor

SHARES = (0.5, 0.9, 0.99, 0.999)


@given(hnp.arrays(np.int64, st.integers(368, 2000), elements=st.integers(0, 10**9)), st.sampled_from((0.5, 0.9, 0.99)))
def test_a_quantile_is_numpys_inverted_cdf(samples: np.ndarray, share: float) -> None:
    found = quantiles(samples, (share,))[0]
    assert found.value == np.quantile(samples, share, method="inverted_cdf")
    assert found.value in samples


def test_binary_rounding_of_the_share_does_not_move_the_rank() -> None:
    # 0.07 * 200 is 14.000000000000002 in binary; the quantile is the 14th value, not the 15th.
    assert quantiles(np.arange(1, 201), (0.07,))[0].value == 14


@pytest.mark.parametrize(("share", "floor"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_the_floor_is_the_smallest_sample_with_two_finite_ends(share: float, floor: int) -> None:
    assert sample_floor(share) == floor
    assert None not in rank_interval(floor, share)
    assert None in rank_interval(floor - 1, share)


@pytest.mark.parametrize("n", [400, 1000, 10_000])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_rank_interval_is_scipys_quantile_test(n: int, share: float) -> None:
    """scipy inverts the same binomial test; its upper end may lie one rank lower, where the level allows both."""
    ours = rank_interval(n, share)
    theirs = stats.quantile_test(np.arange(1, n + 1), p=share).confidence_interval(0.95)
    assert ours[0] == theirs.low
    assert ours[1] in {theirs.high, theirs.high + 1}


@pytest.mark.parametrize("n", [368, 1000, 10_000])
def test_the_rank_interval_covers_at_its_level_by_the_binomial_sum(n: int) -> None:
    low, high = rank_interval(n, 0.99)
    assert low is not None and high is not None
    # The interval misses where fewer than `low`, or at least `high`, samples lie below the quantile.
    inside = sum(stats.binom.pmf(below, n, 0.99) for below in range(low, high))
    assert inside >= 0.95


def test_below_the_floor_there_is_no_value_but_a_reason() -> None:
    found = quantiles(np.arange(367), (0.5, 0.99))
    assert found[0].value is not None
    assert (found[1].value, found[1].low, found[1].high) == (None, None, None)
    assert found[1].reason == "367 samples are too few: a 95 % interval needs 368"


def test_an_empty_sample_has_no_quantiles() -> None:
    assert [found.value for found in quantiles(np.array([], dtype=np.int64), SHARES, times=np.array([]))] == [None] * 4


def test_slots_that_differ_widen_the_interval() -> None:
    """Each slot of time has its own level: 5,000 samples know the median no better than their thirty slots do."""
    rng = np.random.default_rng(3)
    levels = rng.normal(100, 5, 30)
    times = np.linspace(0, 30, 5000, endpoint=False)
    samples = levels[times.astype(int)] + rng.normal(0, 1, 5000)
    alone, in_time = quantiles(samples, (0.5,))[0], quantiles(samples, (0.5,), times=times)[0]
    assert alone.low is not None and alone.high is not None and in_time.low is not None and in_time.high is not None
    assert in_time.value == alone.value
    assert in_time.low <= alone.low and in_time.high >= alone.high
    # The median of thirty normal levels has a standard error of 1.25 * 5 / sqrt(30) = 1.14.
    assert 0.5 * 4 * 1.14 < in_time.high - in_time.low < 2 * 4 * 1.14
    assert alone.high - alone.low < 0.3 * (in_time.high - in_time.low)


def test_intervals_over_time_cover_autocorrelated_samples_better() -> None:
    """Waiting times of a single server queue (Lindley's recursion), whose p90 a long run knows."""

    def waits(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        steps = rng.exponential(0.8, n) - rng.exponential(1.0, n)
        walk = np.concatenate(([0.0], np.cumsum(steps)))
        return walk - np.minimum.accumulate(walk)

    truth = float(np.quantile(waits(1_000_000, 0), 0.9))
    covered = {"alone": 0, "in time": 0}
    for seed in range(1, 61):
        samples = waits(6000, seed)
        for name, times in (("alone", None), ("in time", np.arange(len(samples)))):
            found = quantiles(samples, (0.9,), times=times)[0]
            assert found.low is not None and found.high is not None
            covered[name] += found.low <= truth <= found.high
    assert covered["alone"] < 30
    assert covered["in time"] > 45


def test_the_same_samples_give_the_same_interval_in_any_order() -> None:
    rng = np.random.default_rng(5)
    samples, times = rng.exponential(1, 9000), np.arange(9000)
    order = rng.permutation(9000)
    assert quantiles(samples, SHARES, times=times) == quantiles(samples[order], SHARES, times=times[order])


def test_a_thinned_search_rounds_its_ends_outwards() -> None:
    """Above 4,096 samples the bootstrap looks at a grid of them; its interval may only be wider, and hardly so."""
    rng = np.random.default_rng(6)
    samples = rng.exponential(1, 4096)
    small = quantiles(samples, (0.99,), times=np.arange(4096))[0]
    large = quantiles(np.repeat(samples, 20), (0.99,), times=np.repeat(np.arange(4096), 20))[0]
    assert small.low is not None and small.high is not None and large.low is not None and large.high is not None
    assert large.value == small.value
    assert large.low < small.value < large.high  # type: ignore[operator]
    # Twenty copies of each sample in its slot carry no new knowledge of the slots.
    assert (large.high - large.low) > 0.7 * (small.high - small.low)


def test_samples_and_times_must_match() -> None:
    with pytest.raises(ValueError, match="400 samples but 3 times"):
        quantiles(np.arange(400), (0.99,), times=np.arange(3))
