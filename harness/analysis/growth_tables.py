"""The tables of growth: searches by number of workers, where workers' time went, and exponents of size.

In: `Findings`. Out: `Table` values in base units.
"""

from harness.analysis.findings import Findings
from harness.analysis.simulation import replayed
from harness.records.finding import Field, Table, Values
from harness.records.growth import Spent
from harness.units import Unit, format_number

SPENT_KEYS = {
    Spent.FIT: ("fit", "fitting"),
    Spent.SCORE: ("score", "scoring"),
    Spent.LOST: ("lost", "trials cut off"),
    Spent.ASK: ("ask", "engine's ask"),
    Spent.STORED: ("stored", "storing"),
    Spent.TOLD: ("told", "telling the engine"),
    Spent.HAND_OVER: ("hand_over", "hand-over"),
    Spent.RESTART: ("restart", "coming back"),
    Spent.OBJECT_STORE: ("object_store", "object store"),
    Spent.START: ("start", "start of workers"),
    Spent.READY: ("ready", "before and after"),
    Spent.END: ("end", "idle at the end"),
    Spent.UNUSED: ("unused", "never used"),
}


def simulation(found: Findings) -> Table:
    """A row per search that was recorded and is simulated with as many workers: what the simulation is off by."""
    return Table(
        key="simulation",
        title="What the simulation is off by",
        fields=(
            Field("table", "table"),
            Field("engine", "engine"),
            Field("seed", "seed", Unit.COUNT),
            Field("workers", "workers", Unit.COUNT),
            Field("recorded_trials_per_s", "recorded", Unit.TRIALS),
            Field("simulated_trials_per_s", "simulated", Unit.TRIALS),
            Field("rate_error", "off by", Unit.SHARE),
            Field("recorded_best", "best score recorded", Unit.SCORE),
            Field("simulated_best", "simulated", Unit.SCORE),
        ),
        rows=tuple(
            (
                one.recorded.table,
                one.recorded.engine,
                one.recorded.seed,
                one.recorded.workers,
                one.recorded.rate_trials_per_s,
                one.rate_trials_per_s,
                one.rate_error,
                one.recorded.best,
                one.best,
            )
            for one in replayed(found.ledger)
        ),
        note="The same engine, seed and number of workers, simulated and as they ran; best scores by the moment at "
        "which the recorded search ended.",
    )


def search_scales(found: Findings) -> Table:
    """A row per engine, table and number of workers."""
    rows: list[Values] = [
        (
            one.table,
            one.engine,
            scale.workers,
            scale.searches,
            scale.trials,
            scale.rate.value,
            scale.rate.low,
            scale.rate.high,
            scale.utilisation.value,
            scale.coordinator_p50_s.value,
            scale.coordinator_p99_s.value,
            scale.best.value,
            scale.without_score,
            one.wall_s,
        )
        for one in found.growth.searches
        for scale in one.scales
    ]
    return Table(
        key="search_scales",
        title="Searches by number of workers",
        fields=(
            Field("table", "table"),
            Field("engine", "engine"),
            Field("workers", "workers", Unit.COUNT),
            Field("searches", "seeds", Unit.COUNT),
            Field("trials", "trials", Unit.COUNT),
            Field("rate_trials_per_s", "rate", Unit.TRIALS),
            Field("rate_low_trials_per_s", "95 % from", Unit.TRIALS),
            Field("rate_high_trials_per_s", "to", Unit.TRIALS),
            Field("utilisation", "inside fitting", Unit.SHARE),
            Field("coordinator_p50_s", "driver per trial, p50", Unit.SECONDS),
            Field("coordinator_p99_s", "p99", Unit.SECONDS),
            Field("best", "best score by then", Unit.SCORE),
            Field("without_score", "seeds without one", Unit.COUNT),
            Field("wall_s", "then", Unit.SECONDS),
        ),
        rows=tuple(rows),
        note="Means over seeds, with Student's t. Inside fitting is of the time from the first proposal to the last "
        "trial, for workers are started once and then search for one engine after the other. Trials that a limit or a "
        "lost worker ended are not counted. Best scores are compared at the length of an engine's shortest search on "
        "the table that found any; a seed without a score by then counts as the dummy model, and one that failed "
        "without a trial with a rate of 0.",
    )


