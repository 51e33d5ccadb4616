"""Growth, against runs that were made up to a known law."""

from types import ModuleType
from typing import Any

import pytest

from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.analysis.growth import growth, places_along
from harness.analysis.growth_tables import SPENT_KEYS
from harness.analysis.growth_words import words
from harness.records.candidate import Evaluated, Trial
from harness.records.cell import Cell
from harness.records.finding import Estimate
from harness.records.growth import Growth, SearchGrowth, SearchScale, SizeGrowth, Spent
from harness.records.refit import PredictTime, Refit
from harness.records.run import Cause, Failure, SearchStart
from harness.records.table import DataPlan
from harness.units import Unit

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


def chain(
    cell: Cell,
    ask_s: float = 0.0,
    way_s: float = 0.0,
    score_s: float = 0.0,
    store_s: float = 0.0,
    tell_s: float = 0.0,
    back_s: float = 0.0,
) -> list[Trial]:
    """Ten trials of a worker, each with a second of fitting, and so much of what else there is.

    `back_s`: each is killed, and its worker is back so long after.
    """
    at_s, found = 0.0, []
    for number in range(10):
        sent_s = at_s + ask_s
        finished_s = sent_s + way_s + 1.0 + score_s
        evaluated = Evaluated(
            configuration={"family": "knn"},
            fold_scores=() if back_s else (0.5,),
            duration_s=1.0 + score_s,
            fit_s=1.0,
            worker=0,
            failure=Failure.of(Cause.TIME, "stopped") if back_s else None,
        )
        times = {"asked_s": at_s, "sent_s": sent_s, "finished_s": finished_s, "last_store_s": store_s * (number > 0)}
        found.append(Trial(cell=cell.id, number=number, asked=number, evaluated=evaluated, **times))
        at_s = finished_s + store_s + tell_s + back_s
    return found


def test_who_searches_first_is_not_blamed_for_the_start_of_the_workers(ledgers: ModuleType) -> None:
    """Ten trials of a second each, with and without half a minute in which the workers start."""
    shares, told = [], []
    for start in (SearchStart(took_s=0.0), SearchStart(took_s=30.0)):
        story = ledgers.Story(
            ledgers.scenario(search={"engines": ["random_search"], "workers": [1]}, serve=[], load={})
        )
        cell = story.cell("search", "random_search")
        story.trials += chain(cell, tell_s=0.25)
        story.done(cell, duration_s=12.25 + start.took_s, search_start=start)
        (found,) = only(growth(story.ledger()).searches).scales
        shares.append(found.utilisation.value)
        told.append(found.sentence)
    assert shares == pytest.approx([10 / 12.25] * 2)
    assert "(81.6 % once they stood)" in told[1] and "once they stood" not in told[0]


def test_every_second_has_a_column() -> None:
    assert set(SPENT_KEYS) == set(Spent)


@pytest.mark.parametrize(
    ("where", "costs_s", "workers", "start"),
    [
        (Spent.SCORE, {"score_s": 3.0}, 1, {}),
        (Spent.ASK, {"ask_s": 3.0, "store_s": 2.0}, 1, {}),
        (Spent.STORED, {"store_s": 3.0, "tell_s": 2.0}, 1, {}),
        (Spent.TOLD, {"tell_s": 3.0, "store_s": 2.0}, 1, {}),
        (Spent.HAND_OVER, {"way_s": 3.0, "tell_s": 2.0}, 1, {}),
        (Spent.RESTART, {"back_s": 3.0}, 1, {}),
        (Spent.OBJECT_STORE, {"tell_s": 1.0}, 1, {"took_s": 35.0, "put_s": 5.0, "fetched_s": (15.0,)}),
        (Spent.START, {"tell_s": 1.0}, 1, {"took_s": 35.0, "put_s": 5.0, "fetched_s": (5.0,)}),
        (Spent.READY, {"tell_s": 1.0}, 1, {"took_s": 5.0}),
        (Spent.UNUSED, {"tell_s": 1.0}, 2, {}),
    ],
    ids=lambda one: one.name if isinstance(one, Spent) else "",
)
def test_what_takes_most_of_the_time_beside_fitting_is_named(
    ledgers: ModuleType, where: Spent, costs_s: dict[str, float], workers: int, start: dict[str, Any]
) -> None:
    story = grown(ledgers, workers=(workers,))
    story.trials.clear()
    for cell in story.plan:
        if cell.kind == "search":
            story.trials += chain(cell, **costs_s)
            last_s = max(trial.finished_s for trial in story.trials if trial.cell == cell.id)
            told = {"search_start": SearchStart(**start)} if start else {}
            story.done(cell, duration_s=last_s + (36.0 if start else 0.0), **told)
    (scale,) = only(growth(story.ledger()).searches).scales
    assert scale.spent[where] == max(share for one, share in scale.spent.items() if one is not Spent.FIT)
    assert f"is {where.value}." in scale.sentence


def test_workers_that_have_nothing_left_to_do_are_named(ledgers: ModuleType) -> None:
    """The first of two workers ends after a second, the other one after ten."""
    story = grown(ledgers, workers=(2,))
    story.trials.clear()
    for cell in story.plan[:2]:
        for worker, end_s in enumerate((1.0, 10.0)):
            times = {"asked_s": 0.0, "sent_s": 0.0, "finished_s": end_s}
            evaluated = Evaluated(configuration={}, fold_scores=(0.5,), duration_s=end_s, fit_s=end_s, worker=worker)
            story.trials.append(Trial(cell=cell.id, number=worker, asked=worker, evaluated=evaluated, **times))
        story.done(cell, duration_s=10.0)
    (scale,) = only(growth(story.ledger()).searches).scales
    assert scale.spent[Spent.END] == pytest.approx(9 / 20)
    assert f"is {Spent.END.value}." in scale.sentence


