"""Growth: what more workers bring to a search, and what more rows or columns cost.

In: nothing. Out: `Growth`, with a `SearchGrowth` per engine on a table and a `SizeGrowth` per exponent.
"""

from enum import StrEnum

from harness.records.finding import Estimate
from harness.records.frozen import Frozen


class Spent(StrEnum):
    """Where a worker's time goes; the value is how it is said."""

    FIT = "fitting"
    SCORE = "the rest of a trial: scoring, and taking rows apart"
    LOST = "trials that a limit or the loss of a worker ended"
    ASK = "waiting for the engine's next proposal"
    STORED = "waiting until a trial is stored"
    TOLD = "waiting until the engine is told of a trial"
    HAND_OVER = "hand-over between driver and workers"
    RESTART = "workers that come back after a kill"
    OBJECT_STORE = "the way of the table through the object store to the workers"
    START = "the start of the workers"
    READY = "what a search does before it has workers, and after its last trial"
    END = "idle at the end, when no further trial begins"
    UNUSED = "workers that were never given anything"


class SearchScale(Frozen):
    """One engine on one table with one number of workers; means over its seeds."""

    workers: int
    searches: int
    """One per seed, those that failed among them."""
    trials: int
    """Of all of them, but those that a limit or a lost worker ended."""
    rate: Estimate
    """Trials per second of a search."""
    utilisation: Estimate
    """Share of the workers' time inside fitting, from the first proposal to the last trial."""
    coordinator_p50_s: Estimate
    coordinator_p99_s: Estimate
    """What a trial costs the driver: to have it proposed, sent, its answer fetched and stored, and the engine told."""
    best: Estimate
    """Best cross-validated score by the end of the engine's shortest search on the table that found any."""
    without_score: int
    """Searches that had none by then; each counts in `best` as the dummy model."""
    spent: dict[Spent, float]
    """Share of the workers' time by where it goes."""
    sentence: str
    """Where it goes, and what the bottleneck is, in words."""


class SearchGrowth(Frozen):
    """One engine on one table, at growing numbers of workers."""

    table: str
    engine: str
    metric: str
    wall_s: float
    """Length of the shortest search, at which best scores are compared."""
    scales: tuple[SearchScale, ...]
    contention: Estimate
    """Of the universal law: the share of work that is done one after the other."""
    coherence: Estimate
    """Of the universal law: the cost of each pair of workers that has to agree."""
    peak: Estimate
    """Workers beyond which more bring less; no value where the law has no peak."""
    doubled: Estimate
    """Trials per second that the law expects of twice the most workers that were measured."""


class SizeGrowth(Frozen):
    """How one figure grows with the size of a table: as size**exponent."""

    of: str
    """An entrant of the comparison, or a family of models."""
    measure: str
    axis: str
    """`rows` or `columns`."""
    beside: str
    """What else tells these tables from others: the other axes, and where several were grown, which of them."""
    sizes: tuple[int, ...]
    exponent: Estimate


class Growth(Frozen):
    """All growth that a run shows."""

    searches: tuple[SearchGrowth, ...]
    sizes: tuple[SizeGrowth, ...]
