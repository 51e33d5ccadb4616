"""What all tests share: examples that are the same every time, and the made-up runs of `tests/ledgers.py`."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from harness import ray_session
from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.records.finding import Document
from harness.sweeper import swept

# No deadline: a busy machine is no counterexample.
settings.register_profile("harness", derandomize=True, deadline=None)
settings.load_profile("harness")

# A shell that starts us in the background has it ignored, and every command that a test interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_FILE = Path(__file__).with_name("ledgers.py")


@pytest.fixture(scope="session")
def ledgers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ledgers", _FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def whole_document(ledgers: ModuleType) -> Document:
    """The report of `ledgers.whole_run()`; drawn once, for all that only read it."""
    story = ledgers.whole_run()
    return document(findings(story.ledger(), story.reduced()))


class RayCluster:
    """A cluster of three nodes on this machine, one of them without CPUs: `tests/ray_cluster.py`, under way."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process = process
        self.folder = str(folder)
        """Of its files; also the mark by which its processes, and all below them, are known."""
        self.address = self._said()

    def lose_a_node(self) -> None:
        self._obeys("lose")

    def gain_a_node(self) -> None:
        self._obeys("gain")

    def _obeys(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        assert self._said() == "done"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def _ray_cluster() -> Iterator[RayCluster]:
    script = Path(__file__).with_name("ray_cluster.py")
    pipe = subprocess.PIPE
    with swept("cluster-") as folder, (folder / "log").open("w") as log:
        surroundings = {**os.environ, **ray_session._SETTINGS}  # with the sweeper's mark
        surroundings.pop("HARNESS_TESTS", None)  # it is not started by the commands under test
        command = [sys.executable, str(script), str(folder)]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=surroundings) as process:
            yield RayCluster(process, folder)
            process.communicate(timeout=60)  # its end is that of its input


@pytest.fixture
def ray_cluster() -> Iterator[RayCluster]:
    with _ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_ray_cluster() -> Iterator[RayCluster]:
    """One for all tests of a file, which leave it as they found it."""
    with _ray_cluster() as cluster:
        yield cluster


@pytest.fixture
def read_only(tmp_path: Path) -> Callable[[Sequence[str], Path], subprocess.CompletedProcess[str]]:
    """Runs a command in a mount namespace of its own, where nothing can be written below a folder, not even by root."""

    def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        mounted = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        unshared = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, str(folder), *command]
        return subprocess.run(unshared, capture_output=True, text=True, check=False)

    try:
        refused = run(["touch", str(tmp_path / "probe")], tmp_path)
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here")
    if "Read-only file system" not in refused.stderr:
        pytest.skip(f"nothing can be mounted here: {refused.stderr.strip()}")
    return run
