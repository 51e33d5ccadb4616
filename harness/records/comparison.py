"""What a comparison of engines found: who scored what on which table, what separates them, and at what cost.

In: nothing. Out: `Ranking`, made of `Placing`s on a table, `Entrant`s over all tables, `Duel`s, `Trade`s and
`Imputation`s.
"""

from typing import Literal

from harness.records.finding import Estimate
from harness.records.frozen import Frozen
from harness.records.words import Metric

Cost = Literal["fit", "predict"]


class Placing(Frozen):
    """One entrant on one table."""

    table: str
    entrant: str
    metric: Metric
    score: Estimate
    """Mean over its seeds on the holdout, each that failed as the dummy model; the interval is over rows and seeds."""
    seed_low: float
    seed_high: float
    """Least and most of its seeds."""
    normalised: float
    """0 is the dummy model, 1 the best entrant on the table."""
    rank: float
    """1 is the best; equals share the mean of their places."""
    behind: Estimate
    """By how much the best entrant of the table with a model is better, on the same resampled rows; of the best itself
    0. With 95 % the intervals of all pairs on the table hold together."""
    apart: bool
    """It is behind by more than chance."""
    planned: int
    """Refits there should be: one per seed."""
    failures: int
    """Of these, how many there are not."""


class Entrant(Frozen):
    """One entrant over all tables."""

    entrant: str
    average_rank: Estimate
    normalised: Estimate
    """Mean normalised score."""
    best_on: int
    """Tables on which nothing of it failed and it is the best, or cannot be told apart from the best."""
    planned: int
    failures: int
    failure_share: float


class Duel(Frozen):
    """How often one entrant is better than another."""

    entrant: str
    other: str
    win_rate: Estimate
    """Share of the tables, ties as half."""
    p: float | None
    """Nemenyi's, allowing for all pairs, or the sign test's where there are only two; None where the tables are too few
    for a test, or Friedman's found that all may be alike."""


class Separation(Frozen):
    """Whether the tests over tables tell entrants apart."""

    friedman_chi2: float | None = None
    friedman_p: float | None = None
    iman_davenport_f: float | None = None
    iman_davenport_p: float | None = None
    critical_difference: float | None = None
    """By how much average ranks must differ, at 5 %; None for two entrants, which the sign test holds apart."""
    sign_p: float | None = None
    """Of the sign test, for two entrants."""
    groups: tuple[tuple[str, ...], ...]
    """The largest groups of entrants between which no difference is shown, best first."""
    reason: str | None = None
    """Why there is no test."""


class Trade(Frozen):
    """What an entrant's models cost, beside what they score."""

    entrant: str
    cost: Cost
    rows: int | None
    """Per call, of a prediction."""
    ratio: Estimate
    """Seconds over those of the fastest entrant on the same table: the geometric mean over tables."""
    on_front: bool
    """No other entrant is at least as cheap and as good, and better in one."""


class Imputation(Frozen):
    """In which order entrants stand if failures are scored in one way or another."""

    way: Literal["dummy", "left_out", "worst"]
    """As the dummy model; not at all, with the tables they are on; as the worst entrant on the table."""
    tables: int
    standing: tuple[tuple[str, ...], ...]
    """Entrants by average rank, best first, those that share one together; empty where no table is left."""

    @property
    def leaders(self) -> tuple[str, ...]:
        """Who has the best average rank."""
        return self.standing[0] if self.standing else ()


class Ranking(Frozen):
    """The comparison as a whole."""

    tables: tuple[str, ...]
    """That were compared on."""
    left_out: tuple[str, ...]
    """That were not: they have no dummy model, or refits that were not tried yet."""
    seeds: int
    entrants: tuple[Entrant, ...]
    """Best average rank first; those without any model last."""
    placings: tuple[Placing, ...]
    """By table, best first; those without any model last."""
    duels: tuple[Duel, ...]
    """Each pair once, the better of the two first."""
    separation: Separation
    trades: tuple[Trade, ...]
    imputations: tuple[Imputation, ...]
    """Empty where nothing failed."""
    leader: str | None
    """Best average rank of those with a model; None where nobody is better than a model that never looks."""
    sentence: str
    """The finding in plain words."""
    flips: str | None
    """What failures have to do with it: None where nothing failed."""
    warnings: tuple[str, ...]
