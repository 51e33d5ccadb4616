"""What all tests share: examples that are the same every time, and the made-up runs of `tests/ledgers.py`."""

import importlib.util
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.records.finding import Document

# No deadline: a busy machine is no counterexample.
settings.register_profile("harness", derandomize=True, deadline=None)
settings.load_profile("harness")

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
