"""What `harness load` was told, as the scenario that is run."""

import tomllib
from dataclasses import replace

import pytest

from harness.errors import UsageError
from harness.pipeline.load_url import Question, brought
from harness.pipeline.plan import resolved
from harness.store.scenarios import read_scenario

ASKED = Question(
    url="http://host:8080/score",
    requests={"payload": "rows.csv"},
    load={},
    rate_rps=None,
    users=None,
    duration_s=None,
    warmup_s=None,
    objective=None,
)


def test_a_rate_is_one_open_step_whose_measured_time_is_the_duration():
    scenario = brought(replace(ASKED, rate_rps=200.0, duration_s=20.0)).scenario
    assert scenario.load.shapes == ("steady",)
    assert scenario.load.parameters == {"steady": {"rate_rps": 200.0, "step_s": 22.0, "warmup_s": 2.0}}
    assert scenario.question == "How does http://host:8080/score answer 200 requests a second?"


def test_users_are_one_closed_step_and_may_all_be_in_flight():
    scenario = brought(replace(ASKED, users=3000, duration_s=5.0)).scenario
    assert scenario.load.parameters == {"steady": {"in_flight": 3000, "step_s": 6.0, "warmup_s": 1.0}}
    assert scenario.load.in_flight_max == 3000


def test_without_either_it_is_asked_how_much_the_server_carries():
    scenario = brought(replace(ASKED, objective={"p99_s": 0.05})).scenario
    assert scenario.load.shapes == ("ladder", "stairs")
    assert scenario.load.objective.p99_s == 0.05
    assert scenario.search is None


def test_the_text_that_is_kept_is_a_scenario_file_that_says_the_same(tmp_path):
    made = brought(replace(ASKED, rate_rps=10.0))
    (tmp_path / "kept.toml").write_text(made.text)
    assert read_scenario(tmp_path / "kept.toml")[0] == made.scenario
    assert tomllib.loads(made.text)["serve"][0]["parameters"] == {"url": "http://host:8080/score"}


def test_its_plan_is_one_cell_and_needs_no_ray():
    made = brought(replace(ASKED, rate_rps=10.0, duration_s=10.0))
    plan = resolved(made.scenario, made.where)
    assert [(cell.kind, cell.label) for cell in plan.cells] == [("serve", "external x1")]
    assert plan.estimated_s < 30


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/", "/v2/models/m/infer"])
def test_an_address_of_the_protocol_names_the_model(path):
    made = brought(replace(ASKED, url=f"http://host:8080{path}", requests={"payload": "a.csv", "protocol": "v2"}))
    assert made.scenario.serve[0].parameters == {"url": "http://host:8080", "model": "m"}


@pytest.mark.parametrize("url", ["http://host", "http://host/models/m", "http://host/base/v2/models/m/infer"])
def test_an_address_of_the_protocol_without_a_model_is_refused(url):
    with pytest.raises(UsageError, match="the address names the model"):
        brought(replace(ASKED, url=url, requests={"protocol": "v2"}))


def test_an_objective_is_not_asked_of_closed_load():
    with pytest.raises(UsageError, match="Give --rate instead"):
        brought(replace(ASKED, users=4, objective={"p99_s": 0.05}))
