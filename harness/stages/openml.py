"""Tables of OpenML, by their number there; each is fetched once, and read from this machine's disk ever after.

In: the number of a data set. Out: its frame. scikit-learn's `fetch_openml` does it, and keeps what it got below
`automl-harness/openml` in the user's cache folder (`$XDG_CACHE_HOME`, or `~/.cache`). A data set of a number never
changes there, so what is cached is never asked for again.

Columns that OpenML marks as row identifiers, or as to be ignored, are left out. Where the plan does not name a target,
it is the one that OpenML does, and it is called `target` here, as in the tables that scikit-learn ships.
"""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

import pandas as pd
from sklearn.datasets import _openml, fetch_openml

from harness.errors import UsageError, one_line
from harness.stages.memory import TableSize, refuse_too_large

SILENCE_S = 30.0
"""A server that says nothing for so long is not there; scikit-learn itself would wait for ever."""


def openml_cache() -> Path:
    """The folder under which fetched tables are kept; scikit-learn makes `openml` in it."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "automl-harness"


def openml_table(number: str, target: str, memory_bytes: int | None = None) -> pd.DataFrame:
    """The data set of that number. Raises UsageError where there is none, no way to it, or no memory for it."""
    where = f"`openml:{number}`"
    if not number.isdecimal() or int(number) == 0:
        raise UsageError(f"{where} names no data set: OpenML's are numbered, as in openml:61.")
    try:
        with _answered_within(SILENCE_S), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that broke off is told as a spoilt cache, and asked for again
            refuse_too_large(_size(int(number)), memory_bytes, f"The table {where}")
            found = fetch_openml(
                data_id=int(number),
                data_home=str(openml_cache()),
                as_frame=True,
                parser="pandas",
                target_column="default-target",
                n_retries=1,
            )
    except HTTPError as error:
        raise UsageError(
            f"{where} was refused by OpenML: {error.code} {error.reason}. Is it the number of a data set "
            "(not of a task), and is it public?"
        ) from None
    except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise UsageError(
            f"{where} is not in the cache {openml_cache()} and cannot be fetched: {one_line(error)}. Run once, "
            "without --isolate, on a machine that reaches openml.org and bring its cache along (XDG_CACHE_HOME names "
            "the folder above it), or write the table as .csv or .parquet."
        ) from None
    except (ValueError, OSError) as error:
        raise UsageError(f"{where} cannot be read: {one_line(error).rstrip('.')}.") from None
    frame: pd.DataFrame = found.frame
    named = list(found.target_names or ())
    if target in frame.columns or target != "target":
        return frame
    if len(named) != 1:
        told = f"several ({', '.join(named)})" if named else "none"
        raise UsageError(
            f"{where} has no column called target, and of its own targets {told}: name the column to predict with "
            "`target` under [data]."
        )
    return frame.rename(columns={named[0]: target})


def _size(number: int) -> TableSize:
    """The measures of a data set, as OpenML states them; of one that it says no number of rows of, nothing.

    They are asked for by scikit-learn's own functions, private as they are, so that both keep them in the same place
    and a table that is cached needs no network for them.
    """
    folder = str(openml_cache() / "openml")
    kinds = [
        feature["data_type"]
        for feature in _openml._get_data_features(number, folder, n_retries=1)
        if feature["is_ignore"] != "true" and feature["is_row_identifier"] != "true"
    ]
    rows = _openml._get_num_samples(_openml._get_data_qualities(number, folder, n_retries=1))
    numbers = sum(kind == "numeric" for kind in kinds)
    return TableSize(rows=max(0, rows), numbers=numbers, texts=len(kinds) - numbers)


@contextmanager
def _answered_within(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
