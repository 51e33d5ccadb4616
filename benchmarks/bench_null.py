"""What does a request cost when the server does nothing? The floor under every latency of a report."""

from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.plugins import plugin
from harness.ports import Servable
from harness.stages.validate import Connection


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    log = tmp_path_factory.mktemp("null") / "server.log"
    servable = Servable(
        entry="harness.server", bundle=None, runtime=None, model="candidate", replicas=1, cores=(), log=log
    )
    with plugin("targets", "null").serve(servable) as endpoint, Connection(endpoint) as connected:
        yield connected


def test_null_round_trip(benchmark: BenchmarkFixture, connection: Connection) -> None:
    benchmark.extra_info.update(benchmark="null_round_trip")
    assert benchmark(connection.infer, b"{}")
