"""The stairs: rates placed from the measured peak, and an end where the server falls behind."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.records.load import Rung, Step
from harness.shapes.stairs import Stairs


def closed(throughput_rps, number=0, in_flight=4):
    step = Step(shape="ladder", number=number, mode="closed", in_flight=in_flight, duration_s=3.0, warmup_s=0.5)
    return Rung(step=step, throughput_rps=throughput_rps, p99_s=0.01, error_share=0.0)


def climb(stairs, history, measure=lambda rate_rps: (rate_rps, 0.0)):
    """The rates asked for, where `measure(rate_rps)` gives throughput and error share."""
    history, rates = list(history), []
    while (step := stairs.next_step(history)) is not None:
        assert step.number == len(history)
        throughput_rps, error_share = measure(step.rate_rps)
        history.append(Rung(step=step, throughput_rps=throughput_rps, p99_s=None, error_share=error_share))
        rates.append(step.rate_rps)
        assert len(rates) < 100
    return rates


def test_rates_are_preferred_numbers_up_to_the_highest_closed_throughput():
    peak_last = [closed(400.0), closed(1000.0, 1), closed(900.0, 2)]
    assert climb(Stairs(), peak_last) == [315.0, 400.0, 500.0, 630.0, 800.0, 1000.0]


def test_the_top_is_the_first_number_that_the_peak_does_not_pass():
    assert climb(Stairs(steps=2), [closed(1001.0)]) == [1000.0, 1250.0]
    assert climb(Stairs(steps=3), [closed(0.75)]) == [0.5, 0.63, 0.8]


def test_cells_with_unlike_peaks_meet_at_the_same_rates():
    one, other = climb(Stairs(), [closed(6312.7)]), climb(Stairs(), [closed(4057.3)])
    assert set(one) & set(other) == {2500.0, 3150.0, 4000.0, 5000.0}


def test_its_own_steps_do_not_move_the_peak():
    # Open steps that answer more than was asked would lift the rates if they counted.
    assert climb(Stairs(), [closed(1000.0)], lambda rate_rps: (3 * rate_rps, 0.0))[-1] == pytest.approx(1000.0)


def test_one_step_is_the_highest_rate():
    assert climb(Stairs(steps=1, highest=0.5), [closed(1000.0)]) == [500.0]


def test_without_a_closed_step_the_given_peak_serves():
    assert climb(Stairs(steps=2, peak_rps=200.0), []) == [160.0, 200.0]


def test_without_any_peak_it_says_what_to_do():
    with pytest.raises(UsageError, match=r"ladder.*peak_rps"):
        Stairs().next_step([])


def test_a_measured_peak_overrules_a_given_one():
    assert climb(Stairs(peak_rps=9.0), [closed(1000.0)])[-1] == pytest.approx(1000.0)


def test_a_server_that_answered_nothing_gets_no_steps():
    assert climb(Stairs(), [closed(0.0)]) == []


def test_it_stops_after_a_step_with_too_many_errors():
    assert len(climb(Stairs(), [closed(1000.0)], lambda rate_rps: (rate_rps, 0.06 if rate_rps > 600 else 0.05))) == 4


def test_it_stops_after_a_step_that_falls_behind():
    # 540 answered of 630 asked is more than 80 %, of 800 it is less.
    assert len(climb(Stairs(), [closed(1000.0)], lambda rate_rps: (min(rate_rps, 540.0), 0.0))) == 5


@given(st.integers(1, 30), st.floats(0.05, 3.0), st.floats(0.1, 1e5))
def test_rates_are_neighbours_in_the_series_and_end_at_the_asked_share(steps, highest, peak_rps):
    rates = climb(Stairs(steps=steps, highest=highest), [closed(peak_rps)])
    assert len(rates) == steps
    assert all(1.2 < high / low < 1.3 for low, high in itertools.pairwise(rates))
    assert highest * peak_rps * (1 - 1e-6) <= rates[-1] <= 1.3 * highest * peak_rps


@pytest.mark.parametrize(
    "parameters",
    [
        {"steps": 0},
        {"highest": 0.0},
        {"warmup_s": 4.0},
        {"peak_rps": -1.0},
        {"error_share": -0.1},
        {"achieved_share": 1.1},
    ],
)
def test_parameters_that_make_no_stairs_are_refused(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        Stairs(**parameters)
