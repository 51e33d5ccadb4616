"""Anytime curves: how good each engine's best find is after so much time, over tables and seeds.

In: the ledger. Out: one `Curve` per engine, from the trials of the searches that are compared.

On each table the best cross-validated score so far is put on the scale of the comparison: 0 is the dummy model (its
score on the holdout, the only one it has), 1 the best that any of these searches found there. Before the first trial
has ended a search has nothing, which is 0: an engine that begins late pays for it. A trial counts only if it was scored
on all folds after fitting on all rows. A search that ended keeps what it found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.entries import Entries, oriented
from harness.records.cell import Cell
from harness.records.ledger import Ledger
from harness.records.words import Metric
from harness.stats.ranks import normalised

POINTS = 60
"""Moments at which curves are read, evenly spaced in the logarithm of time: most is found early."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What an engine had found by each moment; the mean over tables, then the median and the range over seeds."""

    engine: str
    after_s: tuple[float, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    tables: int
    seeds: int


def anytime(ledger: Ledger, compared: Entries) -> tuple[Curve, ...]:
    """The curves of all engines, at the same moments; empty where no trial counts."""
    search = ledger.scenario.search
    if search is None:
        return ()
    cells = [cell for cell in ledger.plan if cell.kind == "search" and cell.workers == max(search.workers)]
    metrics = {table.name: table.metric for table in ledger.tables}
    paths = {cell.id: _path(ledger, cell, metrics[str(cell.table)]) for cell in cells if cell.table in compared.tables}
    ends = [at for path in paths.values() for at, _ in path]
    if not ends:
        return ()
    after_s = np.geomspace(min(ends), max(max(ends), min(ends) * 1.001), POINTS)
    after_s[-1] = max(ends)  # not a rounding short of the last trial
    scaled = {}
    for table in compared.tables:
        own = [cell for cell in cells if cell.table == table]
        dummy = oriented(compared.dummies[table].score, metrics[table])
        best = max((good for cell in own for _, good in paths[cell.id]), default=dummy)
        for cell in own:
            scaled[cell.id] = _read(paths[cell.id], after_s, dummy, best)
    return tuple(_curve(engine, cells, scaled, after_s, len(compared.tables)) for engine in search.engines)


def _path(ledger: Ledger, cell: Cell, metric: Metric) -> list[tuple[float, float]]:
    """When the trials of a search that count ended, and the best goodness up to then."""
    path: list[tuple[float, float]] = []
    counting = [trial for trial in ledger.trials if trial.cell == cell.id and trial.evaluated.is_whole]
    for trial in sorted(counting, key=lambda trial: trial.finished_s):
        good = oriented(trial.evaluated.score or 0.0, metric)
        path.append((trial.finished_s, max(good, path[-1][1]) if path else good))
    return path


def _read(
    path: Sequence[tuple[float, float]], after_s: NDArray[np.float64], dummy: float, best: float
) -> NDArray[np.float64]:
    if not path:
        return np.zeros(len(after_s))
    ends, good = zip(*path, strict=True)
    values = np.array([0.0, *normalised([best, *good], dummy)[1:]])
    return np.asarray(values[np.searchsorted(ends, after_s, side="right")])


def _curve(
    engine: str,
    cells: Sequence[Cell],
    scaled: dict[str, NDArray[np.float64]],
    after_s: NDArray[np.float64],
    tables: int,
) -> Curve:
    seeds = list(dict.fromkeys(cell.seed for cell in cells if cell.engine == engine))
    means = np.array(
        [
            np.mean(
                [scaled[one.id] for one in cells if (one.engine, one.seed) == (engine, seed) and one.id in scaled],
                axis=0,
            )
            for seed in seeds
        ]
    )
    return Curve(
        engine=engine,
        after_s=tuple(after_s.tolist()),
        median=tuple(np.median(means, axis=0).tolist()),
        low=tuple(means.min(axis=0).tolist()),
        high=tuple(means.max(axis=0).tolist()),
        tables=tables,
        seeds=len(seeds),
    )
