"""What a real Ray session listens on is found, by process and port, and told from what stays on loopback."""

import socket

import psutil
import pytest

from harness.clock import SystemClock
from harness.stages.listeners import DRIVER, ray_listeners

pytestmark = pytest.mark.timeout(120)


@pytest.mark.long
def test_every_process_of_a_session_is_found_with_its_ports_and_gone_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:  # one of the driver's that nobody else reaches
        found = ray_listeners(SystemClock())
        (own,) = (one for one in found if one.port == ours.getsockname()[1])
    assert (own.process, own.address, own.is_open) == (DRIVER, "127.0.0.1", False)
    assert {DRIVER, "gcs_server", "raylet", "worker"} <= {one.process for one in found}
    assert {"gcs_server", "raylet"} <= {one.process for one in found if one.is_open}
    assert len({(one.address, one.port) for one in found}) == len(found)
    assert psutil.Process().children() == []
