"""The made-up runs of `tests/ledgers.py`, as fixtures: test folders are no packages."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from harness.analysis.document import document
from harness.records.finding import Document

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
    return document(story.ledger(), story.reduced())
