"""Memory: whether a table can be held here, known before it is read.

In: a file, or the measures of a table that is to be made. Out: nothing, or a UsageError. Rows and kinds of columns are
what a Parquet file says of itself; of a CSV file, what its first megabyte makes likely, and the length of the file.

What a cell takes was measured on this code, at its peak: a table of texts is read, made a matrix, and made a frame, and
these are there at the same time. It is meant for the tables that are far too large; one that only just fits may still
be ended by the system.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from harness.errors import UsageError
from harness.stages.supervisor import free_memory_bytes
from harness.units import Unit, format_number

NUMBER_BYTES = 64
TEXT_BYTES = 210
"""What a cell takes while its table is read."""

SAMPLE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class TableSize:
    """The measures of a table."""

    rows: int
    numbers: int
    """Columns that become numbers."""
    texts: int
    beside_bytes: int = 0
    """What making it takes at the same time, beside its cells."""

    @property
    def peak_bytes(self) -> int:
        """Most memory that reading or making it takes, about."""
        return self.rows * (self.numbers * NUMBER_BYTES + self.texts * TEXT_BYTES) + self.beside_bytes


def refuse_too_large(size: TableSize, memory_bytes: int | None, where: str) -> None:
    """Raises UsageError where a table does not fit into `memory_bytes` (None: what is free here)."""
    limit = free_memory_bytes() if memory_bytes is None else memory_bytes
    if size.peak_bytes <= limit:
        return
    whose = "are free here" if memory_bytes is None else "are the limit given (`search.memory_bytes`)"
    peak, most = format_number(size.peak_bytes, Unit.BYTES), format_number(limit, Unit.BYTES)
    raise UsageError(
        f"{where} has about {size.rows:,} rows of {size.numbers + size.texts:,} columns, to hold which takes about "
        f"{peak}, and {most} {whose}: bring a sample of its rows, a file without the columns that are not needed, or "
        "more memory."
    )


def csv_size(path: Path, encoding: str) -> TableSize:
    """About how large the table in a CSV file is; of what is no CSV, nothing: it is refused when it is read."""
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    whole = path.stat().st_size
    if whole > len(sample):  # without the line that the sample cuts off
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    try:
        rows = pd.read_csv(
            io.BytesIO(sample), encoding=encoding, encoding_errors="replace", on_bad_lines="skip", low_memory=False
        )
    except (ValueError, OverflowError):  # pandas' own errors are ValueErrors
        return TableSize(rows=0, numbers=0, texts=0)
    numbers = sum(kind.kind in "bif" for kind in rows.dtypes)
    count = round(len(rows) * whole / max(1, len(sample)))
    return TableSize(rows=count, numbers=numbers, texts=len(rows.columns) - numbers)


def parquet_size(path: Path) -> TableSize:
    """How large the table in a Parquet file is. Raises what pyarrow raises of a file that is none."""
    with pyarrow.parquet.ParquetFile(path) as file:
        types = file.schema_arrow.types
        texts = sum(not _is_plain(kind) for kind in types)
        return TableSize(rows=file.metadata.num_rows, numbers=len(types) - texts, texts=texts)


def _is_plain(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_temporal(kind))
