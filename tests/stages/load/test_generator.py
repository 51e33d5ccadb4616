"""The load generator against a real server: what it sends, when, and what it says of every request.

The server (`obedient_server.py`) does what each request's body tells it to.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from harness.errors import InfrastructureError, UsageError
from harness.records.arrivals import Poisson
from harness.records.candidate import Endpoint
from harness.records.load import EXCHANGE_COLUMNS, NEVER, Outcome, Step
from harness.records.scenario import LoadPlan
from harness.stages.host import available_cores, split_cores
from harness.stages.load import crew
from harness.stages.load.generator import generator, pack, unpack
from harness.stats.arrivals import due_ns, payload_order, step_seed

pytestmark = pytest.mark.alone

CORES = split_cores()[0]

HONEST = [b"slow 0.002 row %d" % row for row in range(20)]


@pytest.fixture(scope="module")
def honest(server, tmp_path_factory):
    """A generator whose requests take two milliseconds each and end well."""
    plan = LoadPlan(in_flight_max=128, timeout_s=3.0, seed=5)
    with generator(server.endpoint, HONEST, HONEST, plan, CORES, tmp_path_factory.mktemp("honest")) as running:
        yield running


@pytest.fixture(scope="module")
def several(server, tmp_path_factory):
    """The same with two processes."""
    plan = LoadPlan(in_flight_max=128, timeout_s=3.0, seed=5, workers=2)
    with generator(server.endpoint, HONEST, HONEST, plan, CORES, tmp_path_factory.mktemp("several")) as running:
        yield running


def open_step(number=0, rate_rps=200.0, duration_s=2.0):
    return Step(shape="t", number=number, mode="open", rate_rps=rate_rps, duration_s=duration_s, warmup_s=0.0)


def closed_step(number=0, in_flight=4, duration_s=1.0):
    return Step(shape="t", number=number, mode="closed", in_flight=in_flight, duration_s=duration_s, warmup_s=0.0)


def generators():
    """The generator processes that this process has, running or not yet reaped."""
    return [process for process in psutil.Process().children() if str(crew.LOCUSTFILE) in process.cmdline()]


def may_go_first():
    """Whether the system lets a process of ours have a higher priority."""
    ask = "import os; os.setpriority(os.PRIO_PROCESS, 0, -20)"
    return subprocess.run([sys.executable, "-c", ask], stderr=subprocess.DEVNULL, check=False).returncode == 0


def outcomes(columns, chosen=None):
    outcome = columns["outcome"] if chosen is None else columns["outcome"][chosen]
    return {Outcome(value).name for value in outcome}


class TestOpenLoad:
    def test_every_planned_request_is_sent_at_its_time_and_answered(self, honest):
        columns = honest.drive(open_step(number=3)).columns
        planned = due_ns(Poisson(), 200.0, 2.0, seed=step_seed(5, 200_000, 0))
        assert {name: str(column.dtype) for name, column in columns.items()} == EXCHANGE_COLUMNS
        assert np.array_equal(columns["due_ns"], planned)
        assert np.array_equal(
            columns["payload"], payload_order(len(planned), len(HONEST), seed=step_seed(5, 200_000, 0))
        )
        assert outcomes(columns) == {"OK"}
        assert set(columns["status"]) == {200} and set(columns["worker"]) == {0}
        assert columns["bytes"].tolist() == [len(HONEST[payload]) for payload in columns["payload"]]

    def test_stamps_are_in_the_order_of_events(self, honest):
        columns = honest.drive(open_step(duration_s=0.5)).columns
        assert np.all(columns["due_ns"] <= columns["dispatch_ns"])
        assert np.all(columns["dispatch_ns"] <= columns["sent_ns"])
        # The server waits two milliseconds before it answers; its clock has a grain of its own.
        assert np.all(columns["done_ns"] - columns["sent_ns"] > 1_900_000)

    def test_it_goes_before_others_where_it_may_and_leaves_them_a_core(self, honest):
        (worker,) = honest.drive(open_step(duration_s=0.2)).health.workers
        assert worker.priority == ("raised" if len(available_cores()) > 1 and may_go_first() else "ordinary")

    def test_a_frozen_server_is_charged_with_the_wait_of_every_request_due_meanwhile(self, server, honest):
        server.order(b"freeze 1.0 0.3")
        columns = honest.drive(open_step(number=1, duration_s=2.5)).columns
        latency_s = (columns["done_ns"] - columns["due_ns"]) / 1e9
        assert outcomes(columns) == {"OK"}
        assert 0.8 * 0.3 <= latency_s.max() <= 1.6 * 0.3
        # Requests due evenly over the freeze wait for what is left of it: those with more than a tenth left are slow.
        slow = latency_s > 0.03
        assert 0.6 <= slow.sum() / (200 * 0.27) <= 1.5
        # And they end together, when the freeze does; the machine may have made one or two others slow.
        ended_s = columns["done_ns"][slow] / 1e9
        assert np.mean(np.abs(ended_s - np.median(ended_s)) < 0.05) > 0.9

    def test_connections_that_the_server_closed_between_steps_are_opened_again(self, server, honest):
        honest.drive(open_step(duration_s=0.2))
        os.kill(server.process.pid, signal.SIGUSR1)
        assert outcomes(honest.drive(open_step(duration_s=0.2)).columns) == {"OK"}

    def test_a_step_has_its_own_number_of_connections_whatever_came_before(self, server, honest):
        def connections():
            return sum(connection.status == psutil.CONN_ESTABLISHED for connection in ours.net_connections("tcp"))

        (ours,) = [process for process in generators() if not {"--master", "--worker"} & set(process.cmdline())]
        counts = []
        for step in (open_step(rate_rps=100.0, duration_s=0.2), closed_step(in_flight=3, duration_s=0.2)):
            honest.drive(step)
            counts.append(connections())
        assert counts == [50, 3]

    def test_beyond_the_limit_in_flight_slots_are_dropped_and_counted(self, server, tmp_path):
        plan = LoadPlan(in_flight_max=4, arrivals="constant", timeout_s=3.0)
        with generator(server.endpoint, [b"slow 0.2"], None, plan, CORES, tmp_path) as running:
            columns = running.drive(open_step(rate_rps=100.0, duration_s=1.0)).columns
        counts = {name: int((columns["outcome"] == Outcome[name]).sum()) for name in ("OK", "DROPPED")}
        assert counts["OK"] + counts["DROPPED"] == 100 == len(columns["due_ns"])
        # Four at a time of 0.2 s each: at most 4 in every 0.2 s of the second, and the first four in any case.
        assert 4 <= counts["OK"] <= 20
        dropped = columns["outcome"] == Outcome.DROPPED
        for name in ("dispatch_ns", "sent_ns", "done_ns"):
            assert set(columns[name][dropped]) == {NEVER}
        starts = np.sort(columns["dispatch_ns"][~dropped])
        ends = np.sort(columns["done_ns"][~dropped])
        in_flight = np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="right")
        assert in_flight.max() == 4
        # Locust's own summary, in the log, counts what was sent.
        summary = re.search(r"POST +/v2/models/m/infer +(\d+) ", (tmp_path / "locust.log").read_text())
        assert summary is not None and int(summary[1]) == counts["OK"]


class TestSeveralWorkers:
    def test_they_send_the_plan_of_one_between_them(self, honest, several):
        one, two = (running.drive(open_step(rate_rps=150.0)) for running in (honest, several))
        assert two.plan_sha256 == one.plan_sha256
        assert two.planned == one.planned == len(two.columns["due_ns"])
        for name in ("due_ns", "payload"):
            assert np.array_equal(two.columns[name], one.columns[name])
        assert np.array_equal(two.columns["worker"], np.arange(two.planned) % 2)
        assert outcomes(two.columns) == {"OK"}
        assert len(two.health.workers) == 2 and two.health.lost == ()

    def test_they_keep_the_requests_in_flight_between_them(self, several):
        recording = several.drive(closed_step(in_flight=5, duration_s=1.0))
        columns = recording.columns
        assert recording.planned == len(columns["due_ns"])
        assert np.all(np.diff(columns["due_ns"]) >= 0)
        assert set(columns["worker"]) == {0, 1}
        # Little's law: mean number in flight = throughput x mean latency.
        assert (columns["done_ns"] - columns["sent_ns"]).sum() / 1e9 == pytest.approx(5, rel=0.1)

    @pytest.mark.long
    def test_one_that_is_lost_is_told_with_the_rows_of_the_others_and_ends_the_next_step(self, server, tmp_path):
        before = set(generators())
        plan = LoadPlan(workers=2)
        with generator(server.endpoint, HONEST, HONEST, plan, CORES, tmp_path) as running:
            workers = [process for process in set(generators()) - before if "--worker" in process.cmdline()]
            assert len(workers) == 2
            threading.Timer(0.5, workers[0].kill).start()
            recording = running.drive(open_step(duration_s=1.5))
            assert recording.planned // 2 <= len(recording.columns["due_ns"]) <= recording.planned // 2 + 1
            assert len(recording.health.workers) == 1
            (lost,) = recording.health.lost
            assert "died in step 0" in lost
            with pytest.raises(InfrastructureError, match="died in step 0"):
                running.drive(open_step(number=1, duration_s=0.5))
        assert set(generators()) == before


class TestHealth:
    def test_the_servers_that_answer_are_named_before_and_after(self, server, honest):
        server.order(b"name 0.3 second")
        health = honest.drive(open_step(rate_rps=100.0, duration_s=0.6)).health
        assert health.servers_before == {"first": 50}
        assert health.servers_after == {"second": 50}
        server.order(b"name 0 first")

    def test_a_worker_tells_how_busy_and_how_late_it_was(self, honest):
        (worker,) = honest.drive(open_step(rate_rps=100.0, duration_s=1.2)).health.workers
        assert 0 < worker.cpu_share < 1
        assert worker.started_late_s == 0
        assert worker.gc_s == 0
        assert abs(worker.clock_moved_s) < 0.1
        assert worker.timer == "timerfd"


class TestClosedLoad:
    def test_as_many_requests_as_asked_for_are_in_flight_all_the_time(self, honest):
        columns = honest.drive(closed_step(in_flight=4, duration_s=1.5)).columns
        assert outcomes(columns) == {"OK"}
        latency_ns = columns["done_ns"] - columns["sent_ns"]
        # Little's law: mean number in flight = throughput x mean latency.
        assert latency_ns.sum() / 1.5e9 == pytest.approx(4, rel=0.1)
        events = np.concatenate([columns["sent_ns"], columns["done_ns"]])
        changes = np.concatenate([np.ones(len(latency_ns)), -np.ones(len(latency_ns))])
        assert np.cumsum(changes[np.lexsort((changes, events))]).max() == 4

    def test_requests_start_within_the_step_and_are_due_when_one_before_them_ended(self, honest):
        columns = honest.drive(closed_step(number=2, in_flight=3, duration_s=0.5)).columns
        assert np.isin(columns["due_ns"][3:], columns["done_ns"]).all()
        assert np.all(columns["due_ns"] <= columns["dispatch_ns"])
        assert np.all((columns["due_ns"] >= 0) & (columns["due_ns"] < 0.5e9))
        assert np.all(np.diff(columns["due_ns"]) >= 0)
        used = np.bincount(columns["payload"], minlength=len(HONEST))
        assert used.max() - used.min() <= 1


MISCHIEF = {
    b"echo right": {"OK"},
    b"echo wrong": {"WRONG_ANSWER"},
    b"fail": {"HTTP_ERROR"},
    b"redirect": {"HTTP_ERROR"},
    b"silent": {"TIMEOUT", "CENSORED"},
    b"slow 0.9": {"TIMEOUT", "CENSORED"},
    b"half": {"CONNECTION"},
    b"reset": {"CONNECTION"},
    b"end": {"CONNECTION"},
    b"nonsense": {"CONNECTION"},
    b"announced": {"OK"},
    b"chunked": {"OK"},
    b"unsized": {"OK"},
    b"interim": {"OK"},
    b"twice": {"OK"},
    b"dribble": {"OK"},
    b"echo " + b"long" * 1_000_000: {"OK"},
}
"""What a body makes of its request, where requests may take 0.4 s."""
BODIES = list(MISCHIEF)
STATUS = {b"fail": 500, b"redirect": 307}


@pytest.fixture(scope="module")
def mischief(server, tmp_path_factory):
    """One open and one closed step of all bodies."""
    answers = {b"echo wrong": b"echo Wrong"}
    plan = LoadPlan(in_flight_max=200, timeout_s=0.4)
    expected = [answers.get(body, body) for body in BODIES]
    with generator(server.endpoint, BODIES, expected, plan, CORES, tmp_path_factory.mktemp("mischief")) as running:
        return {
            "open": running.drive(open_step(rate_rps=60.0, duration_s=1.2)).columns,
            "closed": running.drive(closed_step(in_flight=6, duration_s=1.5)).columns,
        }


@pytest.mark.parametrize("mode", ["open", "closed"])
class TestOutcomes:
    @pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:12].decode())
    def test_each_way_to_fail_has_its_outcome_and_status(self, mischief, mode, body):
        columns = mischief[mode]
        chosen = columns["payload"] == BODIES.index(body)
        assert chosen.any()
        assert outcomes(columns, chosen) <= MISCHIEF[body]
        status = 0 if MISCHIEF[body] & {"CONNECTION", "TIMEOUT"} else STATUS.get(body, 200)
        assert set(columns["status"][chosen]) == {status}

    def test_a_request_without_an_answer_fails_at_the_timeout_or_is_open_at_the_end(self, mischief, mode):
        columns = mischief[mode]
        late = columns["outcome"] == Outcome.TIMEOUT
        assert late.any()
        assert np.all((columns["done_ns"] - columns["dispatch_ns"])[late] >= 0.4e9)
        assert set(columns["done_ns"][columns["outcome"] == Outcome.CENSORED]) <= {NEVER}

    def test_whatever_is_not_dropped_is_sent(self, mischief, mode):
        columns = mischief[mode]
        assert np.all(columns["sent_ns"] >= columns["dispatch_ns"])


class TestTrouble:
    def test_nobody_listening_is_a_connection_failure_of_every_request(self, tmp_path):
        endpoint = Endpoint(url=f"http://127.0.0.1:{unused_port()}", model="m", startup_s=0.0)
        with generator(endpoint, [b"x"], None, LoadPlan(), CORES, tmp_path) as running:
            for step in (open_step(duration_s=0.3), closed_step(in_flight=2, duration_s=0.3)):
                columns = running.drive(step).columns
                assert outcomes(columns) == {"CONNECTION"}
                assert set(columns["sent_ns"]) == {NEVER}
                # Two lanes that try again every hundredth of a second, not as fast as they can.
                assert 0 < len(columns["due_ns"]) < 100

    def test_a_killed_generator_is_an_infrastructure_error_and_leaves_nothing_behind(self, server, tmp_path):
        before = set(generators())
        with (
            pytest.raises(InfrastructureError, match="died in step 0"),
            generator(server.endpoint, HONEST, HONEST, LoadPlan(), CORES, tmp_path) as running,
        ):
            (process,) = set(generators()) - before
            threading.Timer(0.5, process.kill).start()
            running.drive(open_step(duration_s=5.0))
        assert set(generators()) == before
        assert not process.is_running()
        assert [path.name for path in tmp_path.iterdir()] == ["locust.log"]

    def test_a_generator_ends_when_its_parent_is_killed(self, server, tmp_path):
        code = (
            "import pathlib, psutil, sys, time\n"
            "from harness.records.candidate import Endpoint\n"
            "from harness.records.scenario import LoadPlan\n"
            "from harness.stages.load.generator import generator\n"
            "endpoint = Endpoint(url=sys.argv[1], model='m', startup_s=0.0)\n"
            "with generator(endpoint, [b'echo'], None, LoadPlan(), (), pathlib.Path(sys.argv[2])):\n"
            "    print(psutil.Process().children()[0].pid, flush=True)\n"
            "    time.sleep(60)\n"
        )
        command = [sys.executable, "-c", code, server.endpoint.url, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
            generator_process = psutil.Process(int(parent.stdout.readline()))
            parent.kill()
        for _ in range(1000):
            if has_ended(generator_process):
                return
            time.sleep(0.02)
        raise AssertionError("the generator has outlived its parent by 20 s")

    def test_a_generator_that_does_not_start_shows_the_end_of_its_log(self, server, tmp_path, monkeypatch):
        broken = tmp_path / "broken.py"
        broken.write_text("raise RuntimeError('this file is broken')\n")
        monkeypatch.setattr(crew, "LOCUSTFILE", broken)
        with (
            pytest.raises(InfrastructureError, match=r"(?s)died in its start.*this file is broken"),
            generator(server.endpoint, HONEST, None, LoadPlan(), CORES, tmp_path / "work"),
        ):
            raise AssertionError("it must not start")

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8000", "unix:/tmp/socket"])
    def test_an_endpoint_it_cannot_speak_to_is_refused(self, tmp_path, url):
        endpoint = Endpoint(url=url, model="m", startup_s=0.0)
        with (
            pytest.raises(UsageError, match="speaks HTTP"),
            generator(endpoint, [b"x"], None, LoadPlan(), CORES, tmp_path),
        ):
            raise AssertionError("it must not start")


def has_ended(process: psutil.Process) -> bool:
    """Whether nothing of it runs; a machine whose init reaps nobody keeps its entry as a zombie."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("texts", [[], [b""], [b"one", b"", b"\x00\xff"]])
def test_byte_strings_survive_packing(texts):
    assert unpack("bodies", pack("bodies", texts)) == texts
