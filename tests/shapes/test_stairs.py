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


def test_rates_are_even_shares_of_the_highest_closed_throughput():
    peak_last = [closed(400.0), closed(1000.0, 1), closed(900.0, 2)]
    assert climb(Stairs(), peak_last) == pytest.approx([300.0, 475.0, 650.0, 825.0, 1000.0])


def test_its_own_steps_do_not_move_the_peak():
    # Open steps that answer more than was asked would lift the rates if they counted.
    assert climb(Stairs(), [closed(1000.0)], lambda rate_rps: (3 * rate_rps, 0.0))[-1] == pytest.approx(1000.0)


def test_one_step_is_the_highest_rate():
    assert climb(Stairs(steps=1, lowest=0.1, highest=0.5), [closed(1000.0)]) == [500.0]


def test_without_a_closed_step_the_given_peak_serves():
    assert climb(Stairs(steps=2, peak_rps=200.0), []) == pytest.approx([60.0, 200.0])


def test_without_any_peak_it_says_what_to_do():
    with pytest.raises(UsageError, match=r"ladder.*peak_rps"):
        Stairs().next_step([])


def test_a_measured_peak_overrules_a_given_one():
    assert climb(Stairs(peak_rps=9.0), [closed(1000.0)])[-1] == pytest.approx(1000.0)


def test_a_server_that_answered_nothing_gets_no_steps():
    assert climb(Stairs(), [closed(0.0)]) == []


def test_it_stops_after_a_step_with_too_many_errors():
    assert len(climb(Stairs(), [closed(1000.0)], lambda rate_rps: (rate_rps, 0.06 if rate_rps > 600 else 0.05))) == 3


def test_it_stops_after_a_step_that_falls_behind():
    # 540 answered of 650 asked is more than 80 %, of 825 it is less.
    assert len(climb(Stairs(), [closed(1000.0)], lambda rate_rps: (min(rate_rps, 540.0), 0.0))) == 4


@given(st.integers(1, 30), st.floats(0.01, 0.9), st.floats(1.0, 3.0), st.floats(0.1, 1e5))
def test_rates_rise_strictly_between_their_ends(steps, lowest, highest, peak_rps):
    rates = climb(Stairs(steps=steps, lowest=lowest, highest=highest), [closed(peak_rps)])
    assert len(rates) == steps
    assert all(low < high for low, high in itertools.pairwise(rates))
    assert rates[-1] == pytest.approx(highest * peak_rps)
    assert steps == 1 or rates[0] == pytest.approx(lowest * peak_rps)


@pytest.mark.parametrize(
    "parameters",
    [
        {"steps": 0},
        {"lowest": 0.0},
        {"lowest": 1.0},
        {"warmup_s": 4.0},
        {"peak_rps": -1.0},
        {"error_share": -0.1},
        {"achieved_share": 1.1},
    ],
)
def test_parameters_that_make_no_stairs_are_refused(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        Stairs(**parameters)
