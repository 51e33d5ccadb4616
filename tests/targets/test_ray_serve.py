"""Ray Serve's own promises, which take a session of Ray each."""

import contextlib
import dataclasses
import http.client
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from harness.errors import InfrastructureError, UsageError
from harness.pipeline.serve import served
from harness.process import LOOPBACK
from harness.ray_serving.application import running
from harness.records.server import ServerSettings
from harness.serving.limits import Limits
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
        served([str(servable.bundle)], "asgi", "onnx", 1, {}, ServerSettings(), print, "127.0.0.1:1"),
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


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_under_load_a_replica_is_added_and_answers_as_the_first_and_scrapes_tell_them_apart(
    servable, batch, signature, ask
):
    many = encode_request(batch.take([row % len(batch) for row in range(2_000)]), signature)
    growing = RayServe(max_replicas=2, target_ongoing_requests=1.0, max_queued_requests=100)
    began_s = time.monotonic()
    ended = threading.Event()
    with growing.serve(servable) as endpoint:
        assert "autoscaled from 1 to 2 replicas at 1 each" in endpoint.notes
        assert any("max_queued_requests=100" in note for note in endpoint.notes)
        assert len(endpoint.replicas) == len(running()) == 1
        url = endpoint.url + endpoint.infer_path
        wanted = ask(url, many)

        def keep_asking(_):
            """As long as there is one replica, and then for a while."""
            found = set()
            while not ended.is_set():
                found.add(ask(url, many))
            return found

        with ThreadPoolExecutor(6) as pool:
            answers = [pool.submit(keep_asking, number) for number in range(6)]
            try:
                scrapes = set()
                while len(scrapes) < 2 and time.monotonic() - began_s < 200:
                    time.sleep(0.2)
                    scrapes |= set(
                        re.findall(r'requests_total{.*replica="(\w+)"', ask(f"{endpoint.url}/metrics")[1].decode())
                    )
                there = running()
            finally:
                ended.set()
            found = set().union(*(one.result() for one in answers))
        assert wanted[0] == 200
        assert found == {wanted}
        assert len(there) == 2 and set(endpoint.replicas) < set(there)
        assert {name.rpartition("#")[2] for name in there} == scrapes
        growing.refuse_changed(endpoint)
    assert psutil.Process().children() == []


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_who_does_not_come_to_the_end_of_a_request_is_let_go_of_and_who_waits_between_two_is_not(
    servable, batch, signature
):
    body = encode_request(batch, signature)
    with RayServe().serve(servable) as endpoint:
        address = urlsplit(endpoint.url)
        waits = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        with contextlib.closing(waits), contextlib.ExitStack() as stack:
            waits.request("POST", endpoint.infer_path, body)
            assert waits.getresponse().read()
            whole = f"POST {endpoint.infer_path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            asking = []
            for sent in (whole[:20], whole + body[:20], whole):
                asking.append(stack.enter_context(socket.create_connection((LOOPBACK, address.port), timeout=60)))
                asking[-1].sendall(sent)
            # One of them is never silent, and never done.
            for byte in body[:40]:
                if select.select(asking[2:], [], [], 1.0)[0]:
                    break
                asking[2].sendall(bytes([byte]))
            assert [sock.recv(4096).split()[1] for sock in asking] == [b"408", b"400", b"408"]
            assert f"RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S={Limits().send_s:g}" in endpoint.notes
            # On the connection that has idled for as long.
            waits.request("POST", endpoint.infer_path, body)
            assert waits.getresponse().status == 200
