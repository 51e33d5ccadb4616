"""A network of our own: nobody reaches in, nothing gets out, and everyone is still who they were."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

NOBODY = 65534

INSIDE = """
import ctypes, encodings.idna, errno, json, os, socket, sys
from pathlib import Path
from harness.isolation import isolate

def tried(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
        return "connected"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

outside, user = json.loads(sys.argv[1]), int(sys.argv[3])
if user != os.getuid():
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # who they have become may look at their own /proc again
isolate()
inside = socket.create_server(("0.0.0.0", 0))
made = Path(sys.argv[2]) / "made"
made.write_text("")
print(json.dumps({
    "port": inside.getsockname()[1],
    "own": tried("127.0.0.1", inside.getsockname()[1]),
    "out": [tried(host, port) for host, port in outside],
    "user": [os.getuid(), made.stat().st_uid, made.stat().st_gid],
    "interfaces": [name for _, name in socket.if_nameindex()],
    "network": os.readlink("/proc/self/ns/net"),
}), flush=True)
sys.stdin.read()
"""


def own_address() -> str | None:
    """This machine's address on its network; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # nothing is sent: it only asks for a route
        except OSError:
            return None
        return str(sock.getsockname()[0])


@pytest.fixture
def addresses() -> list[str]:
    own = own_address()
    return ["127.0.0.1"] if own is None else ["127.0.0.1", own]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that is anybody's, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


def isolated(outside: list[tuple[str, int]], folder: Path, user: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", INSIDE, json.dumps(outside), str(folder), str(user)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("user", [os.getuid(), pytest.param(NOBODY, id="nobody")])
def test_nobody_reaches_in_and_nothing_gets_out(folder: Path, addresses: list[str], user: int) -> None:
    if os.getuid() not in (0, user):
        pytest.skip("only root can be someone else")
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        for address in addresses:  # it can be reached, from here
            socket.create_connection((address, port), timeout=5).close()
        with isolated([(address, port) for address in addresses], folder, user) as process:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            if "does not permit" in (refused := "" if line else process.stderr.read()):
                pytest.skip(refused.splitlines()[-1])
            assert line, refused
            told = json.loads(line)
            reached = [refusal(address, told["port"]) for address in addresses]
            process.communicate("")
    assert told["own"] == "connected"
    assert told["out"] == ["ECONNREFUSED", "ENETUNREACH"][: len(addresses)]
    assert reached == ["ConnectionRefusedError"] * len(addresses)
    assert told["interfaces"] == ["lo"]
    assert told["network"] != str(Path("/proc/self/ns/net").readlink())
    assert told["user"][:2] == [user, user]
    assert (folder / "made").stat().st_uid == user


def refusal(address: str, port: int) -> str:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError as error:
        return type(error).__name__
    return "connected"


def test_a_thread_would_be_left_behind_and_is_refused() -> None:
    script = (
        "import threading, time; from harness.isolation import isolate; "
        "threading.Thread(target=time.sleep, args=(1,)).start(); isolate()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "another thread would stay behind" in done.stderr


def test_where_the_system_does_not_permit_it_one_paragraph_says_so_and_it_is_the_machine(tmp_path: Path) -> None:
    """In a user namespace that may have no further one, by a process that has no rights over the network."""
    script = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 21, 0, 0, 0); "  # PR_CAPBSET_DROP, CAP_SYS_ADMIN
        f"os.execv(sys.executable, [sys.executable, '-m', 'harness', 'run', '--isolate', '{tmp_path}/no.toml'])"
    )
    without = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--map-root-user", "sh", "-c", without, "sh", sys.executable, "-c", script]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here")
    if "harness: " not in done.stderr:
        pytest.skip(f"no user namespace can be had here: {done.stderr.strip()}")
    assert done.returncode == 5, done.stderr
    assert "does not permit a network of our own (--isolate): " in done.stderr
    assert "Leave out --isolate" in done.stderr and len(done.stderr.splitlines()) == 1
