"""Anatomy: where the time of a step's median request went.

In: the exchanges of a step, and which of them count. Out: `anatomy`, the means of the parts of the requests around the
median. The median of each part would be simpler, but these do not add up to the median of the whole; means over the
same requests add up to the mean of these, which lie close to the median.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records.load import PARTS, STAGES, Anatomy
from harness.units import Unit, counted, format_number

BAND_SHARE = 0.1
"""Of the sampled requests, those whose latency is nearest to the median."""

BAND_MIN = 30
"""Fewer have a mean that hangs on chance."""

TOLERANCE = 0.05
"""Share of the median by which the parts may miss it together."""

_GRAIN_NS = 5_000
"""By so much a server may state more time than passed: it rounds each of its stages to a microsecond."""

_NS = 1e9

Columns = Mapping[str, NDArray[Any]]


def anatomy(exchanges: Columns, succeeded: NDArray[np.bool_], p50_s: float | None) -> Anatomy | None:
    """The parts of the median request; None where the server says nothing of its time.

    `exchanges` has the columns of `EXCHANGE_COLUMNS`, shape (requests,) each; `succeeded` marks those that count.
    """
    stages = np.stack([exchanges[f"{stage}_ns"][succeeded] for stage in STAGES])
    said = (stages >= 0).all(axis=0)
    sampled = int(said.sum())
    if not sampled:
        return None
    due, sent, done = (exchanges[name][succeeded][said] for name in ("due_ns", "sent_ns", "done_ns"))
    stages = stages[:, said]
    network = done - sent - stages.sum(axis=0)
    impossible = int((network < -_GRAIN_NS).sum())
    if impossible:
        reason = f"{impossible:,} of {counted(sampled, 'answer')} state more time than passed until they came"
        return Anatomy(p50_s=p50_s, sampled=sampled, reason=reason)
    if p50_s is None or sampled < BAND_MIN:
        reason = f"{counted(sampled, 'answer')} that said where their time went are too few: {BAND_MIN} are needed"
        return Anatomy(p50_s=p50_s, sampled=sampled, reason=reason)
    averaged = max(BAND_MIN, round(BAND_SHARE * sampled))
    # Ties are left in their order, so that the same exchanges give the same band.
    band = np.argsort(np.abs(done - due - p50_s * _NS), kind="stable")[:averaged]
    means = np.stack([sent - due, network, *stages])[:, band].mean(axis=1) / _NS
    parts = dict(zip(PARTS, means.tolist(), strict=True))
    off = sum(parts.values()) / p50_s - 1
    if abs(off) > TOLERANCE:
        side = "more" if off > 0 else "less"
        reason = (
            f"the {averaged} requests around the median come to {format_number(abs(off), Unit.SHARE)} {side} than it: "
            "they lie too far apart"
        )
        return Anatomy(p50_s=p50_s, sampled=sampled, averaged=averaged, reason=reason)
    return Anatomy(p50_s=p50_s, sampled=sampled, averaged=averaged, parts_s=parts)
