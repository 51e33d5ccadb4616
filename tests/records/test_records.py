"""Records are frozen, closed, finite, and survive a round trip through JSON."""

import pytest
from pydantic import ValidationError

from harness.records.candidate import Artifact, Evaluated, better
from harness.records.cell import Cell, cells
from harness.records.finding import Answer, Estimate, GateVerdict, Verdict
from harness.records.run import MESSAGE_LIMIT, Cause, Failure
from harness.records.scenario import Gate, Scenario
from harness.units import Unit


def scenario(**changes: object) -> Scenario:
    values = {
        "question": "Which?",
        "data": [{"source": "sklearn:iris"}],
        "search": {"engines": ["random_search", "optuna_search"], "seeds": [1, 2]},
        "serve": [{"target": "asgi", "runtimes": ["onnx"], "replicas": [1, 2]}, {"target": "null"}],
    }
    return Scenario.model_validate(values | changes)


def test_a_scenario_survives_a_round_trip() -> None:
    given = scenario()
    assert Scenario.model_validate_json(given.model_dump_json()) == given


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        scenario().question = "another"  # type: ignore[misc]


def test_the_plan_holds_every_combination_once_in_working_order() -> None:
    planned = cells(scenario(), {"null"})
    assert [cell.kind for cell in planned] == ["search"] * 4 + ["candidate"] * 3 + ["serve"] * 7 + ["micro"] * 3
    served = {(cell.candidate, cell.runtime, cell.target, cell.replicas) for cell in planned if cell.kind == "serve"}
    origins = ("baseline", "random_search", "optuna_search")
    assert served == {(origin, "onnx", "asgi", count) for origin in origins for count in (1, 2)} | {
        (None, None, "null", 1)
    }
    assert len({cell.id for cell in planned}) == len(planned)


def test_a_cell_is_known_by_what_determines_it() -> None:
    def ids(given: Scenario) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for cell in cells(given, {"null"}):
            found.setdefault(cell.kind, set()).add(cell.id)
        return found

    first = ids(scenario())
    assert ids(scenario(question="In other words?")) == first
    reloaded = ids(scenario(load={"seed": 99}))
    assert reloaded["search"] == first["search"]
    assert reloaded["serve"].isdisjoint(first["serve"])
    assert all(ids(scenario(data=[{"source": "sklearn:wine"}]))[kind].isdisjoint(first[kind]) for kind in first)


def test_a_list_that_names_a_thing_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"search.engines names one thing twice"):
        scenario(search={"engines": ["random_search", "random_search"]})


def test_an_axis_without_a_value_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"parameters.rows is an axis without a value"):
        scenario(data=[{"source": "synthetic:binary", "parameters": {"rows": []}}])


@pytest.mark.parametrize("length", ["seconds", "trial_seconds"])
def test_seconds_that_no_timer_can_hold_are_refused(length: str) -> None:
    with pytest.raises(ValidationError, match="less than or equal to 500000"):
        scenario(search={"engines": ["random_search"], length: 1e10})


def test_a_gate_has_exactly_one_bound() -> None:
    for bounds in ({}, {"at_least": 1.0, "at_most": 2.0}):
        with pytest.raises(ValidationError, match="exactly one"):
            Gate.model_validate({"name": "g", "measure": "score", **bounds})


def test_an_evaluation_is_a_score_or_a_failure() -> None:
    scored = Evaluated(configuration={"family": "ridge"}, fold_scores=(0.5, 1.0), duration_s=1.0, worker=0)
    assert scored.score == 0.75
    with pytest.raises(ValidationError):
        Evaluated(configuration={}, duration_s=1.0, worker=0)
    with pytest.raises(ValidationError):
        failure = Failure(cause=Cause.DATA, message="")
        Evaluated(configuration={}, fold_scores=(1.0,), duration_s=1.0, worker=0, failure=failure)


def test_an_artifact_is_a_file_or_a_reason() -> None:
    with pytest.raises(ValidationError):
        Artifact(runtime="onnx")
    with pytest.raises(ValidationError):
        Artifact(runtime="onnx", file="model.onnx", reason="both")


def test_not_a_number_is_no_score() -> None:
    with pytest.raises(ValidationError):
        Estimate(value=float("nan"), unit=Unit.SCORE)


def test_less_is_better_only_where_the_metric_says_so() -> None:
    assert better("rmse", 1.0, than=2.0)
    assert better("roc_auc", 2.0, than=1.0)
    assert not better("roc_auc", 1.0, than=1.0)


