"""What a server does when it is told to end: whom it let in is answered, and then it is gone, and all that was its."""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from harness.errors import ExitCode
from harness.process import LOOPBACK
from harness.records.server import ServerSettings
from harness.serving.protocol import encode_request
from harness.targets.asgi import Asgi

INFER = "/v2/models/c1/infer"
ROWS = 8_000
CLIENTS = 24

PATIENT = ServerSettings(waiting_s=30.0)


def request(body, path=INFER):
    return f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture(scope="module")
def small(batch, signature):
    return request(encode_request(batch.take(slice(1)), signature))


@pytest.fixture(scope="module")
def large(batch, signature):
    """A request that takes some hundredths of a second."""
    return request(encode_request(batch.take([row % len(batch) for row in range(ROWS)]), signature))


def connected(url):
    return socket.create_connection((LOOPBACK, urlsplit(url).port), timeout=60)


def answer(sock):
    """All that comes until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65_536):
            found += part
    return found


def head(answered):
    return answered.partition(b"\r\n\r\n")[0].lower()


def kept_answer(sock):
    """One answer on a connection that stays open."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += sock.recv(65_536)
    length = int(re.search(rb"content-length: (\d+)", found)[1])
    while len(found.partition(b"\r\n\r\n")[2]) < length:
        found += sock.recv(65_536)
    return found


def ended(process):
    """The exit status of a child that ends by itself, and is left to be reaped."""
    done = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    return done.si_status if done.si_code == os.CLD_EXITED else -done.si_status


def under_way(url, large, stack):
    """Connections, with a slow request on each, all of it sent: some are answered, and most of them wait."""
    clients = [stack.enter_context(connected(url)) for _ in range(CLIENTS)]
    senders = [threading.Thread(target=client.sendall, args=(large,)) for client in clients]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return clients


@pytest.mark.parametrize("processes", [1, 2])
def test_whoever_was_let_in_is_answered_and_then_it_ends(servable, large, small, processes):
    patient = dataclasses.replace(servable, replicas=processes, settings=PATIENT)
    with Asgi().serve(patient) as endpoint, contextlib.ExitStack() as stack:
        idle = stack.enter_context(connected(endpoint.url))
        idle.sendall(small)
        assert b"connection: close" not in head(kept_answer(idle))
        half = stack.enter_context(connected(endpoint.url))
        half.sendall(small[:-10])
        clients = under_way(endpoint.url, large, stack)
        for process in endpoint.processes:
            os.kill(process, signal.SIGTERM)
        half.sendall(small[-10:])
        heads = [head(answer(client)) for client in clients]

        assert [one[:12] for one in heads] == [b"http/1.1 200"] * CLIENTS
        assert any(b"connection: close" in one for one in heads), "none was left to answer: this test shows nothing"
        assert head(answer(half)).startswith(b"http/1.1 200")
        assert answer(idle) == b""
        assert [ended(process) for process in endpoint.processes] == [0] * processes
        with socket.create_server((LOOPBACK, urlsplit(endpoint.url).port)):
            pass


def test_those_in_the_kernels_queue_are_let_in(servable, large, small):
    """Connected and asking while the process stands still, so that nobody has accepted them when it is told to end."""
    patient = dataclasses.replace(servable, settings=PATIENT)
    with Asgi().serve(patient) as endpoint, contextlib.ExitStack() as stack:
        (process,) = endpoint.processes
        os.kill(process, signal.SIGSTOP)
        clients = [stack.enter_context(connected(endpoint.url)) for _ in range(200)]
        for client in clients:
            client.sendall(small)
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGCONT)
        assert [head(answer(client))[:12] for client in clients] == [b"http/1.1 200"] * len(clients)
        assert ended(process) == 0


def test_who_never_stops_asking_loses_no_answer(servable, small):
    """Each client asks on until it is told that its connection closes, or finds nobody: a broken answer is neither."""
    wrong, ends = [], []

    def ask_on(url):
        while True:
            try:
                sock = connected(url)
            except ConnectionRefusedError:
                return ends.append("refused")
            with sock:
                for _ in range(5):
                    sock.sendall(small)
                    found = kept_answer(sock)
                    if not head(found).startswith(b"http/1.1 200"):
                        wrong.append(found)
                    if b"connection: close" in head(found):
                        break

    def asked(url):
        try:
            ask_on(url)
        except OSError as error:
            wrong.append(repr(error))

    with Asgi().serve(servable) as endpoint:
        clients = [threading.Thread(target=asked, args=(endpoint.url,)) for _ in range(16)]
        for client in clients:
            client.start()
        time.sleep(0.5)
        os.kill(endpoint.processes[0], signal.SIGTERM)
        for client in clients:
            client.join()
        assert ended(endpoint.processes[0]) == 0
    assert (wrong, len(ends)) == ([], 16)


def test_a_second_signal_a_moment_later_ends_at_once(servable, large):
    with Asgi().serve(dataclasses.replace(servable, settings=PATIENT)) as endpoint, contextlib.ExitStack() as stack:
        (process,) = endpoint.processes
        stack.enter_context(connected(endpoint.url)).sendall(large[:-10])  # for which it waits
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGTERM)  # together with the first: a service manager's and the parent's are one wish
        time.sleep(1.5)
        assert psutil.Process(process).is_running()
        os.kill(process, signal.SIGTERM)
        assert ended(process) == -signal.SIGTERM


