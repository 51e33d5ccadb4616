"""A step under way, as it is watched: from the driver, and on Locust's page."""

import json
import re
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import psutil
import pytest

from harness.errors import InfrastructureError
from harness.records.load import NEVER, Outcome, Step
from harness.records.scenario import LoadPlan
from harness.stages.host import split_cores
from harness.stages.load import crew
from harness.stages.load.generator import generator
from harness.stages.load.page import page

pytestmark = pytest.mark.alone

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
    return [process for process in psutil.Process().children() if str(crew.LOCUSTFILE) in process.cmdline()]


@pytest.mark.parametrize(
    ("workers", "load_of"),
    [
        (1, {"rate_rps": 200.0}),
        pytest.param(2, {"in_flight": 4}, marks=pytest.mark.long),
        pytest.param(2, {"rate_rps": 200.0}, marks=pytest.mark.long),
        pytest.param(1, {"in_flight": 4}, marks=pytest.mark.long),
    ],
)
def test_a_step_beats_once_a_second_and_the_beats_add_up_to_its_rows(server, tmp_path, workers, load_of):
    beats = []
    with generator(server.endpoint, HONEST, None, LoadPlan(workers=workers), CORES, tmp_path) as running:
        columns = running.drive(step(**load_of), beats.append).columns
    assert 2 <= len(beats) <= 4  # as busy as the machine may be
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


@pytest.mark.long
def test_who_watches_changes_no_row(server, tmp_path):
    with generator(server.endpoint, HONEST, HONEST, LoadPlan(seed=3), CORES, tmp_path) as running:
        watched = running.drive(step(duration_s=1.2), lambda beat: None)
    with generator(server.endpoint, HONEST, HONEST, LoadPlan(seed=3), CORES, tmp_path) as running:
        alone = running.drive(step(duration_s=1.2))
    assert watched.plan_sha256 == alone.plan_sha256 and watched.planned == alone.planned
    for name in ("due_ns", "payload", "outcome", "status", "bytes"):
        assert np.array_equal(watched.columns[name], alone.columns[name])
    assert NEVER not in watched.columns["done_ns"]


