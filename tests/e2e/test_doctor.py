"""`harness doctor`: what it says, what it keeps, and that nothing is left of it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import harness, interrupted

from harness.records.run import Roofline
from harness.stages.host import fingerprint
from harness.store.roofline import read_roofline

FIT, DISTURBED = 0, 4
"""Which of them it is, is up to what else the machine does meanwhile."""


@pytest.mark.long
def test_it_says_what_it_found_and_keeps_the_roofline(tmp_path: Path, nothing_left: Callable[[], list[str]]) -> None:
    done = harness("doctor", "--seconds", "4", "--results", str(tmp_path))
    assert done.returncode in (FIT, DISTURBED), done.stderr
    assert nothing_left() == []
    *lines, verdict = done.stdout.splitlines()
    assert verdict.startswith("Fit to measure, up to " if done.returncode == FIT else "Not fit to measure.")
    assert any(line.startswith("disturbed: ") for line in lines) == (done.returncode == DISTURBED)
    told = [line for line in lines if not line.startswith(("disturbed: ", "note: "))]
    width = len(told[0]) - len(told[0].removeprefix("system").lstrip())
    assert all(line[width - 2 : width] == "  " and line[width] != " " for line in told), done.stdout
    assert any(line.startswith("open: Ray's gcs_server  ") for line in told), done.stdout
    assert "note: while Ray runs, " in done.stdout and "`harness run --isolate` closes them all" in done.stdout
    assert all(line.startswith("doctor: ") for line in done.stderr.splitlines()), done.stderr
    assert read_roofline(tmp_path, fingerprint()) is not None
    assert harness("report", "latest", "--results", str(tmp_path)).returncode == 2


@pytest.mark.long
def test_programs_read_the_same(tmp_path: Path, nothing_left: Callable[[], list[str]]) -> None:
    done = harness("doctor", "--json", "--seconds", "4", "--results", str(tmp_path))
    found = json.loads(done.stdout)
    assert done.returncode == (FIT if found["fit"] else DISTURBED) and found["fit"] == (found["disturbances"] == [])
    assert found["fit_up_to_rps"] <= 0.7 * found["roofline"]["rate_rps"]
    assert read_roofline(tmp_path, fingerprint()) == Roofline.model_validate(found["roofline"])
    assert {"host", "timer", "priority", "gaps", "idle", "closed", "open", "notes", "sustained_rps"} <= found.keys()
    open_ports = [one for one in found["listeners"] if one["address"] not in ("127.0.0.1", "::1")]
    assert {"gcs_server", "raylet"} <= {one["process"] for one in open_ports}
    assert nothing_left() == []


@pytest.mark.long
def test_interrupted_it_leaves_nothing(tmp_path: Path, nothing_left: Callable[[], list[str]]) -> None:
    arguments = ["doctor", "--results", str(tmp_path)]
    for said in ("a core spins", "open load, 1,000 req/s", "starting Ray"):
        status, told = interrupted(arguments, said, signal.SIGINT)
        assert status == 130 and "nothing is left running" in told, told
        assert "Traceback" not in told
        assert nothing_left() == []
        # Ray comes last, when the roofline is known and kept.
        assert (read_roofline(tmp_path, fingerprint()) is None) == (said != "starting Ray")
