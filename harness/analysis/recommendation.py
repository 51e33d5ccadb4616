"""Which candidate to ship, and why.

In: the ledger, the capacities and the reduced steps. Out: `Recommendation`: every candidate with its score and its
best served cell, which of them are on the Pareto front, and what to ship as a sentence.

The rule. Recommendable is a candidate that passed its checks and, where candidates are served, has a cell that carries
the load: one that met the objective at the asked rate (any rate, if none is asked; any answer, without an objective).
Among those the best holdout score leads. All whose difference to the leader may be chance (an interval over resampled
holdout rows, the same for both) are tied with it in score, and the tie goes to the highest capacity, then to the lower
p99, then to the score.

The front compares score, capacity and p99. Each cell's p99 at its own capacity is close to the objective for all, so
that of two candidates is taken at the highest rate that both were offered; where there is none it is not compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.servers import carried_words, server_sentence
from harness.records.candidate import MINIMISED, Candidate
from harness.records.finding import Capacity, Estimate, Recommendation, Standing
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.scenario import Objective
from harness.records.words import Metric
from harness.stats.compare import difference_interval
from harness.units import Unit, format_bound, format_number

_NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def recommendation(ledger: Ledger, capacities: Sequence[Capacity], results: Sequence[StepResult]) -> Recommendation:
    """The candidates, the recommended one first, then by score; and what to ship, in a sentence."""
    serving = any(capacity.candidate is not None for capacity in capacities)
    contenders = [_contender(ledger, candidate, capacities, results) for candidate in ledger.candidates]
    leader, tied = _leaders(contenders)
    chosen = max(tied, key=_served_goodness) if tied and serving else leader
    front = _front(contenders, {one.candidate.origin: _p99_by_rate(one, results) for one in contenders})
    ordered = sorted(contenders, key=lambda one: (one is not chosen, -_goodness(one), one.candidate.origin))
    return Recommendation(
        standings=tuple(
            Standing(
                candidate=one.candidate.origin,
                family=_family(one.candidate),
                score=one.score,
                capacity=one.best,
                on_front=one.candidate.origin in front,
                tied=one in tied,
                reason=one.reason if one.best is None or one.best.rate.value is None else None,
            )
            for one in ordered
        ),
        recommended=chosen.candidate.origin if chosen else None,
        sentence=_told(ledger, capacities, results, contenders, chosen, leader),
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
    """How and where a cell is served: `as onnx on asgi with batch 8`."""
    told = f" with {capacity.settings.words}" if capacity.settings else ""
    where = f"on {capacity.target}{told}"
    return f"as {capacity.runtime} {where}" if capacity.runtime else where


def replica_words(replicas: int) -> str:
    """`one replica`, `two replicas`, `12 replicas`."""
    number = _NUMBER_WORDS[replicas] if replicas < len(_NUMBER_WORDS) else f"{replicas:,}"
    return f"{number} replica{'' if replicas == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Contender:
    candidate: Candidate
    score: Estimate
    resamples: tuple[float, ...]
    best: Capacity | None
    """Best served cell among those that its checks let through."""
    reason: str | None
    """Why it cannot be recommended; None: it can."""


def _contender(
    ledger: Ledger, candidate: Candidate, capacities: Sequence[Capacity], results: Sequence[StepResult]
) -> _Contender:
    objective = ledger.scenario.load.objective
    origin = candidate.origin
    score, resamples = _score(ledger, candidate)
    own = [capacity for capacity in capacities if capacity.candidate == origin]
    sound = [one for one in own if not failed_checks(ledger, origin, one.runtime, one.target)]
    loaded = [one for one in sound if any(result.cell == one.cell for result in results)]
    best = max(loaded, key=lambda one: _preference(one, results, objective), default=None)
    carrying = best is not None and carries(best, results, objective)
    reason = _why_not(ledger, origin, score, own, sound, best, carrying)
    return _Contender(candidate, score, resamples, best, reason)


def _preference(
    capacity: Capacity, results: Sequence[StepResult], objective: Objective | None
) -> tuple[float | bool, ...]:
    """Largest for a candidate's best cell: the least hardware that carries the asked rate, else the highest rate."""
    rate = -1.0 if capacity.rate.value is None else capacity.rate.value
    peak = capacity.peak.value or 0.0
    asked = objective is not None and objective.rate_rps is not None
    carrying = asked and carries(capacity, results, objective)
    most = capacity.max_replicas or capacity.replicas  # of those that come and go all may have been there
    return (carrying, -most if carrying else 0, rate, peak, -_p99(capacity), -most)


def _score(ledger: Ledger, candidate: Candidate) -> tuple[Estimate, tuple[float, ...]]:
    """The holdout score, and what it was on resampled rows."""
    for check in ledger.checks:
        if check.candidate == candidate.origin and check.name == "holdout_score" and check.value is not None:
            return Estimate(value=check.value, unit=Unit.SCORE, low=check.low, high=check.high), check.resamples
    return Estimate(value=None, unit=Unit.SCORE, reason="The candidate was not scored on the holdout."), ()


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


