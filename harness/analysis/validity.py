"""The verdict on each step of load: figures that can be believed, or none and the reasons.

In: the ledger and its reduced steps. Out: the steps again; those with a doubt have lost their figures and have the
reason in their place. That a server could not keep up is no doubt but a result.

The target `null` answers at once, so that what is measured there is the generator. Its steps are what others are held
against, and reasons that only say that the generator was at its limit do not count there.
"""

from collections.abc import Iterator, Sequence

from harness.records.cell import Cell
from harness.records.ledger import Ledger, StepEntry
from harness.records.load import AUDIT, Doubt, Latency, Reason, StepResult
from harness.records.run import Roofline
from harness.records.words import ROOFLINE
from harness.stats.quantile import sample_floor
from harness.units import Unit, format_number

RATE_OFF = 0.01
"""Share of the requests due that may be missing from, or added to, those sent."""

LAG_S = 1e-3
LAG_SHARE = 0.1
"""The generator was late where p99 of its lag passes both: a millisecond, and a tenth of the scheduled p99."""

GAP_DISTANCE = 0.05
"""A distance of gaps that is no chance and yet smaller than this changes no queue that one could measure."""

CPU_SHARE = 0.8
"""Of a core, or of all cores that the generator has."""

ROOFLINE_SHARE = 0.7
"""Of the rate that the generator reaches against a server that computes nothing."""

LEVEL_GAIN = 0.1
"""More requests in flight that bring less than this share of throughput have found the top."""

LITTLE_OFF = 0.05
"""How far throughput times latency may lie from the number in flight."""

ERROR_SHARE = 0.01
"""Of the requests, where the scenario has no objective that says otherwise."""

STARTED_LATE_S = 0.01
CLOCK_MOVED_S = 0.05
COLLECTED_S = 0.01

OVERLOAD_GROWTH = 0.02
"""Share of the rate by which the number in flight grows all the time where the server cannot keep up."""

SLOWDOWN = 2.0
"""Service latency over that of an idle server, from which on a full pool of connections is the server's doing."""

CLOSED_SAMPLES = 100
"""Fewest successes of a closed step, whose throughput is then known to about a fifth."""

REMEMBERED = 1.25
"""How much slower new requests may be than repeated ones: the caches of a processor make a little of that too."""

HELD = 3
"""Connections of a server that are enough to be sure that it was there."""


def judged(ledger: Ledger, results: Sequence[StepResult]) -> tuple[StepResult, ...]:
    """Every step with its doubts, or with what shows that the server was overloaded; audits are not among them."""
    entries = {entry.id: entry for entry in ledger.steps}
    cells = {cell.id: cell for cell in ledger.plan}
    steps = [result for result in results if result.step.shape != AUDIT]

    def verdict(result: StepResult, roofline: Roofline | None) -> StepResult:
        return _judged(ledger, cells[result.cell], entries[result.id], result, results, roofline)

    # The target that computes nothing comes first: what can be believed of it, others are held against.
    null = {one.id: verdict(one, None) for one in steps if cells[one.cell].target == ROOFLINE}
    known = known_roofline(ledger, tuple(null.values()))
    return tuple(null.get(one.id) or verdict(one, known) for one in steps)


def _judged(
    ledger: Ledger,
    cell: Cell,
    entry: StepEntry,
    result: StepResult,
    results: Sequence[StepResult],
    roofline: Roofline | None,
) -> StepResult:
    objective = ledger.scenario.load.objective
    errors = objective.error_share if objective else ERROR_SHARE
    overloaded = _overloaded(entry, result, ledger)
    result = result.model_copy(update={"overloaded": overloaded})
    audits = [one for one in results if one.cell == cell.id and one.step.shape == AUDIT]
    doubts = [*_of_the_recording(entry, result), *_of_the_servers(entry, audits), *_of_the_sample(result, errors)]
    if cell.target != ROOFLINE:
        doubts += _of_the_generator(entry, result, ledger, roofline, overloaded)
        if result.observed.drifting and overloaded is None and not doubts:
            doubts.append(Doubt(reason=Reason.NOT_STEADY, text="the latency changed to the end of the step"))
    if not doubts:
        return result
    reason = "; ".join(f"{doubt.text}" for doubt in doubts)
    blank = Latency(value_s=None, reason=reason)
    return result.model_copy(
        update={
            "doubts": tuple(doubts),
            "throughput_rps": None,
            "throughput_error_rps": None,
            "scheduled": dict.fromkeys(result.scheduled, blank),
            "service": dict.fromkeys(result.service, blank),
            "by_request": tuple(
                one.model_copy(update={"latency": dict.fromkeys(one.latency, blank)}) for one in result.by_request
            ),
            "anatomy": None,
            "curve": (),
        }
    )


