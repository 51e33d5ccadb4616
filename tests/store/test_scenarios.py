"""A scenario file becomes a Scenario, or one paragraph that names the file, the key and what was meant."""

from pathlib import Path

import pytest

from harness.errors import ExitCode, UsageError
from harness.store.reference import scenario_reference
from harness.store.scenarios import parse_scenario, read_scenario, scenario_name

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
question = "Which?"
[data]
source = "sklearn:iris"
[search]
engines = ["random_search"]
[[serve]]
target = "asgi"
"""


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as refused:
        parse_scenario(text, "my.toml")
    assert refused.value.exit_code == ExitCode.USAGE == 2
    message = str(refused.value)
    assert message.startswith("my.toml")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").glob("*.toml")), ids=lambda path: path.name)
def test_every_scenario_of_the_repository_is_read(path: Path) -> None:
    scenario, _ = read_scenario(path)
    assert scenario.question


def test_the_format_reference_is_what_the_models_say() -> None:
    assert (ROOT / "scenarios" / "README.md").read_text() == scenario_reference()


def test_the_reference_lists_every_scenario_file() -> None:
    reference = scenario_reference()
    for path in (ROOT / "scenarios").glob("*.toml"):
        assert f"`{path.name}`" in reference


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("engines =", "engine ="), "unknown key search.engine (did you mean engines?)"),
        (('target = "asgi"', 'target = "asgi"\nreplica = [1]'), "unknown key serve.0.replica (did you mean replicas?)"),
        (('engines = ["random_search"]', "trials = 3"), "search.engines is missing"),
        (('["random_search"]', "[]"), "search.engines: "),
        (
            ('["random_search"]', '["random_search"]\ntrials = "20"'),
            'search.trials: input should be a valid integer, not "20"',
        ),
        (
            ('["random_search"]', '["random_search"]\ntrials = -1'),
            "search.trials: input should be greater than 0, not -1",
        ),
        (('["random_search"]', '["random_search"]\nseconds = nan'), "search.seconds: "),
        (('["random_search"]', '["random_search"]\nseconds = inf'), "search.seconds: "),
        (('["random_search"]', '["random_search"]\nmetric = "auc"'), "search.metric: input should be 'roc_auc'"),
        (('["random_search"]', '["random search"]'), "search.engines.0: "),
        (('question = "Which?"', 'question = ""'), "question: "),
        (("[data]", "[load]\nobjective = 5\n[data]"), "load.objective: "),
        (("[data]", "[load.objective]\np99_s = -0.05\n[data]"), "load.objective.p99_s: "),
        (
            ("[data]", "[load]\nrows = 10_001\n[data]"),
            "load.rows: input should be less than or equal to 10000, not 10001",
        ),
        (("[data]", '[[gates]]\nname = "g"\nmeasure = "score"\n[data]'), "exactly one of at_least and at_most"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_told_by_key(change: tuple[str, str], told: str) -> None:
    assert change[0] in GOOD
    assert told in refusal(GOOD.replace(*change, 1))


def test_several_problems_are_told_at_once() -> None:
    message = refusal(GOOD.replace("[search]", "[search]\ntrails = 1\nfolds = 1"))
    assert "search.trails" in message
    assert "search.folds" in message


def test_what_is_no_toml_is_told_with_its_line() -> None:
    assert "line 2" in refusal('question = "Which?"\n= nonsense')


def test_a_key_given_twice_is_refused() -> None:
    assert "is not TOML" in refusal(GOOD + '\n[data]\nsource = "sklearn:wine"')


def test_a_missing_file_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "smoke.toml").write_text(GOOD)
    with pytest.raises(UsageError, match=r"did you mean smoke\.toml\?"):
        read_scenario(tmp_path / "smok.toml")
    with pytest.raises(UsageError, match="is a folder"):
        read_scenario(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        read_scenario(tmp_path / "binary.toml")


def test_an_override_changes_one_key_and_is_kept_with_the_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + "# my own remark")
    scenario, text = read_scenario(path, ["search.trials=5", "serve.0.replicas=[1, 2]", "load.objective.p99_s=0.2"])
    assert scenario.search.trials == 5
    assert scenario.serve[0].replicas == (1, 2)
    assert text.startswith(GOOD)
    assert parse_scenario(text, "kept") == scenario


def test_an_override_may_be_a_bare_word(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert read_scenario(path, ["data.source=sklearn:wine"])[0].data.source == "sklearn:wine"


@pytest.mark.parametrize(
    "override",
    ["search.trials", "=5", "search..trials=5", "question.more=1", "serve.7.target=null", "serve.x.target=null"],
)
def test_an_override_that_names_nothing_is_refused(tmp_path: Path, override: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    with pytest.raises(UsageError, match="--set"):
        read_scenario(path, [override])


@pytest.mark.parametrize(
    ("file", "name"), [("a b.toml", "a-b"), ("x.y.toml", "x.y"), ("..toml", "scenario"), ("é.toml", "scenario")]
)
def test_a_scenario_is_called_after_its_file(file: str, name: str) -> None:
    assert scenario_name(Path(file)) == name
