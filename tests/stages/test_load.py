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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.errors import InfrastructureError, UsageError
from harness.process import child
from harness.records.candidate import Endpoint
from harness.records.load import EXCHANGE_COLUMNS, NEVER, Outcome, Step
from harness.records.scenario import LoadPlan
from harness.stages import load
from harness.stages.load import generator, pack, unpack
from harness.stats.arrivals import due_ns, payload_order, step_seed

HONEST = [b"slow 0.002 row %d" % row for row in range(20)]


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    endpoint: Endpoint

    def order(self, body: bytes) -> None:
        """Have it do something beside the load."""
        port = int(self.endpoint.url.rpartition(":")[2])
        command = [sys.executable, "-c", ASK, str(port), body.decode()]
        subprocess.run(command, check=True, timeout=30)


ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("POST", "/", sys.argv[2])
assert connection.getresponse().status == 200
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    script, port_file = Path(__file__).with_name("obedient_server.py"), folder / "port"
    with child([sys.executable, str(script), str(port_file)], log=folder / "server.log") as process:
        for _ in range(1000):
            if port_file.exists():
                break
            time.sleep(0.02)
        url = f"http://127.0.0.1:{port_file.read_text()}"
        yield Server(process, Endpoint(url=url, model="m", startup_s=0.0))


@pytest.fixture(scope="module")
def honest(server, tmp_path_factory):
    """A generator whose requests take two milliseconds each and end well."""
    plan = LoadPlan(in_flight_max=128, timeout_s=3.0, seed=5)
    with generator(server.endpoint, HONEST, HONEST, plan, (), tmp_path_factory.mktemp("honest")) as running:
        yield running


def open_step(number=0, rate_rps=200.0, duration_s=2.0):
    return Step(shape="t", number=number, mode="open", rate_rps=rate_rps, duration_s=duration_s, warmup_s=0.0)


def closed_step(number=0, in_flight=4, duration_s=1.0):
    return Step(shape="t", number=number, mode="closed", in_flight=in_flight, duration_s=duration_s, warmup_s=0.0)


def generators():
    """The generator processes that this process has, running or not yet reaped."""
    return [process for process in psutil.Process().children() if str(load.LOCUSTFILE) in process.cmdline()]


def outcomes(columns, chosen=None):
    outcome = columns["outcome"] if chosen is None else columns["outcome"][chosen]
    return {Outcome(value).name for value in outcome}


class TestOpenLoad:
    def test_every_planned_request_is_sent_at_its_time_and_answered(self, honest):
        columns = honest.drive(open_step(number=3))
        planned = due_ns("poisson", 200.0, 2.0, seed=step_seed(5, 3))
        assert {name: str(column.dtype) for name, column in columns.items()} == EXCHANGE_COLUMNS
        assert np.array_equal(columns["due_ns"], planned)
        assert np.array_equal(columns["payload"], payload_order(len(planned), len(HONEST), seed=step_seed(5, 3)))
        assert outcomes(columns) == {"OK"}
        assert set(columns["status"]) == {200} and set(columns["worker"]) == {0}
        assert columns["bytes"].tolist() == [len(HONEST[payload]) for payload in columns["payload"]]

    def test_stamps_are_in_the_order_of_events(self, honest):
        columns = honest.drive(open_step(duration_s=0.5))
        assert np.all(columns["due_ns"] <= columns["dispatch_ns"])
        assert np.all(columns["dispatch_ns"] <= columns["sent_ns"])
        # The server waits two milliseconds before it answers; its clock has a grain of its own.
        assert np.all(columns["done_ns"] - columns["sent_ns"] > 1_900_000)

    def test_a_frozen_server_is_charged_with_the_wait_of_every_request_due_meanwhile(self, server, honest):
        server.order(b"freeze 1.0 0.3")
        columns = honest.drive(open_step(number=1, duration_s=2.5))
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
        assert outcomes(honest.drive(open_step(duration_s=0.2))) == {"OK"}

    def test_a_step_has_its_own_number_of_connections_whatever_came_before(self, server, honest):
        def connections():
            return sum(connection.status == psutil.CONN_ESTABLISHED for connection in ours.net_connections("tcp"))

        (ours,) = generators()
        counts = []
        for step in (open_step(rate_rps=100.0, duration_s=0.2), closed_step(in_flight=3, duration_s=0.2)):
            honest.drive(step)
            counts.append(connections())
        assert counts == [50, 3]

    def test_beyond_the_limit_in_flight_slots_are_dropped_and_counted(self, server, tmp_path):
        plan = LoadPlan(in_flight_max=4, arrivals="constant", timeout_s=3.0)
        with generator(server.endpoint, [b"slow 0.2"], None, plan, (), tmp_path) as running:
            columns = running.drive(open_step(rate_rps=100.0, duration_s=1.0))
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


