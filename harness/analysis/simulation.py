"""Simulation: what a simulated run says of itself, and what it is off by where a real one did the same.

In: the ledger of a simulated run. Out: its first sentence, its warnings, and a `Replayed` per search that ran for real
with as many workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from harness.analysis.growth import best_by, growth, whole
from harness.records.finding import Estimate
from harness.records.ledger import Ledger
from harness.records.run import RecordedSearch
from harness.units import Unit, format_number


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recorded search beside its simulation."""

    recorded: RecordedSearch
    rate_trials_per_s: float
    """Simulated."""
    best: float | None
    """Simulated, by the moment at which the recorded search ended."""

    @property
    def rate_error(self) -> float | None:
        """Share by which the simulated rate is too high; negative: too low."""
        recorded = self.recorded.rate_trials_per_s
        return self.rate_trials_per_s / recorded - 1 if recorded > 0 else None


def replayed(ledger: Ledger) -> Iterator[Replayed]:
    """The searches that were recorded and are simulated with the same engine, seed and number of workers."""
    if ledger.run.simulation is None:
        return
    metrics = {table.name: table.metric for table in ledger.tables}
    cells = {(cell.table, cell.engine, cell.seed, cell.workers): cell for cell in ledger.plan if cell.kind == "search"}
    for recorded in ledger.run.simulation.recorded:
        cell = cells.get((recorded.table, recorded.engine, recorded.seed, recorded.workers))
        trials = [trial for trial in ledger.trials if cell is not None and trial.cell == cell.id]
        if trials:
            wall_s = max(trial.finished_s for trial in trials)
            best = best_by(trials, metrics.get(recorded.table), recorded.wall_s)
            yield Replayed(recorded, whole(trials) / wall_s if wall_s > 0 else 0.0, best)


def simulation_sentence(ledger: Ledger) -> str:
    """What a simulated run says first."""
    told = []
    for one in growth(ledger).searches:
        last = one.scales[-1]
        told.append(
            f"{one.engine} on {one.table} with {last.workers} workers: {_shown(last.rate)}, "
            f"{_shown(last.utilisation)} of their time inside fitting"
        )
    source = ledger.run.simulation.run if ledger.run.simulation else ""
    return f"Simulated from {source}, no trial ran. {'; '.join(told) or 'Nothing was simulated'}."


def simulation_warnings(ledger: Ledger) -> Iterator[str]:
    """What a reader of a simulated run must know before any figure."""
    if ledger.run.simulation is None:
        return
    source = ledger.run.simulation.run
    yield (
        f"Simulated: no trial ran. Each proposal was answered with the recorded trial of {source} that is nearest to "
        "it, in virtual time, and cost the driver what a trial cost it there. That workers share a core, a disk or a "
        "network is not simulated: with more of them than were recorded, this is the most that may be hoped for."
    )
    errors = [abs(one.rate_error) for one in replayed(ledger) if one.rate_error is not None]
    if errors:
        yield (
            f"Simulated with as many workers as were recorded, trials per second are off by "
            f"{format_number(median(errors), Unit.SHARE)} at the median of {len(errors)}, and by "
            f"{format_number(max(errors), Unit.SHARE)} at worst; the table under Growing scales has each."
        )
    else:
        yield "No search was recorded that is simulated as it ran, so nobody knows what the simulation is off by."
    if left_out := ledger.run.simulation.left_out:
        yield (
            f"Not simulated: {', '.join(left_out)}. Configurations of an engine with an environment of its own are not "
            "points of the shared space, so nobody knows which recorded trial is nearest to one."
        )
    for result in ledger.results:
        yield from (f"{result.label}: {note}" for note in result.notes)


def _shown(estimate: Estimate) -> str:
    return format_number(estimate.value, estimate.unit)
