"""Where the time of a request goes: parts that add up to the median, or a word why not."""

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from harness.analysis.anatomy import BAND_MIN, TOLERANCE
from harness.analysis.dissection import routing_sentence
from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.analysis.reduce import reduce_step
from harness.analysis.validity import judged
from harness.records.load import NEVER, PARTS, STAGES, Outcome

N = 4000


def columns_of(ledgers: ModuleType, network_ns: Any, stages_ns: dict[str, Any], lag_ns: Any = 0) -> Any:
    """Exchanges of a step of ten seconds, each of these lengths."""
    due = np.linspace(0, 10e9, N, endpoint=False).astype(np.int64)
    latency = lag_ns + network_ns + sum(stages_ns.values())
    columns = ledgers.exchanges(due, np.broadcast_to(latency, N).astype(np.int64), lag_ns)
    for stage in STAGES:
        columns[f"{stage}_ns"][:] = stages_ns.get(stage, 0)
    return columns


def anatomy_of(ledgers: ModuleType, columns: Any, **changes: Any) -> Any:
    step = ledgers.open_step(0, 400.0, duration_s=10.0)
    return reduce_step(ledgers.step_entry(step.model_copy(update=changes), columns), columns).anatomy


def test_lengths_that_never_change_come_back_as_they_are(ledgers: ModuleType) -> None:
    stages = dict(zip(STAGES, (11_000, 22_000, 33_000, 44_000, 55_000), strict=True))
    found = anatomy_of(ledgers, columns_of(ledgers, 500_000, stages, lag_ns=7_000))
    assert found.parts_s == pytest.approx(
        {"lag": 7e-6, "network": 5e-4, "received": 11e-6, "queued": 22e-6, "decoded": 33e-6, "predicted": 44e-6}
        | {"encoded": 55e-6}
    )
    assert tuple(found.parts_s) == PARTS
    assert found.total_s == pytest.approx(found.p50_s) == pytest.approx(672e-6)


def test_parts_add_up_to_the_median_where_their_own_medians_do_not(ledgers: ModuleType) -> None:
    """A request either waits long or computes long: the medians of both are near nothing, that of the whole is not."""
    rng = np.random.default_rng(3)
    waits, long = rng.random(N) < 0.5, rng.gamma(9.0, 1e6, N).astype(np.int64)
    stages = {"queued": np.where(waits, long, 1_000), "predicted": np.where(waits, 1_000, long)}
    found = anatomy_of(ledgers, columns_of(ledgers, rng.gamma(2.0, 1e4, N).astype(np.int64), stages))
    medians_s = sum(float(np.median(lengths)) for lengths in stages.values()) / 1e9
    assert medians_s < 0.7 * found.p50_s
    assert abs(found.total_s / found.p50_s - 1) < TOLERANCE / 10
    # Around the median either may be the long one.
    assert found.parts_s["queued"] == pytest.approx(found.parts_s["predicted"], rel=0.3)


