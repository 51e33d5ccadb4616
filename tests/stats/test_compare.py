"""The paired difference of two figures, against arithmetic."""

import numpy as np
import pytest
from scipy import stats

from harness.stats.compare import difference_interval, margins, over_seeds


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


@pytest.mark.parametrize("contenders", [2, 5])
def test_margins_of_independent_contenders_are_those_of_tukey(contenders):
    """The largest of all differences is the range: of five with a variance of 1 it stays below 3.858 in 95 of 100."""
    drawn = np.random.default_rng(4).normal(size=(contenders, 40_000))
    found = margins(drawn.tolist())
    assert found[0, 1] == pytest.approx(stats.studentized_range.ppf(0.95, contenders, np.inf), rel=0.02)
    assert (found == found.T).all() and (np.diag(found) == 0).all()


def test_contenders_that_err_alike_are_told_apart_by_any_difference():
    noise = np.random.default_rng(5).integers(0, 64, 500) / 64  # sums of these are exact
    assert (margins([(noise + 1).tolist(), (noise + 2).tolist(), noise.tolist()]) == 0).all()


def test_of_equal_contenders_hardly_any_is_told_apart_from_the_best():
    """150 rows, five contenders that are right on each with the same chance: about 5 of 100 tables mislead."""
    rng = np.random.default_rng(0)
    misled = 0
    for _ in range(200):
        right = (rng.random((5, 150)) < rng.beta(4, 0.6, 150)).astype(float)
        drawn = right[:, rng.integers(150, size=(300, 150))].mean(axis=2)
        scores = right.mean(axis=1)
        best = int(scores.argmax())
        misled += bool((scores[best] - scores > margins(drawn.tolist())[best]).any())
    assert misled / 200 < 0.1
