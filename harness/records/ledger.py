"""A whole run as it was recorded: what the measuring wing leaves and the reading wing starts from.

In: nothing. Out: `StepEntry`, a step as `run.db` knows it, and `Ledger`, everything in `run.db` at once. The raw
exchanges stay in their files: they exist in millions.
"""

from dataclasses import dataclass

from harness.records.candidate import Candidate, Check, Trial
from harness.records.cell import Cell
from harness.records.frozen import Frozen
from harness.records.load import GeneratorHealth, Step
from harness.records.refit import Refit
from harness.records.run import INFRASTRUCTURE, CellResult, Host, MicroResult, Run
from harness.records.scenario import Scenario
from harness.records.table import TableEntry


class StepEntry(Frozen):
    """A finished step; its exchanges are in `exchanges/<id>.parquet`."""

    id: str
    cell: str
    step: Step
    planned: int
    """Exchanges that there must be: those of an open step's plan, those that a closed step says it sent."""
    new_from: int | None = None
    """Of an audit: the payloads from this one on had not been sent before."""
    requests: tuple[str, ...] = ()
    """Of a step by users of a locustfile: what they asked, by method and name; the column `payload` says which it was.
    """
    plan_sha256: str
    """Digest of what was to be sent when: the same for two candidates under the same load."""
    exchanges_sha256: str
    generator: GeneratorHealth


@dataclass(frozen=True, slots=True)
class Ledger:
    """All records of a run, in the order in which they were made."""

    run: Run
    host: Host
    scenario: Scenario
    tables: tuple[TableEntry, ...]
    plan: tuple[Cell, ...]
    results: tuple[CellResult, ...]
    """Of the plan's cells that were begun."""
    trials: tuple[Trial, ...]
    refits: tuple[Refit, ...]
    candidates: tuple[Candidate, ...]
    checks: tuple[Check, ...]
    steps: tuple[StepEntry, ...]
    micro: tuple[MicroResult, ...]

    @property
    def failed_by_the_machine(self) -> tuple[CellResult, ...]:
        """Cells that failed for no reason of their own: a resumed run tries them again."""
        return tuple(
            result for result in self.results if result.failure is not None and result.failure.cause in INFRASTRUCTURE
        )
