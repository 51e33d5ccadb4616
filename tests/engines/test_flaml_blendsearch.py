"""BlendSearch: asked for many workers at once, it learns, stays in its space, and does the same in every process."""

import json
import os
import subprocess
import sys

import pytest

from harness.engines.flaml_blendsearch import FlamlBlendsearch
from harness.engines.random_search import RandomSearch
from harness.records.candidate import Configuration, Trial
from harness.space.families import Choice, defaults, families_for
from tests.engines.landscape import Landscape, away, searched, waits_s

pytest.importorskip("flaml")

FAMILIES = ("logistic", "knn", "random_forest")


def configurations(trials: list[Trial]) -> list[Configuration]:
    return [one.evaluated.configuration for one in sorted(trials, key=lambda one: one.asked)]


def test_it_begins_with_the_defaults_of_each_family() -> None:
    found = configurations(searched(FlamlBlendsearch(), families=FAMILIES))
    for configuration, family in zip(found[:3], families_for("binary", FAMILIES), strict=True):
        assert configuration == pytest.approx(defaults(family))


@pytest.mark.parametrize("workers", [2, 8])
def test_no_worker_waits_for_the_score_of_another(workers: int) -> None:
    trials = searched(FlamlBlendsearch(), workers, families=FAMILIES)
    assert len(trials) == 120
    for worker in range(workers):
        assert waits_s(trials, worker) == pytest.approx([0.0] * len(waits_s(trials, worker)))


@pytest.mark.parametrize("workers", [1, 8])
def test_what_it_proposes_last_is_nearer_to_the_best_than_what_is_drawn_at_random(workers: int) -> None:
    def mean_away(engine: FlamlBlendsearch | RandomSearch) -> float:
        last = configurations(searched(engine, workers, families=FAMILIES))[-60:]
        return sum(away(one) for one in last) / len(last)

    assert mean_away(FlamlBlendsearch()) < 0.7 * mean_away(RandomSearch())


def test_every_value_lies_in_its_range() -> None:
    names = tuple(family.name for family in families_for("binary"))
    families = {family.name: family for family in families_for("binary")}
    for one in configurations(searched(FlamlBlendsearch(), 4, trials=200, families=names)):
        for parameter in families[str(one["family"])].parameters:
            value = one[parameter.name]
            if isinstance(parameter, Choice):
                assert value in parameter.choices
            else:
                low, high = float(parameter.low), float(parameter.high)
                assert low <= float(value) <= high or float(value) == pytest.approx(high)
            assert type(value) in (str, int, float)


def test_a_space_of_few_points_ends_when_all_are_tried() -> None:
    tried = configurations(searched(FlamlBlendsearch(), trials=500, families=("knn",)))
    # 30 neighbours and two weights. Hardly all of them: it may not find the last ones in a hundred proposals.
    assert 50 <= len(tried) <= 60
    assert len({tuple(one.items()) for one in tried}) == len(tried)


def test_failures_leave_it_searching() -> None:
    trials = searched(FlamlBlendsearch(), 3, trials=40, known=Landscape(failing_above=0.0), families=FAMILIES)
    assert len(trials) == 40
    assert all(one.evaluated.failure for one in trials)


def test_an_interrupted_search_is_told_again_and_goes_on_the_same() -> None:
    whole = searched(FlamlBlendsearch(), trials=60, families=FAMILIES)
    resumed = searched(FlamlBlendsearch(), trials=60, families=FAMILIES, history=whole[:35])
    assert configurations(resumed) == configurations(whole)


def test_another_process_with_other_hashes_does_the_same() -> None:
    asked = (
        "import json; from harness.engines.flaml_blendsearch import FlamlBlendsearch as Engine;"
        "from tests.engines.test_flaml_blendsearch import FAMILIES, configurations, searched;"
        "print(json.dumps(configurations(searched(Engine(), 4, families=FAMILIES))))"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": "77",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    answered = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=environment
    )
    here = configurations(searched(FlamlBlendsearch(), 4, families=FAMILIES))
    assert json.loads(answered.stdout.splitlines()[-1]) == here
