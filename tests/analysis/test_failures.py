"""What failed is listed with its cause and its cost, and what was interrupted is told as that."""

from types import ModuleType

from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.records.candidate import Artifact
from harness.records.finding import Document, Table
from harness.records.run import Cause, CellState, Failure


def told(story: object) -> Document:
    return document(findings(story.ledger(), story.reduced()))  # type: ignore[attr-defined]


def tables(found: Document) -> dict[str, Table]:
    return {table.key: table for section in found.sections for table in section.tables}


def test_everything_that_failed_is_listed_with_its_cause(ledgers: ModuleType) -> None:
    story = ledgers.whole_run()
    story.done(story.cell("serve", "baseline"), failure=Failure(cause=Cause.NOT_CONVERTIBLE, message="no ONNX form"))
    story.candidate("optuna_search", 0.5, 0.4, 0.6, passed=False)
    story.candidates[0] = story.candidates[0].model_copy(
        update={"artifacts": (Artifact(runtime="onnx", reason="skl2onnx raised"),)}
    )
    rows = tables(told(story))["failures"].rows
    unknown = (None, None, None)
    assert ("serve cell", "baseline onnx asgi x1", "not_convertible", 1.0, None, None, "no ONNX form") in rows
    assert ("check beats_dummy", "optuna_search", "check_failed", *unknown, "against 0.5") in rows
    trial = "breast_cancer optuna_search seed 1 x2, trial 2"
    assert ("trial", trial, "memory", 0.4, None, None, "MemoryError: no room") in rows
    assert ("conversion", "baseline onnx", "not_convertible", *unknown, "skl2onnx raised") in rows


def test_what_failures_cost_is_told_by_cause_where_it_is_known(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.searched("optuna_search", [None, None, None])
    cell = story.cell("search", "optuna_search")
    story.done(cell, failure=Failure(cause=Cause.ENGINE_NO_MODEL, message="none of 3 trials succeeded"))
    told_of = [{"cpu_s": 0.3, "peak_memory_bytes": 5}, {"cpu_s": 0.2, "peak_memory_bytes": 7}]
    node_lost = {"failure": Failure(cause=Cause.NODE_LOST, message="it is gone"), "duration_s": 8.0}
    story.trials = [
        trial.model_copy(update={"evaluated": trial.evaluated.model_copy(update=known)})
        for trial, known in zip(story.trials, [*told_of, node_lost], strict=True)
    ]
    document = told(story)
    assert tables(document)["failure_costs"].rows == (
        ("node_lost", 1, 8.0, None, None),
        ("memory", 2, 0.8, 0.5, 7),
        ("engine_no_model", 1, None, None, None),  # of which the trials' time is the time
    )
    in_summary = [tuple(cost.values()) for cost in document.summary["failure_costs"]]
    assert in_summary == list(tables(document)["failure_costs"].rows)


def test_cells_that_the_run_did_not_come_to_are_listed_and_did_not_fail(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    document = told(story)
    rows = tables(document)["failures"].rows
    assert [row[1] for row in rows] == [cell.label for cell in story.plan]
    assert {row[2] for row in rows} == {None}
    assert document.summary["failures"] == {}


def test_a_cell_that_was_begun_and_has_no_end_was_interrupted(ledgers: ModuleType) -> None:
    story = ledgers.Story()
    story.searched("optuna_search", [0.9, None])
    cell = story.cell("search", "optuna_search")
    story.results[cell.id] = story.results[cell.id].model_copy(update={"state": CellState.OPEN})
    document = told(story)
    told_of = [(row[2], row[6]) for row in tables(document)["failures"].rows if row[1] == cell.label]
    message = "The run was interrupted in this cell, or is still at it; resuming goes on after its 2 trials."
    assert told_of == [("interrupted", message)]
    assert document.summary["failures"] == {"interrupted": 1}