def asked(address, body=None):
    """Status and body of an answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(address, data=body), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def shown(address, requests):
    """The entries of the page by name, once it tells of so many requests: it keeps an answer for seconds."""
    for _ in range(60):
        entries = {entry["name"]: entry for entry in json.loads(asked(f"{address}/stats/requests")[1])["stats"]}
        if entries["Aggregated"]["num_requests"] >= requests:
            return entries
        time.sleep(0.5)
    raise AssertionError(f"{requests} requests, and after 30 s the page shows {entries}")


def agrees(entry, *parts):
    """Whether an entry of the page says what the rows of some steps say."""
    ended = np.concatenate([part["done_ns"] != NEVER for part in parts])
    latency_ms, bytes_, outcome = (
        np.concatenate(columns)[ended]
        for columns in (
            [(part["done_ns"] - part["due_ns"]) / 1e6 for part in parts],
            [part["bytes"] for part in parts],
            [part["outcome"] for part in parts],
        )
    )
    assert entry["num_requests"] == len(latency_ms)
    assert entry["num_failures"] == (outcome != Outcome.OK).sum()
    assert entry["avg_response_time"] == pytest.approx(latency_ms.mean())
    assert entry["avg_content_length"] == pytest.approx(bytes_.mean())
    assert entry["max_response_time"] == pytest.approx(latency_ms.max(), abs=0.51)
    ordered = np.sort(latency_ms)
    for name, share in (("median_response_time", 0.5), ("response_time_percentile_0.99", 0.99)):
        # Three digits, and Locust takes the sample of that rank or the next.
        rank = int(share * len(ordered))
        near = ordered[max(0, rank - 1) : rank + 2]
        assert near.min() * 0.995 <= entry[name] <= near.max() * 1.005


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])
def test_the_page_shows_what_the_rows_say_and_nothing_twice(server, tmp_path, workers):
    bodies, said = [b"slow 0.002", b"fail", b"silent", b"echo"], []
    plan, before = LoadPlan(workers=workers, timeout_s=0.5), set(generators())
    with page(said.append) as made:
        with generator(server.endpoint, bodies, None, plan, CORES, tmp_path, page=made) as running:
            first = running.drive(step(0, duration_s=1.5)).columns
            second = running.drive(step(1, duration_s=1.2, in_flight=5)).columns
            entries = shown(made.address, sum((part["done_ns"] != NEVER).sum() for part in (first, second)))
            assert set(entries) == {"00 t: 200 req/s", "01 t: 5 in flight", "Aggregated"}
            agrees(entries["00 t: 200 req/s"], first)
            agrees(entries["01 t: 5 in flight"], second)
            agrees(entries["Aggregated"], first, second)
            masters = [process for process in set(generators()) - before if "--master" in process.cmdline()]
            assert len(masters) == 1 and len(set(generators()) - before) == workers + 1
            if set(split_cores()[0]) != set(split_cores()[1]):
                assert not set(masters[0].cpu_affinity()) & set(CORES)
            assert asked(made.address)[0] == 200
        assert set(generators()) == before
        assert said == [f"Locust's page is up: {made.address}"]
    # What the workers had to say at their end is in Locust's own summary: nothing.
    summary = re.search(r"Aggregated +(\d+) ", (tmp_path / "locust-master.log").read_text())
    assert summary is not None and int(summary[1]) == entries["Aggregated"]["num_requests"]
    with pytest.raises(urllib.error.URLError):
        asked(made.address)


@pytest.mark.long
def test_the_page_has_one_address_for_all_cells_on_loopback(server, tmp_path):
    said = []
    with page(said.append) as made:
        for cell in ("one", "two"):
            with generator(server.endpoint, HONEST, None, LoadPlan(), CORES, tmp_path / cell, page=made) as running:
                columns = running.drive(step(duration_s=0.3)).columns
                agrees(shown(made.address, len(columns["due_ns"]))["Aggregated"], columns)
        assert made.listener.getsockname()[0] == "127.0.0.1"
    assert len(said) == 1


@pytest.mark.long
def test_the_buttons_of_the_page_do_nothing_to_the_run(server, tmp_path):
    answers = []

    def meddle():
        for path, body in (
            ("/stop", b""),
            ("/swarm", b"user_count=9&spawn_rate=9&host=http://127.0.0.1:1"),
            ("/stats/reset", b""),
            ("/user", b'{"user_class_name": "Walker", "host": "x"}'),
        ):
            answers.append(asked(f"{made.address}{path}", body)[0])

    with (
        page(lambda text: None) as made,
        generator(server.endpoint, HONEST, HONEST, LoadPlan(), CORES, tmp_path, page=made) as running,
    ):
        meddling = threading.Timer(0.7, meddle)
        meddling.start()
        first = running.drive(step(0, duration_s=2.0))
        meddling.join()
        second = running.drive(step(1, duration_s=0.5))
        assert answers == [403] * 4
        for recording in (first, second):
            assert len(recording.columns["due_ns"]) == recording.planned
            assert set(recording.columns["outcome"]) == {Outcome.OK}
            assert recording.health.lost == ()
        agrees(shown(made.address, first.planned + second.planned)["Aggregated"], first.columns, second.columns)


@pytest.mark.long
def test_a_page_that_is_killed_costs_no_step(server, tmp_path):
    said, before = [], set(generators())
    with (
        page(said.append) as made,
        generator(server.endpoint, HONEST, HONEST, LoadPlan(), CORES, tmp_path, page=made) as running,
    ):
        (master,) = [process for process in set(generators()) - before if "--master" in process.cmdline()]
        threading.Timer(1.2, master.kill).start()
        recording = running.drive(step(duration_s=3.5))
        assert len(recording.columns["due_ns"]) == recording.planned
        assert set(recording.columns["outcome"]) == {Outcome.OK}
    assert len(said) == 2 and said[1].startswith("Locust's page is gone: The load generator died in its page")
    assert set(generators()) == before
