"""Reading a table where it lies.

In: the source of a `DataPlan`. Out: a frame with a column per column of the file, as pandas types it (large whole
numbers as they are written), its rows numbered from 0. What a file cannot be read for is said here: scheme, path,
encoding, header, ragged rows.
"""

import codecs
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
from sklearn import datasets

from harness.errors import UsageError, did_you_mean, one_line
from harness.records.table import DataPlan
from harness.stages.memory import csv_size, parquet_size, refuse_too_large
from harness.stages.openml import openml_table
from harness.stages.synthetic import synthetic_plan, synthetic_table

_SHIPPED = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
}

_ENCODING = "utf-8-sig"
"""UTF-8, with or without a byte order mark."""

EXACT_INTEGERS = 2**53
"""A double holds every whole number below, and rounds the first one beyond to it."""

_WHOLE = r"\s*[+-]?\d{1,400}\s*"
_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"


def read_source(plan: DataPlan, folder: Path, memory_bytes: int | None = None) -> pd.DataFrame:
    """The table of a plan's source, where it fits into `memory_bytes` (None: what the machine has free).

    Raises UsageError where there is none, or where it cannot be read whole.
    """
    source, target = plan.source, plan.target
    scheme, colon, name = source.partition(":")
    if colon and scheme == "sklearn":
        return _shipped(name, target)
    if colon and scheme == "openml":
        return openml_table(name, target, memory_bytes)
    if colon and scheme == "synthetic":
        made = synthetic_plan(name, plan.parameters)
        refuse_too_large(made.size(name), memory_bytes, f"The table {source}")
        return synthetic_table(name, made, plan.seed)
    # A scheme has several letters: one letter before a colon is a drive.
    if colon and scheme.isalnum() and len(scheme) > 1:
        raise UsageError(
            f"`data.source` is {source!r}, and tables cannot be read from {scheme!r}: use sklearn:NAME, openml:ID, "
            "synthetic:TASK, or the path of a .csv or .parquet file."
        )
    path = folder / source
    try:
        _refuse_unreadable(path, source)
    except OSError as error:  # a folder that is closed to us, or a name that is too long
        raise UsageError(f"`data.source` names {source[:60]!r}, and it cannot be read: {error.strerror}.") from None
    frame = _csv(path, memory_bytes) if path.suffix.lower() == ".csv" else _parquet(path, memory_bytes)
    if frame.empty:
        raise UsageError(f"The table {path} has a header and no rows: bring rows to learn from.")
    return frame


def _shipped(name: str, target: str) -> pd.DataFrame:
    if name not in _SHIPPED:
        hint = did_you_mean(name, _SHIPPED, f"known are {', '.join(_SHIPPED)}.")
        raise UsageError(f"scikit-learn ships no table {name!r} for use here; {hint}")
    loaded = _SHIPPED[name](as_frame=True)
    frame: pd.DataFrame = loaded.frame
    labels = getattr(loaded, "target_names", None)
    if target == "target" and labels is not None and isinstance(labels[0], str):
        named = [str(label) for label in labels]
        return frame.assign(
            target=pd.Categorical.from_codes(frame["target"].to_numpy(), categories=pd.Index(named), ordered=True)
        )
    return frame


def _refuse_unreadable(path: Path, source: str) -> None:
    where = f"`data.source` names {source!r}"
    if path.is_dir():
        raise UsageError(f"{where}, and {path} is a folder: name the file in it.")
    if not path.is_file():
        there = [beside.name for beside in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, there, "paths are relative to the scenario file.")
        raise UsageError(f"{where}, and there is no file {path}; {hint}")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"{where}, and only .csv and .parquet files are read: write the table as one of these.")
    if path.stat().st_size == 0:
        raise UsageError(f"{where}, and {path} is empty: bring a header and rows.")


def _csv(path: Path, memory_bytes: int | None) -> pd.DataFrame:
    _refuse_disguised(path)
    refuse_too_large(csv_size(path, _ENCODING), memory_bytes, f"The table {path}")
    names = _checked_header(path)
    # pandas keeps a line of nothing but blanks as a row of holes; so does the check above.
    frame = _read_csv(path, names, low_memory=False)
    for name in (name for name in names if _may_be_mistaken(frame[name])):
        texts = _read_csv(path, names, usecols=[name], dtype=str)[name]
        if texts.dropna().str.fullmatch(_WHOLE).all():
            frame[name] = pd.Series([None if pd.isna(text) else int(text) for text in texts], dtype=object)
        elif texts.dropna().str.fullmatch(_NUMBER).all():
            frame[name] = texts.astype(np.float64)
    return frame


def _may_be_mistaken(series: "pd.Series[Any]") -> bool:
    """Whether large whole numbers may be in it: beside a hole or a fraction, pandas makes floats of a column of such,
    and texts of one with any beyond 64 bits.
    """
    if series.dtype == np.float64:
        return bool(series.abs().max() >= EXACT_INTEGERS)
    return series.dtype == "str" and bool(series.str.fullmatch(_WHOLE).any())


