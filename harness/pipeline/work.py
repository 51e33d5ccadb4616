"""Work: what the cells of a run share, and how what goes wrong in one becomes its failure.

In: nothing but nouns. Out: `Work`, `Told`, `CellFailedError`, and `blamed_on`.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.clock import Clock
from harness.errors import InfrastructureError, UsageError
from harness.pipeline.inputs import Inputs, Searched
from harness.records.cell import Cell
from harness.records.run import Cause, Host, SearchStart
from harness.records.scenario import Scenario
from harness.stages.load.page import Page
from harness.store.database import Database
from harness.store.runs import RunFolder


class CellFailedError(Exception):
    """The cell ended, and not well; its cause belongs in the report."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Work:
    """What the cells of a run share."""

    folder: RunFolder
    database: Database
    scenario: Scenario
    host: Host
    inputs: Inputs
    clock: Clock
    tell: Callable[[str], None]
    """Says what is going on inside the present cell."""
    page: Page | None = None
    """Shows the steps of served cells, where someone wants to see them."""
    ray_address: str | None = None

    def searched(self, cell: Cell) -> Searched:
        """The table of a cell, and what is searched for on it: the one there is, where the cell names none.

        Only for cells that a scenario without a search does not have.
        """
        return next(one for one in self.inputs.searched if cell.table in {one.data.name, None})


@dataclass(frozen=True, slots=True)
class Told:
    """What a finished cell has to say beside its records."""

    startup_s: float | None = None
    search_start: SearchStart | None = None
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def blamed_on(cause: Cause, work: Work) -> Iterator[None]:
    """What the machine does not do in here is the cell's failure, for this cause, and not the end of the run.

    One target that does not start, or whose port was taken meanwhile, must not cost all that was measured before. What
    the run itself stands on, its database and its disk, is written outside such blocks.
    """
    try:
        yield
    except (InfrastructureError, UsageError) as error:
        raise CellFailedError(cause, str(error).replace(f"{work.folder.path}/", "")) from error
