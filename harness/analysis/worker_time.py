"""Worker time: where the time of a search's workers went, by the times that its trials carry.

In: the trials of one search, its number of workers, and what its start took. Out: `WorkerTime`.

The driver is one thread: it asks the engine, stores a trial, and tells the engine of it, one thing after the other. So
a worker that has nothing to do waits for the driver's asking, storing or telling, whosever turn that is, and what is
left of its wait is the way to it and back. A worker is taken to have begun with a trial when it was sent.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from harness.records.candidate import Trial
from harness.records.growth import Spent
from harness.records.run import Cause, SearchStart

KILLED = frozenset({Cause.TIME, Cause.MEMORY, Cause.WORKER_LOST, Cause.NODE_LOST, Cause.UNKNOWN})
"""Ends of a trial after which its worker, or the process below it, may have to come back."""

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class WorkerTime:
    """The time of the workers of one search, start to last trial."""

    wall_s: float
    """From its first ask to its last trial."""
    spent_s: dict[Spent, float]
    """Seconds of all workers together; what they add up to is workers times wall and start."""
    coordinator_s: tuple[float, ...]
    """Of each trial, in the order in which they finished: seconds of the driver, from being asked to having told."""


def worker_time(
    trials: Sequence[Trial], workers: int, beside_s: float = 0.0, start: SearchStart | None = None
) -> WorkerTime:
    """Where the time of `workers` workers went; `beside_s`: what the search took beside its trials, `start` among it.

    At least one trial.
    """
    by_finish = sorted(trials, key=lambda trial: trial.finished_s)
    wall_s = by_finish[-1].finished_s
    asks = sorted((trial.asked_s, trial.sent_s) for trial in trials)
    after = _after(by_finish, asks)
    stored = [(one.finished_s, one.stored_s) for one in after]
    driver = _Driver(asks, stored, [(one.stored_s, one.told_s) for one in after])
    spent = dict.fromkeys(Spent, 0.0)
    _begin(workers, beside_s, start or SearchStart(took_s=0.0), spent)
    own: dict[int, list[Trial]] = {}
    for trial in by_finish:
        own.setdefault(trial.evaluated.worker, []).append(trial)
    spent[Spent.UNUSED] += wall_s * max(0, workers - len(own))
    for mine in own.values():
        _of_one_worker(sorted(mine, key=lambda trial: trial.sent_s), driver, spent)
        spent[Spent.END] += max(0.0, wall_s - max(trial.finished_s for trial in mine))
    costs = (
        trial.sent_s - trial.asked_s + trial.transport_s + one.told_s - one.finished_s
        for trial, one in zip(by_finish, after, strict=True)
    )
    return WorkerTime(wall_s, spent, tuple(costs))


class _Driver:
    """What the driver was at, over any length of time."""

    def __init__(self, asks: Spans, stored: Spans, told: Spans) -> None:
        self._spans = {
            Spent.ASK: _cumulated(asks),
            Spent.STORED: _cumulated(stored),
            Spent.TOLD: _cumulated(told),
        }

    def divided(self, begin_s: float, end_s: float, rest: Spent, spent: dict[Spent, float]) -> None:
        """Add the time from begin to end to what the driver was at then, and what is left to `rest`."""
        left_s = max(0.0, end_s - begin_s)
        for where, (times, totals) in self._spans.items():
            share_s = float(np.interp(end_s, times, totals) - np.interp(begin_s, times, totals))
            share_s = min(left_s, max(0.0, share_s))
            spent[where] += share_s
            left_s -= share_s
        spent[rest] += left_s


def _cumulated(spans: Spans) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of the line that says how much of the spans lies before a moment; they do not overlap."""
    times, totals = [0.0], [0.0]
    for begin_s, end_s in spans:
        times += [max(begin_s, times[-1]), max(end_s, times[-1])]
        totals += [totals[-1], totals[-1] + times[-1] - times[-2]]
    return np.array(times), np.array(totals)  # lists would be made arrays at every look


@dataclass(frozen=True, slots=True)
class _After:
    """What the driver did once a trial was done."""

    finished_s: float
    stored_s: float
    told_s: float
    """When the engine had been told of it, as far as that can be seen."""


