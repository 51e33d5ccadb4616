"""What was started inside a swept block, and its folder, are gone after it, however it ended."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.sweeper import swept

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"

OWNER = f"""
import subprocess, sys, time
from harness.sweeper import swept
with swept("test-") as folder:
    inside = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], start_new_session=True)
    print(inside.pid, folder, flush=True)
    time.sleep(300)
"""


NESTED = OWNER.replace('with swept("test-") as folder:', 'with swept("outer-") as outer, swept("test-") as folder:')
NESTED = NESTED.replace("folder, flush", "folder, outer, flush")


def gone(process: psutil.Process, patience_s: float = 30.0) -> bool:
    deadline_s = time.perf_counter() + patience_s
    while time.perf_counter() < deadline_s:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("owner_code", [OWNER, NESTED], ids=["", "in another block"])
def test_a_killed_owner_leaves_neither_process_nor_folder(owner_code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, *folders = owner.stdout.readline().split()
        inside = psutil.Process(int(pid))
        owner.kill()
    assert gone(inside)
    deadline_s = time.perf_counter() + 30
    while any(Path(folder).exists() for folder in folders) and time.perf_counter() < deadline_s:
        time.sleep(0.05)
    assert not [folder for folder in folders if Path(folder).exists()]


@pytest.mark.long
def test_a_block_that_fails_is_swept_and_what_was_there_before_is_not_touched() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as outside:
        with pytest.raises(RuntimeError, match="of the block"), swept("test-") as folder:
            (folder / "file").touch()
            inside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
            raise RuntimeError("of the block")
        assert not folder.exists()
        assert inside.wait(timeout=30) == -9
        assert outside.poll() is None
        outside.kill()


WRITER = "import sys, time; file = open(sys.argv[1], sys.argv[2]); print('open', flush=True); time.sleep(300)"


@pytest.mark.parametrize(("mode", "swept_too"), [("w", True), ("r", False)])
def test_a_process_without_its_mark_is_known_by_what_it_writes_and_a_mere_reader_is_left(
    mode: str, swept_too: bool
) -> None:
    with swept("test-") as folder:
        file = folder / "log"
        file.touch()
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), mode], stdout=subprocess.PIPE, env={"PATH": "/usr/bin"}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
    assert (process.poll() is not None) is swept_too
    process.kill()
    process.communicate()