def _read_csv(path: Path, names: list[str], **options: Any) -> pd.DataFrame:
    frame: pd.DataFrame = pd.read_csv(path, encoding=_ENCODING, header=0, names=names, index_col=False, **options)
    return frame.reset_index(drop=True)


def _checked_header(path: Path) -> list[str]:
    """Names in the first line, after a look at every other: pandas renames twins and fills short rows in silence."""
    try:
        with path.open(encoding=_ENCODING, newline="") as file:
            rows = csv.reader(_without_null_bytes(file, path), strict=True)
            names = next((row for row in rows if row), [])
            _refuse_bad_names(names, path)
            _refuse_single(names, path)
            for row in rows:
                if row and len(row) != len(names):
                    raise UsageError(
                        f"Line {rows.line_num} of {path} has {len(row)} fields, and the header has {len(names)}: give "
                        "every row a field per column, and put texts with commas in double quotes."
                    )
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 (byte {error.object[error.start]:#04x}): save it again as UTF-8, for instance with "
            "`iconv -f latin1 -t utf-8`."
        ) from None
    except csv.Error as error:
        raise UsageError(f"Line {rows.line_num} of {path} is no CSV: {error}. Check its double quotes.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    return names


def _without_null_bytes(file: Iterable[str], path: Path) -> Iterator[str]:
    """The lines of a file; in a table of texts the byte is a trace of a broken disk or of another encoding."""
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise UsageError(
                f"Line {number} of {path} has a null byte in it, which no text has: the file is damaged, or no CSV. "
                "Write it again, or remove them (`tr -d '\\000'`)."
            )
        yield line


def _refuse_disguised(path: Path) -> None:
    """What its first bytes show to be no UTF-8 text, whatever comes after them."""
    try:
        with path.open("rb") as file:
            begins = file.read(4)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    if begins == b"PAR1":
        raise UsageError(f"{path} is a Parquet file: give it a name that ends in .parquet.")
    if begins.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or begins == codecs.BOM_UTF32_BE:
        # That of UTF-32 in the other byte order begins with that of UTF-16.
        width = 32 if begins in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE) else 16
        raise UsageError(
            f"{path} is UTF-{width}: save it again as UTF-8, for instance with `iconv -f utf-{width} -t utf-8`."
        )
    if begins.startswith(b"\x1f\x8b"):
        raise UsageError(f"{path} is compressed by gzip: decompress it, for instance with `gunzip`.")
    if begins.startswith(b"PK\x03\x04"):
        raise UsageError(f"{path} is a ZIP archive, as workbooks are: write the table as CSV.")


def _parquet(path: Path, memory_bytes: int | None) -> pd.DataFrame:
    try:
        refuse_too_large(parquet_size(path), memory_bytes, f"The table {path}")
        names = [str(name) for name in pyarrow.parquet.read_schema(path).names]
        _refuse_bad_names(names, path)
        _refuse_single(names, path)
        # Or a hole makes floats of a column of whole numbers, and rounds the large ones.
        frame = pd.read_parquet(path, engine="pyarrow", to_pandas_kwargs={"integer_object_nulls": True})
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {one_line(error).rstrip('.')}. Write it again.") from None
    for name in frame.columns[frame.dtypes == "str"]:
        _refuse_undecodable(frame[name], path)
    return frame.rename(columns=str).reset_index(drop=True)


def _refuse_undecodable(texts: "pd.Series[Any]", path: Path) -> None:
    """A Parquet file calls its texts UTF-8, and nobody looks whether they are until one is asked for."""
    try:
        texts.to_numpy(dtype=object)
    except (pyarrow.ArrowException, UnicodeDecodeError):
        raise UsageError(
            f"The column {texts.name!r} of {path} has texts that are not UTF-8: write it again, with its texts decoded."
        ) from None


def _refuse_bad_names(names: list[str], path: Path) -> None:
    if not names:
        raise UsageError(f"{path} has no columns: bring a header and rows.")
    if "" in names:
        raise UsageError(
            f"Column {names.index('') + 1} of {path} has no name: name it, or leave it out (pandas writes its index "
            "so: use `to_csv(index=False)`)."
        )
    twins = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twins:
        raise UsageError(f"{path} has several columns called {', '.join(map(repr, twins))}: give each its own name.")


def _refuse_single(names: list[str], path: Path) -> None:
    if len(names) > 1:
        return
    between = next((mark for mark in (";", "\t", "|") if mark in names[0]), None)
    hint = f"Its fields seem to be separated by {between!r}: separate them by commas." if between else ""
    raise UsageError(
        f"The table {path} has a single column, {names[0][:60]!r}: at least one to predict and one to predict it from "
        f"are needed. {hint}".strip()
    )
