"""Ray Serve's own promises, which take a session of Ray each."""

import contextlib
import dataclasses
import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from harness.errors import InfrastructureError, UsageError
from harness.pipeline.serve import served
from harness.process import LOOPBACK
from harness.records.server import ServerSettings
from harness.serving.protocol import encode_request
from harness.targets.ray_serve import RayServe

SERVING = """
import sys, time
from pathlib import Path
from harness.ports import Servable
from harness.targets.ray_serve import RayServe
bundle, log = map(Path, sys.argv[1:])
servable = Servable(
    entry="harness.server", bundle=bundle, runtime="onnx", model="c1", replicas=2, cores=(), log=log
)
with RayServe().serve(servable) as endpoint:
    print(endpoint.url, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("parameters", [{"opened": True}, {"max_replicas_per_node": 1}])
def test_what_is_for_a_cluster_is_refused_without_one(servable, parameters):
    two = dataclasses.replace(servable, replicas=2)
    with pytest.raises(UsageError, match="--ray-address"), RayServe(**parameters).serve(two):
        pytest.fail("entered")


def test_a_cluster_that_does_not_answer_is_told_and_nothing_is_started(servable):
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))  # and not listening: whoever connects is refused
        nobody = dataclasses.replace(servable, ray_address=f"{LOOPBACK}:{bound.getsockname()[1]}")
        with pytest.raises(InfrastructureError, match="No Ray cluster answers at"), RayServe().serve(nobody):
            pytest.fail("entered")
    assert psutil.Process().children() == []


def test_other_targets_are_not_served_on_a_cluster(servable):
    with (
        pytest.raises(UsageError, match=r"asgi serves on this machine, .* or have --target ray_serve"),
        served([str(servable.bundle)], "asgi", "onnx", 1, {}, ServerSettings(), "127.0.0.1:1"),
    ):
        pytest.fail("entered")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_candidate_that_does_not_load_is_an_error_with_the_replicas_own_words(servable, tmp_path):
    missing = dataclasses.replace(servable, bundle=tmp_path / "none")

    with pytest.raises(InfrastructureError, match="is not the folder of a candidate"), RayServe().serve(missing):
        pytest.fail("entered")

    assert "Traceback" in servable.log.read_text()
    assert psutil.Process().children() == []


@pytest.mark.long
def test_a_killed_harness_takes_the_proxy_and_the_replicas_along(servable, ask):
    command = [sys.executable, "-c", SERVING, str(servable.bundle), str(servable.log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            url = parent.stdout.readline().strip()
            assert ask(f"{url}/v2/health/ready")[0] == 200
            serving = [
                process
                for process in psutil.Process(parent.pid).children(recursive=True)
                if process.name() == "haproxy" or process.name().startswith("ray::Serve")
            ]
            # One that has made way for its successor, and was not reaped yet, has no command any more.
            commands = " ".join(" ".join(process.cmdline()) for process in serving if process.name() == "haproxy")
            (folder,) = set(re.findall(r"/tmp/rs\w+", commands))
        finally:
            parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(serving, timeout=30)
    for _ in range(600):
        if not Path(folder).exists():
            break
        time.sleep(0.05)

    assert not Path(folder).exists()
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
    with socket.socket() as sock:
        assert sock.connect_ex((LOOPBACK, urlsplit(url).port)) != 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_beyond_the_queue_requests_are_refused_at_once_and_told_when_to_come_again(servable, batch, signature):
    """By our queue, which knows how long one would wait, before Serve's own limits."""
    many = encode_request(batch.take([row % len(batch) for row in range(8_000)]), signature)
    hasty = dataclasses.replace(servable, replicas=1, settings=ServerSettings(waiting_s=0.0))
    with RayServe().serve(hasty) as endpoint:
        address = urlsplit(endpoint.url)

        def ask(_):
            connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
            with contextlib.closing(connection):
                connection.request("POST", endpoint.infer_path, many)
                answer = connection.getresponse()
                answer.read()
                return answer.status, answer.headers["retry-after"]

        assert ask(0) == (200, None)
        with ThreadPoolExecutor(24) as pool:
            found = set(pool.map(ask, range(96)))
    assert found == {(200, None), (503, "1")}
