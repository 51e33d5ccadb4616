"""What a run is refused for before it begins. What it is refused for when it goes on is with the run."""

import socket
from types import ModuleType

import pytest

from harness.errors import UsageError
from harness.pipeline.refusals import refuse_taken_ports
from harness.process import LOOPBACK


def test_a_port_is_looked_for_where_the_server_will_listen(ledgers: ModuleType) -> None:
    address = "10.0.0.1:6379"
    with socket.create_server((LOOPBACK, 0)) as taken:
        there = {"parameters": {"port": taken.getsockname()[1]}}
        targets = ("asgi", "ray_serve")
        story = ledgers.Story(ledgers.scenario(serve=[{"target": target, **there} for target in targets]))
        cells = {target: story.cell("serve", target=target) for target in targets}
        refuse_taken_ports([cells["ray_serve"]], address)
        for cell, cluster in ((cells["asgi"], address), (cells["ray_serve"], None)):
            with pytest.raises(UsageError, match=f"The target {cell.target}: Cannot listen"):
                refuse_taken_ports([cell], cluster)
