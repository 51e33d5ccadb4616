"""A step under way, as it is watched: from the driver."""

import threading
import time

import numpy as np
import psutil
import pytest

from harness.errors import InfrastructureError
from harness.records.load import NEVER, Outcome, Step
from harness.records.scenario import LoadPlan
from harness.stages import load
from harness.stages.host import split_cores
from harness.stages.load import generator

CORES = split_cores()[0]
HONEST = [b"slow 0.002 row %d" % row for row in range(20)]
ABOUT_S = 0.2
"""Longest time, on a busy machine, from the stamp of an answer to its row, and from the stamp of a look to its end."""


def step(number=0, duration_s=3.5, rate_rps=200.0, in_flight=None):
    mode = "open" if in_flight is None else "closed"
    rate_rps = rate_rps if in_flight is None else None
    return Step(
        shape="t",
        number=number,
        mode=mode,
        rate_rps=rate_rps,
        in_flight=in_flight,
        duration_s=duration_s,
        warmup_s=0.0,
    )


def generators():
    return [process for process in psutil.Process().children() if str(load.LOCUSTFILE) in process.cmdline()]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("load_of", [{"rate_rps": 200.0}, {"in_flight": 4}], ids=["open", "closed"])
def test_a_step_beats_once_a_second_and_the_beats_add_up_to_its_rows(server, tmp_path, workers, load_of):
    beats = []
    with generator(server.endpoint, HONEST, None, LoadPlan(workers=workers), CORES, tmp_path) as running:
        columns = running.drive(step(**load_of), beats.append).columns
    assert len(beats) == 3
    assert [beat.elapsed_s for beat in beats] == sorted(beat.elapsed_s for beat in beats)
    assert sum(beat.span_s for beat in beats) == pytest.approx(beats[-1].elapsed_s)
    answered = np.cumsum([beat.answered for beat in beats])
    done_s = columns["done_ns"] / 1e9
    for beat, so_far in zip(beats, answered, strict=True):
        assert (done_s <= beat.elapsed_s - ABOUT_S).sum() <= so_far <= (done_s <= beat.elapsed_s + ABOUT_S).sum()
        assert beat.failed == 0
        assert beat.p50_s is not None and beat.p99_s is not None
        window = (done_s > beat.elapsed_s - beat.span_s - ABOUT_S) & (done_s <= beat.elapsed_s + ABOUT_S)
        latency_s = (columns["done_ns"] - columns["due_ns"])[window] / 1e9
        assert np.min(np.abs(latency_s - beat.p50_s)) < 1e-9 and np.min(np.abs(latency_s - beat.p99_s)) < 1e-9
        assert beat.p50_s <= beat.p99_s <= latency_s.max() + 1e-9


def test_a_server_that_stands_still_shows_as_requests_in_flight_and_no_answers(server, tmp_path):
    beats = []
    with generator(server.endpoint, HONEST, None, LoadPlan(timeout_s=5.0), CORES, tmp_path) as running:
        server.order(b"freeze 3.0 2.6")  # until it stands still, the generator gets ready for the step
        columns = running.drive(step(duration_s=6.0, rate_rps=100.0), beats.append).columns
    assert set(columns["outcome"]) == {Outcome.OK}
    most = max(beat.in_flight for beat in beats)
    # Of 2.6 s one beat, at least, is in the last 1.6.
    assert most >= 0.5 * 1.6 * 100
    stood = [beat for beat in beats if beat.answered == 0]
    assert stood and all(beat.p50_s is None and beat.in_flight > 0 for beat in stood)


def test_failures_are_told_as_such(server, tmp_path):
    beats = []
    with generator(server.endpoint, [b"fail"], None, LoadPlan(), CORES, tmp_path) as running:
        running.drive(step(duration_s=1.5), beats.append)
    assert sum(beat.answered for beat in beats) == 0 < sum(beat.failed for beat in beats)


def test_the_beats_end_with_a_generator_that_is_killed(server, tmp_path):
    beats, before = [], set(generators())
    with (
        pytest.raises(InfrastructureError, match="died in step 0"),
        generator(server.endpoint, HONEST, HONEST, LoadPlan(), CORES, tmp_path) as running,
    ):
        (process,) = set(generators()) - before
        threading.Timer(1.5, process.kill).start()
        running.drive(step(duration_s=20.0), beats.append)
    told = len(beats)
    time.sleep(1.2)
    assert told == len(beats) <= 3
    assert set(generators()) == before


def test_who_watches_changes_no_row(server, tmp_path):
    with generator(server.endpoint, HONEST, HONEST, LoadPlan(seed=3), CORES, tmp_path) as running:
        watched = running.drive(step(duration_s=1.2), lambda beat: None)
    with generator(server.endpoint, HONEST, HONEST, LoadPlan(seed=3), CORES, tmp_path) as running:
        alone = running.drive(step(duration_s=1.2))
    assert watched.plan_sha256 == alone.plan_sha256 and watched.planned == alone.planned
    for name in ("due_ns", "payload", "outcome", "status", "bytes"):
        assert np.array_equal(watched.columns[name], alone.columns[name])
    assert NEVER not in watched.columns["done_ns"]