def _after(by_finish: Sequence[Trial], asks: Spans) -> list[_After]:
    """Of each trial: stored for as long as the next one says, and the engine told until the driver did something else.

    Where it only waited then, for workers that are busy or come back, nobody knows how long the telling took.
    """
    finishes = [trial.finished_s for trial in by_finish]
    stores_s = [*(trial.last_store_s for trial in by_finish[1:]), 0.0]
    asked = [begin_s for begin_s, _ in asks]
    found = []
    for place, (trial, end_s, store_s) in enumerate(zip(by_finish, finishes, stores_s, strict=True)):
        at = bisect.bisect_left(asked, end_s)
        next_s = min([*asked[at : at + 1], *finishes[place + 1 : place + 2]], default=end_s)
        stored_s = min(end_s + store_s, next_s)
        failure = trial.evaluated.failure
        waits = at == len(asked) or (failure is not None and failure.cause in KILLED)
        found.append(_After(end_s, stored_s, stored_s if waits else next_s))
    return found


def _begin(workers: int, beside_s: float, start: SearchStart, spent: dict[Spent, float]) -> None:
    """Until there are workers; while the driver puts the table into the object store, all of them are waited for."""
    moved_s = start.put_s * workers + math.fsum(start.fetched_s)
    spent[Spent.OBJECT_STORE] += moved_s
    spent[Spent.START] += max(0.0, start.took_s * workers - moved_s)
    spent[Spent.READY] += max(0.0, beside_s - start.took_s) * workers


def _of_one_worker(mine: Sequence[Trial], driver: _Driver, spent: dict[Spent, float]) -> None:
    free_s, rest = 0.0, Spent.HAND_OVER
    for trial in mine:
        evaluated = trial.evaluated
        driver.divided(free_s, trial.sent_s, rest, spent)
        worked_s = min(evaluated.duration_s, max(0.0, trial.finished_s - trial.sent_s))
        killed = evaluated.failure is not None and evaluated.failure.cause in KILLED
        # How much of it was fitting, nobody lived to tell; and nothing came of it.
        fit_s = 0.0 if killed else min(evaluated.fit_s, worked_s)
        spent[Spent.FIT] += fit_s
        spent[Spent.LOST if killed else Spent.SCORE] += worked_s - fit_s
        driver.divided(trial.sent_s + worked_s, trial.finished_s, Spent.HAND_OVER, spent)
        free_s, rest = trial.finished_s, Spent.RESTART if killed else Spent.HAND_OVER


@dataclass(frozen=True, slots=True)
class Costs:
    """What a trial costs beside itself."""

    ask_s: float
    transport_s: float
    """Of the driver."""
    store_s: float
    told_s: float
    hand_over_s: float
    """The way to a worker and back, without what the driver does for it."""


def costs(searches: Sequence[tuple[Sequence[Trial], int]]) -> Costs:
    """Medians over the trials of searches, each with its number of workers; the way over, their mean.

    Medians, for the first of all asks imports the engine's library.
    """
    asks_s, transports_s, stores_s, told_s, hand_over_s, count = [], [], [], [], 0.0, 0
    for trials, workers in searches:
        by_finish = sorted(trials, key=lambda trial: trial.finished_s)
        asks = sorted((trial.asked_s, trial.sent_s) for trial in trials)
        asks_s += [end_s - begin_s for begin_s, end_s in asks]
        transports_s += [trial.transport_s for trial in trials]
        after = _after(by_finish, asks)
        stores_s += [one.stored_s - one.finished_s for one in after[:-1]]
        told_s += [one.told_s - one.stored_s for one in after if one.told_s > one.stored_s]
        hand_over_s += worker_time(trials, workers).spent_s[Spent.HAND_OVER]
        count += len(trials)
    transport_s = _median(transports_s)
    return Costs(
        ask_s=_median(asks_s),
        transport_s=transport_s,
        store_s=_median(stores_s),
        told_s=_median(told_s),
        hand_over_s=max(0.0, hand_over_s / count - transport_s) if count else 0.0,
    )


def _median(values: Sequence[float]) -> float:
    return median(values) if values else 0.0
