"""The families: what may be drawn, and what is refused."""

import numpy as np
import pytest

from harness.errors import UsageError
from harness.records.words import Task
from harness.space.build import estimator_class
from harness.space.families import (
    FAMILIES,
    FAMILY,
    Choice,
    Family,
    FloatRange,
    IntegerRange,
    baseline,
    defaults,
    families_for,
    family_named,
    sample,
)

EACH = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@EACH
def test_a_thousand_draws_stay_within_their_ranges(family: Family) -> None:
    rng = np.random.default_rng(5)
    drawn = [sample([family], rng) for _ in range(1000)]
    for parameter in family.parameters:
        values = [configuration[parameter.name] for configuration in drawn]
        match parameter:
            case Choice():
                assert set(values) == set(parameter.choices)
            case IntegerRange():
                assert all(type(value) is int and parameter.low <= value <= parameter.high for value in values)
            case FloatRange():
                assert all(type(value) is float and parameter.low <= value <= parameter.high for value in values)


@EACH
def test_defaults_lie_in_the_space(family: Family) -> None:
    for parameter in family.parameters:
        if isinstance(parameter, Choice):
            assert parameter.default in parameter.choices
        else:
            assert parameter.low <= parameter.default <= parameter.high


@EACH
def test_every_parameter_is_one_of_the_estimators_own(family: Family) -> None:
    for task in ("binary", "regression"):
        if family.estimator_for(task) is not None:
            known = estimator_class(family, task)().get_params()
            assert {parameter.name for parameter in family.parameters} <= set(known)
            assert not family.seeded or "random_state" in known


def test_the_same_seed_draws_the_same_configurations() -> None:
    families = families_for("multiclass")

    def draw(seed: int) -> list[object]:
        rng = np.random.default_rng(seed)
        return [sample(families, rng) for _ in range(20)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_a_logarithmic_range_is_drawn_evenly_by_magnitude() -> None:
    family = Family("toy", (FloatRange("rate", 1e-4, 1.0, 0.1, log=True), IntegerRange("trees", 1, 100, 10, log=True)))
    rng = np.random.default_rng(0)
    drawn = [sample([family], rng) for _ in range(4000)]
    # Half of the magnitudes between 1e-4 and 1 lie below 1e-2.
    assert np.mean([float(configuration["rate"]) < 1e-2 for configuration in drawn]) == pytest.approx(0.5, abs=0.03)
    # log((10 + 1/2) / (1/2)) / log((100 + 1/2) / (1/2)) of the draws are at most 10.
    expected = np.log(21) / np.log(201)
    assert np.mean([int(configuration["trees"]) <= 10 for configuration in drawn]) == pytest.approx(expected, abs=0.03)


def test_families_are_drawn_evenly() -> None:
    families = families_for("regression")
    rng = np.random.default_rng(1)
    names = [sample(families, rng)[FAMILY] for _ in range(5000)]
    for family in families:
        assert names.count(family.name) / 5000 == pytest.approx(1 / len(families), abs=0.02)


def test_a_task_gets_the_families_that_fit_it() -> None:
    assert "ridge" not in {family.name for family in families_for("binary")}
    assert "logistic" not in {family.name for family in families_for("regression")}
    assert len(families_for("multiclass")) >= 8


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_kind_of_model_is_there_for_every_task(task: Task) -> None:
    linear = "ridge" if task == "regression" else "logistic"
    trees = {"random_forest", "extra_trees", "hist_gradient_boosting", "lightgbm", "xgboost"}
    assert {linear, *trees, "knn", "svc", "mlp"} <= {family.name for family in families_for(task)}


def test_named_families_come_in_the_order_of_the_space() -> None:
    assert [family.name for family in families_for("binary", ("knn", "logistic"))] == ["logistic", "knn"]


def test_an_unknown_family_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"random_forrest.*did you mean random_forest"):
        families_for("binary", ("random_forrest",))


def test_a_family_that_does_not_fit_the_task_is_refused() -> None:
    with pytest.raises(UsageError, match="'ridge' has no estimator for a binary task"):
        families_for("binary", ("ridge",))


def test_the_baseline_is_a_linear_model_at_its_defaults() -> None:
    assert baseline("binary") == {FAMILY: "logistic", "C": 1.0}
    assert baseline("regression") == defaults(family_named("ridge"))
