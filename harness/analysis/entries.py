"""Entries of a comparison: what each entrant scored on each table, with what failed scored as the dummy model.

In: the ledger. Out: `Entries`: one `Entry` per table and entrant, and the tables that cannot be compared on. What was
tried and is not there has failed, whatever the reason: an average that leaves it out would reward failing on what is
hard. A table with refits that were not tried yet, in a run that was interrupted, waits for them.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.records.candidate import MINIMISED, RANGE
from harness.records.cell import Cell
from harness.records.finding import Estimate
from harness.records.ledger import Ledger
from harness.records.refit import Refit
from harness.records.run import CellState
from harness.records.table import TableEntry
from harness.records.words import DUMMY, Metric
from harness.stats.compare import over_seeds
from harness.stats.quantile import CONFIDENCE
from harness.units import Unit


@dataclass(frozen=True, slots=True)
class Entry:
    """One entrant on one table."""

    table: str
    entrant: str
    metric: Metric
    rows: int
    """Of the holdout."""
    refits: tuple[Refit, ...]
    """Those there are, one per seed."""
    planned: int
    scores: tuple[float, ...]
    """One per planned refit; the dummy's in place of one that failed."""
    resamples: tuple[float, ...]
    """Mean over seeds on resampled rows, moved by the luck of seeds: value i is of the same rows for every entrant on
    the table."""

    @property
    def failures(self) -> int:
        """Planned refits that are not there."""
        return self.planned - len(self.refits)

    @property
    def score(self) -> float:
        """Mean over seeds; exact, so that of equal scores it is just that score."""
        return statistics.mean(self.scores)

    @property
    def has_model(self) -> bool:
        """Something of it came through."""
        return bool(self.refits)

    @property
    def goodness(self) -> float:
        """The score, turned so that more is better."""
        return oriented(self.score, self.metric)

    @property
    def estimate(self) -> Estimate:
        """The score with its interval over rows and seeds."""
        low, high = interval(np.clip(self.resamples, *RANGE[self.metric]).tolist())
        return Estimate(value=self.score, unit=Unit.SCORE, low=low, high=high, n=self.rows)


@dataclass(frozen=True, slots=True)
class Entries:
    """All entrants on all tables that can be compared on."""

    tables: tuple[str, ...]
    left_out: tuple[str, ...]
    """Tables without a dummy model, so there is nothing to score a failure as."""
    unfinished: tuple[str, ...]
    """Tables with refits that were not tried yet."""
    entrants: tuple[str, ...]
    """In the order of the plan, the dummy not among them."""
    of: dict[tuple[str, str], Entry]
    """By table and entrant."""
    dummies: dict[str, Refit]
    """By table."""

    def on(self, table: str) -> list[Entry]:
        """The entrants on one table."""
        return [self.of[table, entrant] for entrant in self.entrants]


def entries(ledger: Ledger) -> Entries | None:
    """What the refits of a run come to; None where the plan has none."""
    cells = [cell for cell in ledger.plan if cell.kind == "refit"]
    if not cells:
        return None
    done = {refit.cell: refit for refit in ledger.refits}
    known = {table.name: table for table in ledger.tables}
    planned = list(dict.fromkeys(str(cell.table) for cell in cells))
    dummies = {str(cell.table): done[cell.id] for cell in cells if cell.engine == DUMMY and cell.id in done}
    tried = {result.id for result in ledger.results if result.state is not CellState.OPEN}
    unfinished = tuple(dict.fromkeys(str(cell.table) for cell in cells if cell.id not in tried))
    tables = [table for table in planned if table in dummies and table in known and table not in unfinished]
    entrants = list(dict.fromkeys(str(cell.engine) for cell in cells if cell.engine != DUMMY))
    found: dict[tuple[str, str], Entry] = {}
    for table in tables:
        own = {
            entrant: [cell for cell in cells if (cell.table, cell.engine) == (table, entrant)] for entrant in entrants
        }
        for entry in _entries(list(own.values()), done, dummies[table], known[table]):
            found[table, entry.entrant] = entry
    left_out = tuple(table for table in planned if table not in tables and table not in unfinished)
    return Entries(tuple(tables), left_out, unfinished, tuple(entrants), found, dummies)


def oriented(score: float, metric: Metric) -> float:
    """A score turned so that more is better."""
    return -score if metric in MINIMISED else score


def interval(resamples: Sequence[float]) -> tuple[float | None, float | None]:
    """The 95 % percentile-bootstrap interval; open at both ends where there are no resamples."""
    if not resamples:
        return None, None
    miss = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resamples, (miss, 1 - miss))
    return float(low), float(high)


def _entries(
    cells: Sequence[Sequence[Cell]], done: dict[str, Refit], dummy: Refit, table: TableEntry
) -> Iterator[Entry]:
    """The entrants on one table, each by its cells."""
    counted = [[done.get(cell.id, dummy) for cell in own] for own in cells]
    resamples: list[tuple[float, ...]] = [()] * len(cells)
    if len({len(one.resamples) for own in counted for one in own}) == 1 and dummy.resamples:
        resamples = over_seeds(
            [[one.resamples for one in own] for own in counted],
            [[one.score for one in own] for own in counted],
            [any(cell.id not in done for cell in own) for own in cells],
            np.random.default_rng(0),
        )
    for own, refits, drawn in zip(cells, counted, resamples, strict=True):
        yield Entry(
            table=table.name,
            entrant=str(own[0].engine),
            metric=table.metric,
            rows=table.holdout_rows,
            refits=tuple(done[cell.id] for cell in own if cell.id in done),
            planned=len(own),
            scores=tuple(one.score for one in refits),
            resamples=drawn,
        )
