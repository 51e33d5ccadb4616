"""The comparison of engines in words: who leads and what separates it, and whether failures decide that.

In: what was found over tables and on each. Out: `sentence`, the finding for the first line of a report, `flips`, and
`power`. That no difference is shown is an answer, and is said first.
"""

import itertools
from collections.abc import Sequence

from harness.analysis.entries import Entries
from harness.records.comparison import Entrant, Imputation, Placing, Separation
from harness.stats.ranks import SIGNIFICANCE, TABLES_FLOOR, tables_needed
from harness.units import Unit, counted, format_number, joined


def sentence(
    seeds: int,
    compared: Entries,
    entrants: Sequence[Entrant],
    placings: Sequence[Placing],
    separation: Separation,
    leader: str | None,
) -> str:
    """Who leads, on how many tables and seeds, and from whom it cannot be told apart."""
    tables = compared.tables
    if leader is None:
        return _no_answer(compared, entrants)
    if len(entrants) == 1:
        return f"{leader} is the only entrant: there is nothing to compare it with."
    if len(tables) == 1:
        return _on_one_table(tables[0], placings)
    where = f"on {len(tables)} tables with {counted(seeds, 'seed')} each"
    rank = f"{format_number(entrants[0].average_rank.value, Unit.RANK)} among {len(entrants)} entrants"
    if len(tables) < TABLES_FLOOR:
        own = [one for one in placings if one.entrant == leader]
        first = sum(one.rank == 1 for one in own)
        alone = sum(one.rank == 1 and _tells_all_apart(one.table, placings) for one in own)
        return (
            f"{leader} has the best average rank {where} ({rank}), which shows nothing beyond them: fewer than "
            f"{TABLES_FLOOR} tables cannot. It is alone in first place on {first} of them, on {alone} by more than "
            "chance from every other."
        )
    return _over_tables(leader, where, rank, entrants, separation)


def is_flipped(imputations: Sequence[Imputation]) -> bool:
    """Whether any two entrants change places with the way in which failures are scored."""
    return bool(imputations) and any(_reversed(imputations[0], one) for one in imputations[1:])


def flips(imputations: Sequence[Imputation], entrants: Sequence[Entrant]) -> str | None:
    """Whether another way to score failures would change the ranking; None where nothing failed."""
    if not imputations:
        return None
    by_way = {one.way: one for one in imputations}
    failed, planned = sum(one.failures for one in entrants), sum(one.planned for one in entrants)
    told = f"{failed} of {counted(planned, 'refit')} failed and {_is(failed)} scored as the dummy model"
    first = by_way["dummy"].leaders
    ways = [
        (
            by_way["left_out"],
            f"with the tables of failures left out, on the {counted(by_way['left_out'].tables, 'other')}",
        ),
        (by_way["worst"], "scored as the worst entrant of their table"),
    ]
    # Where no table is left there is no other answer, and so none that differs.
    others = [
        f"{how}, {joined(way.leaders)} {_leads(way.leaders)}"
        for way, how in ways
        if way.standing and way.leaders != first
    ]
    if others:
        return (
            f"How failures are scored decides who leads: {told}, and {joined(first)} {_leads(first)}; "
            f"{'; '.join(others)}."
        )
    however = f"{told}; {joined(first)} {_leads(first)} however failures are scored"
    moved = [f"{how}, it is {order(way)}" for way, how in ways if _reversed(by_way["dummy"], way)]
    if moved:
        return f"{however}, but the order behind changes: {order(by_way['dummy'])}; {'; '.join(moved)}."
    return f"{however}."


def power(tables: int, entrants: int, separation: Separation) -> str | None:
    """What the tests could have shown on so many tables; None where there is nothing to test over."""
    if tables < 2 or entrants < 2:
        return None
    apart = separation.critical_difference
    here = separation.reason or (
        f"On {tables} tables average ranks of {entrants} entrants are told apart where they differ by "
        f"{format_number(apart, Unit.RANK)} or more."
    )
    if entrants == 2:
        return here if separation.reason else None
    needed = counted(tables_needed(entrants), "table")
    return f"{here} A difference of one rank would be told apart on {needed} or more."


