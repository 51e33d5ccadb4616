"""What is said while a served cell is under load."""

from harness.pipeline.under_load import _told
from harness.records.load import Beat


def test_a_beat_is_told_in_a_line_without_what_is_not_known() -> None:
    going = Beat(
        elapsed_s=3.0,
        span_s=1.25,
        answered=2500,
        failed=0,
        p50_s=0.0012,
        p99_s=0.0034,
        in_flight=5,
        lag_p99_s=0.0001,
    )
    assert _told(going) == "2,000 answered/s, p50 1.20 ms, p99 3.40 ms, 5 in flight, lag p99 100 µs"
    standing = Beat(
        elapsed_s=4.0, span_s=1.0, answered=0, failed=3, p50_s=None, p99_s=None, in_flight=2500, lag_p99_s=None
    )
    assert _told(standing) == "0 answered/s, 3 failed, 2,500 in flight"
