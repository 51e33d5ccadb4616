"""A server that does what each request says, for whoever tests the load stage."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.process import child
from harness.records.candidate import Endpoint
from harness.stages.host import split_cores


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    endpoint: Endpoint

    def order(self, body: bytes) -> None:
        """Have it do something beside the load."""
        port = int(self.endpoint.url.rpartition(":")[2])
        command = [sys.executable, "-c", ASK, str(port), body.decode()]
        subprocess.run(command, check=True, timeout=30)


ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("POST", "/", sys.argv[2])
assert connection.getresponse().status == 200
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    script, port_file = Path(__file__).with_name("obedient_server.py"), folder / "port"
    _, cores = split_cores()
    with child([sys.executable, str(script), str(port_file)], log=folder / "server.log", cores=cores) as process:
        for _ in range(1000):
            if port_file.exists():
                break
            time.sleep(0.02)
        url = f"http://127.0.0.1:{port_file.read_text()}"
        yield Server(process, Endpoint(url=url, model="m", startup_s=0.0))
