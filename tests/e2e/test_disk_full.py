"""A disk that is full in the middle of a search costs no trial that was finished before."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import FINISHED, ROOT

TRIALS = 60

SCENARIO = f"""
question = "What if the disk is full?"

[data]
source = "sklearn:iris"

[search]
engines = ["optuna_search"]
trials = {TRIALS}
seconds = 60
workers = 1
families = ["logistic"]

[micro]
enabled = false
"""

STORY = """
import contextlib, json, sqlite3, subprocess, sys
place, scenario = sys.argv[1:]

def harness(*arguments):
    command = [sys.executable, "-m", "harness", "run", *arguments, "--results", place]
    done = subprocess.run(command, capture_output=True, text=True)
    # As the command does, from a copy: a log that has no writer is not to be played back here.
    from harness.store.connections import reading
    from pathlib import Path
    with reading(Path(place) / "full" / "run.db") as connection:
        trials = connection.execute("SELECT number, record ->> '$.asked', sha256 FROM trials ORDER BY rowid").fetchall()
    return {"status": done.returncode, "told": done.stderr, "trials": trials}

full = harness(scenario, "--run-id", "full")
subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
print(json.dumps([full, harness("--resume", "full")]))
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_full_disk_is_told_and_the_search_goes_on_when_there_is_space(
    tmp_path: Path, nothing_left: Callable[[], list[str]]
) -> None:
    """On a disk of its own, which is memory in a mount namespace of its own."""
    (tmp_path / "full.toml").write_text(SCENARIO)
    place = tmp_path / "disk"
    place.mkdir()
    mounted = 'mount -t tmpfs -o size=512k tmpfs "$0" && exec "$@"'
    story = [sys.executable, "-c", STORY, str(place), str(tmp_path / "full.toml")]
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, str(place), *story]
    if sys.platform != "linux" or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    full, resumed = json.loads(done.stdout)
    assert full["status"] == 5, full["told"]
    assert "Traceback" not in full["told"] and "resume the run" in full["told"]
    assert 0 < len(full["trials"]) < TRIALS
    assert resumed["status"] in FINISHED, resumed["told"]
    before, after = full["trials"], resumed["trials"]
    assert after[: len(before)] == before
    assert [number for number, _, _ in after] == list(range(TRIALS))
    assert sorted(asked for _, asked, _ in after) == list(range(TRIALS))
    assert nothing_left() == []
