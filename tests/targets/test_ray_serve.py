"""Ray Serve's own promises, which take a session of Ray each."""

import dataclasses
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from harness.errors import InfrastructureError
from harness.process import LOOPBACK
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
