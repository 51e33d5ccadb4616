"""Splits: what may be learned from what is kept from being scored on it."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from harness.errors import UsageError
from harness.records.table import DataPlan
from harness.records.words import Split
from harness.stages.data import Table, load_table
from harness.stages.split import LabelledRows, fold_rows, split_rows

ROWS = 240


def written(folder: Path, **changed: Any) -> Path:
    """Three rows a day for eighty days, in no order; forty patients of six rows; two classes, and an amount."""
    rng = np.random.default_rng(3)
    columns = {
        "size": rng.normal(size=ROWS).round(3),
        "day": [str(day.date()) for day in pd.date_range("2026-01-01", periods=ROWS // 3)] * 3,
        "patient": [f"p{i % 40}" for i in range(ROWS)],
        "target": ["yes" if i % 3 else "no" for i in range(ROWS)],
        **changed,
    }
    path = folder / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def table_of(folder: Path, **plan: Any) -> Table:
    return load_table(DataPlan.model_validate({"source": "table.csv", **plan}), folder)


def labelled(target: Any, split: Split, **deciding: Any) -> LabelledRows:
    values = np.asarray(target)
    task = "regression" if values.dtype == np.float64 else "binary"
    return LabelledRows(values, task, split, **deciding)  # type: ignore[arg-type]


class TestStratifiedAndPlain:
    def test_every_row_is_scored_once_and_classes_keep_their_shares(self) -> None:
        target = np.repeat([0, 1], [60, 30])
        folds = fold_rows(labelled(target, "stratified"), 3, seed=1)
        assert sorted(np.concatenate([scored for _, scored in folds])) == list(range(90))
        for fitted, scored in folds:
            assert not set(fitted) & set(scored)
            assert target[scored].sum() == 10

    def test_the_seed_decides(self) -> None:
        rows = labelled(np.arange(50.0), "plain")
        first, again, other = (fold_rows(rows, 5, seed)[0][1].tolist() for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_a_plain_split_of_classes_leaves_their_shares_to_chance(self) -> None:
        target = np.repeat([0, 1], [60, 30])
        counts = {int(target[scored].sum()) for _, scored in fold_rows(labelled(target, "plain"), 3, seed=1)}
        assert counts != {10}

    def test_a_class_thinner_than_the_folds_is_refused(self) -> None:
        with pytest.raises(UsageError, match="rarest class has 2 training rows, too few for 3 folds"):
            fold_rows(labelled([0] * 10 + [1] * 2, "stratified"), 3, seed=1)

    def test_a_table_shorter_than_the_folds_is_refused(self) -> None:
        with pytest.raises(UsageError, match="5 training rows are too few for 3 folds"):
            fold_rows(labelled(np.arange(5.0), "plain"), 3, seed=1)

    def test_what_is_left_out_follows_from_the_task(self, tmp_path: Path) -> None:
        written(tmp_path)
        assert table_of(tmp_path, drop=("patient", "day")).split == "stratified"
        assert table_of(tmp_path, drop=("patient", "day"), target="size").split == "plain"

    def test_amounts_have_no_shares_to_keep(self, tmp_path: Path) -> None:
        written(tmp_path)
        with pytest.raises(UsageError, match=r"holds amounts.*leave `data\.split` out"):
            table_of(tmp_path, drop=("patient", "day"), target="size", split="stratified")


class TestGrouped:
    @pytest.mark.parametrize("target", ["target", "size"])
    def test_a_group_is_on_one_side_and_in_one_fold_and_no_model_sees_it(self, tmp_path: Path, target: str) -> None:
        written(tmp_path)
        patients = pd.read_csv(tmp_path / "table.csv")["patient"].to_numpy()
        table = table_of(tmp_path, split="grouped", group="patient", dates=("day",), target=target)
        assert "patient" not in table.frame.columns
        assert not set(patients[table.train]) & set(patients[table.holdout])
        assert sorted([*table.train, *table.holdout]) == list(range(ROWS))
        training = patients[table.train]
        folds = fold_rows(table.training, 3, seed=1)
        assert sorted(np.concatenate([scored for _, scored in folds])) == list(range(len(training)))
        for fitted, scored in folds:
            assert not set(training[fitted]) & set(training[scored])

    def test_the_holdout_has_its_share_of_rows_and_of_each_class_though_groups_differ_in_size(self) -> None:
        rng = np.random.default_rng(1)
        groups = np.repeat(np.arange(60), rng.integers(1, 40, 60))
        target = (rng.random(len(groups)) < 0.2).astype(np.int64)
        train, held = split_rows(labelled(target, "grouped", groups=groups), ("no", "yes"), 0.25, 7, "it")
        assert len(held) / len(groups) == pytest.approx(0.25, abs=0.03)
        assert target[held].sum() / target.sum() == pytest.approx(0.25, abs=0.03)
        assert len(train) + len(held) == len(groups)

    @pytest.mark.parametrize("holdout", [0.1, 0.2, 0.3])
    def test_a_class_of_two_groups_has_one_on_either_side(self, holdout: float) -> None:
        groups = np.repeat(np.arange(50), 10)
        target = (groups < 2).astype(np.int64)
        for seed in range(3):
            _, held = split_rows(labelled(target, "grouped", groups=groups), ("no", "yes"), holdout, seed, "it")
            assert target[held].sum() == 10

    def test_fewer_groups_than_folds_are_refused(self) -> None:
        rows = labelled([0, 1] * 20, "grouped", groups=np.repeat([0, 1], 20))
        with pytest.raises(UsageError, match="of 2 groups, too few for 3 folds"):
            fold_rows(rows, 3, seed=1)

    def test_a_single_group_is_refused(self, tmp_path: Path) -> None:
        written(tmp_path, patient="p")
        with pytest.raises(UsageError, match="all rows are of one group"):
            table_of(tmp_path, split="grouped", group="patient", drop=("day",))

    def test_groups_that_are_classes_leave_nothing_to_learn(self, tmp_path: Path) -> None:
        written(tmp_path, patient=["a" if i % 3 else "b" for i in range(ROWS)])
        with pytest.raises(UsageError, match=r'split = "grouped" leaves no row of some classes in the .*: (yes|no)\.'):
            table_of(tmp_path, split="grouped", group="patient", drop=("day",))

    def test_a_row_of_no_group_is_refused(self, tmp_path: Path) -> None:
        written(tmp_path, patient=["" if i == 5 else f"p{i % 40}" for i in range(ROWS)])
        with pytest.raises(UsageError, match="names the groups of the rows, and has no value in 1 of 240 rows"):
            table_of(tmp_path, split="grouped", group="patient", drop=("day",))


class TestTime:
    @pytest.mark.parametrize("target", ["target", "size"])
    def test_nothing_is_learned_from_the_day_it_is_scored_on_or_later(self, tmp_path: Path, target: str) -> None:
        written(tmp_path)
        days = pd.to_datetime(pd.read_csv(tmp_path / "table.csv")["day"]).to_numpy()
        table = table_of(tmp_path, split="time", time="day", target=target, drop=("patient",))
        assert "day" not in table.frame.columns
        assert days[table.train].max() < days[table.holdout].min()
        assert len(table.holdout) == 60
        training = days[table.train]
        folds = fold_rows(table.training, 4, seed=1)
        assert len(folds) == 4
        for fitted, scored in folds:
            assert training[fitted].max() < training[scored].min()
        for (_, earlier), (_, later) in itertools.pairwise(folds):
            assert training[earlier].max() <= training[later].min()

    def test_numbers_order_rows_too(self) -> None:
        times = np.random.default_rng(1).permutation(40).astype(float)
        train, held = split_rows(labelled(np.arange(40.0), "time", times=times), (), 0.25, 7, "it")
        assert sorted(times[held]) == list(range(30, 40))
        assert sorted(times[train]) == list(range(30))

    def test_a_long_moment_is_not_divided(self) -> None:
        # A quarter of the rows is asked for; the nearest moments begin after half of them and after nine tenths.
        times = np.repeat([0.0, 1.0, 2.0], [20, 16, 4])
        _, held = split_rows(labelled(np.arange(40.0), "time", times=times), (), 0.25, 7, "it")
        assert list(held) == [36, 37, 38, 39]

    def test_dates_need_not_be_listed_twice_and_must_be_dates(self, tmp_path: Path) -> None:
        written(tmp_path, day=["31.01.2026"] * ROWS)
        with pytest.raises(UsageError, match=r"named under `data\.time`, and 240 of its values are no ISO 8601 dates"):
            table_of(tmp_path, split="time", time="day", drop=("patient",))

    def test_a_row_of_no_time_is_refused(self, tmp_path: Path) -> None:
        written(tmp_path, day=["" if i < 4 else "2026-01-31" for i in range(ROWS)])
        with pytest.raises(UsageError, match="orders the rows, and has no value in 4 of 240 rows"):
            table_of(tmp_path, split="time", time="day", drop=("patient",))

    def test_booleans_have_no_order(self, tmp_path: Path) -> None:
        written(tmp_path, day=[i % 2 == 0 for i in range(ROWS)])
        with pytest.raises(UsageError, match="of kind boolean: only dates and numbers have an order"):
            table_of(tmp_path, split="time", time="day", drop=("patient",))

    def test_rows_of_one_time_are_refused(self, tmp_path: Path) -> None:
        written(tmp_path, day="2026-01-31")
        with pytest.raises(UsageError, match="all rows are of one time"):
            table_of(tmp_path, split="time", time="day", drop=("patient",))

    def test_a_class_that_came_late_is_told(self) -> None:
        rows = labelled([0] * 30 + [1, 0] * 15, "time", times=np.arange(60.0))
        with pytest.raises(UsageError, match=r'Fold 1 of 3 would be fitted without a row of some class.*"time"'):
            fold_rows(rows, 3, seed=1)

    def test_a_fold_without_an_older_row_is_told(self) -> None:
        rows = labelled(np.arange(40.0), "time", times=np.repeat([0.0, 1.0], [25, 15]))
        with pytest.raises(UsageError, match="Fold 1 of 3 would be fitted on 0 rows and scored on 10"):
            fold_rows(rows, 3, seed=1)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"split": "grouped"}, 'split = "grouped" needs `group`'),
        ({"split": "time"}, 'split = "time" needs `time`'),
        ({"group": "patient"}, '`group` is given and has no meaning without split = "grouped"'),
        ({"split": "plain", "time": "day"}, '`time` is given and has no meaning without split = "time"'),
        ({"split": "grouped", "group": "patient", "time": "day"}, "`time` is given"),
        ({"split": "random"}, "'plain', 'stratified', 'grouped' or 'time'"),
        ({"parameters": {"rows": 10}}, "`parameters` are those of a synthetic table"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(plan: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DataPlan.model_validate({"source": "table.csv", **plan})


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"split": "grouped", "group": "patients"}, r"`data\.group` names the column 'patients'.*did you mean patient"),
        ({"split": "time", "time": "days"}, r"`data\.time` names the column 'days'.*did you mean day"),
        ({"split": "time", "time": "target"}, "the column to predict"),
        ({"split": "time", "time": "day", "drop": ("day",)}, r"which `data\.time` needs: remove it from `data\.drop`"),
    ],
)
def test_columns_that_cannot_split_are_refused(tmp_path: Path, plan: dict[str, Any], told: str) -> None:
    written(tmp_path)
    with pytest.raises(UsageError, match=told):
        table_of(tmp_path, **plan)


def test_another_way_to_split_is_another_digest(tmp_path: Path) -> None:
    written(tmp_path)
    plans: list[dict[str, Any]] = [
        {"drop": ("patient", "day")},
        {"drop": ("patient", "day"), "split": "plain"},
        {"drop": ("day",), "split": "grouped", "group": "patient"},
        {"drop": ("patient",), "split": "time", "time": "day"},
    ]
    assert len({table_of(tmp_path, **plan).sha256 for plan in plans}) == len(plans)
