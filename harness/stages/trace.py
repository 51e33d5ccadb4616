"""Trace: the times of recorded traffic, out of a user's file.

In: arrivals as a scenario states them, and its folder; the CSV file has a column of timestamps, in seconds or as dates
(ISO 8601). Out: the times in seconds, as `stats.arrivals` replays them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UsageError, did_you_mean
from harness.records.arrivals import Trace, parse_arrivals
from harness.stats.arrivals import trace_gaps

COLUMN = "timestamp"
"""The column that is read where there are several."""


def trace_of(arrivals: str, folder: Path) -> NDArray[np.float64] | None:
    """The recorded times that `arrivals` names a file of, relative to `folder`; None: it is not a trace."""
    law = parse_arrivals(arrivals)
    return read_trace(folder / law.file) if isinstance(law, Trace) else None


def read_trace(path: Path) -> NDArray[np.float64]:
    """The recorded times of a trace, shape (n,), rising. Raises UsageError on a file that holds none."""
    try:
        frame = pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False)
    except FileNotFoundError:
        there = [beside.name for beside in path.parent.glob("*.csv")]
        hint = did_you_mean(path.name, there, "paths are relative to the scenario file.")
        raise UsageError(f"There is no trace {path}; {hint}") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UsageError(f"The trace {path} cannot be read as CSV: {error}.") from None
    names = [str(name) for name in frame.columns]
    if len(names) > 1 and COLUMN not in names:
        raise UsageError(
            f"The trace {path} has {len(names)} columns ({', '.join(names[:5])}), and none is called {COLUMN}: name "
            "the one that holds the times so, or leave the others out."
        )
    column = frame[COLUMN] if COLUMN in names else frame.iloc[:, 0]
    try:
        times = _seconds(column)
        trace_gaps(times)
    except ValueError as error:
        raise UsageError(
            f"The trace {path} cannot be replayed: {error}. Give a header and rising times below it, in seconds or as "
            "dates such as 2026-03-01T12:00:00.250Z."
        ) from None
    return times


def _seconds(column: "pd.Series[str]") -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().any() or column.empty:
        _refuse_strange(column, numbers)
        return np.asarray(numbers, dtype=np.float64)
    moments = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
    _refuse_strange(column, moments)
    return np.asarray((moments - moments.iloc[0]).dt.total_seconds(), dtype=np.float64)


def _refuse_strange(column: "pd.Series[str]", read: "pd.Series[Any]") -> None:
    """Raises ValueError at the first text that was not read as the others were."""
    if read.isna().any():
        first = int(np.argmax(read.isna().to_numpy()))
        raise ValueError(f"time {first + 1} of the trace, {str(column.iloc[first])[:40]!r}, is no number and no date")
