"""The report as data: complete, warned, and the same each time."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest

from harness.analysis.document import document, read_steps
from harness.analysis.findings import findings
from harness.analysis.summary import schema
from harness.analysis.tables import host as host_table
from harness.errors import ExitCode, IntegrityError
from harness.records.finding import Answer, Document, Table
from harness.records.run import Cause, Failure, Roofline
from harness.store.exchanges import write_exchanges
from harness.store.runs import RunFolder

SUMMARY_SCHEMA = Path(__file__).parents[2] / "harness" / "exporters" / "summary.schema.json"


def told(story: object) -> Document:
    return document(findings(story.ledger(), story.reduced()))  # type: ignore[attr-defined]


def tables(found: Document) -> dict[str, Table]:
    return {table.key: table for section in found.sections for table in section.tables}


def charts(found: Document) -> set[str]:
    return {chart.key for section in found.sections for chart in section.charts}


def headlines(found: Document) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in found.summary["headlines"]}  # type: ignore[attr-defined]


def test_a_whole_run_has_every_section_chart_and_table(whole_document: Document) -> None:
    found = whole_document
    assert charts(found) == {
        "candidates",
        "open_load",
        "latency_tail",
        "anatomy_asgi",
        "closed_load",
        "micro",
        "search",
    }
    assert [section.title for section in found.sections] == [
        "Gates",
        "Data",
        "Candidates",
        "Served under open load",
        "The tail of the latency",
        "Where the time of a request goes",
        "Served under closed load",
        "Computing, in process",
        "Search",
        "Failures",
        "Machine and method",
    ]
    assert found.verdict.answer is Answer.PASS


def test_what_the_checks_of_a_table_found_is_a_warning_and_comes_first_in_its_table(whole_document: Document) -> None:
    warned = "Checks of the table breast_cancer warn: constant column. Data says what to do."
    assert warned in whole_document.warnings
    rows = tables(whole_document)["data_checks"].rows
    assert [row[:4] for row in rows] == [
        ("breast_cancer", "constant_column", "warn", "zero"),
        ("breast_cancer", "class_balance", "pass", None),
    ]


def test_keys_of_tables_and_charts_are_unique_and_rows_fit_their_fields(whole_document: Document) -> None:
    found = whole_document
    keys = [table.key for section in found.sections for table in section.tables]
    assert len(keys) == len(set(keys))
    for table in tables(found).values():
        assert all(len(row) == len(table.fields) for row in table.rows)
        assert len({field.key for field in table.fields}) == len(table.fields)


def test_every_headline_is_the_known_answer(whole_document: Document) -> None:
    found = headlines(whole_document)
    assert (found["score"]["value"], found["score"]["low"], found["score"]["high"]) == (0.9902, 0.981, 0.998)
    assert (found["capacity_rps"]["value"], found["capacity_rps"]["high"]) == (1200, 1600)
    assert found["peak_rps"]["value"] == pytest.approx(1500, rel=0.01)
    assert found["error_share"]["value"] == 0
    assert found["trials"]["value"] == 12


def test_a_headline_that_did_not_earn_its_number_is_null_with_a_reason(ledgers: ModuleType) -> None:
    found = headlines(told(ledgers.Story()))
    for name in ("score", "capacity_rps", "p99_s", "error_share", "peak_rps"):
        assert found[name]["value"] is None
        assert found[name]["reason"]


def test_the_summary_keeps_its_published_schema(ledgers: ModuleType, whole_document: Document) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    for found in (whole_document, told(ledgers.Story()), told(ledgers.Story(ledgers.scenario(serve=[])))):
        jsonschema.validate(found.summary, schema(), jsonschema.Draft202012Validator)


def test_the_committed_schema_is_the_one_the_models_make() -> None:
    """After a change: write `json.dumps(schema(), indent=2, sort_keys=True)` and a line end into the file."""
    import json

    assert json.loads(SUMMARY_SCHEMA.read_text(encoding="utf-8")) == schema()


def test_a_candidate_that_never_came_to_be_has_a_row(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.candidate("optuna_search", 0.99, 0.985, 0.995)
    failed = Failure(cause=Cause.ENGINE_NO_MODEL, message="no trial succeeded")
    story.done(story.cell("candidate", "random_search"), failure=failed)
    table = tables(told(story))["candidates"]
    assert [row[0] for row in table.rows] == ["optuna_search", "baseline", "random_search"]
    assert table.rows[2][-1] == "engine_no_model: no trial succeeded"


def test_shared_cores_are_the_first_warning(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400,))
    story.shared_cores = True
    assert told(story).warnings[0].startswith("The load generator and the servers shared cores (0)")


def test_a_capacity_that_is_only_a_lower_bound_is_warned_of_on_the_first_page(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.candidate("optuna_search", 0.99, 0.985, 0.995)
    story.loaded(story.cell("serve", "optuna_search"), 5000.0, (400, 800))
    found = told(story)
    assert any("Capacity is at least this" in warning for warning in found.warnings)
    assert headlines(found)["capacity_rps"]["note"] == "at least: no step above it missed the objective"


def test_without_serving_there_is_a_score_and_no_promise(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(serve=[]))
    story.searched("optuna_search", [0.9, 0.95])
    story.candidate("optuna_search", 0.99, 0.985, 0.995)
    found = told(story)
    assert charts(found) == {"candidates", "search"}
    assert any(section.paragraphs == ("The scenario serves nothing, so no rate can be promised.",)
               for section in found.sections)  # fmt: skip
    assert found.recommendation.endswith("Nothing was served, so no rate can be promised.")


def test_a_search_whose_trials_all_failed_draws_no_curve(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.searched("optuna_search", [None, None])
    found = told(story)
    assert "search" not in charts(found)
    row = tables(found)["search"].rows[0]
    assert row[:10] == ("breast_cancer", "optuna_search", 1, 2, 2, 2, "memory 2", 0, "roc_auc", None)


def test_a_server_of_the_users_own_is_reported_without_a_candidate(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(serve=[{"target": "external"}]))
    story.loaded(story.cell("serve", target="external"), 1000.0, (400, 800, 1200))
    found = told(story)
    assert {"open_load", "closed_load", "latency_tail"} <= charts(found)
    assert headlines(found)["capacity_rps"]["value"] == 800


def test_where_nothing_is_recommended_no_other_server_lends_its_figures(ledgers: ModuleType) -> None:
    """The null server answers fast and always; its rate on the first page would pass for the candidate's."""
    served = [{"target": "null"}, {"target": "asgi"}]
    asked = {"objective": {"p99_s": 0.05, "rate_rps": 5000}}
    story = ledgers.Story(ledgers.scenario(serve=served, load=asked))
    story.candidate("optuna_search", 0.99, 0.985, 0.995)
    story.loaded(story.cell("serve", target="null"), 9000.0, (400, 800, 3000))
    story.loaded(story.cell("serve", "optuna_search", target="asgi"), 1000.0, (400, 800, 1200))
    found = told(story)
    assert found.recommendation.startswith("Nothing can be recommended.")
    assert all(headlines(found)[name]["value"] is None for name in ("capacity_rps", "p99_s", "peak_rps"))
    assert not any("null" in chart.title for section in found.sections for chart in section.charts)


