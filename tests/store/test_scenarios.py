"""A scenario file becomes a Scenario, or one paragraph that names the file, the key and what was meant."""

import hashlib
import tempfile
from pathlib import Path

import pytest

from harness.errors import ExitCode, IntegrityError, UsageError
from harness.records.scenario import Scenario
from harness.store.reference import scenario_reference
from harness.store.scenarios import kept_scenario, read_scenario, scenario_name

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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "my.toml")
        path.write_text(text)
        with pytest.raises(UsageError) as refused:
            read_scenario(path)
    assert refused.value.exit_code == ExitCode.USAGE == 2
    message = str(refused.value).removeprefix(f"{folder}/")
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
        (('["random_search"]', "[]"), "search.engines needs at least one"),
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


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("parameters.port = [1]", "serve.0.parameters.port must be one text, number, true or false, not [1]."),
        ("parameters.port = nan", "serve.0.parameters.port must be one text, number, true or false, not NaN."),
        ("replicas = []", "serve.0.replicas needs at least one entry."),
        ("replicas = [-1]", "serve.0.replicas.0: input should be greater than or equal to 1, not -1."),
        ('runtimes = "ä"', 'serve.0.runtimes: input should be a valid array, not "ä".'),
    ],
)
def test_a_key_that_is_wrong_in_one_way_is_told_once(lines: str, told: str) -> None:
    assert refusal(GOOD + lines) == f"my.toml: {told} scenarios/README.md describes every key."


def test_a_byte_order_mark_is_no_part_of_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert read_scenario(path) == read_scenario(kept(tmp_path, GOOD))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        read_scenario(tmp_path / "binary.toml")


def kept(folder: Path, text: str) -> Path:
    path = folder / "kept.toml"
    path.write_bytes(text.encode())
    return path


def test_an_override_changes_one_key_and_what_is_kept_is_the_changed_scenario(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + "# my own remark")
    scenario, text = read_scenario(path, ["search.trials=5", "serve.0.replicas=[1, 2]", "load.objective.p99_s=0.2"])
    assert scenario.search.trials == 5
    assert scenario.serve[0].replicas == (1, 2)
    assert read_scenario(kept(tmp_path, text)) == (scenario, text)
    assert '--set "search.trials=5"' in text
    assert "# # my own remark\n" in text


@pytest.mark.parametrize(
    "remark", ["# set: the trials you like", '# set: "search.trials=7"', "# é \u2028 set: x", "#\r\n# a\r"]
)
@pytest.mark.parametrize("overrides", [[], ["search.trials=5"], ['question=a\nb = "c" # \x7f é']])
def test_a_users_own_remarks_mean_nothing(tmp_path: Path, remark: str, overrides: list[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes((GOOD + remark + "\n").encode())
    scenario, text = read_scenario(path, overrides)
    assert scenario.search.trials == (5 if overrides[:1] == ["search.trials=5"] else read_plain(tmp_path).search.trials)
    assert read_scenario(kept(tmp_path, text))[0] == scenario


def read_plain(folder: Path) -> Scenario:
    return read_scenario(kept(folder, GOOD))[0]


def test_without_overrides_the_file_is_kept_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert read_scenario(path)[1].encode() == path.read_bytes()


def test_a_kept_scenario_is_the_one_that_was_run_or_none(tmp_path: Path) -> None:
    path = kept(tmp_path, GOOD)
    digest = hashlib.sha256(GOOD.encode()).hexdigest()
    assert kept_scenario(path, digest) == read_scenario(path)[0]
    path.write_text(GOOD + "# changed")
    with pytest.raises(IntegrityError, match="was changed since the run began"):
        kept_scenario(path, digest)
    path.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        kept_scenario(path, digest)


def test_a_text_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_scenario(kept(tmp_path, GOOD), ["question=\udc80"])


def test_an_override_may_be_a_bare_word(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert read_scenario(path, ["data.source=sklearn:wine"])[0].data[0].source == "sklearn:wine"


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
