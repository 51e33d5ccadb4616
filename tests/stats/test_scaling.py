"""The laws of growth against published fits, exact curves, and the share of intervals that hold."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.scaling import (
    NoLaw,
    PowerLaw,
    UniversalLaw,
    parameter_intervals,
    power_law,
    universal_law,
)

SPEC_SDM91 = [(1, 64.9), (18, 995.9), (36, 1652.4), (72, 1853.2), (108, 1828.9), (144, 1775.0), (216, 1702.2)]
"""SPEC SDM91 on a SPARCcenter 2000, users and scripts an hour, as in Gunther 2007 and in the R package `usl`."""

RAY_TRACER = [
    *((1, 20), (4, 78), (8, 130), (12, 170), (16, 190), (20, 200)),
    *((24, 210), (28, 230), (32, 260), (48, 280), (64, 310)),
]
"""A ray tracer on an Origin 2000, processors and thousands of rays a second (Gunther 2007, and the same package)."""


def law(points: list[tuple[float, float]]) -> UniversalLaw:
    found = universal_law(*zip(*points, strict=True))
    assert isinstance(found, UniversalLaw)
    return found


def curve(scale: float, rate: float, contention: float, coherence: float) -> float:
    return rate * scale / (1 + contention * (scale - 1) + coherence * scale * (scale - 1))


def test_the_fit_of_the_spec_benchmark_is_the_published_one() -> None:
    """The package's README prints alpha 0.0277285 and beta 0.0001044, its tests an efficiency of 0.7211 at one user."""
    found = law(SPEC_SDM91)
    assert found.contention == pytest.approx(0.0277285, rel=1e-3)
    assert found.coherence == pytest.approx(0.0001044, rel=1e-3)
    assert 64.9 / found.rate == pytest.approx(0.7211, abs=1e-4)
    assert found.peak == pytest.approx(math.sqrt((1 - 0.0277285) / 0.0001044), rel=1e-3)


def test_the_fit_of_the_ray_tracer_is_the_published_one_that_lies_on_its_bound() -> None:
    """The package's tests print alpha 0.0578, beta 0.0000, gamma 21.8488."""
    found = law(RAY_TRACER)
    assert (found.rate, found.contention) == (pytest.approx(21.8488, rel=1e-3), pytest.approx(0.0578, abs=1e-4))
    assert found.coherence < 1e-9


@pytest.mark.parametrize("parameters", [(1.0, 0.02, 0.02), (7e-3, 0.1, 0.0), (5e4, 0.0, 0.0), (3.0, 0.0, 1e-4)])
def test_an_exact_curve_is_found_whatever_its_unit(parameters: tuple[float, float, float]) -> None:
    found = law([(scale, curve(scale, *parameters)) for scale in (1, 2, 4, 8, 16, 32)])
    assert found.rate == pytest.approx(parameters[0], rel=1e-4)
    assert (found.contention, found.coherence) == pytest.approx(parameters[1:], abs=1e-5)
    low, high = found.interval(32)
    assert low == pytest.approx(high, rel=1e-3)


def test_it_is_asked_up_to_twice_the_largest_scale_and_never_beyond_its_peak() -> None:
    rising = law([(scale, curve(scale, 10.0, 0.05, 0.0)) for scale in (1, 2, 4, 8)])
    assert rising.peak > 1e3
    assert rising.at(16) == pytest.approx(curve(16, 10.0, 0.05, 0.0), rel=1e-3)
    for scale in (0.5, 16.1):
        with pytest.raises(ValueError, match="may be asked for 1 to 16"):
            rising.at(scale)
    before_its_peak = law([(scale, curve(scale, 10.0, 0.0, 0.01)) for scale in (1, 2, 4, 8)])
    assert before_its_peak.peak == pytest.approx(10.0, rel=1e-3)
    assert before_its_peak.reach == pytest.approx(10.0, rel=1e-3)
    beyond = law([(scale, curve(scale, 10.0, 0.0, 0.01)) for scale in (1, 4, 16, 32)])
    assert beyond.reach == 32.0
    with pytest.raises(ValueError, match="peaks at 10"):
        beyond.interval(33)


def test_too_few_scales_give_no_law_but_a_reason() -> None:
    assert universal_law([1, 2, 4, 1, 2, 4], [1, 2, 3, 1, 2, 3]) == NoLaw(
        "3 scales measured, and a law takes 4 at least"
    )
    assert isinstance(universal_law([1, 2, 4, 8], [1, 2, 0, 3]), NoLaw)
    assert power_law([10, 20, 10], [1, 2, 1]) == NoLaw("2 sizes measured, and an exponent takes 3")
    assert isinstance(power_law([1, 2, 3], [0, 1, 2]), NoLaw)


def test_intervals_of_the_law_mostly_hold() -> None:
    """Three measurements at each of six scales, with noise of 5 %: the curve lies inside in about 95 of 100 cases."""
    rng, scales, held = np.random.default_rng(3), np.repeat([1, 2, 4, 8, 16, 32], 3), 0
    exact = curve(scales, 10.0, 0.05, 1e-3)
    for _ in range(30):
        found = universal_law(scales, exact * (1 + 0.05 * rng.normal(size=len(scales))))
        assert isinstance(found, UniversalLaw)
        low, high = found.interval(16)
        held += low <= curve(16, 10.0, 0.05, 1e-3) <= high
    assert 24 <= held <= 30
    for (low, high), value in zip(
        parameter_intervals(found), (found.rate, found.contention, found.coherence), strict=True
    ):
        assert low <= value <= high


def test_intervals_of_the_fewest_rates_hold_too() -> None:
    """One measurement at each of four scales leaves one degree of freedom."""
    rng, scales, held = np.random.default_rng(3), np.array([1, 2, 4, 8]), 0
    exact = curve(scales, 10.0, 0.05, 1e-3)
    for _ in range(6):
        found = universal_law(scales, exact * (1 + 0.05 * rng.normal(size=len(scales))))
        assert isinstance(found, UniversalLaw) and found.n == 4
        low, high = found.interval(8)
        held += low <= curve(8, 10.0, 0.05, 1e-3) <= high
    assert held >= 5


def test_a_power_law_has_the_exponent_of_its_curve() -> None:
    found = power_law([100, 1_000, 10_000], [3 * size**1.5 for size in (100, 1_000, 10_000)])
    assert isinstance(found, PowerLaw)
    assert (found.factor, found.exponent) == (pytest.approx(3.0), pytest.approx(1.5))
    assert found.high - found.low < 1e-6


def test_the_interval_of_an_exponent_is_that_of_a_line_through_logarithms() -> None:
    rng = np.random.default_rng(4)
    sizes = np.array([1, 2, 4, 8, 16, 32] * 3, dtype=float)
    values = sizes**0.7 * np.exp(0.1 * rng.normal(size=len(sizes)))
    found = power_law(sizes, values)
    assert isinstance(found, PowerLaw)
    # By the textbook: the residual variance over the spread of x, with n - 2 degrees of freedom.
    x, y = np.log(sizes), np.log(values)
    slope, intercept = np.polyfit(x, y, 1)
    left = y - slope * x - intercept
    error = math.sqrt((left @ left) / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
    half = float(stats.t.ppf(0.975, len(x) - 2)) * error
    assert (found.low, found.high) == (pytest.approx(slope - half), pytest.approx(slope + half))
