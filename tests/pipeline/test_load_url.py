"""What `harness load` was told, as the scenario that is run."""

import tomllib
from dataclasses import replace

import pytest
from foreign_server import foreign_server

from harness.clock import SystemClock
from harness.errors import UsageError
from harness.pipeline.load_url import Question, brought
from harness.pipeline.plan import resolved
from harness.pipeline.run import Surroundings, begin
from harness.records.run import Roofline
from harness.stages.host import fingerprint
from harness.store.roofline import keep_roofline
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


def test_a_rate_that_no_figure_could_be_believed_of_is_refused_before_there_is_a_run(tmp_path):
    host = fingerprint()
    known = {"measured_utc": "2026-01-01T00:00:00Z", "measured_by": "harness doctor", "workers": 1, "rows": 1}
    tmp_path.joinpath("results").mkdir()
    keep_roofline(tmp_path / "results", Roofline(rate_rps=1000.0, host=host, **known))
    around = Surroundings(tmp_path / "results", None, lambda folder: None, lambda progress: None, SystemClock())
    with foreign_server() as server:
        asked = replace(ASKED, url=f"{server.url}/get", requests={}, rate_rps=701.0)
        with pytest.raises(UsageError, match=r"701 req/s are asked for, .* up to 700 req/s: 70.0 % of the 1,000 req/s"):
            begin(brought(asked), None, around)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["roofline.json"]


def test_a_step_of_more_requests_than_memory_has_room_for_is_refused_before_there_is_a_run(tmp_path):
    around = Surroundings(tmp_path / "results", None, lambda folder: None, lambda progress: None, SystemClock())
    with foreign_server() as server:
        asked = replace(ASKED, url=f"{server.url}/get", requests={}, rate_rps=1e9, duration_s=3600.0)
        with pytest.raises(UsageError, match="3,602,000,000,000 requests, whose records need about"):
            begin(brought(asked), None, around)
    assert not (tmp_path / "results").exists()
