"""Growth, against runs that were made up to a known law."""

from types import ModuleType
from typing import Any

import pytest

from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.analysis.growth import growth, places_along
from harness.records.candidate import Evaluated, Trial
from harness.records.cell import Cell
from harness.records.growth import SearchGrowth, SizeGrowth
from harness.records.refit import PredictTime, Refit
from harness.records.table import DataPlan

WORKERS = (1, 2, 4, 8)


def grown(ledgers: ModuleType, workers: tuple[int, ...] = WORKERS, ask_s: float = 0.0, fit_s: float = 1.0) -> Any:
    """Searches of 30 s with two seeds, in which the driver asks for `ask_s` before each trial, one after the other."""
    plan = ledgers.scenario()
    search = plan.search.model_copy(update={"engines": ("random_search",), "workers": workers, "seeds": (1, 2)})
    story = ledgers.Story(plan.model_copy(update={"search": search, "serve": (), "gates": ()}))
    for cell in story.plan:
        if cell.kind == "search":
            story.trials += schedule(cell, ask_s, fit_s, 30.0)
            last_s = max(trial.finished_s for trial in story.trials if trial.cell == cell.id)
            story.done(cell, duration_s=last_s)
    return story


def schedule(cell: Cell, ask_s: float, fit_s: float, seconds: float) -> list[Trial]:
    """What a driver that only asks does with workers that only fit."""
    free = dict.fromkeys(range(cell.workers or 1), 0.0)
    driver_s, found = 0.0, []
    while driver_s < seconds:
        worker = min(free, key=lambda one: free[one])
        asked_s = max(driver_s, free[worker])
        sent_s = driver_s = asked_s + ask_s
        free[worker] = sent_s + fit_s
        evaluated = Evaluated(
            configuration={"family": "knn"},
            fold_scores=(0.5 + 0.001 * len(found),),
            duration_s=fit_s,
            fit_s=fit_s,
            worker=worker,
        )
        times = {"asked_s": asked_s, "sent_s": sent_s, "finished_s": free[worker]}
        found.append(Trial(cell=cell.id, number=len(found), asked=len(found), evaluated=evaluated, **times))
        if asked_s + ask_s + fit_s > seconds:
            break
    return found


def only(found: tuple[SearchGrowth, ...]) -> SearchGrowth:
    (one,) = found
    return one


def test_workers_that_never_wait_scale_without_contention(ledgers: ModuleType) -> None:
    found = only(growth(grown(ledgers).ledger()).searches)
    assert [scale.workers for scale in found.scales] == list(WORKERS)
    for scale in found.scales:
        assert scale.rate.value == pytest.approx(scale.workers, rel=0.1)
        assert scale.utilisation.value == pytest.approx(1.0, abs=0.1)
    assert found.contention.value == pytest.approx(0.0, abs=0.02)
    assert found.doubled.value == pytest.approx(16.0, rel=0.1)


def test_a_driver_that_is_asked_a_quarter_of_a_trials_time_is_the_bottleneck(ledgers: ModuleType) -> None:
    """Asking takes 0.25 s and a trial 1 s: five workers keep the driver busy, and eight get no more than 4 a second."""
    found = only(growth(grown(ledgers, ask_s=0.25).ledger()).searches)
    first, last = found.scales[0], found.scales[-1]
    assert first.utilisation.value == pytest.approx(1 / 1.25, rel=0.05)
    assert last.rate.value == pytest.approx(4.0, rel=0.1)
    assert last.utilisation.value == pytest.approx(0.5, abs=0.05)
    assert "is waiting for the engine's next proposal" in last.sentence
    assert last.coordinator_p50_s.value == pytest.approx(0.25)
    # A wall is no curve of the law's: it must at least not promise what a driver of four a second cannot do.
    assert found.doubled.value is None or found.doubled.value < 5.0


def test_best_scores_are_compared_at_the_length_of_the_shortest_search(ledgers: ModuleType) -> None:
    story = grown(ledgers, workers=(1, 2))
    found = only(growth(story.ledger()).searches)
    assert found.wall_s == min(max(t.finished_s for t in story.trials if t.cell == cell.id) for cell in story.plan[:4])
    # A trial a second: the score says how many were done by then.
    assert found.scales[0].best.value == pytest.approx(0.5 + 0.001 * 29, abs=0.0015)
    assert found.scales[1].best.value == pytest.approx(0.5 + 0.001 * 59, abs=0.0025)


