"""What is promised of every child process: it runs where it was told, it says what went wrong, and it ends."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from harness.errors import InfrastructureError, IntegrityError, UnansweredError, UsageError
from harness.process import LOOPBACK, child, child_servers, end_of_log, log_tail, on_cores, refuse_gone, wait_ready
from harness.sweeper import swept

SERVER = """
    import argparse, http.server, os, socket
    from harness.process import announce_ready, die_with_parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int)
    parser.add_argument("--ready-fd", type=int)
    given = parser.parse_args()
    die_with_parent()
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            text = str(os.getpid()).encode()
            self.send_response(200); self.send_header("content-length", str(len(text))); self.end_headers()
            self.wfile.write(text)
    server = http.server.HTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=False)
    server.socket = socket.socket(fileno=given.fd)
    announce_ready(given.ready_fd)
    server.serve_forever()
"""


def python(code, *arguments):
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


def ends(pid):
    """Whether a process ends within a bounded time (a zombie that nobody has reaped yet has ended)."""
    try:
        process = psutil.Process(pid)
        for _ in range(1000):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            try:
                process.wait(0.02)
            except psutil.TimeoutExpired:
                continue
            return True
    except psutil.NoSuchProcess:
        return True
    return False


def until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came true")


def refused(port):
    with socket.socket() as sock:
        return sock.connect_ex((LOOPBACK, port)) != 0


def test_what_a_child_prints_is_in_its_log(tmp_path):
    log = tmp_path / "made" / "child.log"
    with child(python("import sys; print('out'); sys.stderr.write('err')"), log=log) as process:
        assert process.wait(30) == 0

    assert set(log_tail(log).split()) == {"out", "err"}


def test_a_child_runs_on_its_cores_and_the_parent_stays_on_its_own(tmp_path):
    before = os.sched_getaffinity(0)
    core = min(before)
    log = tmp_path / "log"
    with child(python("import os; print(sorted(os.sched_getaffinity(0)))"), log=log, cores=(core,)) as process:
        process.wait(30)

    assert log_tail(log) == f"[{core}]"
    assert os.sched_getaffinity(0) == before


def test_cores_that_are_not_there_are_named():
    with pytest.raises(InfrastructureError, match="cores 100000"), on_cores((100_000,)):
        pytest.fail("entered")


def test_a_child_adds_to_the_environment_and_keeps_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE_BEFORE", "1")
    code = "import os; print(os.environ['HERE_BEFORE'], os.environ['ADDED'])"
    with child(python(code), log=tmp_path / "log", environment={"ADDED": "2"}) as process:
        process.wait(30)

    assert log_tail(tmp_path / "log") == "1 2"
    assert "ADDED" not in os.environ


def test_a_command_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InfrastructureError, match="no-such-program"), child(["no-such-program"], log=tmp_path / "log"):
        pytest.fail("entered")


@pytest.mark.parametrize("polled", [False, True], ids=["", "and polled"])
def test_leaving_the_block_ends_the_child_and_its_own_children(tmp_path, polled):
    code = """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]).pid, flush=True)
        sys.exit() if sys.argv[1] == "gone" else sys.stdin.read() or __import__("time").sleep(300)
    """
    command = python(code, "gone" if polled else "stays")
    with pytest.raises(KeyboardInterrupt), child(command, log=tmp_path / "log") as process:
        if polled:
            process.wait(30)
        until(lambda: (tmp_path / "log").read_text().endswith("\n"))
        grandchild = int(log_tail(tmp_path / "log"))
        assert psutil.pid_exists(grandchild)
        raise KeyboardInterrupt

    assert process.returncode is not None
    assert ends(grandchild)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.process.STOP_S", 0.2)
    code = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN); print("deaf", flush=True); time.sleep(300)
    """
    with child(python(code), log=tmp_path / "log") as process:
        until(lambda: "deaf" in log_tail(tmp_path / "log"))

    assert process.returncode == -signal.SIGKILL


