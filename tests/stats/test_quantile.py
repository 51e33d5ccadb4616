"""Quantiles: what is observed, and how far from the truth it may be."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from harness.stats.quantile import certified_rank, quantiles, rank_interval, sample_floor

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
    """Each slot of time has its own level: 5,000 samples know the median no better than their ten slots do."""
    rng = np.random.default_rng(3)
    levels = rng.normal(100, 5, 10)
    times = np.linspace(0, 10, 5000, endpoint=False)
    samples = levels[times.astype(int)] + rng.normal(0, 1, 5000)
    alone, in_time = quantiles(samples, (0.5,))[0], quantiles(samples, (0.5,), times=times)[0]
    assert alone.low is not None and alone.high is not None and in_time.low is not None and in_time.high is not None
    assert in_time.value == alone.value
    assert in_time.low <= alone.low and in_time.high >= alone.high
    # The median of ten normal levels has a standard error of 1.25 * 5 / sqrt(10) = 1.98.
    assert 0.5 * 4 * 1.98 < in_time.high - in_time.low < 2.5 * 4 * 1.98
    assert alone.high - alone.low < 0.3 * (in_time.high - in_time.low)


def test_the_margin_over_equal_slots_is_that_of_a_mean_over_slots() -> None:
    """Slots of one size make the ratio estimator a plain mean; its t interval can be worked out by hand."""
    shares_below = np.array([40, 50, 60, 45, 55, 50, 48, 52, 47, 53])
    samples = np.concatenate([np.where(np.arange(100) < below, 0, 1) for below in shares_below])
    order = np.arange(1000) / 1000
    samples = samples + order  # distinct values, the 500 "below" ones first
    found = quantiles(samples, (0.5,), times=np.arange(1000))[0]
    error = np.std(shares_below / 100, ddof=1) / np.sqrt(10)
    margin = stats.t.ppf(0.975, 9) * error
    ordered = np.sort(samples)
    assert found.low == ordered[int(np.floor(1000 * (0.5 - margin))) - 1]
    assert found.high == ordered[int(np.ceil(1000 * (0.5 + margin))) - 1]


def sojourns(load: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times in system of an M/M/1 queue in steady state (Lindley's recursion), and when each customer came."""
    rng = np.random.default_rng(seed)
    settled = 20_000
    gaps, services = rng.exponential(1 / load, n + settled), rng.exponential(1.0, n + settled)
    walk = np.concatenate(([0.0], np.cumsum(services[:-1] - gaps[1:])))
    return (walk - np.minimum.accumulate(walk) + services)[settled:], np.cumsum(gaps)[settled:]


@pytest.mark.parametrize(("load", "share", "least"), [(0.5, 0.5, 0.9), (0.5, 0.99, 0.9), (0.8, 0.99, 0.85)])
def test_the_interval_covers_the_truth_of_a_queue(load: float, share: float, least: float) -> None:
    """Time in an M/M/1 system is exponential with mean 1 / (1 - load); 95 % is what is asked, `least` what is borne."""
    truth = -np.log(1 - share) / (1 - load)
    covered = alone = 0
    for seed in range(100):
        samples, times = sojourns(load, 15_000, seed)
        for found, counts in (
            (quantiles(samples, (share,), times=times)[0], True),
            (quantiles(samples, (share,))[0], False),
        ):
            inside = (found.low or 0.0) <= truth <= (np.inf if found.high is None else found.high)
            covered += inside and counts
            alone += inside and not counts
    assert covered >= 100 * least
    assert alone < covered - 10


def test_a_quantile_that_the_sample_cannot_bound_has_an_open_end() -> None:
    """At a load of 0.95 all of the slowest hundredth wait in one or two crowds: how slow they can be is not known."""
    samples, times = sojourns(0.95, 15_000, seed=1)
    found = quantiles(samples, (0.5, 0.99), times=times)
    assert found[0].high is not None
    assert found[1].value is not None and found[1].low is not None and found[1].high is None


def test_the_same_samples_give_the_same_interval_in_any_order() -> None:
    rng = np.random.default_rng(5)
    samples, times = rng.exponential(1, 9000), np.arange(9000)
    order = rng.permutation(9000)
    assert quantiles(samples, SHARES, times=times) == quantiles(samples[order], SHARES, times=times[order])


def test_samples_and_times_must_match() -> None:
    with pytest.raises(ValueError, match="400 samples but 3 times"):
        quantiles(np.arange(400), (0.99,), times=np.arange(3))


@pytest.mark.parametrize(
    ("share", "floor"),
    [(0.5, 11), (0.75, 24), (0.8, 31), (0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)],
)
def test_the_certified_bound_begins_where_mlperf_lets_it(share: float, floor: int) -> None:
    """The floors that MLCommons publishes for its early stopping."""
    assert certified_rank(floor - 1, share) is None
    assert certified_rank(floor, share) == floor


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_a_run_of_mlperfs_loadgen_has_the_same_figures_to_the_nanosecond(share: float, tmp_path: Path) -> None:
    # Where n times the share is whole, LoadGen takes the value after ours; of 4,999 it is never.
    script = Path(__file__).with_name("loadgen.py")
    subprocess.run([sys.executable, str(script), str(tmp_path), "4999", str(share)], check=True, timeout=60)
    trace = (tmp_path / "mlperf_log_trace.json").read_text()
    latency_ns = np.array([int(found) for found in re.findall(r'"complete_ns":(\d+)', trace)])
    assert len(latency_ns) == 4999
    lines = (tmp_path / "mlperf_log_detail.txt").read_text().splitlines()
    told = {entry["key"]: entry["value"] for entry in (json.loads(line.removeprefix(":::MLLOG")) for line in lines)}
    shares = (0.5, 0.9, 0.95, 0.97, 0.99, 0.999)
    for found in quantiles(latency_ns, shares):
        assert found.value == told[f"result_{found.share:.2%}_percentile_latency_ns".replace("%", "")]
    (found,) = quantiles(latency_ns, (share,))
    assert found.certified == told["early_stopping_latency_ss"]


def test_the_certified_p99_of_ten_thousand_is_the_77th_largest() -> None:
    assert certified_rank(10_000, 0.99) == 10_000 - 77 + 1
    (found,) = quantiles(np.arange(10_000), [0.99])
    assert found.certified == 10_000 - 77


def test_the_certified_bound_holds_in_99_of_100_samples() -> None:
    rng = np.random.default_rng(8)
    truth = -np.log(0.01)
    held = sum(float(quantiles(rng.exponential(size=2000), [0.99])[0].certified or 0) >= truth for _ in range(2000))
    assert held >= 1980 - 15  # three standard deviations below 99 %
