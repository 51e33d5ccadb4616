"""Is a run still what was written?

In: a run folder. Out: a line per thing that was checked. Raises IntegrityError at the first that is not.
"""

import hashlib
from collections.abc import Iterator

from harness.errors import IntegrityError
from harness.store.bundle import read_bundle
from harness.store.database import Database
from harness.store.exchanges import refuse_altered
from harness.store.runs import RunFolder


def verified(folder: RunFolder) -> Iterator[str]:
    """Check the database, the scenario, every step's exchanges and every candidate's files."""
    with Database.open(folder.database) as database:
        database.check()
        ledger = database.ledger()
    yield f"{folder.database}: sound, {len(ledger.results)} of {len(ledger.plan)} cells begun"
    if hashlib.sha256(folder.scenario.read_bytes()).hexdigest() != ledger.run.scenario_sha256:
        raise IntegrityError(f"{folder.scenario} is not the scenario that was run.")
    yield f"{folder.scenario}: unchanged"
    for entry in ledger.steps:
        refuse_altered(folder.exchanges(entry.id), entry.exchanges_sha256)
    yield f"exchanges of {len(ledger.steps)} steps: unchanged"
    for candidate in ledger.candidates:
        stored = read_bundle(folder.candidate(candidate.id))
        if stored != candidate:
            raise IntegrityError(f"{folder.candidate(candidate.id)} is not the candidate that was recorded.")
    yield f"{len(ledger.candidates)} candidates: unchanged"