def test_a_run_that_is_not_finished_is_not_trusted_whatever_its_gates_say(ledgers: ModuleType) -> None:
    story = ledgers.whole_run()
    ledger, results = story.ledger(), story.reduced()
    assert findings(ledger, results).exit_code is ExitCode.GOOD
    unfinished = replace(ledger, run=ledger.run.model_copy(update={"finished_utc": None}))
    assert findings(unfinished, results).exit_code is ExitCode.NOT_TRUSTWORTHY
    story.done(story.cell("micro", "optuna_search"), failure=Failure(cause=Cause.BENCHMARK, message="it died"))
    assert findings(story.ledger(), results).exit_code is ExitCode.INFRASTRUCTURE


def test_without_gates_nothing_is_said_to_have_passed(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(expect={}, load={}))
    story.candidate("optuna_search", 0.99, 0.985, 0.995)
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400, 1200))
    found = told(story)
    assert found.verdict.answer is None and found.exit_code is ExitCode.GOOD
    assert found.summary["verdict"] == {"answer": None, "gates": []}


def test_a_run_that_can_recommend_nothing_is_no_success_even_without_gates(ledgers: ModuleType) -> None:
    assert told(ledgers.Story(ledgers.scenario(expect={}, load={}))).exit_code is ExitCode.NOT_TRUSTWORTHY


def test_the_same_records_give_the_same_document(ledgers: ModuleType, whole_document: Document) -> None:
    assert told(ledgers.whole_run()) == whole_document


