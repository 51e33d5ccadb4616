"""What is said of a server that serves no candidate."""

from types import ModuleType

import pytest

from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.errors import ExitCode
from harness.records.finding import Answer
from harness.records.scenario import Scenario

URL = "http://host:8080/score"


def asked(**load: object) -> Scenario:
    return Scenario.model_validate(
        {
            "question": "How much?",
            "serve": [{"target": "external", "parameters": {"url": URL}}],
            "requests": {},
            "load": {"shapes": ["steady"], **load},
        }
    )


def loaded(ledgers: ModuleType, scenario: Scenario, capacity_rps: float, *rates: float) -> object:
    story = ledgers.Story(scenario)
    cell = story.cell("serve", target="external")
    for number, rate in enumerate(rates):
        step = ledgers.open_step(number, rate)
        story.step(cell, step, ledgers.open_exchanges(step, capacity_rps, seed=number))
    story.done(cell)
    return story


def told(story: object) -> object:
    return findings(story.ledger(), story.reduced())  # type: ignore[attr-defined]


def test_without_an_objective_it_is_told_how_it_answered(ledgers: ModuleType) -> None:
    found = told(loaded(ledgers, asked(), 1000.0, 400))
    assert found.recommendation.sentence.startswith(f"{URL} answered 397 req/s ")
    assert "where 400 req/s were asked: p50 " in found.recommendation.sentence
    assert found.exit_code is ExitCode.GOOD
    names = [one["name"] for one in document(found).summary["headlines"]]
    assert names == ["throughput_rps", "p50_s", "p99_s", "p999_s", "error_share"]


def test_with_an_objective_it_is_told_what_it_carries(ledgers: ModuleType) -> None:
    scenario = asked(objective={"p99_s": 0.05})
    found = told(loaded(ledgers, scenario, 1000.0, 400, 800, 1200))
    assert found.recommendation.sentence.startswith(f"{URL} carries 800 req/s with p99 ")
    assert found.verdict.answer is Answer.PASS
    assert found.exit_code is ExitCode.GOOD


def test_a_model_of_a_server_with_several_is_named(ledgers: ModuleType) -> None:
    at = {"url": "http://host:8080", "model": "churn"}
    scenario = asked().model_dump(mode="json") | {"serve": [{"target": "external", "parameters": at}]}
    found = told(loaded(ledgers, Scenario.model_validate(scenario), 1000.0, 400))
    assert found.recommendation.sentence.startswith("http://host:8080/v2/models/churn answered ")


def test_a_server_that_never_meets_it_fails_the_gate(ledgers: ModuleType) -> None:
    found = told(loaded(ledgers, asked(objective={"p99_s": 0.05}), 100.0, 400))
    assert found.recommendation.sentence.startswith(f"{URL} never met the objective of 50 ms.")
    assert found.exit_code is ExitCode.GATE_FAILED


def test_a_step_without_figures_says_nothing(ledgers: ModuleType) -> None:
    story = loaded(ledgers, asked(), 1000.0, 400)
    story.steps[0] = story.steps[0].model_copy(update={"planned": story.steps[0].planned + 1})  # type: ignore[attr-defined]
    found = told(story)
    assert found.recommendation.sentence.startswith(f"Nothing can be said of {URL}: 1 of ")
    assert found.exit_code is ExitCode.NOT_TRUSTWORTHY


def test_closed_load_is_told_by_what_was_in_flight(ledgers: ModuleType) -> None:
    story = ledgers.Story(asked())
    step = ledgers.closed_step(0, 4)
    story.step(story.cell("serve", target="external"), step, ledgers.closed_exchanges(step, 1000.0))
    found = told(story)
    assert " with 4 in flight: p50 " in found.recommendation.sentence


def test_the_report_speaks_of_no_candidates(ledgers: ModuleType) -> None:
    found = document(told(loaded(ledgers, asked(), 1000.0, 400)))
    titles = [section.title for section in found.sections]
    assert "Candidates" not in titles and "Search" not in titles
    assert not any("holdout" in words for section in found.sections for words in section.paragraphs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"serve": []}, "there is nothing to do"),
        ({"expect": {"score_at_least": 0.5}}, "without [search] there are none"),
        ({"data": [{"source": "sklearn:iris"}]}, "[data] is there and [search] is not"),
        ({"serve": [{"target": "null"}]}, "needs exactly one [[serve]] table"),
        (
            {"data": [{"source": "sklearn:iris"}], "search": {"engines": ["random_search"]}},
            "[requests] goes with no [search]",
        ),
    ],
)
def test_half_a_scenario_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        Scenario.model_validate({**asked().model_dump(mode="json"), **changes})
    assert said in str(refused.value)
