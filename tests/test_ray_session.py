"""Ray as a block: what it needs comes with it, and nothing of it stays behind."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.errors import InfrastructureError
from harness.ray_session import _environment, _refuse_unguarded, ray_session

pytestmark = pytest.mark.timeout(300)


def test_the_environment_is_as_it_was_whatever_ray_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "before")
    monkeypatch.setenv("RAY_OF_THE_USER", "kept")
    before = dict(os.environ)

    with _environment({"RAY_SERVE_ENABLE_HA_PROXY": "1", "OMP_NUM_THREADS": "1", "RAY_OF_THE_USER": None}):
        assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert "RAY_OF_THE_USER" not in os.environ
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
import json, os, sys, time
os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
os.environ["RAY_AUTH_MODE"] = "disabled"
from harness.ray_session import ray_session
with ray_session(1):
    import ray
    from ray._common.usage import usage_lib
    from ray._private.worker import _global_node
    told = {
        "folder": _global_node.get_session_dir_path(),
        "address": _global_node.gcs_address,
        "statistics": usage_lib.usage_stats_enabled(),
        "dashboard": ray._private.worker.get_dashboard_url(),
    }
    print(json.dumps(told), flush=True)
    if sys.argv[1] == "stay":
        time.sleep(120)
    sys.stdin.readline()
"""

CLIENT = """
import sys, ray
from ray._raylet import GcsClient
try:
    print(GcsClient(address=sys.argv[1]).get_all_node_info())
except Exception as error:
    print("refused:", error)
"""


def started_session(what: str) -> tuple["subprocess.Popen[str]", dict[str, Any], dict[psutil.Process, str]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", SESSION, what], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    children: dict[psutil.Process, str] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            children[child] = " ".join([child.name(), *child.cmdline()])
    return process, told, children


def test_a_session_asks_for_its_token_whatever_the_user_has_set_shows_no_page_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    process, told, children = started_session("end")
    folder = Path(told["folder"])
    assert folder.is_absolute()
    # What Ray itself says: that we set a variable would not show that it has this meaning.
    assert not told["statistics"] and not told["dashboard"]
    assert not listening(children) & set(range(8265, 8365)), "where Ray's dashboard listens"
    # Somebody else on this machine, with all of ours but the token.
    strangers = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    asked = [sys.executable, "-c", CLIENT, told["address"]]
    found = subprocess.run(asked, env={**strangers, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert found.stdout.startswith("refused:") and "oken" in found.stdout
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    _, alive = psutil.wait_procs(list(children), timeout=30)
    assert not alive
    assert not folder.parent.exists()


def test_a_ray_that_does_not_guard_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(InfrastructureError, match="started without asking for its token"):
        _refuse_unguarded()


def listening(processes: Iterable[psutil.Process]) -> set[int]:
    """Ports on which they can be reached."""
    found: set[int] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            connections = process.net_connections()
            found |= {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.long
@pytest.mark.alone
def test_sessions_with_a_token_and_clusters_without_one_take_turns_in_a_process(ray_cluster: Any) -> None:
    import ray

    for address in (None, ray_cluster.address, None):
        with ray_session(1, address):
            actor: Any = ray.remote(num_cpus=0)(Doubler).remote()
            assert ray.get(actor.doubled.remote(21), timeout=60) == 42


class Doubler:
    def doubled(self, number: int) -> int:
        return 2 * number


@pytest.mark.long
def test_when_its_process_is_killed_a_session_dies_with_it() -> None:
    process, told, children = started_session("stay")
    folder = Path(told["folder"])
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