def test_workers_that_outnumber_the_cores_are_named(ledgers: ModuleType) -> None:
    few, many = (growth(grown(ledgers, workers=workers).ledger()) for workers in ((1, 2), (2, 4, 8)))
    assert words(few, cores=2) == (only(few.searches).scales[-1].sentence,)
    assert words(many, cores=2)[-1].startswith("4 and 8 workers are more than the 2 cores of the machine that drove")
    assert words(many, cores=None) == (only(many.searches).scales[-1].sentence,)


def test_many_searches_are_told_by_their_bottlenecks() -> None:
    """Three engines on two tables: one waits for its driver, the others are idle at the end."""

    def search(table: str, engine: str, where: Spent, start: float) -> SearchGrowth:
        spent = dict.fromkeys(Spent, 0.0) | {Spent.FIT: 0.6 - start, where: 0.4, Spent.START: start}
        none = Estimate(value=None, unit=Unit.SCORE, reason="not measured")
        scale = SearchScale(
            workers=2,
            searches=1,
            trials=1,
            rate=none,
            utilisation=none,
            coordinator_p50_s=none,
            coordinator_p99_s=none,
            best=none,
            without_score=0,
            spent=spent,
            sentence="A sentence of its own.",
        )
        laws = dict.fromkeys(("contention", "coherence", "peak", "doubled"), none)
        return SearchGrowth(table=table, engine=engine, metric="accuracy", wall_s=1.0, scales=(scale,), **laws)

    searches = [
        search(table, engine, where, start)
        for table in ("one", "two")
        for engine, where, start in (("a", Spent.END, 0.5), ("b", Spent.ASK, 0.0), ("c", Spent.END, 0.0))
    ]
    end, ask, started = words(Growth(searches=tuple(searches), sizes=()), cores=2)
    assert end == (
        "For 4 of 6 (a on one, c on one, a on two and 1 more) with their most workers, once these stand, most of the "
        "time beside fitting is idle at the end, when no further trial begins."
    )
    assert ask.startswith("For 2 of 6 (b on one and b on two)") and ask.endswith(f"is {Spent.ASK.value}.")
    assert "up to 50.0 % of all the time" in started


def failing(ledgers: ModuleType, dummy: float | None) -> SearchGrowth:
    """Two seeds with two workers: one has a trial a second, all of them scored; the other one ended without any."""
    story = grown(ledgers, workers=(2,))
    last = [cell for cell in story.plan if cell.kind == "search"][-1]
    story.trials = [trial for trial in story.trials if trial.cell != last.id]
    story.done(last, failure=Failure.of(Cause.ENGINE_NO_MODEL, "no trial"), duration_s=1.5)
    if dummy is not None:
        story.refits.append(refit(str(last.table), "dummy", 1.0, 1, 1.0).model_copy(update={"score": dummy}))
    return only(growth(story.ledger()).searches)


def test_a_search_that_found_nothing_counts_as_the_dummy_model_and_with_no_trials_a_second(ledgers: ModuleType) -> None:
    found = failing(ledgers, dummy=0.4)
    (scale,) = found.scales
    whole = only(growth(grown(ledgers, workers=(2,)).ledger()).searches).scales[0]
    assert (scale.searches, scale.without_score, whole.without_score) == (2, 1, 0)
    assert found.wall_s > 20.0  # not the second and a half of the one that failed
    assert scale.best.value == pytest.approx((whole.best.value + 0.4) / 2)
    assert scale.rate.value == pytest.approx(whole.rate.value / 2)
    assert "1 of 2 searches had no score by then, which counts as the dummy model's." in scale.sentence


def test_without_a_dummy_model_there_is_no_mean_over_those_that_happened_to_work(ledgers: ModuleType) -> None:
    (scale,) = failing(ledgers, dummy=None).scales
    assert scale.best.value is None
    assert scale.best.reason is not None and scale.best.reason.startswith("1 of 2 searches had no score by then")


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


def test_trials_that_their_limits_ended_leave_no_exponent_of_the_others(ledgers: ModuleType) -> None:
    """Trials at three sizes, a second for a hundred rows; one on the largest table had no memory left."""
    story = sized(ledgers)
    for table in story.scenario.tables:
        story.searched("random_search", [0.8, 0.9], table=str(table.name))
        rows = float(table.parameters["rows"])
        story.trials[-2:] = [
            one.model_copy(update={"evaluated": one.evaluated.model_copy(update={"fit_s": rows / 100})})
            for one in story.trials[-2:]
        ]

    def told() -> dict[str, SizeGrowth]:
        found = growth(story.ledger()).sizes
        return {one.beside: one for one in found if (one.axis, one.measure) == ("rows", "fitting of a trial")}

    assert [one.exponent.value for one in told().values()] == pytest.approx([1.0, 1.0])
    largest = next(one for one in story.scenario.tables if one.parameters == {"rows": 10000, "columns": 5})
    story.searched("optuna_search", [None], table=str(largest.name))
    assert told()["10 columns"].exponent.value == pytest.approx(1.0)
    lost = told()["5 columns"].exponent
    assert (lost.value, lost.n) == (None, 6)
    assert lost.reason is not None and lost.reason.startswith("No exponent: 1 trials beside these 6 were ended by")


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