@pytest.mark.long
def test_ray_serve_answers_what_its_replicas_have_and_resets_nobody(bundle, large):
    """What HAProxy has not handed on when the application is taken away is answered 404, by Ray's own proxy."""
    command = [sys.executable, "-m", "harness", "serve", f"c1={bundle}", "--target", "ray_serve", "--processes", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--waiting", "30"], stdout=pipe, stderr=pipe, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            with contextlib.ExitStack() as stack:
                clients = under_way(url, large, stack)
                process.send_signal(signal.SIGTERM)
                found = [client.recv(12)[9:] for client in clients]
            status = process.wait(60)
        except BaseException:
            process.kill()
            raise
    assert b"200" in found and set(found) <= {b"200", b"404"}
    assert status == ExitCode.GOOD


@pytest.mark.long
def test_ray_serve_says_so_where_time_ran_out_before_all_were_answered(bundle, small):
    command = [sys.executable, "-m", "harness", "serve", f"c1={bundle}", "--target", "ray_serve", "--waiting", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        stack.enter_context(connected(process.stdout.readline().strip())).sendall(small[:-10])
        time.sleep(1)  # until the replica has it
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        *_, last = process.stderr.read().splitlines()
    assert status == ExitCode.INFRASTRUCTURE
    assert last.startswith("harness: The server of c1 was ended before it had answered everyone whom it had let in.")


@pytest.mark.parametrize("impatient", [False, True], ids=["", "interrupted once more"])
def test_the_command_drains_too(bundle, large, small, impatient):
    command = [sys.executable, "-m", "harness", "serve", f"c1={bundle}", "--processes", "2", "--waiting", "30"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        url = process.stdout.readline().strip()
        servers = psutil.Process(process.pid).children()
        clients = under_way(url, large, stack)
        half = stack.enter_context(connected(url))
        half.sendall(small[:-10])  # for which it would wait for seconds
        process.send_signal(signal.SIGTERM)
        if impatient:
            for line in process.stderr:
                if "Stopping" in line:
                    break
            process.send_signal(signal.SIGINT)
        else:
            half.sendall(small[-10:])
        found, last = [head(answer(client)) for client in clients], head(answer(half))
        status = process.wait(30)
        said = process.stderr.read()
    assert status == (ExitCode.INTERRUPTED if impatient else ExitCode.GOOD), said
    if impatient:
        assert last == b"" or last.startswith(b"http/1.1 503")  # on a busy machine its time is over first
    else:
        assert [one[:12] for one in (*found, last)] == [b"http/1.1 200"] * (CLIENTS + 1)
    assert not any(server.is_running() for server in servers)
    with socket.socket() as sock:
        assert sock.connect_ex((LOOPBACK, urlsplit(url).port)) != 0


SHORT = """
import sys
import harness.targets.asgi as room
from harness.cli.main import main

SERVER = (
    "import sys, harness.server as s, harness.records.server as r; "
    "r.ServerSettings.drain_s = property(lambda told: 1.0); sys.exit(s.main())"
)
usual = room.child_servers
room.child_servers = lambda command, **more: usual([sys.executable, "-c", SERVER, *command[3:]], **more)
sys.exit(main())
"""
"""The command, whose server has a second to answer those that it has let in, and waits longer for one half sent."""


def test_the_command_says_so_where_time_ran_out_before_all_were_answered(bundle, small):
    command = [sys.executable, "-c", SHORT, "serve", f"c1={bundle}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        stack.enter_context(connected(process.stdout.readline().strip())).sendall(small[:-10])
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
        *_, logged, last = process.stderr.read().splitlines()
    assert status == ExitCode.INFRASTRUCTURE
    assert logged == "Not all requests were answered within the 1 s that a server has to end."  # the server's own words
    assert last.startswith("harness: The server of c1 was ended before it had answered everyone whom it had let in.")


@pytest.fixture
def temporary():
    """A short folder for temporary files, as Ray needs one."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("target", ["asgi", pytest.param("ray_serve", marks=pytest.mark.long)])
def test_a_killed_command_leaves_no_process_no_port_no_memory_and_no_file(bundle, small, temporary, target):
    shared = set(Path("/dev/shm").iterdir())
    command = [sys.executable, "-m", "harness", "serve", f"c1={bundle}", "--target", target, "--processes", "2"]
    pipe = subprocess.PIPE
    surroundings = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=surroundings) as process:
        url = process.stdout.readline().strip()
        with connected(url) as sock:
            sock.sendall(small)
            assert head(kept_answer(sock)).startswith(b"http/1.1 200")
        started = psutil.Process(process.pid).children(recursive=True)
        assert list(temporary.iterdir())
        process.kill()
    deadline_s = time.perf_counter() + 60
    while list(temporary.iterdir()) and time.perf_counter() < deadline_s:
        time.sleep(0.05)
    assert list(temporary.iterdir()) == []
    psutil.wait_procs(started, timeout=10)  # the sweepers are the last
    assert not [one.cmdline() for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert set(Path("/dev/shm").iterdir()) <= shared
    with socket.create_server((LOOPBACK, urlsplit(url).port)):
        pass
