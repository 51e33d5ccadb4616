"""Ray as a block: what it needs comes with it, and nothing of it stays behind."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.errors import InfrastructureError
from harness.ray_session import _environment, ray_session

pytestmark = pytest.mark.timeout(300)


def test_the_environment_is_as_it_was_whatever_ray_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "before")
    monkeypatch.setenv("RAY_OF_THE_USER", "kept")
    before = dict(os.environ)

    with _environment({"RAY_SERVE_ENABLE_HA_PROXY": "1", "OMP_NUM_THREADS": "1"}):
        assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        os.environ["RAY_AUTH_MODE"] = "token"

    assert dict(os.environ) == before


def test_an_address_where_no_cluster_answers_is_refused_at_once() -> None:
    with socket.socket() as bound:
        # Bound and not listening: whoever connects is refused.
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with (
            pytest.raises(InfrastructureError, match=f"No Ray cluster answers at {address}"),
            ray_session(1, address),
        ):
            raise AssertionError("there is no cluster")


SESSION = """
import os, sys, time
os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
from harness.ray_session import ray_session
with ray_session(1):
    import ray
    from ray._private.worker import _global_node
    print(_global_node.get_session_dir_path(), flush=True)
    if sys.argv[1] == "stay":
        time.sleep(120)
"""


def started_session(what: str) -> tuple["subprocess.Popen[str]", Path, dict[psutil.Process, str]]:
    process = subprocess.Popen([sys.executable, "-c", SESSION, what], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    children: dict[psutil.Process, str] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            children[child] = " ".join([child.name(), *child.cmdline()])
    return process, folder, children


def test_of_a_session_nothing_is_left_neither_process_nor_file() -> None:
    process, folder, children = started_session("end")
    assert folder.is_absolute()
    process.communicate(timeout=60)
    assert process.returncode == 0
    _, alive = psutil.wait_procs(list(children), timeout=30)
    assert not alive
    assert not folder.parent.exists()


@pytest.mark.long
def test_when_its_process_is_killed_a_session_dies_with_it() -> None:
    process, folder, children = started_session("stay")
    assert any("raylet" in what for what in children.values())
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(list(children), timeout=30)
    assert not alive
    for _ in range(600):
        if not folder.parent.exists():
            break
        time.sleep(0.05)
    assert not folder.parent.exists()
