"""The look at what a test left running."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import left_running


@pytest.fixture
def nothing_left(tmp_path: Path) -> Callable[[], list[str]]:
    """Call it at the end: what the test's commands left running."""
    before = set(psutil.pids())
    return lambda: left_running(tmp_path, before)