def test_the_tail_and_the_warm_up_have_no_part_in_it(ledgers: ModuleType) -> None:
    queued = np.full(N, 100_000)
    queued[: N // 10] = queued[::11] = 50_000_000
    found = anatomy_of(ledgers, columns_of(ledgers, 400_000, {"queued": queued}))
    assert found.parts_s["queued"] == pytest.approx(1e-4)
    assert found.sampled == N - N // 10  # the first second warms up


def test_only_the_rows_that_were_asked_and_succeeded_count(ledgers: ModuleType) -> None:
    columns = columns_of(ledgers, 400_000, {"predicted": 100_000})
    for stage in STAGES:
        columns[f"{stage}_ns"][::2] = NEVER
    columns["outcome"][1::4] = Outcome.HTTP_ERROR
    columns["predicted_ns"][1::4] = 1  # an error may be fast
    found = anatomy_of(ledgers, columns)
    assert (found.sampled, found.averaged) == (900, 90)
    assert found.parts_s["predicted"] == pytest.approx(1e-4)


def test_a_server_that_says_nothing_has_no_anatomy(ledgers: ModuleType) -> None:
    columns = columns_of(ledgers, 400_000, {})
    for stage in STAGES:
        columns[f"{stage}_ns"][:] = NEVER
    assert anatomy_of(ledgers, columns) is None


def test_a_server_that_states_more_time_than_passed_is_not_believed(ledgers: ModuleType) -> None:
    """As where a cache between repeats an answer, with the header that it was given once."""
    columns = columns_of(ledgers, 400_000, {"predicted": 100_000})
    columns["predicted_ns"][2000:2007] = 9_000_000
    found = anatomy_of(ledgers, columns)
    assert found.parts_s == {} and found.total_s is None
    assert found.reason.startswith("7 of 3,600 answers state more time than passed")


def test_rounding_to_microseconds_is_no_lie(ledgers: ModuleType) -> None:
    columns = columns_of(ledgers, 0, dict.fromkeys(STAGES, 20_000))
    for stage in STAGES:
        columns[f"{stage}_ns"] += 500
    assert anatomy_of(ledgers, columns).parts_s


def test_too_few_answers_are_no_mean(ledgers: ModuleType) -> None:
    columns = columns_of(ledgers, 400_000, {"predicted": 100_000})
    for stage in STAGES:
        columns[f"{stage}_ns"][: -(BAND_MIN - 1)] = NEVER
    found = anatomy_of(ledgers, columns)
    assert (found.parts_s, found.sampled) == ({}, BAND_MIN - 1)
    assert f"{BAND_MIN} are needed" in found.reason


def test_where_nothing_lies_near_the_median_it_is_said_and_not_told(ledgers: ModuleType) -> None:
    """Few were asked, and they took other times than most: their parts are not those of the median request."""
    columns = columns_of(ledgers, np.where(np.arange(N) % 100 == 0, 1_000_000, 400_000), {"predicted": 100_000})
    for stage in STAGES:
        columns[f"{stage}_ns"][np.arange(N) % 100 != 0] = NEVER
    found = anatomy_of(ledgers, columns)
    assert (found.parts_s, found.averaged) == ({}, BAND_MIN)
    assert "come to 120 % more than it" in found.reason


def test_a_step_with_a_doubt_has_no_anatomy(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    step = ledgers.open_step(0, 400.0)
    columns = ledgers.stated(ledgers.open_exchanges(step, 1000.0, seed=1))
    story.step(story.cell("serve", "optuna_search"), step, columns, planned=len(columns["due_ns"]) + 1)
    reduced = reduce_step(story.steps[0], columns)
    (result,) = judged(story.ledger(), [reduced])
    assert reduced.anatomy is not None and result.doubts and result.anatomy is None


def served(ledgers: ModuleType, *targets: str, rates: tuple[int, ...] = (400, 800, 1200)) -> Any:
    """One candidate on some targets; the second one is twice as far away."""
    story = ledgers.Story(ledgers.scenario(serve=[{"target": target, "runtimes": ["onnx"]} for target in targets]))
    for far, target in enumerate(targets):
        cell = story.cell("serve", "optuna_search", target=target)
        for number, rate in enumerate(rates[far:], start=1):
            step = ledgers.open_step(number, rate)
            columns = ledgers.stated(ledgers.open_exchanges(step, 1000.0, seed=rate))
            columns["done_ns"] += far * 3_000_000
            story.step(cell, step, columns)
        story.done(cell)
    return story


def found_of(story: Any) -> Any:
    return findings(story.ledger(), story.reduced())


def test_a_cell_is_taken_apart_where_its_capacity_rests_and_at_the_lowest_load(ledgers: ModuleType) -> None:
    found = found_of(served(ledgers, "asgi"))
    assert [(one.load, one.carries) for one in found.dissections] == [("800 req/s", True), ("400 req/s", False)]
    (cell,) = (one for one in document(found).summary["cells"] if one["dissections"])
    for one in cell["dissections"]:
        assert sum(one["anatomy"]["parts_s"].values()) == pytest.approx(one["anatomy"]["p50_s"], rel=TOLERANCE)


def test_a_cell_that_never_met_the_objective_is_not_judged_by_a_queue_that_grew(ledgers: ModuleType) -> None:
    story = served(ledgers, "asgi")
    objective = {"objective": {"p99_s": 1e-4, "rate_rps": 400}}
    story.scenario = ledgers.scenario(serve=[{"target": "asgi", "runtimes": ["onnx"]}], load=objective)
    found = found_of(story)
    overloaded = [result.step.label for result in found.results if result.overloaded]
    assert overloaded == ["1,200 req/s"] and found.dissections[0].load == "800 req/s"


def test_what_routing_adds_is_told_at_the_lowest_load_that_both_had(ledgers: ModuleType) -> None:
    found = found_of(served(ledgers, "asgi", "ray_serve"))
    (one,) = found.routings
    assert one.load == "800 req/s"
    assert one.routed_s - one.plain_s == pytest.approx(3e-3, rel=1e-3)
    (section,) = (one for one in document(found).sections if one.title == "Where the time of a request goes")
    (sentence,) = section.paragraphs
    assert sentence.startswith("Ray Serve's routing adds 3.00 ms at p50")
    assert "(optuna_search as onnx, 800 req/s)" in sentence
    assert [chart.key for chart in section.charts] == ["anatomy_asgi", "anatomy_ray_serve"]


def test_where_one_request_was_in_flight_nothing_but_the_way_is_told(ledgers: ModuleType) -> None:
    """Under more, a request also waits in front of the server, and the slower way would be blamed for that."""
    story = served(ledgers, "asgi", "ray_serve")
    for target, capacity_rps, on_the_way in (("asgi", 500.0, 1 / 2), ("ray_serve", 1000 / 3, 2 / 3)):
        for number, in_flight in ((10, 1), (11, 2)):
            step = ledgers.closed_step(number, in_flight)
            columns = ledgers.stated(ledgers.closed_exchanges(step, capacity_rps), on_the_way)
            story.step(story.cell("serve", "optuna_search", target=target), step, columns)
    (one,) = found_of(story).routings
    assert one.load == "1 in flight"
    assert (one.plain_s, one.routed_s) == pytest.approx((1e-3, 2e-3), rel=1e-3)


def test_what_both_cost_alike_is_no_cost_of_routing(ledgers: ModuleType) -> None:
    story = served(ledgers, "asgi", "ray_serve")
    for entry in story.steps:
        if entry.cell == story.cell("serve", "optuna_search", target="ray_serve").id:
            story.exchanges[entry.id]["done_ns"] -= 3_000_000
    (section,) = (one for one in document(found_of(story)).sections if one.title == "Where the time of a request goes")
    assert section.paragraphs[0].startswith("Ray Serve's routing adds nothing that shows at p50")


@pytest.mark.parametrize("targets", [("asgi",), ("ray_serve",), ("ray_serve", "stalling")])
def test_without_the_same_candidate_served_plainly_nothing_is_said_of_routing(
    ledgers: ModuleType, targets: tuple[str, ...]
) -> None:
    assert found_of(served(ledgers, *targets)).routings == ()


def test_without_a_load_in_common_nothing_is_said_of_routing(ledgers: ModuleType) -> None:
    assert found_of(served(ledgers, "asgi", "ray_serve", rates=(400,))).routings == ()


def routed(ledgers: ModuleType, *plans: dict[str, Any], **run: Any) -> list[str]:
    """What is said of one candidate in cells that are further away from one to the next."""
    story = ledgers.Story(ledgers.scenario(serve=[{"runtimes": ["onnx"], **plan} for plan in plans]))
    for far, cell in enumerate(one for one in story.plan if one.kind == "serve"):
        step = ledgers.open_step(far, 400)
        columns = ledgers.stated(ledgers.open_exchanges(step, 1000.0, seed=400))
        columns["done_ns"] += far * 3_000_000
        story.step(cell, step, columns)
        story.done(cell)
    ledger = story.ledger()
    ledger = dataclasses.replace(ledger, run=ledger.run.model_copy(update=run))
    return [routing_sentence(one) for one in findings(ledger, story.reduced()).routings]


def test_only_cells_that_compute_alike_are_held_against_each_other_and_what_differs_is_said(
    ledgers: ModuleType,
) -> None:
    batches = {"batch_requests": [1, 8]}
    told = routed(
        ledgers,
        {"target": "asgi", **batches},
        {"target": "ray_serve", "batch_requests": [8], "parameters": {"port": 8123}},
        {"target": "ray_serve", "batch_requests": [32]},
        {"target": "ray_serve", "parameters": {"haproxy": False}},
        {"target": "ray_serve", "parameters": {"max_replicas": 2}},
    )
    assert [sentence.split(" (")[1].split(")")[0] for sentence in told if "optuna_search" in sentence] == [
        "optuna_search as onnx, batch 8, 400 req/s",
        "optuna_search as onnx, haproxy = false, 400 req/s",
    ]


def test_of_a_run_on_a_cluster_the_network_is_not_told_as_routing(ledgers: ModuleType) -> None:
    both = {"target": "asgi"}, {"target": "ray_serve"}
    assert routed(ledgers, *both)
    assert routed(ledgers, *both, is_on_cluster=True) == []


def test_a_step_that_is_not_told_has_its_row_and_no_bar(ledgers: ModuleType) -> None:
    story = served(ledgers, "asgi", rates=(400,))
    for columns in story.exchanges.values():
        columns["predicted_ns"][:] = 10**10
    (section,) = (one for one in document(found_of(story)).sections if one.title == "Where the time of a request goes")
    assert section.charts == ()
    ((_, load, *_, remarks),) = section.tables[0].rows
    assert load == "400 req/s" and remarks.startswith("Not told: ")
