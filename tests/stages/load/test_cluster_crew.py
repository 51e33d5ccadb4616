"""A load generator on the nodes of a real Ray cluster: three nodes, all on this machine."""

import threading
import time

import numpy as np
import psutil
import pytest

from harness.errors import InfrastructureError
from harness.process import LOOPBACK
from harness.ray_session import ray_session
from harness.records.arrivals import Poisson
from harness.records.candidate import Endpoint
from harness.records.load import Outcome, Step
from harness.records.scenario import LoadPlan
from harness.stages.load import cluster_crew, crew
from harness.stages.load.generator import generator
from harness.stats.arrivals import due_ns, step_seed

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(300)]

HONEST = [b"slow 0.002 row %d" % row for row in range(20)]
PLAN = LoadPlan(in_flight_max=128, timeout_s=3.0, seed=5, workers=2, placement="cluster")


def senders():
    """The generator processes on this machine, whoever started them."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(crew.LOCUSTFILE) in (process.info["cmdline"] or [])
    ]


def step(number=0, rate_rps=200.0, duration_s=2.0):
    return Step(shape="t", number=number, mode="open", rate_rps=rate_rps, duration_s=duration_s, warmup_s=0.0)


def test_workers_on_two_nodes_send_one_plan_and_a_lost_node_is_told(ray_cluster, server, tmp_path):
    with ray_session(2, ray_cluster.address), generator(server.endpoint, HONEST, HONEST, PLAN, (), tmp_path) as load:
        assert len(senders()) == 2
        beats = []
        recording = load.drive(step(), beats.append)
        workers = recording.health.workers

        # Each on a node of its own, whose clock, the same here, was read as well as is said.
        assert len({worker.node for worker in workers}) == 2
        assert all(0 < worker.clock_error_s < 0.1 for worker in workers)
        for worker in load._workers:
            ahead_s, error_s = worker._ahead_s("a test")
            assert abs(ahead_s) <= error_s

        # Together they sent what one would have sent, each every other request.
        columns = recording.columns
        assert np.array_equal(columns["due_ns"], due_ns(Poisson(), 200.0, 2.0, seed=step_seed(5, 200_000, 0)))
        assert columns["worker"].tolist() == [index % 2 for index in range(recording.planned)]
        assert set(columns["outcome"]) == {Outcome.OK}
        assert recording.planned == len(columns["due_ns"])
        # And were seen from here while they did.
        assert beats and sum(beat.answered for beat in beats) > 0

        loss = threading.Timer(0.8, ray_cluster.lose_a_node)
        loss.start()
        torn = load.drive(step(number=1))
        loss.join()
        assert len(torn.health.lost) == 1 and "lost in step 1" in torn.health.lost[0]
        assert len(torn.columns["due_ns"]) < torn.planned
        with pytest.raises(InfrastructureError, match="lost in step 1"):
            load.drive(step(number=2))
    until = time.monotonic() + 10
    while senders() and time.monotonic() < until:
        time.sleep(0.05)
    assert senders() == []
    assert len(list(tmp_path.glob("locust-*.log"))) == 1, "of the one that was not lost"


def test_what_cannot_be_is_said_and_leaves_nothing_running(ray_cluster, server, tmp_path, monkeypatch):
    nowhere = Endpoint(url=f"http://{LOOPBACK}:1", model="m", startup_s=0.0)
    many = PLAN.model_copy(update={"workers": 3})
    with ray_session(2, ray_cluster.address):
        with (
            pytest.raises(InfrastructureError, match=r"\(node \w{8}\) does not reach http://127.0.0.1:1: .*refused"),
            generator(nowhere, HONEST, HONEST, PLAN, (), tmp_path),
        ):
            raise AssertionError
        monkeypatch.setattr(cluster_crew, "START_S", 30.0)
        with (
            pytest.raises(InfrastructureError, match="2 of 3 load workers started on the cluster within 30 s"),
            generator(server.endpoint, HONEST, HONEST, many, (), tmp_path),
        ):
            raise AssertionError
        monkeypatch.setattr(cluster_crew, "_machine", lambda: "another")
        with (
            pytest.raises(InfrastructureError, match=r"is another machine, and http://127\.0\.0\.1:"),
            generator(server.endpoint, HONEST, HONEST, PLAN, (), tmp_path),
        ):
            raise AssertionError
    assert senders() == []