def test_two_numbers_of_workers_make_no_law(ledgers: ModuleType) -> None:
    found = only(growth(grown(ledgers, workers=(1, 2)).ledger()).searches)
    for figure in (found.contention, found.coherence, found.peak, found.doubled):
        assert figure.value is None
        assert figure.reason == "No law: 2 scales measured, and a law takes 4 at least."


def refit(table: str, entrant: str, fit_s: float, memory_bytes: int, predict_s: float) -> Refit:
    return Refit(
        cell="c",
        table=table,
        entrant=entrant,
        seed=None,
        configuration={},
        cv_score=None,
        score=0.5,
        resamples=(),
        fit_cold_s=fit_s,
        fit_warm_s=fit_s,
        load_s=0.0,
        predict_cold_s=0.0,
        predict=(PredictTime(rows=1, calls_s=(1e-3,)), PredictTime(rows=100, calls_s=(predict_s,) * 3)),
        threads=1,
        size_bytes=1,
        peak_memory_bytes=2**27 + memory_bytes,
        fit_memory_bytes=memory_bytes,
    )


def sized(ledgers: ModuleType) -> Any:
    """Tables of 3 by 2 sizes on which fitting takes rows**1.5 and columns**1, and memory does not grow with rows."""
    plan = DataPlan(source="synthetic:classification", parameters={"rows": (100, 1000, 10000), "columns": (5, 10)})
    told = ledgers.scenario().model_copy(update={"data": (plan,), "serve": (), "gates": ()})
    story = ledgers.Story(told.model_copy(update={"expect": type(told.expect)()}))
    for table in told.tables:
        rows, columns = int(table.parameters["rows"]), int(table.parameters["columns"])  # type: ignore[arg-type]
        story.refits.append(refit(str(table.name), "baseline", 1e-4 * rows**1.5 * columns, 1000 * columns, 1e-5 * rows))
    return story


def test_exponents_of_rows_are_those_of_the_made_up_cost(ledgers: ModuleType) -> None:
    found = growth(sized(ledgers).ledger()).sizes
    by_rows = {(one.measure, one.beside): one for one in found if one.axis == "rows"}
    assert {measure for measure, _ in by_rows} == {"fitting", "memory of fitting", "predicting 100 rows"}
    for columns in (5, 10):
        assert by_rows["fitting", f"{columns} columns"].exponent.value == pytest.approx(1.5)
        assert by_rows["memory of fitting", f"{columns} columns"].exponent.value == pytest.approx(0.0, abs=1e-9)
    assert by_rows["fitting", "5 columns"].sizes == (100, 1000, 10000)


def test_two_sizes_make_no_exponent(ledgers: ModuleType) -> None:
    by_columns: list[SizeGrowth] = [one for one in growth(sized(ledgers).ledger()).sizes if one.axis == "columns"]
    assert len(by_columns) == 3 * 3
    assert {one.exponent.reason for one in by_columns} == {"No exponent: 2 sizes measured, and an exponent takes 3."}


def test_tables_of_other_origins_are_no_growth_and_two_that_grow_are_told_apart(ledgers: ModuleType) -> None:
    small, large = (DataPlan(name=f"n{rows}", source="synthetic:binary", parameters={"rows": rows}) for rows in (9, 90))
    assert places_along(ledgers.scenario().model_copy(update={"data": (small, large)}), "rows") == {}
    grown_twice = tuple(
        DataPlan(name=name, source="synthetic:binary", parameters={"rows": (200, 400), "noise": noise})
        for name, noise in (("clean", 0.0), ("noisy", (0.1, 0.2)))
    )
    found = places_along(ledgers.scenario().model_copy(update={"data": grown_twice}), "rows")
    assert set(found.values()) == {
        *((rows, "clean") for rows in (200, 400)),
        *((rows, f"noisy, noise {noise}") for rows in (200, 400) for noise in (0.1, 0.2)),
    }


def test_a_report_of_growing_scales_has_its_section(ledgers: ModuleType) -> None:
    for story, charts in (
        (grown(ledgers, ask_s=0.25), {"search_rates", "search_utilisation"}),
        (sized(ledgers), {"fit_by_rows", "fit_by_columns"}),
    ):
        told = document(findings(story.ledger(), ()))
        (section,) = (section for section in told.sections if section.title == "Growing scales")
        assert {chart.key for chart in section.charts} == charts
        assert section.tables
        assert told.summary["growth"]
