"""Numbers are printed with three digits and a prefix, and read with their unit."""

import math

import pytest

from harness.units import MISSING, Unit, format_bound, format_number


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123456, Unit.SECONDS, "12.3 ms"),
        (1.0, Unit.SECONDS, "1.00 s"),
        (0.9996, Unit.SECONDS, "1.00 s"),
        (0.00099996, Unit.SECONDS, "1.00 ms"),
        (150.2, Unit.SECONDS, "150 s"),
        (2.5e-7, Unit.SECONDS, "250 ns"),
        (0.0, Unit.SECONDS, "0 ns"),
        (1536, Unit.BYTES, "1.50 KiB"),
        (3 * 2**30, Unit.BYTES, "3.00 GiB"),
        (12, Unit.BYTES, "12.0 B"),
        (12345.6, Unit.RPS, "12,346 req/s"),
        (99.96, Unit.RPS, "100 req/s"),
        (0.00123, Unit.SHARE, "0.123 %"),
        (1.0, Unit.SHARE, "100 %"),
        (1234567, Unit.COUNT, "1,234,567"),
        (0.97251, Unit.SCORE, "0.9725"),
        (54.321, Unit.SCORE, "54.3"),
        (0.00003, Unit.SCORE, "3e-05"),
        (0.0, Unit.SCORE, "0.0000"),
        (1.3333, Unit.RANK, "1.33"),
        (12.345, Unit.RATIO, "12.3 ×"),
        (1.0, Unit.RATIO, "1.00 ×"),
        (None, Unit.SECONDS, MISSING),
        (math.nan, Unit.RPS, MISSING),
        (math.inf, Unit.SECONDS, "inf"),
        (-math.inf, Unit.SCORE, "-inf"),
    ],
)
def test_a_number_is_printed_with_its_unit(value: float | None, unit: Unit, text: str) -> None:
    assert format_number(value, unit) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.05, Unit.SECONDS, "50 ms"),
        (0.0125, Unit.SECONDS, "12.5 ms"),
        (400.0, Unit.RPS, "400 req/s"),
        (0.9, Unit.SCORE, "0.9"),
        (0.001, Unit.SHARE, "0.1 %"),
    ],
)
def test_a_bound_is_printed_as_somebody_wrote_it(value: float, unit: Unit, text: str) -> None:
    assert format_bound(value, unit) == text
