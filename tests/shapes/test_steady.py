"""One step, as it was asked for."""

import math

import pytest

from harness.records.load import Rung
from harness.shapes.steady import Steady


def test_a_rate_is_one_open_step():
    shape = Steady(rate_rps=250.0, step_s=12.0, warmup_s=2.0)
    step = shape.next_step(())
    assert (step.mode, step.rate_rps, step.in_flight, step.duration_s, step.warmup_s) == (
        "open",
        250.0,
        None,
        12.0,
        2.0,
    )
    assert shape.next_step((Rung(step=step, throughput_rps=250.0, p99_s=0.01, error_share=0.0),)) is None


def test_without_a_rate_it_is_one_closed_step():
    step = Steady(in_flight=8).next_step(())
    assert (step.mode, step.rate_rps, step.in_flight) == ("closed", None, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_rps": -1.0},
        {"rate_rps": math.inf},
        {"rate_rps": math.nan},
        {"in_flight": 0},
        {"warmup_s": 30.0},
        {"step_s": math.nan},
        {"warmup_s": -1.0},
    ],
)
def test_what_is_no_load_is_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        Steady(**wrong)
