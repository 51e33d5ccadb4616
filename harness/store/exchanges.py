"""The raw exchanges of a step, one Parquet file each.

In: columns as `records.load.EXCHANGE_COLUMNS` names them. Out: a compact file, written whole or not at all, with its
digest; and the same columns back.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.errors import IntegrityError
from harness.records.load import EXCHANGE_COLUMNS, NEVER, STAGE_COLUMNS
from harness.store.files import sha256_of, write_atomically

_SCHEMA = pa.schema(
    [pa.field(name, pa.from_numpy_dtype(np.dtype(dtype)), nullable=False) for name, dtype in EXCHANGE_COLUMNS.items()]
)
_WITHOUT_STAGES = pa.schema([field for field in _SCHEMA if field.name not in STAGE_COLUMNS])
"""What files held before servers were asked for their stages."""

_NARROW = ("status", "outcome", "bytes", "payload", "worker", *STAGE_COLUMNS)
"""Columns of few distinct values: a dictionary stores them in bits. Stages are stated in whole microseconds."""


def write_exchanges(path: Path, columns: Mapping[str, NDArray[Any]]) -> str:
    """Store the columns of one step at `path`; the SHA-256 of the file.

    The four time columns grow along the rows or nearly so: stored as differences (Parquet's DELTA_BINARY_PACKED) under
    zstd they take a third of what plain columns do. The same columns give the same bytes. Raises ValueError on other
    columns, other types or unequal lengths: they would be a bug of the caller's.
    """
    if columns.keys() != EXCHANGE_COLUMNS.keys():
        raise ValueError(f"exchange columns are {sorted(EXCHANGE_COLUMNS)}, not {sorted(columns)}")
    for name, dtype in EXCHANGE_COLUMNS.items():
        if columns[name].dtype != np.dtype(dtype):
            raise ValueError(f"exchange column {name} is {dtype}, not {columns[name].dtype}")
    if len({column.shape for column in columns.values()}) != 1:
        raise ValueError(f"exchange columns differ in shape: { ({k: v.shape for k, v in columns.items()}) }")
    table = pa.table([pa.array(columns[name]) for name in EXCHANGE_COLUMNS], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=9,
        use_dictionary=list(_NARROW),
        column_encoding={name: "DELTA_BINARY_PACKED" for name in EXCHANGE_COLUMNS if name not in _NARROW},
    )
    data = sink.getvalue().to_pybytes()
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def refuse_altered(path: Path, sha256: str) -> None:
    """Raises IntegrityError where the exchanges at `path` are missing, or no longer have the digest `sha256`."""
    if not path.is_file() or sha256_of(path) != sha256:
        what = "has changed since it was written" if path.is_file() else "is missing"
        raise IntegrityError(
            f"The exchanges of a step, {path}, are not what the run recorded: the file {what}. Restore it from a copy, "
            "or run the scenario again; a report is not made from altered measurements."
        )


def read_exchanges(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of one step, in the types of `EXCHANGE_COLUMNS`; in an older file no stage is known of any row.

    Raises IntegrityError where the file is missing, torn, or holds other columns.
    """
    try:
        # One file and no more: `pq.read_table` would take a folder's name for a hive partition of the data.
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError as error:
        raise IntegrityError(f"The exchanges of a step are missing: there is no file {path}.") from error
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(f"The exchanges in {path} cannot be read, the file is damaged: {error}") from error
    if table.schema.equals(_WITHOUT_STAGES):
        unknown = pa.array(np.full(len(table), NEVER, dtype=np.int64))
        table = pa.table([*table.columns, *[unknown] * len(STAGE_COLUMNS)], schema=_SCHEMA)
    if not table.schema.equals(_SCHEMA):
        raise IntegrityError(
            f"{path} does not hold the columns of exchanges. Expected {_described(_SCHEMA)}; found "
            f"{_described(table.schema)}."
        )
    return {name: table.column(name).to_numpy() for name in EXCHANGE_COLUMNS}


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" + (" or null" if field.nullable else "") for field in schema)