def test_a_child_that_wants_to_ends_in_order(tmp_path):
    code = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print("ready", flush=True); time.sleep(300)
    """
    with child(python(code), log=tmp_path / "log") as process:
        until(lambda: "ready" in log_tail(tmp_path / "log"))

    assert process.returncode == 7


def test_a_killed_parent_takes_its_child_along(tmp_path):
    grandchild = "import os, time; from harness.process import die_with_parent; die_with_parent();"
    grandchild += "print(os.getpid(), flush=True); time.sleep(300)"
    code = f"""
        import sys, time
        from pathlib import Path
        from harness.process import child
        with child([sys.executable, "-c", {grandchild!r}], log=Path({str(tmp_path / "log")!r})):
            time.sleep(300)
    """
    parent = subprocess.Popen(python(code))
    try:
        until(lambda: log_tail(tmp_path / "log").isdigit())
        pid = int(log_tail(tmp_path / "log"))
    finally:
        parent.kill()
        parent.wait()

    assert ends(pid)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {number} {'x' * 200}\n" for number in range(1000)))

    assert [line.split()[1] for line in log_tail(log, lines=3).splitlines()] == ["997", "998", "999"]
    assert log_tail(tmp_path / "none") == "(it printed nothing)"


def test_servers_share_a_port_answer_at_once_and_are_gone_afterwards(tmp_path):
    with child_servers(python(SERVER), what="The server", log=tmp_path / "log", count=2) as (port, processes):
        pids = set()
        for _ in range(200):  # connections fall on the two at random: 200 on one has a chance of 2 to the -199
            with socket.create_connection((LOOPBACK, port)) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while part := sock.recv(4096):
                    answer += part
                pids.add(int(answer.rpartition(b"\r\n\r\n")[2]))
            if len(pids) == 2:
                break
        assert pids == {process.pid for process in psutil.Process().children()} == set(processes)

    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert refused(port)


def test_open_files_are_allowed_to_children_up_to_the_hard_limit(tmp_path):
    code = """
        import resource, subprocess, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300))
        from harness.errors import UsageError
        from harness.process import allow_open_files
        allow_open_files(200)
        asked = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
        print(subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True).stdout.strip())
        allow_open_files(100)
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        try:
            allow_open_files(301)
        except UsageError as error:
            print(error)
    """
    done = subprocess.run(python(code), capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines()[:2] == ["200", "200"]
    assert "300 files open here, and this load needs 301" in done.stdout


@pytest.mark.parametrize("count", [1, 2])
def test_a_port_that_is_taken_is_the_users_to_change(tmp_path, count):
    with socket.create_server((LOOPBACK, 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        servers = child_servers(python(SERVER), what="The server", log=tmp_path / "log", port=port, count=count)
        with pytest.raises(UsageError, match=f"{port}.*another port"), servers:
            pytest.fail("entered")


def test_a_server_that_ends_first_is_an_error_with_its_last_words(tmp_path):
    code = "import sys; sys.exit('no model here')"
    servers = child_servers(python(code), what="The server", log=tmp_path / "log")
    with pytest.raises(InfrastructureError, match=r"(?s)The server.* status 1 .*no model here"), servers:
        pytest.fail("entered")


def test_a_server_that_never_gets_ready_is_an_error_and_ended(tmp_path):
    code = "import time; time.sleep(300)"
    servers = child_servers(python(code), what="It", log=tmp_path / "log", timeout_s=0.3)
    with pytest.raises(InfrastructureError, match="not ready in time"), servers:
        pytest.fail("entered")

    assert psutil.Process().children() == []


DEAF = """
import argparse, os, signal, time
parser = argparse.ArgumentParser()
parser.add_argument("--fd", type=int)
parser.add_argument("--ready-fd", type=int)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(parser.parse_args().ready_fd, b"1")
time.sleep(300)
"""


def test_a_server_that_has_to_be_killed_is_told_but_not_before_what_went_wrong_in_the_block(tmp_path):
    with (
        pytest.raises(UnansweredError, match="It was ended before it had answered everyone"),
        child_servers(python(DEAF), what="It", log=tmp_path / "log", stop_s=0.2),
    ):
        pass
    with (
        pytest.raises(ZeroDivisionError),
        child_servers(python(DEAF), what="It", log=tmp_path / "log", stop_s=0.2),
    ):
        raise ZeroDivisionError

    assert psutil.Process().children() == []


def test_a_server_of_several_that_ends_is_found_with_how_it_ended(tmp_path):
    log = tmp_path / "log"
    with child_servers(python(SERVER), what="It", log=log, count=2) as (port, processes):
        url = f"http://{LOOPBACK}:{port}"
        refuse_gone(url, processes, what="It", log=log)
        os.kill(processes[1], signal.SIGKILL)

        def found() -> bool:
            try:
                refuse_gone(url, processes, what="It", log=log)
            except InfrastructureError as error:
                assert "It at" in str(error)
                assert "ended by signal SIGKILL" in str(error)
                return True
            return False

        until(found)

    assert not any(psutil.pid_exists(pid) for pid in processes)


@pytest.mark.parametrize(("status", "kind"), [(5, InfrastructureError), (7, IntegrityError)])
def test_a_server_that_refuses_what_it_is_to_load_says_why_by_its_status(tmp_path, status, kind):
    with (
        pytest.raises(kind, match=f"It on port .* ended with status {status} before it was ready(.|\n)*the reason"),
        child_servers(
            python(f"print('the reason', flush=True); raise SystemExit({status})"), what="It", log=tmp_path / "log"
        ),
    ):
        pytest.fail("entered")


def test_a_log_that_is_gone_before_a_message_is_read_is_not_named_in_it(tmp_path):
    (tmp_path / "log").write_text("the reason\n")
    assert end_of_log(tmp_path / "log") == f" The end of its log, {tmp_path / 'log'}:\nthe reason"
    with swept("outer-") as folder, swept("inner-"):
        (folder / "log").write_text("the reason\n")
        assert end_of_log(folder / "log") == " The end of its log:\nthe reason"
    assert end_of_log(folder / "log").startswith(f" The end of its log, {folder / 'log'}")


def test_a_server_of_someone_else_is_gone_when_nobody_listens(tmp_path):
    with socket.create_server((LOOPBACK, 0)) as sock:
        url = f"http://{LOOPBACK}:{sock.getsockname()[1]}"
        refuse_gone(url, (), what="It", log=tmp_path / "log")
    with pytest.raises(InfrastructureError, match=r"It at .* listens no more"):
        refuse_gone(url, (), what="It", log=tmp_path / "log")


class Flaky(http.server.BaseHTTPRequestHandler):
    """503 twice, then 200."""

    asked = 0

    def do_GET(self):
        Flaky.asked += 1
        self.send_response(200 if Flaky.asked > 2 else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_waiting_ends_with_the_first_200():
    with http.server.HTTPServer((LOOPBACK, 0), Flaky) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            wait_ready(f"http://{LOOPBACK}:{server.server_port}/", timeout_s=30, what="It")
        finally:
            server.shutdown()
            thread.join()

    assert Flaky.asked == 3


def test_waiting_for_nobody_ends_with_what_was_found():
    with socket.create_server((LOOPBACK, 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(InfrastructureError, match=r"It was not ready .* refused"):
        wait_ready(f"http://{LOOPBACK}:{port}/", timeout_s=0.1, what="It")
