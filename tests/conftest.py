"""What all tests share: examples that are the same every time, and the made-up runs of `tests/ledgers.py`."""

import importlib.util
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
