"""Recorded traffic out of a user's file."""

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.stages.trace import read_trace, trace_of


def written(folder: Path, text: str) -> Path:
    path = folder / "monday.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("t\n1.5\n2\n4.25\n", [1.5, 2.0, 4.25]),
        ("\ufefftimestamp,path\n1,/a\n1,/b\n3,/c\n", [1.0, 1.0, 3.0]),
        ("path,timestamp\n/a,2026-03-01T12:00:00.250Z\n/b,2026-03-01T12:00:01Z\n", [0.0, 0.75]),
        ("t\n2026-03-01 12:00:00+02:00\n2026-03-01 11:00:00+00:00\n", [0.0, 3600.0]),
    ],
)
def test_times_are_numbers_or_dates(tmp_path: Path, text: str, times: list[float]) -> None:
    assert read_trace(written(tmp_path, text)).tolist() == pytest.approx(times)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot be read as CSV"),
        ("t\n", "at least two times"),
        ("t\n1\n", "at least two times"),
        ("t\n1\n\n3\nx\n", "time 3 of the trace, 'x', is no number and no date"),
        ("t\n1\nnan\n3\n", "time 2 of the trace, 'nan', is no number"),
        ("t\n1\ninf\n3\n", "time 2 of the trace is no finite number"),
        ("t\n1\n3\n2\n", "time 3 of the trace lies before the one above it"),
        ("t\n1\n1\n", "equal"),
        ("a,b\n1,2\n", "none is called timestamp"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_how_to_write_it(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=r"monday\.csv") as refused:
        read_trace(written(tmp_path, text))
    assert told in str(refused.value)


def test_a_file_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, "t\n1\n2\n")
    with pytest.raises(UsageError, match=r"did you mean monday\.csv"):
        read_trace(tmp_path / "munday.csv")


def test_only_a_trace_has_recorded_times(tmp_path: Path) -> None:
    written(tmp_path, "t\n1\n2\n")
    assert trace_of("poisson", tmp_path) is None
    found = trace_of("trace:monday.csv", tmp_path)
    assert found is not None and found.tolist() == [1.0, 2.0]
