"""Is a run still what was written?

In: a run folder. Out: a line per thing that was checked. Raises IntegrityError at the first that is not. Logs are not
looked at, for nothing is concluded from them, nor is the report, which is derived.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import IntegrityError
from harness.records.ledger import Ledger
from harness.records.run import CellState
from harness.store.bundle import refuse_altered_bundle
from harness.store.database import Database
from harness.store.exchanges import refuse_altered
from harness.store.runs import RunFolder
from harness.store.scenarios import kept_scenario

_SHOWN_STRANGERS = 5


def verified(folder: RunFolder) -> Iterator[str]:
    """Check every record, the scenario, every step's exchanges, every candidate's files, and that there are no more."""
    with Database.read(folder.database) as database:
        database.check()
        ledger = database.ledger()
    yield f"{folder.database}: sound, {len(ledger.results)} of {len(ledger.plan)} cells begun"
    kept_scenario(folder.scenario, ledger.run.scenario_sha256)
    yield f"{folder.scenario}: unchanged"
    for entry in ledger.steps:
        refuse_altered(folder.exchanges(entry.id), entry.exchanges_sha256)
    yield f"exchanges of {len(ledger.steps)} steps: unchanged"
    for candidate in ledger.candidates:
        refuse_altered_bundle(folder.candidate(candidate.id), candidate)
    yield f"{len(ledger.candidates)} candidates: unchanged"
    strangers = _strangers(folder, ledger)
    if not strangers:
        yield "exchanges/ and candidates/: nothing else"
    elif any(result.state is CellState.OPEN for result in ledger.results):
        yield f"not recorded, as of a cell that was interrupted: {_shown(strangers)}"
    else:
        raise IntegrityError(
            f"{folder.path} holds files that the run did not record: {_shown(strangers)}. Remove them, or whoever "
            "reads the folder will take them for measurements."
        )


def _strangers(folder: RunFolder, ledger: Ledger) -> list[Path]:
    """What lies among the raw files of a run and has no record."""
    known = {folder.exchanges(entry.id) for entry in ledger.steps}
    known |= {folder.candidate(candidate.id) for candidate in ledger.candidates}
    return [path.relative_to(folder.path) for path in folder.raw() if path not in known]


def _shown(strangers: Sequence[Path]) -> str:
    more = len(strangers) - _SHOWN_STRANGERS
    return ", ".join(map(str, strangers[:_SHOWN_STRANGERS])) + (f", and {more} more" if more > 0 else "")