def _leaders(contenders: Sequence[_Contender]) -> tuple[_Contender | None, list[_Contender]]:
    """Who leads in score among those that could be recommended, and all, it too, that may be as good."""
    able = [one for one in contenders if one.reason is None]
    if not able:
        return None, []
    # Of equal scores the one that serves better leads, so that no tie is told where there is no difference.
    leader = max(able, key=lambda one: (_goodness(one), _served_goodness(one)))
    return leader, [one for one in able if one is leader or not _told_apart(one, leader)]


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


def _told_apart(one: _Contender, other: _Contender) -> bool:
    """Whether the difference of two scores is more than chance."""
    if one.score.value == other.score.value:
        return False
    low, high = difference_interval(one.resamples, other.resamples)
    return low > 0 or high < 0


def _p99(capacity: Capacity) -> float:
    return math.inf if capacity.p99.value is None else capacity.p99.value


def _p99_by_rate(one: _Contender, results: Sequence[StepResult]) -> dict[float, float]:
    """Scheduled p99 at each rate that the best cell was offered, where it is known."""
    return {
        result.step.rate_rps: result.scheduled["p99"].value_s
        for result in results
        if one.best is not None
        and result.cell == one.best.cell
        and result.step.rate_rps is not None
        and result.scheduled["p99"].value_s is not None
    }


def _front(contenders: Sequence[_Contender], p99_s: Mapping[str, Mapping[float, float]]) -> set[str]:
    """Origins of the candidates that no other dominates."""

    def dominates(other: _Contender, one: _Contender) -> bool:
        theirs, own = (
            [_goodness(each), -1.0 if each.best is None or each.best.rate.value is None else each.best.rate.value]
            for each in (other, one)
        )
        fast, slow = p99_s[other.candidate.origin], p99_s[one.candidate.origin]
        if shared := fast.keys() & slow.keys():
            theirs.append(-fast[max(shared)])
            own.append(-slow[max(shared)])
        return theirs != own and all(their >= mine for their, mine in zip(theirs, own, strict=True))

    scored = [one for one in contenders if one.score.value is not None]
    return {one.candidate.origin for one in scored if not any(dominates(other, one) for other in scored)}


def _family(candidate: Candidate) -> str:
    return str(candidate.configuration.get("family", "unknown family"))


def _told(
    ledger: Ledger,
    capacities: Sequence[Capacity],
    results: Sequence[StepResult],
    contenders: Sequence[_Contender],
    chosen: _Contender | None,
    leader: _Contender | None,
) -> str:
    if chosen is not None:
        return _sentence(chosen, leader, ledger.scenario.load.objective)
    if ledger.scenario.search is None:
        return server_sentence(ledger, capacities, results)
    return _nothing(contenders)


def _sentence(chosen: _Contender, leader: _Contender | None, objective: Objective | None) -> str:
    candidate, score = chosen.candidate, format_number(chosen.score.value, Unit.SCORE)
    name = f"{candidate.origin} ({_family(candidate)})"
    scored = f"it scores {score} {candidate.metric} on the holdout"
    tie = ""
    if leader is not None and leader is not chosen:
        tie = (
            f" Its score cannot be told apart from the {format_number(leader.score.value, Unit.SCORE)} of "
            f"{leader.candidate.origin}, {_served_comparison(chosen.best, leader.best)}."
        )
    best = chosen.best
    if best is None:
        return f"Ship {name}: {scored}. Nothing was served, so no rate can be promised."
    on = replica_words(best.replicas)
    if best.max_replicas:
        on = f"up to {replica_words(best.max_replicas)}, autoscaled"
    if objective is None:
        peak = format_number(best.peak.value, Unit.RPS)
        reached = f" and reached {peak} on {on}" if best.peak.value is not None else f" and answered on {on}"
        promise = f"{reached}; without an objective no rate can be promised"
    else:
        promise = f" and {carried_words(best, objective, f' on {on}')}"
    return f"Ship {name} {cell_words(best)}: {scored}{promise}.{tie}"


def _served_comparison(chosen: Capacity | None, leader: Capacity | None) -> str:
    """What the tie was broken by, and whether the bracket of what was tried supports it."""
    if chosen is None or leader is None or chosen.rate.value is None or leader.rate.value is None:
        return "which is not known to carry as much"
    theirs = format_number(leader.rate.value, Unit.RPS)
    if chosen.rate.value <= leader.rate.value:
        return f"which answers no sooner at {theirs}"
    if leader.rate.high is not None and chosen.rate.value >= leader.rate.high:
        return f"and it carries more than that one's {theirs}"
    return f"which carried {theirs} and was not shown to carry more"


def _nothing(contenders: Sequence[_Contender]) -> str:
    if not contenders:
        return "Nothing can be recommended: no search and no baseline ended in a candidate. The failures say why."
    reasons = "; ".join(f"{one.candidate.origin}: {(one.reason or '').rstrip('.')}" for one in contenders)
    return f"Nothing can be recommended. {reasons}."
