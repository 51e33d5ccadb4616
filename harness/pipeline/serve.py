"""A candidate of a run, served for whoever asks.

In: a bundle, the names of a target and a runtime. Out: an endpoint, as long as the block lasts, and the wait for the
server's own end.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.clock import Clock
from harness.pipeline.cells import SERVER
from harness.plugins import plugin
from harness.ports import Servable, Target
from harness.process import refuse_gone
from harness.records.candidate import Endpoint
from harness.records.words import Scalar
from harness.store.bundle import artifact_path, read_bundle

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers."""

    endpoint: Endpoint
    log: Path


@contextlib.contextmanager
def served(
    bundle: Path, target: str, runtime: str, replicas: int, parameters: Mapping[str, Scalar]
) -> Iterator[Served]:
    """Serve a bundle, its digests verified first.

    Raises UsageError where it is no bundle, IntegrityError where it is damaged, NotConvertibleError where it has no
    such runtime, InfrastructureError where the server does not become ready.
    """
    candidate = read_bundle(bundle)
    artifact_path(bundle, candidate, runtime)
    made: Target = plugin("targets", target, parameters)
    with tempfile.TemporaryDirectory(prefix="harness-serve-") as folder:
        servable = Servable(
            entry=SERVER,
            bundle=bundle.resolve(),
            runtime=runtime,
            model=candidate.id,
            replicas=replicas,
            cores=(),
            log=Path(folder, "server.log"),
        )
        with made.serve(servable) as endpoint:
            yield Served(endpoint, servable.log)


def wait_for_its_end(served: Served, clock: Clock) -> NoReturn:
    """Wait until the server ends, which it does not do by itself: raises InfrastructureError then."""
    endpoint = served.endpoint
    while True:
        refuse_gone(endpoint.url, endpoint.processes, what=f"The server of {endpoint.model}", log=served.log)
        clock.sleep(_LOOK_EVERY_S)