def test_a_failure_is_one_short_line() -> None:
    failure = Failure.of(Cause.UNKNOWN, ValueError("first   part" + "x" * 1000))
    assert failure.message.startswith("ValueError: first part")
    assert len(failure.message) == MESSAGE_LIMIT


def test_a_failure_with_a_log_keeps_what_failed_and_what_was_said_last() -> None:
    failure = Failure.of(Cause.TARGET, "It did not start. Its log ends:\n" + "noise\n" * 500 + "NameError: x\n")
    assert failure.message == "It did not start. Its log ends: … NameError: x"
    long = Failure.of(Cause.TARGET, "a" * 1000 + "\n" + "b" * 1000)
    assert len(long.message) == MESSAGE_LIMIT


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cannot reach postgres://ann:s3cret@db:5432/sales", "cannot reach postgres://***@db:5432/sales"),
        ("https://ann:p@ss@host/x and http://t0ken@host", "https://***@host/x and http://***@host"),
        ("401 for {'Authorization': 'Basic YW5uOnB3'}", "401 for {'Authorization': '***'}"),
        ("Authorization: Bearer abc.def-123 was refused", "Authorization: *** was refused"),
        ("sent bearer eyJhbGciOi.J9-x_1", "sent bearer ***"),
        ("GET /rows?token=abc123&limit=5", "GET /rows?token=***&limit=5"),
        ("connect(user='ann', password='a b, c', port=5)", "connect(user='ann', password=***, port=5)"),
        ('{"api_key": "k-1", "rows": 3}', '{"api_key": ***, "rows": 3}'),
        ("DB_PASSWORD=x1; AWS_SECRET_ACCESS_KEY=ab/cd+12", "DB_PASSWORD=***; AWS_SECRET_ACCESS_KEY=***"),
        ("X-Api-Key: 12ab", "X-Api-Key: ***"),
        ("the key AKIAIOSFODNN7EXAMPLE is not valid", "the key *** is not valid"),
        ("clone with ghp_0123456789abcdefghij failed", "clone with *** failed"),
        ("No such file: '/home/ann/data/rows.csv'", "No such file: '~/data/rows.csv'"),
        ("file:///Users/ann/rows.csv, /root: full, and /home/ann", "file://~/rows.csv, ~: full, and ~"),
    ],
)
def test_a_failure_carries_no_credentials_and_no_home(said: str, told: str) -> None:
    assert Failure.of(Cause.UNKNOWN, said).message == told


@pytest.mark.parametrize(
    "said",
    [
        "ValueError: Expected n_neighbors <= n_samples_fit, but n_neighbors = 30, n_samples_fit = 11",
        "killed: it had 2.1 GiB of memory, and its limit is 2 GiB",
        "max_tokens=512 and 3 unexpected tokens: unexpected token: ','",
        "the bearer of this certificate; basic authentication is off",
        "http://localhost:8000/home/ann answered 500 at 12:30, mail ops@example.org",
        "/data/home/ann/rows.csv, /rooted/x, /homes/ann and /usr/lib/python3.11/site-packages/x.py",
        "secret santa has no password, token == 1",
        "skewed-0123456789abcdef: sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_an_ordinary_message_stays_as_it_is(said: str) -> None:
    assert Failure.of(Cause.UNKNOWN, said).message == said


def test_a_secret_is_hidden_before_a_message_is_cut() -> None:
    message = Failure.of(Cause.UNKNOWN, "x" * (MESSAGE_LIMIT - 20) + " password=correct-horse-battery").message
    assert message.endswith(" password=***")


@pytest.mark.parametrize(
    ("answers", "whole"),
    [
        ([], None),
        ([Answer.PASS, Answer.INCONCLUSIVE], Answer.INCONCLUSIVE),
        ([Answer.INCONCLUSIVE, Answer.FAIL, Answer.PASS], Answer.FAIL),
    ],
)
def test_the_worst_gate_is_the_verdict(answers: list[Answer], whole: Answer | None) -> None:
    gates = tuple(
        GateVerdict(
            name="g",
            answer=answer,
            value=Estimate(value=1.0, unit=Unit.SCORE),
            bound=0.5,
            direction="at_least",
            sentence="",
        )
        for answer in answers
    )
    assert Verdict(gates=gates).answer is whole


def test_a_cell_is_told_in_a_few_words() -> None:
    served = Cell(id="x", kind="serve", candidate="baseline", runtime="onnx", target="asgi", replicas=2)
    assert served.label == "baseline onnx asgi x2"
    assert (
        Cell(id="x", kind="search", table="iris", engine="random_search", seed=3, workers=2).label
        == "iris random_search seed 3 x2"
    )
