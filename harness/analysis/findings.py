"""A run with everything that was concluded from it, in one place for those who tell it.

In: the ledger and its reduced steps. Out: `Findings`, from which tables, charts, the summary and the document are made.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.analysis.anytime import Curve, anytime
from harness.analysis.capacity import capacities
from harness.analysis.dissection import dissections, routings
from harness.analysis.entries import entries
from harness.analysis.gate import verdict
from harness.analysis.growth import growth
from harness.analysis.ranking import ranking
from harness.analysis.recommendation import recommendation
from harness.analysis.simulation import simulation_sentence
from harness.errors import ExitCode
from harness.records.candidate import Trial, better
from harness.records.cell import Cell
from harness.records.comparison import Ranking
from harness.records.finding import Answer, Capacity, Dissection, Recommendation, Routing, Verdict
from harness.records.growth import Growth
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.run import CellResult
from harness.records.words import ROOFLINE, Metric


@dataclass(frozen=True)
class Findings:
    """A run, read."""

    ledger: Ledger
    results: tuple[StepResult, ...]
    capacities: tuple[Capacity, ...]
    recommendation: Recommendation
    verdict: Verdict
    ranking: Ranking | None
    """The comparison of engines; None where the plan has none."""

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """How good each engine of a comparison was after how long."""
        compared = entries(self.ledger)
        return anytime(self.ledger, compared) if compared else ()

    @property
    def comparison(self) -> Ranking | None:
        """The ranking, where the comparison is what the run is about: it puts no candidate before any traffic."""
        return None if any(cell.kind == "serve" for cell in self.ledger.plan) else self.ranking

    @property
    def sentence(self) -> str:
        """The first line of the report."""
        return self.comparison.sentence if self.comparison else self.recommendation.sentence

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The plan's cells by id."""
        return {cell.id: cell for cell in self.ledger.plan}

    @cached_property
    def cell_results(self) -> dict[str, CellResult]:
        """What became of the cells that were begun, by id."""
        return {result.id: result for result in self.ledger.results}

    @cached_property
    def growth(self) -> Growth:
        """What more workers, rows and columns did."""
        return growth(self.ledger)

    @cached_property
    def dissections(self) -> tuple[Dissection, ...]:
        """Where the time of requests to each served cell went."""
        return dissections(self.capacities, self.results)

    @cached_property
    def routings(self) -> tuple[Routing, ...]:
        """What Ray Serve's routing costs, where it is known."""
        return routings(self.ledger, self.results)

    @property
    def exit_code(self) -> ExitCode:
        """What a job is told of the run: that the machine failed it, what its gates say, that it answers nothing."""
        if self.ledger.failed_by_the_machine:
            return ExitCode.INFRASTRUCTURE
        if self.ledger.run.finished_utc is None or self.verdict.answer is Answer.INCONCLUSIVE:
            return ExitCode.NOT_TRUSTWORTHY
        if self.verdict.answer is Answer.FAIL:
            return ExitCode.GATE_FAILED
        answered = self.recommendation.recommended is not None
        if self.ledger.run.simulation is not None:
            answered = bool(self.ledger.trials)
        if self.ledger.scenario.search is None:
            answered = any(result.throughput_rps is not None for result in self.results)
        if self.comparison is not None:
            answered = self.comparison.leader is not None
        return ExitCode.GOOD if answered else ExitCode.NOT_TRUSTWORTHY

    @property
    def metric(self) -> Metric | None:
        """What was searched for; None where nothing was, or not the same on every table."""
        metrics = {table.metric for table in self.ledger.tables}
        return metrics.pop() if len(metrics) == 1 else None

    def metric_of(self, cell_id: str) -> Metric | None:
        """What a search or refit cell was scored by: the metric of its table."""
        cell = self.cells.get(cell_id)
        own = (table.metric for table in self.ledger.tables if cell is not None and table.name == cell.table)
        return next(own, self.metric)

    @property
    def recommended_cell(self) -> Capacity | None:
        """The served cell of the recommendation; of a run that serves no candidate, the best of the user's own."""
        for standing in self.recommendation.standings:
            if standing.candidate == self.recommendation.recommended:
                return standing.capacity
        if any(one.candidate is not None for one in self.capacities):
            return None
        # What the generator reaches against a server that computes nothing is no answer to anybody's question.
        own = [one for one in self.capacities if one.target != ROOFLINE]
        return max(own, key=lambda one: one.rate.value or -1.0, default=None)

    def label(self, cell_id: str) -> str:
        """A cell in a few words; its id where the plan does not know it."""
        cell = self.cells.get(cell_id)
        return cell.label if cell else cell_id

    def steps_of(self, cell_id: str, mode: str) -> list[StepResult]:
        """A cell's open or closed steps by what they asked for."""
        own = [result for result in self.results if result.cell == cell_id and result.step.mode == mode]
        return sorted(own, key=lambda result: (result.step.rate_rps or result.step.in_flight or 0, result.step.number))

    def trials_of(self, cell_id: str) -> list[Trial]:
        """A search cell's trials in the order in which they finished."""
        return sorted((trial for trial in self.ledger.trials if trial.cell == cell_id), key=lambda trial: trial.number)

    def causes_of(self, cell_id: str) -> dict[str, int]:
        """Failed trials of a search cell, counted by cause."""
        failures = (trial.evaluated.failure for trial in self.trials_of(cell_id))
        return dict(sorted(Counter(failure.cause.value for failure in failures if failure is not None).items()))

    def best_so_far(self, cell_id: str) -> list[tuple[Trial, float | None]]:
        """A search cell's trials, each with the best score among it and those before it; None without a metric.

        Only whole trials count: a score on some of the rows or folds is of another question, and is never shipped.
        """
        metric, best, found = self.metric_of(cell_id), None, []
        for trial in self.trials_of(cell_id):
            score = trial.evaluated.score if trial.evaluated.is_whole else None
            if score is not None and metric is not None and (best is None or better(metric, score, best)):
                best = score
            found.append((trial, best))
        return found


def findings(ledger: Ledger, results: Sequence[StepResult]) -> Findings:
    """Conclude everything that a run's records support."""
    carried = capacities(ledger, results)
    ranked = recommendation(ledger, carried, results)
    if ledger.run.simulation is not None:
        ranked = ranked.model_copy(update={"sentence": simulation_sentence(ledger)})
    judged = verdict(ledger, ranked, carried, results)
    return Findings(ledger, tuple(results), carried, ranked, judged, ranking(ledger))
