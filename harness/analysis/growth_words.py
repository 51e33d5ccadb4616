"""Growth in words: where the time of a search's workers went, and what the bottleneck was.

In: shares of the workers' time, or the whole `Growth`. Out: `told`, the sentence of one number of workers, and `words`,
what a report says before its tables: every sentence where there are few, what they have in common where there are many.
"""

from collections.abc import Iterator, Mapping, Sequence

from harness.records.growth import Growth, SearchGrowth, Spent
from harness.units import Unit, counted, format_number, joined

BEFORE = frozenset({Spent.OBJECT_STORE, Spent.START, Spent.READY})
"""What a search takes beside its own time, from its first proposal to its last trial."""

_WORTH_TELLING = 0.01

_SENTENCES = 4
"""More of them nobody reads: they are brought together by their bottleneck."""

_NAMED = 3


def once_they_stood(spent: Mapping[Spent, float]) -> float:
    """Share of fitting in the time from the first proposal to the last trial.

    Workers are started once and search for one engine after the other: with their start in it, utilisation would hang
    on which engine a scenario names first.
    """
    searching = sum(share for where, share in spent.items() if where not in BEFORE)
    return spent[Spent.FIT] / searching if searching > 0 else 0.0


def told(engine: str, table: str, workers: int, spent: Mapping[Spent, float]) -> str:
    """What one engine's workers did with their time on one table."""
    rest = _most_of(spent, [where for where in Spent if where is not Spent.FIT])
    stood = ""
    if sum(spent[where] for where in BEFORE) >= _WORTH_TELLING:
        stood = f" ({format_number(once_they_stood(spent), Unit.SHARE)} once they stood)"
    return (
        f"{engine} on {table} with {counted(workers, 'worker')}: "
        f"{format_number(spent[Spent.FIT], Unit.SHARE)} of the workers' time is fitting{stood}; most of the rest, "
        f"{format_number(spent[rest], Unit.SHARE)}, is {rest.value}."
    )


def words(growth: Growth, cores: int | None) -> tuple[str, ...]:
    """What is said of all searches; `cores` of the machine that drove them, None where nothing ran on any."""
    searches = growth.searches
    said = (
        [one.scales[-1].sentence for one in searches] if len(searches) <= _SENTENCES else list(_by_bottleneck(searches))
    )
    crowded = sorted({scale.workers for one in searches for scale in one.scales if cores and scale.workers > cores})
    if crowded:
        said.append(
            f"{_listed([str(count) for count in crowded])} workers are more than the "
            f"{counted(cores or 1, 'core')} of the machine that drove them: where they ran there too, they made each "
            "other's trials longer."
        )
    return tuple(said)


def _by_bottleneck(searches: Sequence[SearchGrowth]) -> Iterator[str]:
    """Of the most workers each; their start apart, which whoever searches first on a table waits for."""
    groups: dict[Spent, list[str]] = {}
    for one in searches:
        spent = one.scales[-1].spent
        rest = _most_of(spent, [where for where in Spent if where is not Spent.FIT and where not in BEFORE])
        groups.setdefault(rest, []).append(f"{one.engine} on {one.table}")
    for rest, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        yield (
            f"For {len(names)} of {len(searches)} ({_listed(names)}) with their most workers, once these stand, most "
            f"of the time beside fitting is {rest.value}."
        )
    before = [sum(one.scales[-1].spent[where] for where in BEFORE) for one in searches]
    if max(before) >= _WORTH_TELLING:
        yield (
            "Before that, workers were started, once for all engines on a table: up to "
            f"{format_number(max(before), Unit.SHARE)} of all the time of those who came first."
        )


def _most_of(spent: Mapping[Spent, float], among: Sequence[Spent]) -> Spent:
    return max(among, key=lambda where: spent[where])


def _listed(names: Sequence[str]) -> str:
    return joined([*names[:_NAMED], *([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])])
