"""Commands as a user types them: argv in; stdout, stderr and exit status out.

Each `*.golden` file beside this one is one command. `UPDATE_GOLDENS=1 pytest tests/golden` writes what is said now;
read the difference before you keep it.
"""

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli.main import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOLDENS = sorted(HERE.glob("*.golden"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def answered(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    arguments = [part.replace("TMP", str(tmp_path)) for part in shlex.split(command)]
    assert arguments[0] == "harness"
    try:
        status = main(arguments[1:])
    except SystemExit as stop:  # argparse's own way out
        status = int(stop.code or 0)
    told = capsys.readouterr()
    out, err = (text.replace(str(tmp_path), "TMP") for text in told)
    return f"$ {command}\n--- stdout\n{out}--- stderr\n{err}--- exit {status}\n"


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.stem)
def test_a_command_answers_as_it_did(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = golden.read_text()
    command = kept.splitlines()[0].removeprefix("$ ")
    (tmp_path / "broken.toml").write_text("question = ")
    (tmp_path / "table.csv").write_text("a,a,target\n1,2,0\n")
    now = answered(command, tmp_path, capsys)
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(now)
    assert now == kept


def test_there_are_goldens() -> None:
    assert len(GOLDENS) >= 10
