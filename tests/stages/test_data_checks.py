"""Checks of a table: each finds what was put there, and nothing where nothing was."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.errors import UsageError
from harness.records.scenario import SearchPlan
from harness.records.table import DataCheck, DataPlan
from harness.records.words import Metric
from harness.stages.column_signal import Encoded, leaking_columns
from harness.stages.data import load_table
from harness.stages.data_checks import LEAK_FAILS, LEAK_WARNS, data_checks, refuse_failed
from harness.stages.split import LabelledRows

ROWS = 400


def checked(plan: DataPlan, folder: Path = Path(), metric: Metric = "accuracy", **search: Any) -> list[DataCheck]:
    searched = SearchPlan(engines=("random_search",), **search)
    return list(data_checks(load_table(plan, folder), plan, searched, metric))


def honest(rows: int = ROWS) -> pd.DataFrame:
    """Two numbers and a category, of which one number tells most of two even classes."""
    rng = np.random.default_rng(4)
    size = rng.normal(size=rows)
    yes = size + 0.3 * rng.normal(size=rows) > 0
    columns = {"size": size, "weight": rng.normal(size=rows), "kind": rng.choice(["a", "b", "c"], rows)}
    return pd.DataFrame(columns).assign(target=np.where(yes, "yes", "no"))


def of_frame(
    folder: Path, frame: pd.DataFrame, metric: Metric = "accuracy", search: dict[str, Any] | None = None, **plan: Any
) -> list[DataCheck]:
    frame.to_parquet(folder / "table.parquet")
    return checked(DataPlan.model_validate({"source": "table.parquet", **plan}), folder, metric, **(search or {}))


def named(checks: list[DataCheck], name: str) -> list[DataCheck]:
    return [check for check in checks if check.name == name]


def told(checks: list[DataCheck]) -> dict[tuple[str, str | None], str]:
    return {(check.name, check.column): check.verdict for check in checks if check.verdict != "pass"}


def test_an_honest_table_passes_every_check_with_a_row_each(tmp_path: Path) -> None:
    checks = of_frame(tmp_path, honest())
    assert told(checks) == {}
    assert [check.name for check in checks] == [
        "schema",
        "mistaken_kind",
        "constant_column",
        "duplicate_column",
        "shared_rows",
        "leaking_column",
        "class_balance",
        "label_noise",
        "rows_per_fold",
    ]


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits", "diabetes"])
def test_no_table_that_scikit_learn_ships_fails(name: str) -> None:
    plan = DataPlan(source=f"sklearn:{name}")
    checks = checked(plan)
    refuse_failed(checks, plan)
    assert not named([check for check in checks if check.verdict != "pass"], "leaking_column")


class TestMistakenKind:
    """Texts that are something else, in a column that repeats itself enough to be taken for categories."""

    @pytest.mark.parametrize(
        ("texts", "verdict", "told"),
        [
            (["2026-01-31", "2026-02-28", "2026-03-31T06:30:00Z"], "warn", "400 filled rows. List the column under"),
            (["31/01/2026", "28/02/2026"], "warn", "Write them as 2026-01-31, and list the column under `dates`"),
            (["31. Jan 2026", "28. February 2026"], "warn", "holds dates, such as '31. Jan 2026'"),
            (["2026-01-31", "2026-02-28", "unknown"], "warn", "such as 'unknown', and want a hole in their place"),
            (["2026-01-31", "31/01/2026", "1.2.2026"], "fail", "in 3 ways ('2026-01-31', '31/01/2026', '1.2.2026')"),
            ([*(f"{i},5" for i in range(40)), "?"], "warn", "holds numbers, such as '0,5', in 391 of 400 filled rows"),
            ([f"1,{i}00" for i in range(100, 140)], "warn", "write them with a point and nothing else (1234.5)"),
        ],
    )
    def test_dates_and_numbers_that_are_texts_are_told(
        self, tmp_path: Path, texts: list[str], verdict: str, told: str
    ) -> None:
        frame = honest().assign(seen=[texts[row % len(texts)] for row in range(ROWS)])
        (check,) = named(of_frame(tmp_path, frame), "mistaken_kind")
        assert (check.column, check.verdict) == ("seen", verdict)
        assert told in check.detail

    @pytest.mark.parametrize(
        "texts",
        [
            ["1", "2", "3", "other"],
            ["1.2.3", "1.10.2", "2.0.1"],
            ["10.0.0.1", "10.0.0.2"],
            ["may", "june", "Mar", "monday"],
            ["1/2", "3/4", "5/8"],
            ["9-12 months", "1-2 years"],
            [f"{place:05}" for place in range(1_000, 90_000, 1_500)],
            [str(place) for place in range(40)],
        ],
        ids=["numbers of classes", "versions", "addresses", "months", "parts", "ranges", "postcodes", "numbers alone"],
    )
    def test_categories_that_look_like_them_pass(self, tmp_path: Path, texts: list[str]) -> None:
        frame = honest().assign(seen=[texts[row % len(texts)] for row in range(ROWS)])
        (check,) = named(of_frame(tmp_path, frame), "mistaken_kind")
        assert check.verdict == "pass"


def test_constant_and_duplicate_columns_are_named(tmp_path: Path) -> None:
    frame = honest()
    frame = frame.assign(always=3.5, twin=frame["size"], art=frame["kind"].map({"a": "x", "b": "y", "c": "z"}))
    checks = of_frame(tmp_path, frame)
    assert told(checks) == {
        ("constant_column", "always"): "warn",
        ("duplicate_column", "twin"): "warn",
        ("duplicate_column", "art"): "warn",
    }
    assert "a copy of 'size'" in named(checks, "duplicate_column")[0].detail


def test_holes_tell_columns_apart_and_are_no_value(tmp_path: Path) -> None:
    frame = honest()
    filled = pd.Series(1.0, index=frame.index)
    assert told(of_frame(tmp_path, frame.assign(at_times=filled.where(frame.index % 2 == 0)))) == {}


class TestSharedRows:
    def test_copies_fail_by_their_share_of_the_holdout(self, tmp_path: Path) -> None:
        frame = honest(200)
        (check,) = named(of_frame(tmp_path, pd.concat([frame, frame])), "shared_rows")
        # Of both copies of a row one is held out and the other is not in about three of four cases.
        assert check.verdict == "fail"
        assert check.value == pytest.approx(0.75, abs=0.12)

    def test_a_few_copies_warn(self, tmp_path: Path) -> None:
        frame = honest()
        (check,) = named(of_frame(tmp_path, pd.concat([frame, frame.head(20)])), "shared_rows")
        assert (check.verdict, check.value) != ("pass", 0.0)
        assert check.verdict == "warn"

    def test_a_table_of_few_distinct_values_has_no_copies(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        frame = pd.DataFrame(rng.random((ROWS, 3)) < 0.5, columns=["a", "b", "target"])
        (check,) = named(of_frame(tmp_path, frame), "shared_rows")
        assert (check.verdict, check.value) == ("pass", 1.0)
        assert "to be expected" in check.detail


class TestLeaks:
    @pytest.mark.parametrize(("wrong", "verdict"), [(0, "fail"), (50, "warn"), (10, None)])
    def test_a_column_made_from_the_target_is_told_by_how_much_it_says(
        self, tmp_path: Path, wrong: int, verdict: str | None
    ) -> None:
        frame = honest(2_000)
        leak = (frame["target"] == "yes").astype(float)
        if wrong:
            leak = leak.where(frame.index % wrong != 0, 1 - leak)
        found = told(of_frame(tmp_path, frame.assign(leak=leak)))
        assert found.get(("leaking_column", "leak")) == verdict

    def test_a_leak_in_texts_or_up_and_down_is_found_too(self, tmp_path: Path) -> None:
        frame = honest(2_000)
        yes = frame["target"] == "yes"
        rng = np.random.default_rng(2)
        texts = [f"{'p' if one else 'q'}{rng.integers(40)}" for one in yes]
        ring = np.where(yes, 0.0, np.where(rng.random(2_000) < 0.5, -9.0, 9.0)) + rng.normal(size=2_000) / 9
        found = told(of_frame(tmp_path, frame.assign(texts=texts, ring=ring)))
        assert found == {("leaking_column", "texts"): "fail", ("leaking_column", "ring"): "fail"}

    def test_an_amount_in_another_unit_is_a_leak(self, tmp_path: Path) -> None:
        amounts = np.random.default_rng(1).lognormal(size=2_000)
        frame = honest(2_000).assign(target=amounts, cents=amounts * 100 + 7)
        assert told(of_frame(tmp_path, frame))["leaking_column", "cents"] == "fail"

    def test_a_column_that_names_the_group_is_no_leak_where_groups_are_kept_apart(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(5)
        patient = np.repeat(np.arange(50), 40)
        ill = rng.permutation(50) % 2 == 0
        frame = honest(2_000).assign(born=rng.permutation(50)[patient], patient=patient, target=ill[patient])
        open_to_all = told(of_frame(tmp_path, frame, drop=("patient",)))
        apart = told(of_frame(tmp_path, frame, split="grouped", group="patient"))
        assert open_to_all["leaking_column", "born"] == "fail"
        assert ("leaking_column", "born") not in apart

    def test_it_is_found_among_a_thousand_columns(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        frame = pd.DataFrame(rng.normal(size=(300, 1_000)), columns=[f"x{place}" for place in range(1_000)])
        frame = frame.assign(target=np.arange(300) % 2 == 0).assign(x777=lambda made: made["target"] * 1.0)
        checks = of_frame(tmp_path, frame)
        (leak,) = [check for check in named(checks, "leaking_column") if check.verdict != "pass"]
        assert leak.column == "x777"
        assert "200 of 1,000 columns" in leak.detail

    def test_a_class_of_a_few_rows_is_in_the_sample_however_many_rows_there_are(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        rare = np.zeros(100_000)  # of which a sample has a tenth, by chance alone none of the eight
        rare[rng.choice(len(rare), 8, replace=False)] = 1
        (leak,) = named(
            of_frame(tmp_path, pd.DataFrame({"size": rng.random(len(rare)), "target": rare})), "leaking_column"
        )
        assert leak.verdict == "pass"
        assert "10,000 rows" in leak.detail

    @pytest.mark.parametrize(("ill", "looked_at"), [([1, 3], ["born"]), ([1], [])])
    def test_groups_too_few_for_three_folds_are_kept_apart_in_two_or_not_looked_at(
        self, ill: list[int], looked_at: list[str]
    ) -> None:
        patient = np.repeat(np.arange(6), 40)
        rows = LabelledRows(np.isin(patient, ill).astype(int), "binary", "grouped", groups=patient)
        born = np.array([0.0, 1.0, 2.0, 4.0, 3.0, 5.0])[patient]  # known by heart, it tells who is ill
        sample = Encoded(("born",), born[:, None], np.empty((240, 0), dtype=np.intp), rows)
        skills = leaking_columns(sample)
        assert list(skills) == looked_at
        assert all(skill < LEAK_WARNS for skill in skills.values())


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.4])
def test_half_of_the_labels_that_were_drawn_anew_are_found_to_be_wrong(noise: float) -> None:
    """Of two classes, every second label that is drawn anew is the one that was there."""
    plan = DataPlan(source="synthetic:binary", parameters={"rows": 3_000, "noise": noise, "columns": 10})
    (check,) = named(checked(plan), "label_noise")
    assert check.value == pytest.approx(noise / 2, abs=0.04)
    assert check.verdict == ("warn" if (check.value or 0) > 0.2 else "pass")


def test_amounts_that_nothing_explains_warn(tmp_path: Path) -> None:
    amounts = np.random.default_rng(9).normal(size=ROWS)
    assert told(of_frame(tmp_path, honest().assign(target=amounts))) == {("label_noise", None): "warn"}


def test_a_rare_class_warns(tmp_path: Path) -> None:
    (check,) = named(of_frame(tmp_path, honest().assign(target=np.arange(ROWS) % 20 == 0)), "class_balance")
    assert (check.verdict, check.value) == ("warn", pytest.approx(0.1))
    assert "'True', has 20 of 400 rows" in check.detail


@pytest.mark.parametrize(("rows", "verdict"), [(400, "pass"), (30, "warn"), (10, "fail")])
def test_folds_are_held_against_the_rarest_class(tmp_path: Path, rows: int, verdict: str) -> None:
    frame = honest(rows).assign(target=np.arange(rows) % 2)
    (check,) = named(of_frame(tmp_path, frame, search={"folds": 5}), "rows_per_fold")
    assert check.verdict == verdict


@pytest.mark.parametrize(("rows", "verdict"), [(5, "fail"), (7, "warn")])
def test_a_table_of_a_few_rows_of_text_is_told_and_breaks_nothing(tmp_path: Path, rows: int, verdict: str) -> None:
    frame = pd.DataFrame({"text": ["a", "b"] * 4, "target": ["x", "x", "y", "y"] * 2}).head(rows)
    (check,) = named(of_frame(tmp_path, frame, holdout=0.4, search={"folds": 2}), "rows_per_fold")
    assert check.verdict == verdict


def test_the_folds_of_every_seed_are_looked_at(tmp_path: Path) -> None:
    frame = honest(96).assign(target=np.arange(96) % 12 == 0)

    def verdict(*seeds: int) -> str:
        (check,) = named(
            of_frame(tmp_path, frame, split="plain", holdout=0.4, search={"seeds": seeds, "folds": 4}), "rows_per_fold"
        )
        return check.verdict

    alone = {seed: verdict(seed) for seed in range(6)}
    assert set(alone.values()) == {"warn", "fail"}  # by chance a fold of some seeds lacks the rare class
    assert verdict(*sorted(alone, key=lambda seed: alone[seed] == "fail")) == "fail"


def test_a_metric_that_needs_every_class_in_every_fold_is_held_against_them(tmp_path: Path) -> None:
    place = np.arange(800)
    frame = honest(800).assign(day=place, target=np.where(place % 400 < 150, place % 3, place % 2))
    late = {"split": "time", "time": "day", "holdout": 0.45}
    (roc_auc,) = named(of_frame(tmp_path, frame, "roc_auc", **late), "rows_per_fold")
    (accuracy,) = named(of_frame(tmp_path, frame, "accuracy", **late), "rows_per_fold")
    assert (roc_auc.verdict, accuracy.verdict) == ("fail", "warn")
    assert "without a row of each class there is no roc_auc" in roc_auc.detail


COLUMNS: dict[str, Any] = {
    "size": {"at_least": -10.0, "at_most": 10.0, "holes": False},
    "kind": {"kind": "category", "one_of": ["a", "b", "c"]},
}


class TestSchema:
    def test_where_nothing_is_stated_nothing_is_claimed(self, tmp_path: Path) -> None:
        (check,) = named(of_frame(tmp_path, honest()), "schema")
        assert check.detail.startswith("Nothing is stated under [data.columns] to hold 3 columns against")

    def test_what_holds_passes(self, tmp_path: Path) -> None:
        (check,) = named(of_frame(tmp_path, honest(), columns=COLUMNS), "schema")
        assert check.verdict == "pass"
        assert check.detail.startswith("2 of 3 columns hold what [data.columns] says of them")

    @pytest.mark.parametrize(
        ("column", "row", "value", "broken"),
        [
            ("size", 7, 11.0, "breaks `at_most = 10` in 1 of 400 rows, the first in data row 8"),
            ("size", 9, np.nan, "breaks `holes` in 1 of 400 rows, the first in data row 10"),
            ("kind", 3, "d", "breaks `one_of` in 1 of 400 rows, the first in data row 4"),
        ],
    )
    def test_a_value_that_breaks_it_fails(self, tmp_path: Path, column: str, row: int, value: Any, broken: str) -> None:
        frame = honest()
        frame.loc[row, column] = value
        (check,) = named(of_frame(tmp_path, frame, columns=COLUMNS), "schema")
        assert (check.verdict, check.column) == ("fail", column)
        assert broken in check.detail

    def test_another_kind_and_an_absent_column_fail(self, tmp_path: Path) -> None:
        columns = {"kind": {"kind": "number"}, "size": {}}
        found = named(of_frame(tmp_path, honest(), columns=columns, drop=("size",)), "schema")
        assert [(check.column, check.verdict) for check in found] == [("kind", "fail"), ("size", "fail")]
        assert "is of kind category, and the plan says number" in found[0].detail

    @pytest.mark.parametrize(
        ("column", "wanted", "told"),
        [
            ("kind", {"at_least": 5.0}, "is of kind category, and at_least and at_most are about numbers"),
            ("day", {"at_most": 5.0}, "is of kind date, and at_least and at_most are about numbers"),
            ("size", {"one_of": ["a"]}, "is of kind number, and one_of is about texts"),
            ("sold", {"one_of": ["true", "false"]}, "is of kind boolean, and one_of is about texts"),
        ],
    )
    def test_what_is_said_of_another_kind_fails_by_the_kind(
        self, tmp_path: Path, column: str, wanted: dict[str, Any], told: str
    ) -> None:
        frame = honest().assign(day=pd.Timestamp("2026-01-01"), sold=np.arange(ROWS) % 3 == 0)
        (check,) = named(of_frame(tmp_path, frame, columns={column: wanted}), "schema")
        assert (check.verdict, check.column) == ("fail", column)
        assert told in check.detail


class TestRefusal:
    def leaking(self, folder: Path, **plan: Any) -> tuple[list[DataCheck], DataPlan]:
        frame = honest().assign(leak=lambda made: (made["target"] == "yes") * 1.0)
        return of_frame(folder, frame, **plan), DataPlan.model_validate({"source": "table.parquet", **plan})

    def test_a_failed_check_refuses_the_table_and_says_how_to_accept_it(self, tmp_path: Path) -> None:
        checks, plan = self.leaking(tmp_path)
        with pytest.raises(UsageError, match="'leak' alone predicts") as refused:
            refuse_failed(checks, plan)
        assert '`accept = ["leaking_column"]` under [data]' in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_an_accepted_one_does_not(self, tmp_path: Path) -> None:
        checks, plan = self.leaking(tmp_path, accept=("leaking_column",))
        (leak,) = [check for check in checks if check.column == "leak"]
        assert (leak.verdict, leak.bound) == ("fail", LEAK_FAILS)
        refuse_failed(checks, plan)

    def test_too_few_rows_cannot_be_accepted(self, tmp_path: Path) -> None:
        frame = honest(10).assign(target=np.arange(10) % 2)
        checks = named(of_frame(tmp_path, frame, search={"folds": 5}), "rows_per_fold")
        with pytest.raises(UsageError, match="too few for 5 folds") as refused:
            refuse_failed(checks, DataPlan(source="table.parquet"))
        assert "accept" not in str(refused.value)
