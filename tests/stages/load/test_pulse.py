"""What an onlooker sees of columns that are being written, and the figures that are made of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import FakeClock
from harness.records.load import NEVER, Outcome
from harness.stages.load.columns import BEFORE, Columns, own_columns, shared_memory
from harness.stages.load.pulse import EVERY_S, Onlooker, Pulse, Window, beat


def begun(columns: Columns, row: int, at_ns: int) -> None:
    columns["dispatch_ns"][row] = columns["sent_ns"][row] = at_ns


def ended(columns: Columns, row: int, at_ns: int, outcome: Outcome = Outcome.OK) -> None:
    columns["outcome"][row], columns["done_ns"][row] = outcome, at_ns


def empty(rows: int) -> Columns:
    columns = own_columns(rows)
    for name, before in BEFORE.items():
        columns[name][:] = before
    return columns


@given(st.data())
def test_every_row_that_ends_is_seen_once_whenever_one_looks(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 40))
    columns, onlooker, windows = empty(rows), None, []
    columns["due_ns"][:] = np.arange(rows)
    onlooker = Onlooker(columns)
    waiting: list[int] = []
    row = 0
    while row < rows or waiting:
        match data.draw(st.sampled_from(["begin", "end", "drop", "look"])):
            case "begin" if row < rows:
                begun(columns, row, 100 + row)
                waiting.append(row)
                row += 1
            case "drop" if row < rows:
                columns["outcome"][row] = Outcome.DROPPED
                row += 1
            case "end" if waiting:
                which = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
                ended(columns, which, 1000 + which, data.draw(st.sampled_from([Outcome.OK, Outcome.TIMEOUT])))
            case _:
                windows.append(onlooker.look(0.0, 1.0))
                assert windows[-1].in_flight == len(waiting)
    windows.append(onlooker.look(0.0, 1.0))
    seen = np.sort(np.concatenate([window.due_ns for window in windows]))
    assert np.array_equal(seen, np.flatnonzero(columns["done_ns"] != NEVER))
    assert all(np.all(window.done_ns - window.due_ns == 1000) for window in windows)
    assert np.concatenate([window.lag_ns for window in windows]).tolist() == [100] * len(seen)
    assert sum(window.dropped for window in windows) == rows - len(seen)


def test_a_row_that_is_filled_by_half_is_left_for_the_next_look() -> None:
    columns = empty(2)
    columns["due_ns"][:] = 0
    onlooker = Onlooker(columns)
    begun(columns, 0, 10)
    columns["dispatch_ns"][1] = 10  # and has not been sent yet
    columns["done_ns"][0] = 50  # and what became of it is not there yet
    window = onlooker.look(0.0, 1.0)
    assert (len(window.done_ns), window.in_flight, window.lag_ns.tolist()) == (0, 2, [10])
    columns["outcome"][0] = Outcome.OK
    window = onlooker.look(1.0, 2.0)
    assert (window.done_ns.tolist(), window.in_flight) == ([50], 1)


class Counted:
    """A column that counts how many of its rows were read."""

    def __init__(self, column: np.ndarray[Any, Any], read: list[int]) -> None:
        self._column, self._read = column, read

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, rows: slice) -> np.ndarray[Any, Any]:
        found = self._column[rows]
        self._read.append(len(found))
        return found


def test_what_has_ended_is_not_read_again() -> None:
    rows, looks = 1_000_000, 100
    columns, read = empty(rows), []
    onlooker = Onlooker({name: Counted(column, read) for name, column in columns.items()})  # type: ignore[misc]
    for part in np.array_split(np.arange(rows), looks):
        columns["due_ns"][part] = columns["dispatch_ns"][part] = columns["sent_ns"][part] = part
        columns["outcome"][part], columns["done_ns"][part] = Outcome.OK, part
        onlooker.look(0.0, 1.0)
    # Reading everything at every look would be fifty times the rows of each column.
    assert sum(read) <= len(columns) * (2 * rows + looks * 65536)
    assert sum(read) < 0.3 * len(columns) * rows * looks


def test_a_beat_is_plain_arithmetic() -> None:
    latency_ns = np.arange(1, 201) * 1_000_000  # 1 ms to 200 ms, of which one in ten failed
    outcome = np.where(np.arange(200) % 10 == 0, Outcome.HTTP_ERROR, Outcome.OK).astype(np.int8)
    due_ns = np.arange(200) * 5_000_000
    window = Window(
        from_s=2.0,
        until_s=3.5,
        due_ns=due_ns,
        done_ns=due_ns + latency_ns,
        outcome=outcome,
        bytes=np.zeros(200, dtype=np.int32),
        lag_ns=np.arange(1, 101) * 1000,
        dropped=3,
        in_flight=7,
    )
    seen = beat(window)
    right_ms = sorted(value for place, value in enumerate(range(1, 201)) if place % 10)
    assert (seen.answered, seen.failed, seen.in_flight) == (180, 23, 7)
    assert (seen.elapsed_s, seen.span_s) == (3.5, 1.5)
    assert seen.p50_s == pytest.approx(right_ms[90 - 1] / 1e3)
    assert seen.p99_s == pytest.approx(right_ms[179 - 1] / 1e3)  # the 178.2th of 180
    assert seen.lag_p99_s == pytest.approx(99e-6)


def test_a_window_without_rows_has_no_latency() -> None:
    seen = beat(Onlooker(empty(5)).look(0.0, 1.0))
    assert (seen.answered, seen.failed, seen.in_flight) == (0, 0, 0)
    assert (seen.p50_s, seen.p99_s, seen.lag_p99_s) == (None, None, None)


def test_processes_are_pooled_and_looked_at_once_a_second() -> None:
    clock = FakeClock(start_s=100.0)
    several, windows = [empty(4), empty(3)], []
    pulse = Pulse([Onlooker(columns).look for columns in several], clock, windows.append)
    pulse.begin(100.0)
    assert pulse.look_when_due() == pytest.approx(EVERY_S) and not windows
    for columns in several:
        columns["due_ns"][:2] = 0
        for row in range(2):
            begun(columns, row, 5)
        ended(columns, 0, 30)
    clock.sleep(0.7)
    assert pulse.look_when_due() == pytest.approx(0.3) and not windows
    clock.sleep(0.5)
    assert pulse.look_when_due() == EVERY_S
    (window,) = windows
    assert (window.from_s, window.until_s) == (0.0, pytest.approx(1.2))
    assert (window.done_ns.tolist(), window.in_flight, window.lag_ns.tolist()) == ([30, 30], 2, [5] * 4)


@pytest.fixture(params=["in memory", "in a file"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if request.param == "in a file":
        monkeypatch.delattr("os.memfd_create", raising=False)
    with shared_memory() as made:
        yield made


@pytest.mark.parametrize("rows", [0, 1, 1003])
def test_who_looks_on_sees_what_is_written_and_can_write_nothing(memory: Any, rows: int) -> None:
    memory.resize(5000)
    memory.columns(5000, writing=True)["done_ns"][:] = 9
    memory.resize(rows)
    written, seen = memory.columns(rows, writing=True), memory.columns(rows)
    for place, name in enumerate(BEFORE):
        written[name][:] = place + np.arange(rows) % 100
    for place, name in enumerate(BEFORE):
        assert np.array_equal(seen[name], place + np.arange(rows) % 100)
        assert not seen[name].flags.writeable
