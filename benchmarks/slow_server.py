"""The harness's own server, of models that take five milliseconds of their core more than they need.

In and out: as `harness.server`. Python code holds the interpreter meanwhile, as most of scikit-learn does, so it is the
harder case for whoever is to be told that the queue is full.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import harness.server as server
from harness.clock import SystemClock
from harness.records.rows import Batch, Prediction
from harness.records.server import ServerSettings
from harness.serving.app import App
from harness.serving.work import Model

MORE_S = 0.005

_model = server._model


def _slowed(name: str, bundle: Path, runtime: str) -> Model:
    model, clock = _model(name, bundle, runtime), SystemClock()

    def predict(batch: Batch) -> Prediction:
        end_s = clock.monotonic_s() + MORE_S
        while clock.monotonic_s() < end_s:
            pass
        return model.predict(batch)

    return dataclasses.replace(model, predict=predict)


def application(bundles: Mapping[str, Path], runtime: str, settings: ServerSettings, address: str, replica: str) -> App:
    """What a replica of Ray Serve asks its entry for."""
    server._model = _slowed
    return server.application(bundles, runtime, settings, address, replica)


if __name__ == "__main__":
    server._model = _slowed
    sys.exit(server.main())