def _reversed(one: Imputation, other: Imputation) -> bool:
    places = [{name: place for place, group in enumerate(way.standing) for name in group} for way in (one, other)]
    return any(
        places[0][left] < places[0][right] and places[1][left] > places[1][right]
        for left, right in itertools.permutations(places[0], 2)
        if places[1]
    )


def order(way: Imputation) -> str:
    """`a, b = c, d`: best first, equals joined."""
    return ", ".join(" = ".join(group) for group in way.standing)


def _no_answer(compared: Entries, entrants: Sequence[Entrant]) -> str:
    if not compared.tables and compared.unfinished:
        return "No comparison yet: no table has all its refits. Resume the run."
    if not compared.tables:
        return "No comparison: the dummy model was fitted on no table, so there is no zero to measure from."
    if all(one.failures == one.planned for one in entrants):
        return "No comparison: no engine has a model that was fitted and scored. The failures say why."
    where = compared.tables[0] if len(compared.tables) == 1 else f"any of {len(compared.tables)} tables"
    return f"Nobody leads: nothing that was found is better on {where} than a model that never looks at the features."


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _leads(names: Sequence[str]) -> str:
    return "leads" if len(names) == 1 else "lead together"


def _tells_all_apart(table: str, placings: Sequence[Placing]) -> bool:
    return all(one.apart for one in placings if one.table == table and one.rank > 1)


def _on_one_table(table: str, placings: Sequence[Placing]) -> str:
    best, others = placings[0], placings[1:]
    low, high = (None if end is None else format_number(end, Unit.SCORE) for end in (best.score.low, best.score.high))
    interval = f" (95 %: {low} to {high})" if low is not None and high is not None else ""
    scored = f"{best.metric} {format_number(best.score.value, Unit.SCORE)}{interval}"
    over = f", the mean of {counted(best.planned, 'seed')}" if best.planned > 1 else ""
    alike = [one.entrant for one in others if not one.apart]
    apart = [one.entrant for one in others if one.apart]
    if not alike:
        return f"{best.entrant} leads on {table}: {scored}{over}, better than {joined(apart)} by more than chance."
    told = f"No difference shown between {joined([best.entrant, *alike])} on {table}: the best is {best.entrant} with "
    beside = f" {joined(apart)} {'is' if len(apart) == 1 else 'are'} worse by more than chance." if apart else ""
    return f"{told}{scored}{over}.{beside}"


def _over_tables(leader: str, where: str, rank: str, entrants: Sequence[Entrant], separation: Separation) -> str:
    names = [one.entrant for one in entrants]
    group = next((group for group in separation.groups if leader in group), (leader,))
    apart = [name for name in names if name not in group]
    if not apart:
        how = _why_alike(separation)
        return f"No difference shown between {joined(names)} {where}{how}; {leader} has the best average rank, {rank}."
    how = (
        f"the sign test: p = {separation.sign_p:.2g}"
        if separation.sign_p is not None
        else f"Nemenyi's test, 5 %: ranks must differ by {format_number(separation.critical_difference, Unit.RANK)}"
    )
    if len(group) == 1:
        return f"{leader} leads {where}: average rank {rank}, told apart from {joined(apart)} ({how})."
    return (
        f"No difference shown between {joined(group)} {where}; {leader} has the best average rank, {rank}, "
        f"told apart from {joined(apart)} ({how})."
    )


def _why_alike(separation: Separation) -> str:
    p = separation.iman_davenport_p
    if separation.sign_p is not None:
        return f" (sign test: p = {separation.sign_p:.2g})"
    if p is None:
        return ""
    if p < SIGNIFICANCE:
        return f" (not all are alike, by Friedman's test: p = {p:.2g}; but Nemenyi's tells no two apart)"
    return f" (Friedman's test, F form: p = {p:.2g})"
