"""Timing: which answers are asked where the server's time went, and what they say.

In: how many rows a step has, and the `Server-Timing` headers of the rows that were chosen. Out: `chosen`, and
`stage_columns`, exchange columns in which most rows say nothing. Headers are read after the step: during it their text
is kept and no more. It is a stranger's word, so what is not exactly ours is nothing.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records.load import NEVER, STAGES

TIMING_HEADER = "server-timing"

SAMPLE = 4000
"""Rows of an open step that are asked, or all where there are fewer: a tenth of them lies around the median."""

DENSE, SPARSE = 2000, 1 / 16
"""Of a closed step nobody knows how many rows it will have: all of the first ones are asked, and a share of the others.
To read a header takes three microseconds, of the thirty that a request has where the generator is at its limit."""

_STAGE = re.compile(rf"[ \t]*({'|'.join(STAGES)});dur=([0-9]{{1,7}}(?:\.[0-9]{{1,3}})?)[ \t]*")
_NS_PER_MS = 1e6


def chosen(rows: int, *, planned: bool) -> bytes:
    """Of each row, 1 where its answer is asked; `planned`: there will be that many, and not at most so many.

    By lot, the same each time: every n-th row would come to the same few connections, and to one of several servers.
    """
    share = SAMPLE / max(1, rows) if planned else np.where(np.arange(rows) < DENSE, 1.0, SPARSE)
    return (np.random.default_rng(0).random(rows) < share).tobytes()


def stages_ns(header: str) -> tuple[int, ...] | None:
    """How long each of `STAGES` took; None unless the header has every one of them once, in milliseconds.

    What stands beside them is a proxy's.
    """
    read = filter(None, map(_STAGE.fullmatch, header.split(",")))
    found = [(stage[1], round(float(stage[2]) * _NS_PER_MS)) for stage in read]
    lengths = dict(found)
    return tuple(lengths[stage] for stage in STAGES) if len(found) == len(lengths) == len(STAGES) else None


def stage_columns(headers: Mapping[int, str], rows: int) -> dict[str, NDArray[Any]]:
    """The stages of a step's rows, of which some have a header."""
    columns = np.full((len(STAGES), rows), NEVER, dtype=np.int64)
    for row, header in headers.items():
        lengths = stages_ns(header)
        if lengths is not None:
            columns[:, row] = lengths
    return {f"{stage}_ns": column for stage, column in zip(STAGES, columns, strict=True)}
