"""Which candidate to ship, and why.

In: the ledger, the capacities and the reduced steps. Out: `Ranking`: every candidate with its score and its best served
cell, which of them are on the Pareto front, and the recommendation as a sentence.

The rule. Recommendable is a candidate that passed its checks and, where candidates are served, has a cell that carries
the load: one that met the objective at the asked rate (any rate, if none is asked; any answer, without an objective).
Among those the best holdout score leads. All whose score interval overlaps the leader's are tied with it in score, and
the tie goes to the highest capacity, then to the lower p99, then to the score.

The front compares score, capacity and p99. Each cell's p99 at its own capacity is close to the objective for all, so
p99 is taken at the highest rate at which every served candidate has one: identical arrivals. Where they share no rate,
it is the p99 at the capacity.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.capacity import offered_rps
from harness.records.candidate import MINIMISED, Candidate
from harness.records.finding import Capacity, Estimate, Ranking, Standing
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.scenario import Metric, Objective
from harness.units import Unit, format_bound, format_number

_NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def ranking(ledger: Ledger, capacities: Sequence[Capacity], results: Sequence[StepResult]) -> Ranking:
    """The candidates, the recommended one first, then by score; and what to ship, in a sentence."""
    objective = ledger.scenario.load.objective
    serving = any(capacity.candidate is not None for capacity in capacities)
    contenders = [_contender(ledger, candidate, capacities, results) for candidate in ledger.candidates]
    chosen, leader = _recommended(contenders, serving, objective)
    front = _front(contenders, _shared_p99(contenders, results))
    ordered = sorted(contenders, key=lambda one: (one is not chosen, -_goodness(one), one.candidate.origin))
    return Ranking(
        standings=tuple(
            Standing(
                candidate=one.candidate.origin,
                family=_family(one.candidate),
                score=one.score,
                capacity=one.best,
                on_front=one.candidate.origin in front,
                reason=one.reason if one.best is None or one.best.rate.value is None else None,
            )
            for one in ordered
        ),
        recommended=chosen.candidate.origin if chosen else None,
        sentence=_sentence(chosen, leader, objective) if chosen else _nothing(ledger, contenders, capacities),
    )


def failed_checks(ledger: Ledger, origin: str, runtime: str | None = None, target: str | None = None) -> list[str]:
    """Details of a candidate's failed checks that keep it from `runtime` on `target`; None: from all of them."""
    return [
        f"{check.name}: {check.detail}"
        for check in ledger.checks
        if check.candidate == origin
        and not check.passed
        and check.runtime in {None, runtime}
        and check.target in {None, target}
    ]


def carries(capacity: Capacity, results: Sequence[StepResult], objective: Objective | None) -> bool:
    """Whether a cell met the objective at the rate it asks for; without an objective, whether it answered at all."""
    if objective is None:
        served = [result for result in results if result.cell == capacity.cell]
        return any(result.succeeded for result in served)
    return bool(capacity.rate.value) and (capacity.rate.value or 0.0) >= (objective.rate_rps or 0.0)


def cell_words(capacity: Capacity) -> str:
    """How and where a cell is served: `as onnx on asgi`."""
    return f"as {capacity.runtime} on {capacity.target}" if capacity.runtime else f"on {capacity.target}"


def replica_words(replicas: int) -> str:
    """`one replica`, `two replicas`, `12 replicas`."""
    number = _NUMBER_WORDS[replicas] if replicas < len(_NUMBER_WORDS) else f"{replicas:,}"
    return f"{number} replica{'' if replicas == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Contender:
    candidate: Candidate
    score: Estimate
    best: Capacity | None
    """Best served cell among those that its checks let through."""
    carrying: bool
    reason: str | None
    """Why it cannot be recommended; None: it can."""


def _contender(
    ledger: Ledger, candidate: Candidate, capacities: Sequence[Capacity], results: Sequence[StepResult]
) -> _Contender:
    objective = ledger.scenario.load.objective
    origin = candidate.origin
    score = _score(ledger, candidate)
    own = [capacity for capacity in capacities if capacity.candidate == origin]
    sound = [one for one in own if not failed_checks(ledger, origin, one.runtime, one.target)]
    loaded = [one for one in sound if any(result.cell == one.cell for result in results)]
    best = max(loaded, key=lambda one: _preference(one, results, objective), default=None)
    carrying = best is not None and carries(best, results, objective)
    return _Contender(candidate, score, best, carrying, _why_not(ledger, origin, score, own, sound, best, carrying))


