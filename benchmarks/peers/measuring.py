"""One round of one server: started, asked for every row, loaded, ended.

In: the name of a server, the forest, and the right probabilities. Out: `Round`. Each is to have a process of its own:
Ray Serve reads its switches when it is imported, so that a second one in the same process would run with the first
one's.
"""

import http.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from servers import SERVERS, Forest

from harness.errors import InfrastructureError
from harness.records.candidate import Endpoint
from harness.records.load import Outcome, Step
from harness.records.scenario import LoadPlan
from harness.stages.host import split_cores
from harness.stages.load.generator import Generator, generator
from harness.stats.agreement import PARITY_DIFFERENCE

IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
WARM_S = 1.0
CORES, _ = split_cores()


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found of a server."""

    rates_rps: dict[int, float]
    """By requests in flight."""
    latencies_ms: NDArray[np.float64]
    """Of each request with one in flight, shape (n,)."""
    largest_difference: float
    """Of a probability, from the fitted pipeline's."""


def measured(name: str, trees: Forest, right: NDArray[np.float64], seconds: float) -> Round:
    """The round of a server, with steps of so many seconds. Raises HarnessError where it fails or answers wrongly."""
    (server,) = (server for server in SERVERS if server.name == name)
    bodies = server.bodies(trees.subject)
    with server.start(trees) as endpoint:
        answers = [server.probabilities(trees.subject, answer) for answer in _asked(endpoint, bodies)]
        difference = _refused_if_wrong(np.stack(answers), right)
        with generator(endpoint, bodies, None, LoadPlan(), CORES, trees.folder / "load") as load:
            _driven(load, IN_FLIGHT[-1], WARM_S)
            latencies_ms = {count: _driven(load, count, seconds) for count in IN_FLIGHT}
    rates_rps = {count: len(each) / seconds for count, each in latencies_ms.items()}
    return Round(rates_rps, latencies_ms[1], difference)


def _asked(endpoint: Endpoint, bodies: Sequence[bytes]) -> Iterator[bytes]:
    address = urlsplit(endpoint.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30.0)
    try:
        for body in bodies:
            connection.request("POST", endpoint.infer_path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise InfrastructureError(f"it answered {response.status}: {answer[:200].decode(errors='replace')}")
            yield answer
    finally:
        connection.close()


def _refused_if_wrong(answers: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The largest difference of a probability. Raises InfrastructureError on one that float32 does not explain."""
    difference = float(np.abs(answers - right).max()) if answers.shape == right.shape else float("inf")
    if not difference <= PARITY_DIFFERENCE or (answers.argmax(axis=1) != right.argmax(axis=1)).any():
        raise InfrastructureError(f"its answers are not the model's: they differ by up to {difference:.2g}")
    return difference


def _driven(load: Generator, in_flight: int, seconds: float) -> NDArray[np.float64]:
    """Latency of each request of a closed step, in milliseconds. Raises InfrastructureError where one failed."""
    step = Step(shape="b", number=0, mode="closed", in_flight=in_flight, duration_s=seconds, warmup_s=0.0)
    columns = load.drive(step).columns
    if failed := int((columns["outcome"] != Outcome.OK).sum()):
        raise InfrastructureError(f"{failed} of {len(columns['outcome'])} requests failed with {in_flight} in flight")
    return np.asarray((columns["done_ns"] - columns["due_ns"]) / 1e6)
