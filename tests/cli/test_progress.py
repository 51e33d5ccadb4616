"""What a terminal shows of a run, and what a log does."""

import io
import re
import time

from harness.cli.progress import watching
from harness.clock import FakeClock
from harness.records.run import Progress

BEAT = "stairs: 2,000 req/s; 1,998 answered/s, p50 1.20 ms, p99 3.40 ms, 5 in flight, lag p99 100 µs"


def progress(message: str) -> Progress:
    return Progress(stage="serve", cell=3, cells=7, label="a x onnx x asgi", message=message, left_s=40.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(terminal: Terminal) -> str:
    """What was written, without the codes that move the cursor and colour the text, and without line ends."""
    return " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).split())


def test_a_log_gets_a_line_every_few_seconds_however_often_a_step_beats() -> None:
    log, clock = io.StringIO(), FakeClock()
    with watching(log, clock) as show:
        for _ in range(9):
            show(progress(BEAT))
            clock.sleep(1.0)
    lines = log.getvalue().splitlines()
    assert lines == [f"[3/7] serve a x onnx x asgi: {BEAT} (about 40 s left)"] * 3


def test_a_log_gets_the_end_of_a_cell_at_once() -> None:
    log, clock = io.StringIO(), FakeClock()
    with watching(log, clock) as show:
        for message in ("begun", BEAT, "done", "failed: the server died"):
            show(progress(message))
    told = [line.partition(": ")[2].partition(" (")[0] for line in log.getvalue().splitlines()]
    assert told == ["begun", "done", "failed: the server died"]


def test_a_terminal_of_eighty_columns_shows_a_beat_whole_and_the_next_in_its_place(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with watching(terminal, FakeClock()) as show:
        show(progress(BEAT))
        until_shown(terminal, BEAT)
        show(progress(BEAT.replace("1,998", "2,002")))
        until_shown(terminal, "2,002 answered/s")
    assert "serve 3/7" in drawn(terminal) and "about 40 s left" in drawn(terminal)
    assert "\x1b[1A" in terminal.getvalue()  # it went up again, to draw over what was there


def until_shown(terminal: Terminal, text: str) -> None:
    for _ in range(500):
        if text in drawn(terminal):
            return
        time.sleep(0.02)
    raise AssertionError(f"{text!r} is not in {drawn(terminal)!r}")