def test_steps_are_read_from_the_run_folder(ledgers: ModuleType, tmp_path: Path) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400, 1200))
    story.steps = [
        entry.model_copy(
            update={"exchanges_sha256": write_exchanges(tmp_path / "exchanges" / f"{entry.id}.parquet", columns)}
        )
        for entry, columns in zip(story.steps, story.exchanges.values(), strict=True)
    ]
    assert read_steps(RunFolder(tmp_path), story.ledger()) == story.reduced()


@pytest.mark.parametrize("harm", ["removed", "altered"])
def test_a_report_is_not_made_from_altered_measurements(ledgers: ModuleType, tmp_path: Path, harm: str) -> None:
    story = ledgers.Story()
    step = ledgers.open_step(0, 400)
    columns = ledgers.open_exchanges(step, 1000.0, seed=1)
    story.step(story.cell("serve", "optuna_search"), step, columns)
    path = tmp_path / "exchanges" / f"{story.steps[0].id}.parquet"
    digest = write_exchanges(path, columns)
    story.steps = [story.steps[0].model_copy(update={"exchanges_sha256": digest})]
    if harm == "removed":
        path.unlink()
    else:
        columns["done_ns"] -= np.int64(1)
        write_exchanges(path, columns)
    with pytest.raises(IntegrityError, match="is missing" if harm == "removed" else "has changed"):
        read_steps(RunFolder(tmp_path), story.ledger())


def test_a_generator_that_spins_is_told_and_not_called_busy(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400, 800))
    assert not any("looked at the clock" in warning for warning in told(story).warnings)
    entry = story.steps[0]
    (worker,) = entry.generator.workers
    spinning = entry.generator.model_copy(
        update={"workers": (worker.model_copy(update={"timer": "spin", "cpu_share": 1.0}),)}
    )
    story.steps[0] = entry.model_copy(update={"generator": spinning})
    found = told(story)
    assert any("looked at the clock" in warning for warning in found.warnings)
    assert not any(result.doubts for result in found.steps)
    assert "spin, ordinary; timerfd, ordinary" in str(tables(found)["host"].rows)


def test_the_machine_s_table_says_what_the_generator_can_do_and_who_found_out(ledgers: ModuleType) -> None:
    def row(story: Any) -> str:
        found = findings(story.ledger(), story.reduced())
        return dict(host_table(found).rows)["the generator's roofline"]  # type: ignore[arg-type]

    story = ledgers.whole_run()
    assert row(story) == "not known: `harness doctor` measures it"
    known = {"measured_utc": "2025-12-31T00:00:00Z", "measured_by": "harness doctor", "workers": 1, "rows": 1}
    story.roofline = Roofline(rate_rps=60_000, host=story.ledger().host, **known)
    assert row(story) == "60,000 req/s, measured by harness doctor at 2025-12-31T00:00:00Z"
    story.scenario = story.scenario.model_copy(
        update={"load": story.scenario.load.model_copy(update={"workers": 2, "rows": 10})}
    )
    assert row(story) == "not known where load.workers = 2 and load.rows = 10: the target `null` measures it"
    own = ledgers.Story(ledgers.scenario(serve=[{"target": "null"}]))
    own.roofline = Roofline(rate_rps=2_000, host=story.ledger().host, **known)
    own.loaded(own.cell("serve", target="null"), 3000.0, (), in_flight=(1, 8))
    assert row(own) == "3,000 req/s, measured in this run"


def comparison(ledgers: ModuleType, tables: int, **fields: Any) -> Any:
    """Engines compared on tables of several metrics, with two seeds and a few trials each."""
    scores = {"flaml_search": 0.9, "optuna_search": 0.85, "random_search": 0.8, "baseline": 0.7}
    story = ledgers.compared({f"table-{number}": scores for number in range(tables)}, seeds=(1, 2), **fields)
    for number in range(tables):
        for engine in ledgers.ENTRANTS:
            for seed in (1, 2):
                story.searched(engine, [0.6, scores[engine]], table=f"table-{number}", seed=seed)
    if tables > 1:
        story.metrics["table-1"] = "accuracy"
    return story


