"""Time goes forward, and in tests only when it is told to."""

import re

from harness.clock import FakeClock, SystemClock


def test_the_system_clock_is_monotonic_and_sleeps_at_least_as_long_as_asked() -> None:
    clock = SystemClock()
    before_s = clock.monotonic_s()
    clock.sleep(0.01)
    assert clock.monotonic_s() - before_s >= 0.01
    clock.sleep(-1)


def test_the_label_is_utc_to_the_second() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", SystemClock().utc_label())


def test_the_fake_clock_moves_by_sleeping_only() -> None:
    clock = FakeClock(start_s=5.0)
    assert clock.monotonic_s() == clock.monotonic_s() == 5.0
    clock.sleep(2.5)
    clock.sleep(-1)
    assert clock.monotonic_s() == 7.5