def known_roofline(ledger: Ledger, results: Sequence[StepResult]) -> Roofline | None:
    """The most that is known of the generator: what the run itself measured, or what was known of it before under such
    a load; with few requests in flight, as in a short ladder, the generator does not show what it can do.
    """
    load, stored = ledger.scenario.load, ledger.run.roofline
    if stored is not None and not stored.holds_for(load):
        stored = None
    rate_rps = roofline_rps(ledger, results)
    if rate_rps is None or (stored is not None and stored.rate_rps >= rate_rps):
        return stored
    return Roofline(
        rate_rps=rate_rps,
        measured_utc=ledger.run.finished_utc or ledger.run.started_utc,
        measured_by=ledger.run.id,
        workers=load.workers,
        rows=load.rows,
        host=ledger.host,
    )


def roofline_rps(ledger: Ledger, results: Sequence[StepResult]) -> float | None:
    """The highest rate that the generator reached against the target that computes nothing; None: it was not tried."""
    return max((one.throughput_rps for one in _on_null(ledger, results) if one.throughput_rps), default=None)


def levelled_off(ledger: Ledger, results: Sequence[StepResult]) -> bool:
    """Whether the last of the closed steps on that target brought next to nothing more than those before it.

    Else the generator could have done more: good enough for the run, whose other cells were asked no more either, and
    no figure for other runs.
    """
    closed = [one for one in _on_null(ledger, results) if one.step.in_flight and one.throughput_rps]
    *before, most = sorted((one.step.in_flight or 0, one.throughput_rps or 0.0) for one in closed) or [(0, 0.0)]
    return bool(before) and most[1] < (1 + LEVEL_GAIN) * max(rate for _, rate in before)


def _on_null(ledger: Ledger, results: Sequence[StepResult]) -> list[StepResult]:
    null = {cell.id for cell in ledger.plan if cell.target == ROOFLINE}
    return [one for one in results if one.cell in null]


def _of_the_recording(entry: StepEntry, result: StepResult) -> Iterator[Doubt]:
    """Whether all of it is there, and the clocks agreed."""
    health = entry.generator
    for lost in health.lost:
        yield Doubt(reason=Reason.WORKER_LOST, text=f"a process of the generator was lost: {lost.splitlines()[0]}")
    if result.observed.missing:
        text = f"{result.observed.missing:,} of {entry.planned:,} exchanges are missing"
        yield Doubt(reason=Reason.ROWS_MISSING, text=text)
    moved_s = max((abs(worker.clock_moved_s) for worker in health.workers), default=0.0)
    if moved_s > CLOCK_MOVED_S:
        text = f"the machine's clock was moved by {format_number(moved_s, Unit.SECONDS)} meanwhile"
        yield Doubt(reason=Reason.CLOCK_MOVED, text=text)
    late_s = max((worker.started_late_s for worker in health.workers), default=0.0)
    if late_s > STARTED_LATE_S:
        text = f"the generator began {format_number(late_s, Unit.SECONDS)} after the step did"
        yield Doubt(reason=Reason.STARTED_LATE, text=text)
    apart_s = max((worker.clock_error_s for worker in health.workers), default=0.0)
    if apart_s > STARTED_LATE_S:
        text = f"the clocks of the generator's nodes may be {format_number(apart_s, Unit.SECONDS)} apart"
        yield Doubt(reason=Reason.STARTED_LATE, text=text)
    collected_s = max((worker.gc_s for worker in health.workers), default=0.0)
    if collected_s > COLLECTED_S:
        text = f"the generator spent {format_number(collected_s, Unit.SECONDS)} collecting garbage"
        yield Doubt(reason=Reason.GARBAGE_COLLECTED, text=text)


def _of_the_servers(entry: StepEntry, audits: Sequence[StepResult]) -> Iterator[Doubt]:
    """Whether it was the same servers all the time, and each answer was computed."""
    for audit in audits:
        faster = audit.observed.remembered
        if faster is not None and faster > REMEMBERED:
            text = f"requests that were sent before were answered {faster:.1f} times as fast as new ones"
            yield Doubt(reason=Reason.ANSWERS_CACHED, text=text)
    before, after = entry.generator.servers_before, entry.generator.servers_after
    if not before or not after:
        return
    gone = [name for name, held in before.items() if held >= HELD and name not in after]
    come = [name for name, held in after.items() if held >= HELD and name not in before]
    # With fewer connections than that, only a complete change tells a restart from a connection made anew.
    if gone or come or not before.keys() & after.keys():
        text = f"of the {len(before)} server processes before the step {len(gone) or len(before)} were gone after it"
        if not gone:
            text = f"{len(come)} server processes came during the step"
        yield Doubt(reason=Reason.SERVERS_CHANGED, text=text)