def test_a_comparison_has_a_section_after_the_gates_and_its_answer_is_the_first_line(ledgers: ModuleType) -> None:
    story = comparison(ledgers, 6)
    found = told(story)
    assert [section.title for section in found.sections][:2] == ["Gates", "Engines compared"]
    assert "Candidates" not in {section.title for section in found.sections}
    assert charts(found) == {"critical_difference", "standings", "anytime", "trades"}
    assert found.recommendation.startswith("No difference shown between flaml_search and optuna_search on 6 tables")
    assert found.exit_code is ExitCode.GOOD
    assert set(tables(found)) >= {
        "standings",
        "duels",
        "tests",
        "scores",
        "trades",
        "timings",
        "predictions",
        "anytime",
    }
    # q of 4 entrants is 2.569: 2.569**2 * 4 * 5 / 6 = 22.0 (Demsar 2006, table 5).
    assert found.sections[1].paragraphs == (
        "On 6 tables average ranks of 4 entrants are told apart where they differ by 1.91 or more. A difference of one "
        "rank would be told apart on 22 tables or more.",
    )
    figures = headlines(found)
    assert figures["average_rank"]["value"] == 1.0
    assert figures["critical_difference"]["value"] == pytest.approx(1.915, abs=1e-3)
    assert (figures["failure_share"]["value"], figures["trials"]["value"]) == (0.0, 72)


def test_few_tables_have_no_diagram_and_say_why(ledgers: ModuleType) -> None:
    found = told(comparison(ledgers, 2))
    assert charts(found) == {"standings", "anytime", "trades"}
    assert headlines(found)["critical_difference"]["reason"].startswith("Below 6 tables")  # type: ignore[attr-defined]
    assert found.exit_code is ExitCode.GOOD


def test_on_one_table_that_serves_nothing_the_comparison_is_the_answer(ledgers: ModuleType) -> None:
    found = told(comparison(ledgers, 1, spread=0.001))
    assert found.recommendation.startswith("flaml_search leads on table-0: roc_auc 0.9000")
    assert headlines(found)["score"]["value"] == pytest.approx(0.9)
    assert {"standings", "anytime", "search"} <= charts(found)


def test_where_candidates_are_served_too_the_first_line_says_which_to_ship(ledgers: ModuleType) -> None:
    story = ledgers.Story(ledgers.scenario(compare={}))
    table = story.scenario.tables[0].name
    story.refitted(table, "dummy", 0.5)
    story.refitted(table, "optuna_search", 0.99)
    story.lost()
    story.candidate("optuna_search", 0.99, 0.985, 0.995)
    story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400, 1200))
    found = told(story)
    assert found.recommendation.startswith("Ship optuna_search")
    compared = next(section for section in found.sections if section.title == "Engines compared")
    assert compared.paragraphs[0].startswith("optuna_search leads on breast_cancer")


def test_a_comparison_without_an_answer_is_not_trusted(ledgers: ModuleType) -> None:
    found = told(ledgers.Story(ledgers.comparison_scenario(["one", "two"])).lost())
    assert found.recommendation.startswith("No comparison:")
    assert not charts(found) & {"critical_difference", "standings"}
    assert found.exit_code is ExitCode.NOT_TRUSTWORTHY
    assert headlines(found)["average_rank"]["value"] is None


def test_searches_on_several_tables_show_table_workers_and_metric(ledgers: ModuleType) -> None:
    found = tables(told(comparison(ledgers, 2)))
    fields = [field.key for field in found["search"].fields]
    rows = [dict(zip(fields, row, strict=True)) for row in found["search"].rows]
    assert {(row["table"], row["metric"]) for row in rows} == {("table-0", "roc_auc"), ("table-1", "accuracy")}
    assert {row["workers"] for row in rows} == {2}
    assert {row["best"] for row in rows} == {0.9, 0.85, 0.8}


def test_failures_that_decide_the_lead_are_a_warning_on_the_first_page(ledgers: ModuleType) -> None:
    scores = {
        f"table-{number}": {
            "flaml_search": 0.85,
            "optuna_search": None if number < 3 else 0.9,
            "random_search": 0.8,
            "baseline": 0.7,
        }
        for number in range(6)
    }
    found = told(ledgers.compared(scores))
    assert any(warning.startswith("How failures are scored decides who leads") for warning in found.warnings)
    assert tables(found)["imputations"].rows[0][0] == "as the dummy model"


@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_comparison_keeps_the_published_schema(ledgers: ModuleType, count: int) -> None:
    found = told(comparison(ledgers, count))
    jsonschema.validate(found.summary, schema(), jsonschema.Draft202012Validator)
    assert found.summary["comparison"]["leader"] == "flaml_search"  # type: ignore[index]
    keys = [table.key for section in found.sections for table in section.tables]
    assert len(keys) == len(set(keys))
    for table in tables(found).values():
        assert table.texts()
