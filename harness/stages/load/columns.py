"""Columns: the exchanges of a step under way, in memory that who sends them shares with who looks on.

In: how many rows a step has. Out: `Columns`, an array per column, over memory of one's own (`own_columns`) or over a
`SharedMemory`, which the driver makes and a process of the load generator inherits. Being watched costs that process
nothing: it writes its rows as it would anyway, and whoever looks on reads them.
"""

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records.load import EXCHANGE_COLUMNS, NEVER, NO_STATUS, Outcome

COLUMNS_FILE = "HARNESS_GENERATOR_COLUMNS_FD"
"""Environment variable that tells a child which file descriptor its shared memory has."""

BEFORE: dict[str, int] = {
    "due_ns": NEVER,
    "dispatch_ns": NEVER,
    "sent_ns": NEVER,
    "done_ns": NEVER,
    "bytes": 0,
    "status": NO_STATUS,
    "outcome": Outcome.CENSORED,
}
"""The exchange columns that are written during a step, each with what stands there before.

Wider ones come first, so that every column begins where its type may. Of a row that ends, `done_ns` is written last and
read first: who finds it there finds the others.
"""

Columns = dict[str, NDArray[Any]]


def own_columns(rows: int) -> Columns:
    """Columns that nobody else sees."""
    return _laid(bytearray(_size_bytes(rows)), rows)


class SharedMemory:
    """A file without a name, in memory where the system has such; made by `shared_memory`, or inherited."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def resize(self, rows: int) -> None:
        """Make room for a step; its columns before must not be touched any more."""
        os.ftruncate(self.descriptor, _size_bytes(rows))

    def columns(self, rows: int, *, writing: bool = False) -> Columns:
        """The columns of a step that there is room for."""
        access = mmap.ACCESS_WRITE if writing else mmap.ACCESS_READ
        return _laid(mmap.mmap(self.descriptor, _size_bytes(rows), access=access), rows)


@contextlib.contextmanager
def shared_memory() -> Iterator[SharedMemory]:
    """Memory to be shared with a child, which has to inherit its descriptor."""
    # Named nowhere, so that no end of any process leaves it behind.
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("exchanges")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        yield SharedMemory(descriptor)
    finally:
        os.close(descriptor)


def _size_bytes(rows: int) -> int:
    # Nothing cannot be mapped, and a worker may have no row in a step.
    return max(1, rows * sum(np.dtype(EXCHANGE_COLUMNS[name]).itemsize for name in BEFORE))


def _laid(buffer: mmap.mmap | bytearray, rows: int) -> Columns:
    columns, offset = {}, 0
    for name in BEFORE:
        columns[name] = np.frombuffer(buffer, dtype=EXCHANGE_COLUMNS[name], count=rows, offset=offset)
        offset += columns[name].nbytes
    return columns
