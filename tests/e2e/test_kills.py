"""A few repeats of `tests/kills.py`, which a person runs with fifty."""

import subprocess
import sys

import pytest
from commands import ROOT

VICTIMS = ("driver", "trial", "supervisor", "actor", "raylet")


def killed(*options: str) -> str:
    """What the script says; it has failed where anything was lost, or where a victim was never struck."""
    command = [sys.executable, "tests/kills.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(900)
def test_nothing_is_lost_when_one_process_of_a_run_after_the_other_is_killed() -> None:
    """All in one run, so that Ray is started no more often than kills end it."""
    said = killed("--repeats", "1", "--together", "--workers", "1", "--seed", "1")
    assert "1 repeats, 0 with something lost" in said
    assert [line.split()[:2] for line in said.splitlines()[-5:]] == [[victim, "1"] for victim in VICTIMS]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_lost_whatever_is_killed(victim: str) -> None:
    said = killed("--repeats", "3", "--victims", victim, "--seed", "2")
    assert "3 repeats, 0 with something lost" in said


@pytest.mark.long
def test_kills_that_never_land_show_nothing_and_fail() -> None:
    command = [sys.executable, "tests/kills.py", "--repeats", "0", "--victims", "actor", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No kill landed on: actor." in done.stdout
