"""A candidate of a run, served for whoever asks.

In: a bundle, the names of a target and a runtime. Out: an endpoint, as long as the block lasts.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.pipeline.cells import SERVER
from harness.plugins import plugin
from harness.ports import Servable, Target
from harness.records.candidate import Endpoint
from harness.records.scenario import Scalar
from harness.store.bundle import artifact_path, read_bundle


@contextlib.contextmanager
def served(
    bundle: Path, target: str, runtime: str, replicas: int, parameters: Mapping[str, Scalar]
) -> Iterator[Endpoint]:
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
            yield endpoint
