"""What is said over the channel to a child, and what becomes of it where the child does not answer."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness.errors import InfrastructureError
from harness.stages.load.channel import DESCRIPTOR, Channel, channel

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


def test_what_is_to_be_done_meanwhile_is_done_and_ends_with_the_answer(tmp_path: Path) -> None:
    calls: list[int] = []

    def meanwhile() -> float:
        calls.append(1)
        return 0.05

    answer = 'time.sleep(0.5); ours.sendall(b"{}\\n")'
    with talking(tmp_path, answer) as child:
        child.tell({}, "a step")
        assert child.answer(10.0, "a step", meanwhile) == {}
        said = len(calls)
        assert said >= 3
        child.quit()
    assert len(calls) == said


def test_what_is_done_meanwhile_does_not_move_the_limit(tmp_path: Path) -> None:
    said = pytest.raises(InfrastructureError, match=r"did not answer within 0\.5 s in a long step")
    with talking(tmp_path, "time.sleep(60)") as child, said:
        child.tell({}, "a long step")
        child.answer(0.5, "a long step", lambda: 0.1)