def _preference(
    capacity: Capacity, results: Sequence[StepResult], objective: Objective | None
) -> tuple[float | bool, ...]:
    """Largest for a candidate's best cell: the least hardware that carries the asked rate, else the highest rate."""
    rate = -1.0 if capacity.rate.value is None else capacity.rate.value
    peak = capacity.peak.value or 0.0
    asked = objective is not None and objective.rate_rps is not None
    carrying = asked and carries(capacity, results, objective)
    return (carrying, -capacity.replicas if carrying else 0, rate, peak, -_p99(capacity), -capacity.replicas)


def _score(ledger: Ledger, candidate: Candidate) -> Estimate:
    for check in ledger.checks:
        if check.candidate == candidate.origin and check.name == "holdout_score" and check.value is not None:
            return Estimate(value=check.value, unit=Unit.SCORE, low=check.low, high=check.high)
    return Estimate(value=None, unit=Unit.SCORE, reason="The candidate was not scored on the holdout.")


def _why_not(
    ledger: Ledger,
    origin: str,
    score: Estimate,
    own: Sequence[Capacity],
    sound: Sequence[Capacity],
    best: Capacity | None,
    carrying: bool,
) -> str | None:
    failed = failed_checks(ledger, origin)
    if failed:
        return f"It failed a check ({failed[0]})."
    if score.value is None:
        return score.reason
    if not any(cell.kind == "serve" and cell.candidate for cell in ledger.plan):
        return None
    if not own:
        return "The scenario does not serve it."
    if not sound:
        details = failed_checks(ledger, origin, own[0].runtime, own[0].target)
        return f"It failed a check in every runtime it was to be served with ({details[0]})."
    if best is None:
        return sound[0].rate.reason or "It was never loaded."
    if carrying:
        return None
    return _why_not_carrying(best, ledger.scenario.load.objective)


def _why_not_carrying(best: Capacity, objective: Objective | None) -> str:
    if objective is None:
        return "Not one request to it succeeded."
    if best.rate.value is None:
        return best.rate.reason or "Its capacity is not known."
    if best.rate.value == 0:
        return best.rate.warnings[0]
    more = " and was not tried at more" if best.rate.high is None else ""
    return (
        f"It carries {format_number(best.rate.value, Unit.RPS)} inside the objective{more}, and "
        f"{format_bound(objective.rate_rps or 0.0, Unit.RPS)} are asked for."
    )


def _recommended(
    contenders: Sequence[_Contender], serving: bool, objective: Objective | None
) -> tuple[_Contender | None, _Contender | None]:
    """The candidate to ship, and the one that leads in score among those that could be."""
    able = [one for one in contenders if one.reason is None]
    if not able:
        return None, None
    # Of equal scores the one that serves better leads, so that no tie is told where there is no difference.
    leader = max(able, key=lambda one: (_goodness(one), _served_goodness(one)))
    tied = [one for one in able if one is leader or _overlap(one.score, leader.score)]
    return (max(tied, key=_served_goodness) if serving else leader), leader


def _served_goodness(one: _Contender) -> tuple[float, float, float, float]:
    if one.best is None:
        return (-1.0, -1.0, -math.inf, _goodness(one))
    rate = -1.0 if one.best.rate.value is None else one.best.rate.value
    return (rate, (one.best.peak.value or 0.0) if rate < 0 else 0.0, -_p99(one.best), _goodness(one))


def _goodness(one: _Contender) -> float:
    """The score with its sign turned where less is better; an unknown score is worse than any."""
    return _oriented(one.score.value, one.candidate.metric)


def _oriented(value: float | None, metric: Metric) -> float:
    if value is None:
        return -math.inf
    return -value if metric in MINIMISED else value


def _overlap(left: Estimate, right: Estimate) -> bool:
    if left.value == right.value:
        return True
    if left.low is None or left.high is None or right.low is None or right.high is None:
        return False
    return left.low <= right.high and right.low <= left.high


def _p99(capacity: Capacity) -> float:
    return math.inf if capacity.p99.value is None else capacity.p99.value


