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
    assert over_seeds([[[0.9, 0.8, 0.7]]], [[0.8]], [False], np.random.default_rng(0)) == [(0.9, 0.8, 0.7)]


def test_the_luck_of_seeds_is_student_s_interval_of_their_mean():
    """Two contenders of three seeds each: four degrees of freedom, and the mean variance of both, 0.01 and 0.02."""
    scores = [[0.8, 0.9, 1.0], [0.8, 0.8 + 0.02**0.5, 0.8 - 0.02**0.5]]
    rows = [[[score] * 40_000 for score in own] for own in scores]
    first, second = over_seeds(rows, scores, [False, False], np.random.default_rng(0))
    for own, variance, mean in ((first, 0.015, 0.9), (second, 0.02, 0.8)):
        half = stats.t.ppf(0.975, 4) * (variance / 3) ** 0.5
        assert np.quantile(own, (0.025, 0.975)) == pytest.approx([mean - half, mean + half], abs=0.01)


def test_whose_seed_failed_widens_its_own_interval_and_no_other():
    scores = [[0.80, 0.82], [0.81, 0.83], [0.9, 0.5]]
    rows = [[[score] * 4000 for score in own] for own in scores]
    spread = [np.std(own) for own in over_seeds(rows, scores, [False, False, True], np.random.default_rng(0))]
    assert spread[2] > 10 * spread[0] and spread[1] < 0.05


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("luck", [0.5, 10.0])
def test_of_equal_contenders_with_luck_hardly_any_is_told_apart(seeds, luck):
    """Four that differ by the luck of their seeds and by the noise of rows only: at most about 5 of 100 mislead."""
    rng = np.random.default_rng(0)
    misled = 0
    for _ in range(150):
        scores = rng.normal(0, luck, (4, seeds)) + rng.normal(size=(4, 1))
        rows = scores[:, :, None] + rng.normal(size=(4, 1, 300))
        drawn = over_seeds(rows.tolist(), scores.tolist(), [False] * 4, rng)
        means = scores.mean(axis=1)
        best = int(means.argmax())
        misled += bool((means[best] - means > margins(drawn)[best]).any())
    assert misled / 150 < 0.1


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
