"""A run in a network of its own: nobody reaches what it listens on, and it goes on after an interruption."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import FINISHED, MARK, harness, started, wait_for_trials

pytestmark = pytest.mark.timeout(300)

SCENARIO = """
question = "Who can reach us while we search?"

[data]
source = "sklearn:iris"

[search]
engines = ["random_search"]
trials = 4000
seconds = 12
families = ["logistic"]

[micro]
enabled = false
"""

LISTENS = "0A"
"""State of a socket in /proc/net/tcp."""


def network(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def listening(pid: int) -> dict[int, bool]:
    """Ports on which someone listens in the network of a process, and whether on more than loopback."""
    found: dict[int, bool] = {}
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, port = local.split(":")
            if state == LISTENS:
                found[int(port, 16)] = found.get(int(port, 16), False) or address != loopback
    return found


def own_addresses() -> list[str]:
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    ]
    assert "127.0.0.1" in found
    return found


def ours() -> list[int]:
    """Every process that the run consists of."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]:
                found.append(process.pid)
    return found


@pytest.mark.long
def test_nothing_it_listens_on_is_reached_and_it_can_be_resumed(
    tmp_path: Path, nothing_left: Callable[[], list[str]]
) -> None:
    (tmp_path / "alone.toml").write_text(SCENARIO)
    common = ["--results", str(tmp_path), "--isolate"]
    with started(["run", str(tmp_path / "alone.toml"), "--run-id", "alone", *common]) as run:
        assert run.stderr is not None
        with contextlib.suppress(AssertionError):
            wait_for_trials(run, tmp_path / "alone" / "run.db", 3)
        if run.poll() is not None and "does not permit" in (told := run.stderr.read()):
            pytest.skip(told.strip())
        theirs, networks = listening(run.pid), {network(pid) for pid in ours()}
        here = listening(os.getpid())
        # Ray's own are there, on every interface; and not one of them is in this network.
        assert sum(theirs.values()) >= 3, theirs
        reached = []
        for port in set(theirs) - set(here):  # on one of the others a stranger may listen, here
            for address in own_addresses():
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection((address, port), timeout=5):
                    reached.append((address, port))
        run.send_signal(signal.SIGINT)
        told = run.stderr.read()
    assert run.returncode == 130, told
    assert reached == []
    # All of them are in one network that is not this one: so it holds for a port that was left out above.
    assert len(networks) == 1 and network(os.getpid()) not in networks
    assert f"harness run --resume alone --results {tmp_path} --isolate" in told
    assert nothing_left() == []
    resumed = harness("run", "--resume", "alone", *common)
    assert resumed.returncode in FINISHED, resumed.stderr
    assert nothing_left() == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--ray-address", "127.0.0.1:6379"], "--ray-address asks for it"),
        (["--ui"], "none could reach it"),
    ],
)
def test_what_lies_outside_is_refused(tmp_path: Path, given: list[str], said: str) -> None:
    refused = harness("run", "scenarios/smoke.toml", "--isolate", "--results", str(tmp_path / "results"), *given)
    assert refused.returncode == 2, refused.stderr
    assert said in refused.stderr
    assert not (tmp_path / "results").exists()