def _shared_p99(contenders: Sequence[_Contender], results: Sequence[StepResult]) -> Mapping[str, float]:
    """Scheduled p99 of each served candidate at the highest rate that all of them were offered."""
    measured: dict[str, dict[float, float]] = {}
    for one in contenders:
        if one.best is None:
            continue
        rates = measured.setdefault(one.candidate.origin, {})
        for result in results:
            p99_s = result.scheduled["p99"].value_s
            if result.cell == one.best.cell and result.step.mode == "open" and p99_s is not None:
                rates[offered_rps(result)] = p99_s
    shared = set.intersection(*(set(rates) for rates in measured.values())) if measured else set()
    if not shared:
        return {one.candidate.origin: _p99(one.best) for one in contenders if one.best is not None}
    return {origin: rates[max(shared)] for origin, rates in measured.items()}


def _front(contenders: Sequence[_Contender], p99_s: Mapping[str, float]) -> set[str]:
    """Origins of the candidates that no other dominates."""

    def merits(one: _Contender) -> tuple[float, float, float]:
        rate = None if one.best is None else one.best.rate.value
        return (_goodness(one), -1.0 if rate is None else rate, -p99_s.get(one.candidate.origin, math.inf))

    points = {one.candidate.origin: merits(one) for one in contenders if one.score.value is not None}
    return {
        origin
        for origin, mine in points.items()
        if not any(
            other != mine and all(theirs >= own for theirs, own in zip(other, mine, strict=True))
            for other in points.values()
        )
    }


def _family(candidate: Candidate) -> str:
    return str(candidate.configuration.get("family", "unknown family"))


def _sentence(chosen: _Contender, leader: _Contender | None, objective: Objective | None) -> str:
    candidate, score = chosen.candidate, format_number(chosen.score.value, Unit.SCORE)
    name = f"{candidate.origin} ({_family(candidate)})"
    scored = f"it scores {score} {candidate.metric} on the holdout"
    tie = ""
    if leader is not None and leader is not chosen:
        more = _served_goodness(chosen)[:2] > _served_goodness(leader)[:2]
        tie = (
            f" Its score cannot be told apart from the {format_number(leader.score.value, Unit.SCORE)} of "
            f"{leader.candidate.origin}, and it {'carries more' if more else 'answers sooner at the same rate'}."
        )
    best = chosen.best
    if best is None:
        return f"Ship {name}: {scored}. Nothing was served, so no rate can be promised."
    on = replica_words(best.replicas)
    if objective is None:
        peak = format_number(best.peak.value, Unit.RPS)
        reached = f" and reached {peak} on {on}" if best.peak.value is not None else f" and answered on {on}"
        promise = f"{reached}; without an objective no rate can be promised"
    else:
        promise = f" and {_carried(best, objective, f' on {on}')}"
    return f"Ship {name} {cell_words(best)}: {scored}{promise}.{tie}"


def _carried(best: Capacity, objective: Objective, on: str = "") -> str:
    """The rate with the p99 that carries it, and what speaks against it."""
    below = best.missed_below_rps
    least = "at least " if best.is_least else ""
    though = "" if below is None else f", though not steadily: a step at {format_number(below, Unit.RPS)} missed it"
    return (
        f"carries {least}{format_number(best.rate.value, Unit.RPS)}{on} with p99 "
        f"{format_number(best.p99.value, Unit.SECONDS)}, inside the objective of "
        f"{format_bound(objective.p99_s, Unit.SECONDS)}{though}"
    )


def _nothing(ledger: Ledger, contenders: Sequence[_Contender], capacities: Sequence[Capacity]) -> str:
    if not any(cell.kind in {"search", "candidate"} for cell in ledger.plan):
        return _bare(ledger, capacities)
    if not contenders:
        return "Nothing can be recommended: no search and no baseline ended in a candidate. The failures say why."
    reasons = "; ".join(f"{one.candidate.origin}: {(one.reason or '').rstrip('.')}" for one in contenders)
    return f"Nothing can be recommended. {reasons}."


def _bare(ledger: Ledger, capacities: Sequence[Capacity]) -> str:
    """What a run says that searched for nothing and loaded a server of the user's own."""
    objective = ledger.scenario.load.objective
    best = max(capacities, key=lambda one: (one.rate.value or -1.0, one.peak.value or -1.0), default=None)
    if best is None:
        return "Nothing was searched for and nothing was served: there is nothing to say."
    if objective is not None and best.rate.value:
        return f"The server behind {best.target} {_carried(best, objective)}."
    if best.peak.value is not None:
        return f"The server behind {best.target} reached {format_number(best.peak.value, Unit.RPS)}; no objective held."
    return f"No rate can be promised for the server behind {best.target}. {best.rate.reason or best.rate.warnings[0]}"
