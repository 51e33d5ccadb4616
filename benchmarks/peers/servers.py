"""The servers that are compared: how each is started on the cores it is given, asked for a row, and read.

In: the forest on disk. Out: `SERVERS`, of each an endpoint that is ready, the bodies of one-row requests, and the
probabilities in an answer. A peer runs in its own environment (`make peers`), with the settings that its documentation
has for production: one process, no access log, no batching. Ours and Ray Serve are targets of the harness.
"""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from conftest import Subject
from numpy.typing import NDArray

from harness.environments import interpreter, is_installed
from harness.plugins import plugin
from harness.ports import Servable
from harness.process import LOOPBACK, ONE_THREAD, child, wait_ready
from harness.records.candidate import Endpoint
from harness.records.server import ServerSettings
from harness.records.words import Protocol
from harness.serving.protocol import decode_response, encode_request
from harness.stages.dialects import Arguments, writer
from harness.stages.host import split_cores
from harness.sweeper import swept

HERE = Path(__file__).parent
_, CORES = split_cores()
READY_S = 120.0

Started = AbstractContextManager[Endpoint]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forest:
    """The same trees in every form that a server wants."""

    subject: Subject
    model: Path
    """As joblib writes scikit-learn's estimator: what the peers' own users have. Without the steps before it, which
    change nothing in this table: a peer is not to pay for them."""
    folder: Path
    """For logs, and for what a server is started from."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server of the comparison."""

    name: str
    start: Callable[[Forest], Started]
    bodies: Callable[[Subject], Sequence[bytes]]
    """A request per row of the holdout."""
    probabilities: Callable[[Subject, bytes], Numbers]
    """Of the classes, in an answer to one row; shape (classes,)."""
    settings: str
    libraries: tuple[str, ...]
    environment: str | None = None
    """Name of its environment; None: ours."""

    @property
    def is_installed(self) -> bool:
        """Whether it can be measured here."""
        return self.environment is None or is_installed(self.environment)

    @property
    def versions(self) -> str:
        """Of its libraries, as they are installed."""
        if self.environment is None:
            return ", ".join(f"{name} {version(name)}" for name in self.libraries)
        code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
        command = [str(interpreter(self.environment)), "-c", code, *self.libraries]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return ", ".join(f"{name} {one}" for name, one in zip(self.libraries, found, strict=True))


def forest_of(subject: Subject, estimator: Any, folder: Path) -> Forest:
    """The forest, with the peers' form of it on disk."""
    model = folder / "forest.joblib"
    joblib.dump(estimator, model)
    return Forest(subject, model, folder)


def _target(
    name: str, runtime: str, *, batch: int = 1, cores: tuple[int, ...] = CORES, **parameters: Any
) -> Callable[[Forest], Started]:
    def start(forest: Forest) -> Started:
        log = forest.folder / f"{name}.log"
        # None of the peers refuses anyone, so ours is not to refuse whoever waits longer than half a second either.
        settings = ServerSettings(waiting_s=10.0, batch_requests=batch)
        servable = Servable("harness.server", forest.subject.bundle, runtime, "m", 1, cores, log, settings=settings)
        found: Started = plugin("targets", name, parameters).serve(servable)
        return found

    return start


@contextlib.contextmanager
def _peer(
    forest: Forest, environment: str, port: int, arguments: Sequence[str], ready: str, call: str, **settings: str
) -> Iterator[Endpoint]:
    """A command of a peer's environment, ready to be asked at `port`."""
    programs, log, url = (
        interpreter(environment).parent,
        forest.folder / f"{environment}.log",
        f"http://{LOOPBACK}:{port}",
    )
    command = [str(programs / arguments[0]), *arguments[1:]]
    around = {**ONE_THREAD, "PATH": f"{programs}:{os.environ['PATH']}", **settings}
    # Swept: BentoML's workers are in a session of their own, and outlive what started them where that is killed.
    with swept("peer"), child(command, log=log, cores=CORES, environment=around):
        wait_ready(f"{url}{ready}", timeout_s=READY_S, what=environment, log=log)
        yield Endpoint(url=url, model="", path=call, startup_s=0.0, cores=CORES)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        port: int = sock.getsockname()[1]
        return port


def _mlserver(forest: Forest) -> Started:
    folder = forest.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    port = _free_port()
    settings = {
        "host": LOOPBACK,
        "http_port": port,
        "grpc_port": _free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": "forest",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(forest.model)},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    path = "/v2/models/forest"
    return _peer(forest, "mlserver", port, ["mlserver", "start", str(folder)], f"{path}/ready", f"{path}/infer")


def _mlflow(forest: Forest) -> Started:
    folder = forest.folder / "mlflow"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "UVICORN_ACCESS_LOG": "false"}
    if not folder.exists():
        with (forest.folder / "mlflow.log").open("ab") as log:
            command = [interpreter("mlflow"), HERE / "mlflow_model.py", forest.model, folder]
            subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, **quiet})
    port = _free_port()
    serve = ["mlflow", "models", "serve", "--model-uri", str(folder), "--env-manager", "local", "--workers", "1"]
    serve += ["--host", LOOPBACK, "--port", str(port)]
    return _peer(forest, "mlflow", port, serve, "/ping", "/invocations", **quiet)