class TestClosedLoad:
    def test_as_many_requests_as_asked_for_are_in_flight_all_the_time(self, honest):
        columns = honest.drive(closed_step(in_flight=4, duration_s=1.5))
        assert outcomes(columns) == {"OK"}
        latency_ns = columns["done_ns"] - columns["sent_ns"]
        # Little's law: mean number in flight = throughput x mean latency.
        assert latency_ns.sum() / 1.5e9 == pytest.approx(4, rel=0.1)
        events = np.concatenate([columns["sent_ns"], columns["done_ns"]])
        changes = np.concatenate([np.ones(len(latency_ns)), -np.ones(len(latency_ns))])
        assert np.cumsum(changes[np.lexsort((changes, events))]).max() == 4

    def test_requests_start_within_the_step_and_are_due_when_they_start(self, honest):
        columns = honest.drive(closed_step(number=2, in_flight=3, duration_s=0.5))
        assert np.array_equal(columns["due_ns"], columns["dispatch_ns"])
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
    with generator(server.endpoint, BODIES, expected, plan, (), tmp_path_factory.mktemp("mischief")) as running:
        return {
            "open": running.drive(open_step(rate_rps=60.0, duration_s=1.2)),
            "closed": running.drive(closed_step(in_flight=6, duration_s=1.5)),
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
        with generator(endpoint, [b"x"], None, LoadPlan(), (), tmp_path) as running:
            for step in (open_step(duration_s=0.3), closed_step(in_flight=2, duration_s=0.3)):
                columns = running.drive(step)
                assert outcomes(columns) == {"CONNECTION"}
                assert set(columns["sent_ns"]) == {NEVER}
                # Two lanes that try again every hundredth of a second, not as fast as they can.
                assert 0 < len(columns["due_ns"]) < 100

    def test_a_killed_generator_is_an_infrastructure_error_and_leaves_nothing_behind(self, server, tmp_path):
        before = set(generators())
        with (
            pytest.raises(InfrastructureError, match="died in step 0"),
            generator(server.endpoint, HONEST, HONEST, LoadPlan(), (), tmp_path) as running,
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
            "from harness.stages.load import generator\n"
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

    def test_a_generator_that_does_not_answer_in_time_is_an_infrastructure_error(self, server, tmp_path):
        before = set(generators())
        with (
            pytest.raises(InfrastructureError, match=r"did not answer within 0\.3 s in a long step"),
            generator(server.endpoint, HONEST, None, LoadPlan(), (), tmp_path) as running,
        ):
            np.savez(tmp_path / "plan.npz", due_ns=np.array([20 * 10**9]), payload=np.array([0]))
            message = {"plan": str(tmp_path / "plan.npz"), "mode": "open", "duration_s": 30.0, "connections": 1}
            running.ask(message, 0.3, "a long step")
        assert set(generators()) == before

    def test_a_generator_that_fails_says_why(self, server, tmp_path):
        with (
            pytest.raises(InfrastructureError, match=r"failed in a bad step: FileNotFoundError"),
            generator(server.endpoint, HONEST, None, LoadPlan(), (), tmp_path) as running,
        ):
            running.ask({"plan": str(tmp_path / "nowhere.npz")}, 30.0, "a bad step")

    def test_a_generator_that_does_not_start_shows_the_end_of_its_log(self, server, tmp_path, monkeypatch):
        broken = tmp_path / "broken.py"
        broken.write_text("raise RuntimeError('this file is broken')\n")
        monkeypatch.setattr(load, "LOCUSTFILE", broken)
        with (
            pytest.raises(InfrastructureError, match=r"(?s)died in its start.*this file is broken"),
            generator(server.endpoint, HONEST, None, LoadPlan(), (), tmp_path / "work"),
        ):
            raise AssertionError("it must not start")

    @pytest.mark.parametrize("url", ["https://127.0.0.1:8443", "127.0.0.1:8000", "unix:/tmp/socket"])
    def test_an_endpoint_it_cannot_speak_to_is_refused(self, tmp_path, url):
        endpoint = Endpoint(url=url, model="m", startup_s=0.0)
        with (
            pytest.raises(UsageError, match="plain HTTP"),
            generator(endpoint, [b"x"], None, LoadPlan(), (), tmp_path),
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
