"""The comparison of engines in words: who leads and what separates it, and whether failures decide that.

In: what was found over tables and on each. Out: `sentence`, the finding for the first line of a report, `flips`, and
`power`. That no difference is shown is an answer, and is said first.
"""

from collections.abc import Sequence

from harness.records.comparison import Entrant, Imputation, Placing, Separation
from harness.stats.ranks import TABLES_FLOOR, tables_needed
from harness.units import Unit, format_number


def sentence(
    tables: Sequence[str],
    seeds: int,
    entrants: Sequence[Entrant],
    placings: Sequence[Placing],
    separation: Separation,
    leader: str | None,
) -> str:
    """Who leads, on how many tables and seeds, and from whom it cannot be told apart."""
    if leader is None:
        return "No comparison: no engine has a model that was fitted and scored. The failures say why."
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


def flips(imputations: Sequence[Imputation], entrants: Sequence[Entrant]) -> str | None:
    """Whether another way to score failures would change who leads; None where nothing failed."""
    if not imputations:
        return None
    by_way = {one.way: one for one in imputations}
    failed, planned = sum(one.failures for one in entrants), sum(one.planned for one in entrants)
    told = f"{failed} of {counted(planned, 'refit')} failed and {_is(failed)} scored as the dummy model"
    first = by_way["dummy"].leaders
    others = []
    if by_way["left_out"].leaders != first:
        left, count = by_way["left_out"].leaders, by_way["left_out"].tables
        others.append(
            f"with the tables of failures left out, {joined(left)} {_leads(left)} on the {counted(count, 'other')}"
            if left
            else "with the tables of failures left out, no table remains"
        )
    if by_way["worst"].leaders != first:
        left = by_way["worst"].leaders
        others.append(f"scored as the worst entrant of their table, {joined(left)} {_leads(left)}")
    if not others:
        return f"{told}; {joined(first)} {_leads(first)} however failures are scored."
    return (
        f"How failures are scored decides who leads: {told}, and {joined(first)} {_leads(first)}; {'; '.join(others)}."
    )


def power(tables: int, entrants: int, separation: Separation) -> str | None:
    """What the tests could have shown on so many tables; None where there is nothing to test over."""
    if tables < 2 or entrants < 2:
        return None
    apart = separation.critical_difference
    here = separation.reason or (
        f"On {tables} tables average ranks of {entrants} entrants are told apart where they differ by "
        f"{format_number(apart, Unit.RANK)} or more."
    )
    return f"{here} To tell apart two that are one rank apart takes {counted(tables_needed(entrants), 'table')}."


def joined(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def counted(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
    p = separation.iman_davenport_p
    test = "" if p is None else f" (Friedman's test, F form: p = {p:.2g})"
    names = [one.entrant for one in entrants]
    group = next((group for group in separation.groups if leader in group), (leader,))
    apart = [name for name in names if name not in group]
    nemenyi = f"Nemenyi's test, 5 %: ranks must differ by {format_number(separation.critical_difference, Unit.RANK)}"
    if not apart:
        how = test or f" ({nemenyi})"
        return f"No difference shown between {joined(names)} {where}{how}; {leader} has the best average rank, {rank}."
    if len(group) == 1:
        return f"{leader} leads {where}: average rank {rank}, told apart from {joined(apart)} ({nemenyi})."
    return (
        f"No difference shown between {joined(group)} {where}; {leader} has the best average rank, {rank}, "
        f"told apart from {joined(apart)} ({nemenyi})."
    )
