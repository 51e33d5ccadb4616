"""The ladder: doubles what is in flight, and knows when to stop."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.load import Rung
from harness.shapes.ladder import Ladder


def climb(ladder, measure, limit=100, noise=0.0):
    """In flight of each rung, where `measure(in_flight)` gives throughput, p99 and error share; `noise` is the share of
    the throughput that is not sure."""
    history = []
    while (step := ladder.next_step(history)) is not None:
        throughput_rps, p99_s, error_share = measure(step.in_flight)
        error_rps = noise * throughput_rps
        history.append(Rung(step, throughput_rps, p99_s, error_share, throughput_error_rps=error_rps))
        assert len(history) < limit
    return [rung.step.in_flight for rung in history]


def test_it_doubles_up_to_the_limit_while_throughput_grows():
    assert climb(Ladder(), lambda n: (100.0 * n, 0.01, 0.0)) == [1, 2, 4, 8, 16, 32, 64]


def test_the_last_rung_is_the_limit_itself():
    assert climb(Ladder(start=3, limit=20), lambda n: (100.0 * n, 0.01, 0.0)) == [3, 6, 12, 20]


def test_it_stops_at_the_first_rung_that_brings_less_than_the_gain():
    # A server that can do 800 req/s: eight in flight saturate it, sixteen bring nothing.
    assert climb(Ladder(), lambda n: (min(800.0, 100.0 * n), 0.01, 0.0)) == [1, 2, 4, 8, 16]


def test_a_gain_just_above_the_threshold_goes_on_and_just_below_it_stops():
    assert climb(Ladder(gain=0.05), lambda n: ({1: 100.0, 2: 105.1}.get(n, 0.0), 0.01, 0.0)) == [1, 2, 4]
    assert climb(Ladder(gain=0.05), lambda n: ({1: 100.0, 2: 104.9}.get(n, 0.0), 0.01, 0.0)) == [1, 2]


def test_a_rung_that_may_have_brought_more_is_not_the_last_but_two_of_them_are():
    # 15 % of noise in each rung: nothing more than before may still be a gain of 5 %.
    assert climb(Ladder(), lambda n: (min(800.0, 100.0 * n), 0.01, 0.0), noise=0.15) == [1, 2, 4, 8, 16, 32]
    # With 2 % in each, the gain lies within 2.8 % of what was measured, which is none.
    assert climb(Ladder(), lambda n: (min(800.0, 100.0 * n), 0.01, 0.0), noise=0.02) == [1, 2, 4, 8, 16]


def test_a_rung_is_compared_with_the_best_before_it():
    # The third rung met a bad moment: what the fourth gains on that is no gain.
    measured = {1: 100.0, 2: 200.0, 4: 150.0, 8: 190.0}
    assert climb(Ladder(), lambda n: (measured.get(n, 500.0), 0.01, 0.0), noise=0.4) == [1, 2, 4, 8]


def test_it_stops_when_throughput_collapses():
    assert climb(Ladder(), lambda n: ({1: 300.0, 2: 600.0, 4: 900.0}.get(n, 500.0), 0.01, 0.0)) == [1, 2, 4, 8]


def test_it_stops_when_answers_fail():
    assert climb(Ladder(), lambda n: (100.0 * n, 0.01, 0.06 if n >= 4 else 0.05)) == [1, 2, 4]


def test_it_stops_when_p99_explodes_although_throughput_grows():
    assert climb(Ladder(), lambda n: (100.0 * n, 0.21 if n >= 8 else 0.01, 0.0)) == [1, 2, 4, 8]


def test_a_p99_that_is_not_known_stops_nothing():
    assert climb(Ladder(limit=4), lambda n: (100.0 * n, None, 0.0)) == [1, 2, 4]


def test_a_server_that_answers_nothing_ends_it_at_once():
    assert climb(Ladder(), lambda n: (0.0, None, 0.0)) == [1]


@given(st.integers(1, 50), st.floats(1.01, 1e12), st.integers(0, 500))
def test_rungs_rise_strictly_and_stay_within_the_limit(start, growth, more):
    rungs = climb(
        Ladder(start=start, growth=growth, limit=start + more), lambda n: (10.0**n if n < 300 else n, 0.01, 0.0), 600
    )
    assert rungs[0] == start and rungs[-1] <= start + more
    assert all(low < high for low, high in itertools.pairwise(rungs))


@pytest.mark.parametrize(
    "parameters",
    [
        {"start": 0},
        {"start": 65},
        {"growth": 1.0},
        {"warmup_s": 3.0},
        {"gain": -0.1},
        {"step_s": float("inf")},
        {"error_share": 2.0},
        {"p99_growth": 1.0},
    ],
)
def test_parameters_that_make_no_ladder_are_refused(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        Ladder(**parameters)
