"""The paired difference of two figures, against arithmetic."""

import numpy as np
import pytest

from harness.stats.compare import difference_interval, over_seeds


def test_what_both_share_falls_out_of_the_difference():
    noise = np.random.default_rng(1).normal(size=400)
    low, high = difference_interval((0.9 + noise).tolist(), (0.8 + noise).tolist())
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)


def test_independent_figures_differ_by_the_sum_of_their_variances():
    random = np.random.default_rng(2)
    low, high = difference_interval(random.normal(1, 3, 20_000).tolist(), random.normal(0, 4, 20_000).tolist())
    # N(1, 5): 1 +- 1.96 * 5, each end known to about 0.1 from 20,000 draws.
    assert low == pytest.approx(1 - 9.8, abs=0.4) and high == pytest.approx(1 + 9.8, abs=0.4)


def test_unlike_numbers_of_resamples_do_not_pair():
    with pytest.raises(ValueError, match="do not pair"):
        difference_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="do not pair"):
        difference_interval([], [])


def test_one_seed_s_resamples_stay_what_they_are():
    assert over_seeds([[0.9, 0.8, 0.7]], np.random.default_rng(0)) == (0.9, 0.8, 0.7)


def test_seeds_that_differ_show_in_the_interval_as_a_quarter_each_end():
    """Of two seeds drawn twice, both are the first in a quarter of all cases, and both the second in another."""
    drawn = over_seeds([[0.8] * 4000, [0.9] * 4000], np.random.default_rng(0))
    shares = [np.mean(np.isclose(drawn, value)) for value in (0.8, 0.85, 0.9)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
