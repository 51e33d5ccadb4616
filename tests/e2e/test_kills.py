"""A few repeats of `tests/kills.py`, which a person runs with fifty."""

import subprocess
import sys

import pytest
from commands import ROOT

LONG = pytest.mark.long


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("victim", "seed"),
    [
        ("driver", 0),  # once, with two workers
        pytest.param("driver", 2, marks=LONG),  # once, with one worker: held against a search that nobody disturbed
        pytest.param("supervisor", 1, marks=LONG),
        pytest.param("raylet", 1, marks=LONG),
    ],
)
def test_nothing_is_lost_whatever_is_killed(victim: str, seed: int) -> None:
    command = [sys.executable, "tests/kills.py", "--repeats", "1", "--victims", victim, "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 repeats, 0 with something lost" in done.stdout
