"""Ranks and their tests, held against Demsar's worked example, published critical values, and other libraries."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.ranks import (
    TABLES_FLOOR,
    critical_difference,
    friedman,
    groups,
    iman_davenport,
    mean_interval,
    nemenyi,
    normalised,
    ranks,
    sign_test,
    tables_needed,
    win_interval,
    wins,
)

# Demsar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 UCI data sets. The paper prints 0.975 twice in
# the row `voting` and ranks them 2 and 3, so one of them was a little less.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.975, 0.9749],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_average_ranks_are_those_of_the_worked_example() -> None:
    assert ranks(DEMSAR).mean(axis=0) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)


def test_friedman_s_statistic_is_that_of_the_worked_example_where_ties_are_corrected_for() -> None:
    """The paper's 9.28 is without correction: three pairs and one of all four are tied, so 78 of 840 are missing."""
    found = friedman(DEMSAR)
    assert found.chi2 * (1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * 4 * (4**2 - 1))) == pytest.approx(9.28, abs=0.01)
    assert (found.chi2, found.chi2_p) == pytest.approx(tuple(stats.friedmanchisquare(*DEMSAR.T)))


def test_the_f_form_is_that_of_the_worked_example() -> None:
    f, p = iman_davenport(9.28, tables=14, entrants=4)
    assert f == pytest.approx(3.69, abs=0.005)
    assert 0.01 < p < 0.05  # the paper: critical value 2.85 at 5 %


def test_where_all_tables_agree_f_is_infinite_and_p_is_the_chance_of_that() -> None:
    """Three entrants in one order on four tables: the first table is free, each other has one of six orders."""
    found = friedman([[3, 2, 1]] * 4)
    assert (found.f, found.f_p) == (None, pytest.approx(1 / 6**3))
    assert found.chi2 == pytest.approx(8)


def test_where_nobody_differs_nobody_is_told_apart() -> None:
    assert friedman([[0.5, 0.5, 0.5]] * 6).f_p == 1.0


@pytest.mark.parametrize(
    ("entrants", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)]
)
def test_critical_differences_are_the_published_ones(entrants: int, q: float) -> None:
    """Demsar 2006, table 5 (a), at 5 %; with 4 entrants on 14 tables the paper has 1.25."""
    assert critical_difference(14, entrants) == pytest.approx(q * math.sqrt(entrants * (entrants + 1) / 84), rel=5e-4)
    assert entrants != 4 or critical_difference(14, 4) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize("entrants", [2, 5, 9])
def test_the_tables_that_are_needed_are_the_fewest_that_are_enough(entrants: int) -> None:
    needed = tables_needed(entrants, 0.8)
    assert critical_difference(needed, entrants) <= 0.8 < critical_difference(needed - 1, entrants)


def test_nemenyi_s_p_falls_below_five_percent_where_ranks_are_a_critical_difference_apart() -> None:
    average, p = ranks(DEMSAR).mean(axis=0), nemenyi(DEMSAR)
    apart = np.abs(average[:, None] - average[None, :])
    assert ((p < 0.05) == (apart > critical_difference(14, 4))).all()
    assert np.diag(p).tolist() == [1.0] * 4


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_largest_sets_of_which_no_two_are_apart(seed: int) -> None:
    average = np.random.default_rng(seed).uniform(1, 6, 6).tolist()
    together = [
        set(some)
        for size in range(2, 7)
        for some in itertools.combinations(range(6), size)
        if max(average[one] for one in some) - min(average[one] for one in some) < 1.5
    ]
    largest = [one for one in together if not any(one < other for other in together)]
    found = groups(average, 1.5)
    assert sorted(map(sorted, found)) == sorted(map(sorted, largest))
    assert list(found) == sorted(found, key=lambda group: average[group[0]])


def test_who_is_told_apart_from_all_others_is_in_no_group() -> None:
    assert groups([1.0, 2.5, 2.6, 4.9], 1.0) == ((1, 2),)


def test_ties_share_their_places_and_their_wins() -> None:
    assert ranks([[0.9, 0.9, 0.1], [0.1 + 0.2, 0.3, 0.0]]).tolist() == [[1.5, 1.5, 3.0], [1.5, 1.5, 3.0]]
    assert wins([0.9, 0.8, 0.5], [0.9, 0.7, 0.6]) == 1.5


def test_ranks_know_large_losses_from_equal_ones() -> None:
    assert ranks([[-1e6, -1e6 - 1e-3, -2e6]]).tolist() == [[1.0, 2.0, 3.0]]


def test_a_hole_is_not_ranked() -> None:
    with pytest.raises(ValueError, match="every entrant on every table"):
        ranks([[0.9, math.nan]])


@pytest.mark.parametrize(("won", "tables"), [(0, 6), (3, 6), (6, 6), (11, 14)])
def test_intervals_of_win_rates_are_the_exact_binomial_ones(won: int, tables: int) -> None:
    exact = stats.binomtest(won, tables).proportion_ci(method="exact")
    assert win_interval(won, tables) == pytest.approx((exact.low, exact.high))


def test_the_fewest_tables_are_those_on_which_the_sign_test_can_decide() -> None:
    assert stats.binomtest(TABLES_FLOOR, TABLES_FLOOR).pvalue < 0.05
    assert stats.binomtest(TABLES_FLOOR - 1, TABLES_FLOOR - 1).pvalue > 0.05


def test_means_over_few_or_equal_tables_have_no_interval() -> None:
    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert mean_interval([1.0] * 12) is None


def test_means_over_many_tables_have_the_interval_that_student_s_t_has_too() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 200)
    low, high = mean_interval(values.tolist()) or (0.0, 0.0)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 199, values.mean(), stats.sem(values)), abs=0.02)


def test_on_a_shared_scale_nothing_is_0_and_the_best_is_1() -> None:
    assert normalised([0.75, 0.9, 0.4], nothing=0.5) == pytest.approx([0.625, 1.0, 0.0])
    assert normalised([-0.3, -0.2, -9.0], nothing=-0.7) == pytest.approx([0.8, 1.0, 0.0])
    assert normalised([0.4, 0.5], nothing=0.5) == [0.0, 0.0]


def test_two_entrants_are_told_apart_by_the_sign_test() -> None:
    """Seven wins of eight: 2 * (1 + 8) / 2**8. A tie says nothing; of ties alone nobody is the better one."""
    left = np.arange(8.0)
    right = left - 1
    right[0] = 1.0
    assert sign_test(left, right) == pytest.approx(18 / 256)
    assert sign_test([*left, 5.0], [*right, 5.0]) == pytest.approx(18 / 256)
    assert sign_test([1.0], [1.0]) == 1.0


def test_nothing_is_won_where_all_have_the_dummy_s_score() -> None:
    assert normalised([0.1, 0.1], 0.1) == [0.0, 0.0]
