"""The comparison of engines: who leads over all tables, what separates the entrants, and whether failures decide it.

In: the ledger. Out: `ranking`, None where the plan compares nothing.

The dummy model is no entrant. It is the zero of the scale and the score of whatever failed; as a rank of its own it
would make every other entrant look told apart from something, and raise the difference that all of them need. On each
table the score is the mean over seeds, and two scores are held against each other on the same resampled rows. Over
tables it is ranks: scores of unlike metrics have no mean, and normalised ones tell how much, not how surely.

Below `TABLES_FLOOR` tables no test is made: none of them could show a difference that a sceptic had to believe.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.analysis.entries import Entries, Entry, entries, interval, oriented
from harness.analysis.ranking_words import flips, is_flipped, sentence
from harness.analysis.trades import trades
from harness.records.comparison import Duel, Entrant, Imputation, Placing, Ranking, Separation
from harness.records.finding import Estimate
from harness.records.ledger import Ledger
from harness.records.run import INFRASTRUCTURE
from harness.stats import ranks
from harness.stats.compare import margins
from harness.units import Unit

_TOO_FEW = f"Below {ranks.TABLES_FLOOR} tables no test over tables can show a difference at 5 %."


def ranking(ledger: Ledger) -> Ranking | None:
    """Everything that the refits of a run say of its engines; None where the plan has no refit."""
    compared = entries(ledger)
    if compared is None:
        return None
    goodness = np.array([[entry.goodness for entry in compared.on(table)] for table in compared.tables])
    goodness = goodness.reshape(len(compared.tables), len(compared.entrants))
    placed = ranks.ranks(goodness) if len(goodness) else goodness
    placings = _placings(compared, placed)
    entrants = _entrants(compared, placed, placings)
    order = [compared.entrants.index(one.entrant) for one in entrants]
    separation = _separation(compared, goodness, placed)
    imputations = _imputations(compared, goodness)
    # Who has no model cannot lead, though a dummy in its place may be better than what others found.
    answered = any(one.normalised > 0 for one in placings)
    seeds = max((one.planned for one in placings), default=0)
    leader = entrants[0].entrant if answered else None
    told = flips(imputations, entrants)
    return Ranking(
        tables=compared.tables,
        left_out=(*compared.left_out, *compared.unfinished),
        seeds=seeds,
        entrants=entrants,
        placings=placings,
        duels=_duels(compared, goodness, order, separation),
        separation=separation,
        trades=trades(compared, {one.entrant: one.normalised.value or 0.0 for one in entrants}),
        imputations=imputations,
        leader=leader,
        sentence=sentence(seeds, compared, entrants, placings, separation, leader),
        flips=told,
        warnings=tuple(_warnings(ledger, compared, seeds, imputations, told)),
    )


def _placings(compared: Entries, placed: NDArray[np.float64]) -> tuple[Placing, ...]:
    found = []
    for row, table in enumerate(compared.tables):
        own = compared.on(table)
        dummy = oriented(compared.dummies[table].score, own[0].metric)
        scaled = ranks.normalised([one.goodness for one in own], dummy)
        order = sorted(range(len(own)), key=lambda place: (not own[place].has_model, placed[row, place], place))
        best, margin = own[order[0]], _margins(own)
        for place in order:
            entry = own[place]
            behind = _behind(best, entry, margin[order[0], place])
            found.append(
                Placing(
                    table=table,
                    entrant=entry.entrant,
                    metric=entry.metric,
                    score=entry.estimate,
                    seed_low=min(entry.scores),
                    seed_high=max(entry.scores),
                    normalised=scaled[place],
                    rank=float(placed[row, place]),
                    behind=behind,
                    apart=behind.low is not None and behind.low > 0,
                    planned=entry.planned,
                    failures=entry.failures,
                )
            )
    return tuple(found)


def _margins(own: Sequence[Entry]) -> NDArray[np.float64]:
    """How far each difference between entrants of a table may be off; NaN where they have no resamples in common."""
    lengths = {len(one.resamples) for one in own}
    if len(lengths) > 1 or 0 in lengths:
        return np.full((len(own), len(own)), np.nan)
    return margins([one.resamples for one in own])


def _behind(best: Entry, entry: Entry, margin: float) -> Estimate:
    """By how much an entry is worse than the best; with an interval that holds for all pairs of the table together."""
    value = best.goodness - entry.goodness
    if best is entry or np.isnan(margin):
        return Estimate(value=value, unit=Unit.SCORE)
    return Estimate(value=value, unit=Unit.SCORE, low=value - margin, high=value + margin, n=best.rows)


def _entrants(compared: Entries, placed: NDArray[np.float64], placings: Sequence[Placing]) -> tuple[Entrant, ...]:
    found = []
    for place, entrant in enumerate(compared.entrants if compared.tables else ()):
        own = [one for one in placings if one.entrant == entrant]
        planned, failures = sum(one.planned for one in own), sum(one.failures for one in own)
        found.append(
            Entrant(
                entrant=entrant,
                average_rank=_mean(placed[:, place].tolist(), Unit.RANK),
                normalised=_mean([one.normalised for one in own], Unit.SCORE),
                best_on=sum(not one.apart and not one.failures for one in own),
                planned=planned,
                failures=failures,
                failure_share=failures / planned,
            )
        )
    return tuple(
        sorted(
            found,
            key=lambda one: (
                one.failures == one.planned,
                one.average_rank.value or 0.0,
                -(one.normalised.value or 0.0),
            ),
        )
    )


def _mean(values: Sequence[float], unit: Unit) -> Estimate:
    """A mean over tables with its interval, or the reason why it has none."""
    found = ranks.mean_interval(values)
    warnings: tuple[str, ...] = ()
    if found is None:
        few = len(values) < ranks.TABLES_FLOOR
        why = f"fewer than {ranks.TABLES_FLOOR} tables" if few else "the same on every table"
        warnings = (f"No interval over tables: {why}.",)
    low, high = found or (None, None)
    return Estimate(value=float(np.mean(values)), unit=unit, low=low, high=high, n=len(values), warnings=warnings)


def _separation(compared: Entries, goodness: NDArray[np.float64], placed: NDArray[np.float64]) -> Separation:
    tables, count = goodness.shape
    if tables < ranks.TABLES_FLOOR or count < 2:
        return Separation(groups=(), reason=_TOO_FEW if count > 1 else "There is one entrant.")
    if count == 2:
        p = ranks.sign_test(goodness[:, 0], goodness[:, 1])
        return Separation(sign_p=p, groups=() if p < ranks.SIGNIFICANCE else (compared.entrants,))
    average, difference = placed.mean(axis=0).tolist(), ranks.critical_difference(tables, count)
    test = ranks.friedman(goodness)
    # Nemenyi's test is for pairs after Friedman's has found that not all are alike (Demsar 2006, section 3.2.2).
    together = ranks.groups(average, count if test.f_p >= ranks.SIGNIFICANCE else difference)
    return Separation(
        friedman_chi2=test.chi2,
        friedman_p=test.chi2_p,
        iman_davenport_f=test.f,
        iman_davenport_p=test.f_p,
        critical_difference=difference,
        groups=tuple(tuple(compared.entrants[place] for place in group) for group in together),
    )


def _duels(
    compared: Entries, goodness: NDArray[np.float64], order: Sequence[int], separation: Separation
) -> tuple[Duel, ...]:
    tables = len(goodness)
    if not tables:
        return ()
    differ = separation.iman_davenport_p is not None and separation.iman_davenport_p < ranks.SIGNIFICANCE
    p = ranks.nemenyi(goodness) if differ else None
    found = []
    for number, place in enumerate(order):
        for other in order[number + 1 :]:
            won = ranks.wins(goodness[:, place], goodness[:, other])
            low, high = ranks.win_interval(won, tables)
            rate = Estimate(value=won / tables, unit=Unit.SHARE, low=low, high=high, n=tables)
            found.append(
                Duel(
                    entrant=compared.entrants[place],
                    other=compared.entrants[other],
                    win_rate=rate,
                    p=separation.sign_p if p is None else float(p[place, other]),
                )
            )
    return tuple(found)


def _imputations(compared: Entries, goodness: NDArray[np.float64]) -> tuple[Imputation, ...]:
    failed = np.array([[entry.failures for entry in compared.on(table)] for table in compared.tables])
    if not failed.any():
        return ()
    worst = goodness.copy()
    for row, column in np.argwhere(failed):
        entry = compared.on(compared.tables[row])[column]
        sound = [one.goodness for one in compared.on(entry.table) if not one.failures]
        last = min(sound, default=oriented(compared.dummies[entry.table].score, entry.metric))
        scores = [oriented(refit.score, entry.metric) for refit in entry.refits] + [last] * entry.failures
        worst[row, column] = np.mean(scores)
    ways: tuple[tuple[Literal["dummy", "left_out", "worst"], NDArray[np.float64]], ...] = (
        ("dummy", goodness),
        ("left_out", goodness[~failed.any(axis=1)]),
        ("worst", worst),
    )
    return tuple(Imputation(way=way, tables=len(each), standing=_standing(compared, each)) for way, each in ways)


def _standing(compared: Entries, goodness: NDArray[np.float64]) -> tuple[tuple[str, ...], ...]:
    if not len(goodness):
        return ()
    average = np.round(ranks.ranks(goodness).mean(axis=0), 9)
    return tuple(
        tuple(entrant for entrant, rank in zip(compared.entrants, average, strict=True) if rank == one)
        for one in sorted(set(average.tolist()))
    )


def _warnings(
    ledger: Ledger, compared: Entries, seeds: int, imputations: Sequence[Imputation], told: str | None
) -> list[str]:
    found = []
    if told is not None and is_flipped(imputations):
        found.append(told)
    if compared.left_out:
        found.append(
            f"Not compared on {', '.join(compared.left_out)}: the dummy model was not fitted there, so there is "
            "nothing to score a failure as."
        )
    if compared.unfinished:
        found.append(
            f"Not compared yet on {', '.join(compared.unfinished)}: the run has refits to do there. Resume it."
        )
    refits = {cell.id for cell in ledger.plan if cell.kind == "refit"}
    lost = [result for result in ledger.results if result.id in refits and result.failure is not None]
    machine = sum(one.failure is not None and one.failure.cause in INFRASTRUCTURE for one in lost)
    if machine:
        found.append(
            f"{machine} of {len(refits)} refits failed for reasons of the machine and count as failures of their "
            "entrants; a resumed run tries them again."
        )
    if seeds == 1:
        found.append("One seed: what another seed of the same engine would have found is in no interval.")
    hopeless = [
        table
        for table in compared.tables
        if all(one.goodness <= oriented(compared.dummies[table].score, one.metric) for one in compared.on(table))
    ]
    if hopeless:
        found.append(f"Nobody is better than the dummy model on {', '.join(hopeless)}: all score 0 there.")
    empty = [entry for entry in compared.of.values() if interval(entry.resamples) == (None, None)]
    if empty:
        found.append(f"{len(empty)} scores have no interval: their refits were not scored on the same resamples.")
    return found
