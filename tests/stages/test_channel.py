"""What is said over the channel to a child, and what becomes of it where the child does not answer."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness.errors import InfrastructureError
from harness.stages.channel import DESCRIPTOR, Channel, channel

TALK = f"""
import json, os, socket, sys, time
ours = socket.socket(fileno=int(os.environ[{DESCRIPTOR!r}]))
for line in ours.makefile("rb"):
    asked = json.loads(line)
"""


def talking(folder: Path, *lines: str) -> AbstractContextManager[Channel]:
    code = TALK + "".join(f"    {line}\n" for line in lines)
    return channel([sys.executable, "-c", code], folder / "child.log", ())


def test_each_message_has_its_answer(tmp_path: Path) -> None:
    with talking(tmp_path, 'ours.sendall(json.dumps({"got": asked}).encode() + b"\\n")') as child:
        assert child.ask({"n": 1}, 10.0, "one") == {"got": {"n": 1}}
        assert child.ask({"text": "é" * 100_000}, 10.0, "two") == {"got": {"text": "é" * 100_000}}
        child.quit()


def test_an_error_of_the_child_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    tell = """print("its last words", flush=True); ours.sendall(b'{"error": "ValueError: no"}\\n')"""
    said = pytest.raises(InfrastructureError, match=r"(?s)failed in a bad step: ValueError: no\..*its last words")
    with talking(tmp_path, tell) as child, said:
        child.ask({}, 10.0, "a bad step")


def test_no_answer_in_time_is_an_error_however_much_is_said_meanwhile(tmp_path: Path) -> None:
    dribble = 'while True: ours.sendall(b"."); time.sleep(0.01)'
    said = pytest.raises(InfrastructureError, match=r"did not answer within 0\.3 s in a long step")
    with talking(tmp_path, dribble) as child, said:
        child.ask({}, 0.3, "a long step")


def test_a_child_that_ends_is_an_error_with_its_status(tmp_path: Path) -> None:
    with talking(tmp_path, "sys.exit(3)") as child:
        with pytest.raises(InfrastructureError, match=r"died in its step \(exit status 3\)"):
            child.ask({}, 10.0, "its step")
        with pytest.raises(InfrastructureError, match="died in the next"):
            child.tell({}, "the next")
