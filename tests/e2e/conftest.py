"""The look at what a test left running."""

from collections.abc import Callable

import psutil
import pytest
from commands import left_running


@pytest.fixture
def nothing_left() -> Callable[[], list[str]]:
    """Call it at the end: what the test's commands left running."""
    before = set(psutil.pids())
    return lambda: left_running(before)
