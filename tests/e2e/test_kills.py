"""A few repeats of `tests/kills.py`, which a person runs with fifty."""

import subprocess
import sys

import pytest
from commands import ROOT


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["driver", "supervisor", "raylet"])
def test_nothing_is_lost_whatever_is_killed(victim: str) -> None:
    command = [sys.executable, "tests/kills.py", "--repeats", "1", "--victims", victim]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 repeats, 0 with something lost" in done.stdout