def worker_time(found: Findings) -> Table:
    """A row per engine, table and number of workers: shares of the workers' time."""
    return Table(
        key="worker_time",
        title="Where the workers' time went",
        fields=(
            Field("table", "table"),
            Field("engine", "engine"),
            Field("workers", "workers", Unit.COUNT),
            *(Field(key, heading, Unit.SHARE) for key, heading in SPENT_KEYS.values()),
        ),
        rows=tuple(
            (one.table, one.engine, scale.workers, *(scale.spent[where] for where in SPENT_KEYS))
            for one in found.growth.searches
            for scale in one.scales
        ),
        note="The driver is one thread: while it asks the engine, stores a trial or tells the engine of it, whoever is "
        "idle waits for that. Hand-over is what is left of a wait: calls of Ray's to a worker and back. Through the "
        "object store go table and folds, at the start of workers that are new; others stand from the search before.",
    )


def laws(found: Findings) -> Table:
    """A row per engine and table with several numbers of workers: the universal law, or why there is none."""
    rows: list[Values] = []
    for one in found.growth.searches:
        if len(one.scales) < 2:
            continue
        rows.append(
            (
                one.table,
                one.engine,
                one.contention.value,
                one.contention.low,
                one.contention.high,
                one.coherence.value,
                one.coherence.low,
                one.coherence.high,
                one.peak.value,
                one.doubled.value,
                one.doubled.low,
                one.doubled.high,
                one.contention.n,
                " ".join(dict.fromkeys(part.reason for part in (one.contention, one.peak, one.doubled) if part.reason)),
            )
        )
    return Table(
        key="search_laws",
        title="What further workers bring: the universal scalability law",
        fields=(
            Field("table", "table"),
            Field("engine", "engine"),
            Field("contention", "contention", Unit.SCORE),
            Field("contention_low", "95 % from", Unit.SCORE),
            Field("contention_high", "to", Unit.SCORE),
            Field("coherence", "coherence", Unit.SCORE),
            Field("coherence_low", "95 % from", Unit.SCORE),
            Field("coherence_high", "to", Unit.SCORE),
            Field("peak", "peak (workers)", Unit.COUNT),
            Field("doubled_trials_per_s", "with twice the workers", Unit.TRIALS),
            Field("doubled_low_trials_per_s", "95 % from", Unit.TRIALS),
            Field("doubled_high_trials_per_s", "to", Unit.TRIALS),
            Field("searches", "searches", Unit.COUNT),
            Field("reason", "in words"),
        ),
        rows=tuple(rows),
        note="Gunther's law of trials per second over workers: contention is the share of work done one after the "
        "other, coherence the cost of each pair of workers that has to agree. It is not asked beyond twice what was "
        "measured, nor beyond its peak; at twice it is off by 14 % at the median of public data. Where the "
        "searches do not bound coherence, its interval has no upper end.",
    )


def sizes(found: Findings) -> Table:
    """A row per exponent."""
    return Table(
        key="sizes",
        title="What rows and columns cost: exponents",
        fields=(
            Field("of", "of"),
            Field("measure", "of what"),
            Field("axis", "grows with"),
            Field("beside", "at"),
            Field("sizes", "sizes"),
            Field("exponent", "exponent", Unit.SCORE),
            Field("low", "95 % from", Unit.SCORE),
            Field("high", "to", Unit.SCORE),
            Field("n", "measurements", Unit.COUNT),
            Field("reason", "in words"),
        ),
        rows=tuple(
            (
                one.of,
                one.measure,
                one.axis,
                one.beside or None,
                ", ".join(format_number(size, Unit.COUNT) for size in one.sizes),
                one.exponent.value,
                one.exponent.low,
                one.exponent.high,
                one.exponent.n,
                one.exponent.reason,
            )
            for one in found.growth.sizes
        ),
        note="A figure with exponent b grows by 2**b when the size doubles. An engine's best may be of another family "
        "at another size; the baseline is always of one. Trials of a family differ in their parameters as well.",
    )
