"""A core that spins tells of every moment in which it did not."""

import contextlib
import os
import signal
import threading
import time

import psutil
import pytest

from harness.errors import InfrastructureError
from harness.stages import spin as room
from harness.stages.host import split_cores
from harness.stages.spin import spin, spinning

pytestmark = pytest.mark.alone

MS = 1_000_000


def test_gaps_are_what_lies_between_two_readings(monkeypatch):
    readings = iter([0, 10_000, 1 * MS, 1 * MS + 50_000, 5 * MS, 10 * MS])
    monkeypatch.setattr(room, "perf_counter_ns", lambda: next(readings))
    found = spin(0.01)
    # 0.99 ms, 3.95 ms and 5 ms; one of 50 microseconds is none yet.
    assert found.count == 3
    assert (found.seconds_s, found.longest_s) == (0.01, 0.005)
    assert found.lost_s == pytest.approx(0.00994)
    assert found.lost_share == pytest.approx(0.994)
    assert found.count_per_s == pytest.approx(300)


def test_a_core_that_was_never_taken_has_no_gaps(monkeypatch):
    readings = iter(range(0, 20 * MS, 1000))
    monkeypatch.setattr(room, "perf_counter_ns", lambda: next(readings))
    found = spin(0.01)
    assert (found.count, found.longest_s, found.lost_s, found.lost_share) == (0, 0.0, 0.0, 0.0)


def test_a_process_that_stands_still_finds_out(tmp_path):
    generator_cores, target_cores = split_cores()
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    def stop_now_and_then():
        # Again and again: one that is stopped while it still starts knows nothing of it.
        for _ in range(100):
            time.sleep(0.6)
            with contextlib.suppress(psutil.Error):
                spinners = [one for one in psutil.Process().children() if "harness.stages.spin" in one.cmdline()]
                if not spinners:
                    return
                spinners[0].send_signal(signal.SIGSTOP)
                time.sleep(0.3)
                spinners[0].send_signal(signal.SIGCONT)

    stopper = threading.Thread(target=stop_now_and_then)
    stopper.start()
    found = spinning(3.0, generator_cores, target_cores, tmp_path)
    stopper.join()
    assert found.seconds_s >= 3.0
    assert found.longest_s >= 0.3
    assert found.lost_s >= found.longest_s and found.count >= 1
    assert before is None or os.sched_getaffinity(0) == before


def test_a_child_that_fails_is_told_with_its_last_words(tmp_path):
    (tmp_path / "spin.json").mkdir()
    with pytest.raises(InfrastructureError, match=r"(?s)spins on a core ended with status 1.*IsADirectoryError"):
        spinning(0.01, (), (), tmp_path)