def _of_the_sample(result: StepResult, error_limit: float) -> Iterator[Doubt]:
    """Whether there is something to take figures of."""
    if result.failed_share > error_limit:
        share, limit = (format_number(part, Unit.SHARE) for part in (result.failed_share, error_limit))
        text = f"{share} of the requests failed, where {limit} may"
        yield Doubt(reason=Reason.ERRORS, text=text)
    floor = sample_floor(0.99) if result.step.mode == "open" else CLOSED_SAMPLES
    if result.succeeded < floor:
        text = f"{result.succeeded:,} successes are too few: {floor:,} are needed"
        yield Doubt(reason=Reason.FEW_SAMPLES, text=text)


def _of_the_generator(
    entry: StepEntry, result: StepResult, ledger: Ledger, roofline: Roofline | None, overloaded: str | None
) -> Iterator[Doubt]:
    """Whether what was measured is the server and not the generator."""
    seen, workers = result.observed, entry.generator.workers
    busy = _busy(entry, ledger)
    if busy is not None:
        yield Doubt(reason=Reason.GENERATOR_BUSY, text=busy)
    late = _late(result)
    if late is not None:
        yield Doubt(reason=Reason.GENERATOR_LATE, text=late)
    if seen.rate_off is not None and abs(seen.rate_off) > RATE_OFF:
        word = "more" if seen.rate_off > 0 else "less"
        text = f"{format_number(abs(seen.rate_off), Unit.SHARE)} {word} was sent than was due"
        yield Doubt(reason=Reason.RATE_OFF, text=text)
    if seen.gap_distance is not None and seen.gap_distance > max(GAP_DISTANCE, seen.gap_bound or 0.0):
        text = f"the gaps between requests were not those that were planned (distance {seen.gap_distance:.2f})"
        yield Doubt(reason=Reason.GAPS_OFF, text=text)
    if seen.little_off is not None and not result.step.users and abs(seen.little_off) > LITTLE_OFF:
        in_flight = result.step.in_flight or 0
        text = f"{in_flight * (1 + seen.little_off):.2f} requests were in flight on average, and not {in_flight}"
        yield Doubt(reason=Reason.LITTLES_LAW, text=text)
    asked = result.step.rate_rps or result.throughput_rps or 0.0
    if roofline is not None and asked > ROOFLINE_SHARE * roofline.rate_rps:
        text = (
            f"{format_number(asked, Unit.RPS)} is more than {format_number(ROOFLINE_SHARE, Unit.SHARE)} of what the "
            f"generator reaches here, {format_number(roofline.rate_rps, Unit.RPS)}"
        )
        yield Doubt(reason=Reason.NEAR_ROOFLINE, text=text)
    dropped = result.failed.get("dropped", 0)
    if dropped and overloaded is None:
        text = f"{dropped:,} requests were dropped at the limit of {ledger.scenario.load.in_flight_max:,} in flight"
        limited = busy is not None or late is not None or not workers
        yield Doubt(reason=Reason.GENERATOR_LIMITED if limited else Reason.POOL_TOO_SMALL, text=text)


def _overloaded(entry: StepEntry, result: StepResult, ledger: Ledger) -> str | None:
    """What shows that the server could not keep up; None: nothing, or the generator may be to blame."""
    if result.step.mode == "closed" or _busy(entry, ledger) or _late(result):
        return None
    growth, slowdown = result.observed.backlog_growth, result.observed.slowdown
    if growth > OVERLOAD_GROWTH:
        return f"the server fell behind: requests in flight grew by {format_number(growth, Unit.SHARE)} of the rate"
    if slowdown is not None and slowdown > SLOWDOWN:
        return (
            f"the server fell behind: answers took {slowdown:.0f} times as long as at first, and requests were dropped"
        )
    return None


def _busy(entry: StepEntry, ledger: Ledger) -> str | None:
    # One that spins uses all of its core, whatever it has to do.
    shares = [worker.cpu_share for worker in entry.generator.workers if worker.timer != "spin"]
    if not shares:
        return None
    cores = len(ledger.host.generator_cores) or ledger.host.cores
    together = sum(shares) / cores if ledger.scenario.load.placement == "host" else 0.0
    busiest = max(*shares, together)
    if busiest <= CPU_SHARE:
        return None
    return f"the generator used {format_number(busiest, Unit.SHARE)} of a core, and was at its limit"


def _late(result: StepResult) -> str | None:
    lag_s, p99_s = result.lag_p99_s, result.scheduled["p99"].value_s
    if lag_s is None or lag_s <= LAG_S:
        return None
    if p99_s is not None and lag_s <= LAG_SHARE * p99_s:
        return None
    of = "" if p99_s is None else f", {format_number(lag_s / p99_s, Unit.SHARE)} of the scheduled p99"
    return f"the generator was late: p99 of its lag is {format_number(lag_s, Unit.SECONDS)}{of}"