def _bentoml(forest: Forest) -> Started:
    port, home = _free_port(), str(forest.folder / "bentoml")
    serve = ["bentoml", "serve", "bento_service:Forest", "--working-dir", str(HERE)]
    serve += ["--host", LOOPBACK, "--port", str(port)]
    own = {"PEERS_MODEL": str(forest.model), "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": home}
    return _peer(forest, "bentoml", port, serve, "/readyz", "/predict", **own)


def _ours(subject: Subject) -> list[bytes]:
    rows, signature = subject.rows, subject.candidate.signature
    return [encode_request(rows.take(slice(place, place + 1)), signature) for place in range(len(rows))]


def _our_probabilities(subject: Subject, answer: bytes) -> Numbers:
    found = decode_response(answer, subject.candidate.signature).probabilities
    assert found is not None
    return found[0]


def _written(protocol: Protocol, **more: Any) -> Callable[[Subject], Sequence[bytes]]:
    """Rows in a dialect of `[requests]`."""

    def bodies(subject: Subject) -> list[bytes]:
        names = [column.name for column in subject.candidate.signature.columns]
        rows = [dict(zip(names, row, strict=True)) for row in subject.rows.numbers.tolist()]
        stated = Arguments(("rows",), ("rows",), {"rows": "matrix"}) if protocol == "bentoml" else None
        write = writer(protocol, rows, stated)
        return [json.dumps({**write([row], ""), **more}, separators=(",", ":")).encode() for row in rows]

    return bodies


def _of_mlserver(_: Subject, answer: bytes) -> Numbers:
    (output,) = json.loads(answer)["outputs"]
    return np.array(output["data"])


def _of_mlflow(_: Subject, answer: bytes) -> Numbers:
    return np.array(json.loads(answer)["predictions"][0])


def _of_bentoml(_: Subject, answer: bytes) -> Numbers:
    return np.array(json.loads(answer)[0])


OURS = ("automl-harness", "onnxruntime", "uvicorn")

SERVERS = (
    Server("asgi + onnx", _target("asgi", "onnx"), _ours, _our_probabilities, "one process", OURS),
    Server(
        "asgi + onnx, batches",
        _target("asgi", "onnx", batch=32),
        _ours,
        _our_probabilities,
        "one process; up to 32 of those that wait anyhow are computed together",
        OURS,
    ),
    Server(
        "asgi + sklearn_native",
        _target("asgi", "sklearn_native"),
        _ours,
        _our_probabilities,
        "one process",
        ("automl-harness", "scikit-learn", "uvicorn"),
    ),
    Server(
        "MLServer",
        _mlserver,
        _written("v2:np", outputs=[{"name": "predict_proba"}]),
        _of_mlserver,
        "sklearn runtime, parallel_workers=0, debug=false (no access log), no metrics, content type np",
        ("mlserver", "mlserver-sklearn", "scikit-learn"),
        "mlserver",
    ),
    Server(
        "MLflow",
        _mlflow,
        _written("mlflow:inputs"),
        _of_mlflow,
        "mlflow models serve --env-manager local --workers 1 (its uvicorn), no access log, `inputs`",
        ("mlflow", "uvicorn", "scikit-learn"),
        "mlflow",
    ),
    Server(
        "BentoML",
        _bentoml,
        _written("bentoml"),
        _of_bentoml,
        "workers=1, no batching, no access log, an array of numpy",
        ("bentoml", "uvicorn", "scikit-learn"),
        "bentoml",
    ),
    Server(
        "Ray Serve as it comes + onnx",
        _target("ray_serve", "onnx", haproxy=False, throughput_optimized=False, max_ongoing_requests=100),
        _ours,
        _our_probabilities,
        "its own proxy, one replica, no access log, max_ongoing_requests=100",
        ("ray", "onnxruntime"),
    ),
    Server(
        "ray_serve + onnx",
        _target("ray_serve", "onnx"),
        _ours,
        _our_probabilities,
        "HAProxy, throughput optimized, one replica, no access log, requests through our ingress",
        ("ray", "onnxruntime"),
    ),
    Server(
        "ray_serve + onnx, all cores",
        _target("ray_serve", "onnx", cores=()),
        _ours,
        _our_probabilities,
        "the same, on the generator's core too",
        ("ray", "onnxruntime"),
    ),
)
