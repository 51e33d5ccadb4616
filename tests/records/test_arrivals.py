"""An arrival law as users write it."""

import pytest

from harness.records.arrivals import Constant, Gamma, Poisson, Ramp, Trace, parse_arrivals


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("poisson", Poisson()),
        ("constant", Constant()),
        ("gamma:4", Gamma(4.0)),
        ("gamma:0.01", Gamma(0.01)),
        ("ramp:0", Ramp(0.0)),
        ("ramp:2", Ramp(2.0)),
        ("trace:a:b.csv", Trace("a:b.csv")),
    ],
)
def test_every_law_is_written_in_one_way(text, law):
    assert parse_arrivals(text) == law


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("poison", "did you mean poisson"),
        ("", "known are poisson, constant, gamma:BURSTINESS"),
        ("poisson:3", "write poisson"),
        ("gamma", "write gamma:BURSTINESS"),
        ("gamma:", "write gamma:BURSTINESS"),
        ("gamma:0", "'0' must be a number from 0.01 to 100"),
        ("gamma:nan", "'nan' must be a number"),
        ("gamma:x", "'x' must be a number"),
        ("ramp:-0.1", "'-0.1' must be a number from 0 to 2"),
        ("ramp:2.1", "from 0 to 2"),
        ("trace", "write trace:FILE"),
    ],
)
def test_what_is_no_law_is_refused_with_how_to_write_it(text, told):
    with pytest.raises(ValueError) as refused:
        parse_arrivals(text)
    assert told in str(refused.value)
