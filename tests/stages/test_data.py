"""The table: what is read off it, and what is refused with what to do about it."""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from sklearn.datasets import load_breast_cancer

from harness.errors import UsageError
from harness.records.table import DataPlan
from harness.stages.data import Table, load_table

ROWS = 40


def table_of(folder: Path, text: str | bytes, **plan: Any) -> Table:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_table(DataPlan.model_validate({"source": "table.csv", **plan}), folder)


def csv(header: str = "x,colour,target", row: str = "{i},{c},{y}", rows: int = ROWS) -> str:
    values = [row.format(i=i * 0.5, c="red" if i % 3 else "green", y="yes" if i % 2 else "no") for i in range(rows)]
    return "\n".join([header, *values]) + "\n"


def kinds(table: Table) -> dict[str, str]:
    return {column.name: column.kind for column in table.signature.columns}


@pytest.mark.parametrize(
    ("name", "task", "rows", "columns", "classes"),
    [
        ("iris", "multiclass", 150, 4, ("setosa", "versicolor", "virginica")),
        ("wine", "multiclass", 178, 13, ("class_0", "class_1", "class_2")),
        ("breast_cancer", "binary", 569, 30, ("malignant", "benign")),
        ("digits", "multiclass", 1797, 64, tuple("0123456789")),
        ("diabetes", "regression", 442, 10, ()),
    ],
)
def test_the_tables_that_scikit_learn_ships_are_ready(
    name: str, task: str, rows: int, columns: int, classes: tuple[str, ...]
) -> None:
    table = load_table(DataPlan(source=f"sklearn:{name}"), Path())
    assert table.signature.task == task
    assert table.frame.shape == (rows, columns)
    assert table.signature.classes == classes


def test_class_numbers_are_those_of_the_source() -> None:
    table = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
    np.testing.assert_array_equal(table.target, load_breast_cancer().target)


def test_every_row_is_in_one_side_of_the_split_and_classes_keep_their_shares() -> None:
    table = load_table(DataPlan(source="sklearn:breast_cancer", holdout=0.2), Path())
    assert sorted([*table.train, *table.holdout]) == list(range(569))
    assert len(table.holdout) == round(0.2 * 569)
    for side in (table.train, table.holdout):
        assert table.target[side].mean() == pytest.approx(357 / 569, abs=0.01)


def test_the_seed_decides_the_split() -> None:
    def holdout(seed: int) -> list[int]:
        return list(load_table(DataPlan(source="sklearn:iris", seed=seed), Path()).holdout)

    assert holdout(1) == holdout(1)
    assert holdout(1) != holdout(2)


def test_a_csv_has_numbers_booleans_dates_categories_and_holes(tmp_path: Path) -> None:
    lines = ["size,member,since,colour,target"]
    for i in range(ROWS):
        lines.append(
            f"{'' if i == 3 else i},{'' if i == 4 else i % 2 == 0},{'' if i == 5 else '2026-01-31'},"
            f"{'' if i == 6 else 'red'},{i % 2}"
        )
    table = table_of(tmp_path, "\n".join(lines), dates=("since",))
    assert kinds(table) == {"size": "number", "member": "boolean", "since": "date", "colour": "category"}
    assert np.isnan(table.frame["size"][3])
    assert np.isnan(table.frame["member"][4])
    assert table.frame["member"].tolist()[:3] == [1.0, 0.0, 1.0]
    assert pd.isna(table.frame["since"][5])
    assert table.frame["since"][0] == pd.Timestamp("2026-01-31")
    assert table.frame["colour"].tolist()[5:7] == ["red", ""]


def test_dates_may_mix_days_and_times(tmp_path: Path) -> None:
    moments = ("2026-01-31", "2026-01-31T06:30:00", "2026-01-31T06:30:00+01:00")
    lines = ["since,target", *(f"{moments[i % 3]},{i % 2}" for i in range(ROWS))]
    table = table_of(tmp_path, "\n".join(lines), dates=("since",))
    assert table.frame["since"].tolist()[:3] == [
        pd.Timestamp("2026-01-31"),
        pd.Timestamp("2026-01-31 06:30"),
        pd.Timestamp("2026-01-31 05:30"),
    ]


def test_a_parquet_file_knows_its_own_dates_and_booleans(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "seen": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(ROWS), unit="h"),
            "born": [datetime.date(1990, 1, 1 + i % 28) for i in range(ROWS)],
            "zoned": pd.date_range("2026-01-01", periods=ROWS, tz="Europe/Zurich"),
            "member": pd.array([True, None] * (ROWS // 2), dtype="boolean"),
            "count": pd.array([1, None, 3, 4] * (ROWS // 4), dtype="Int64"),
            "grade": pd.Categorical(["a", "b"] * (ROWS // 2)),
            "target": rng.normal(size=ROWS),
        },
        index=pd.Index(range(100, 100 + ROWS), name="row"),
    )
    frame.to_parquet(tmp_path / "table.parquet")
    table = load_table(DataPlan(source="table.parquet"), tmp_path)
    assert kinds(table) == {
        "seen": "date",
        "born": "date",
        "zoned": "date",
        "member": "boolean",
        "count": "number",
        "grade": "category",
    }
    assert table.signature.task == "regression"
    # Midnight in Zurich is eleven at night in UTC, the day before.
    assert table.frame["zoned"][0] == pd.Timestamp("2025-12-31 23:00")


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["yes", "no"], "binary", ("no", "yes")),
        (["a", "b", "c"], "multiclass", ("a", "b", "c")),
        (["True", "False"], "binary", ("False", "True")),
        (["10", "9"], "binary", ("9", "10")),
        (["0", "1", "2"], "multiclass", ("0", "1", "2")),
        (["1.0", "2.0"], "binary", ("1", "2")),
        (["0.5", "1.5"], "regression", ()),
        ([str(value) for value in range(21)], "regression", ()),
    ],
)
def test_the_task_is_read_off_the_target(
    tmp_path: Path, values: list[str], task: str, classes: tuple[str, ...]
) -> None:
    lines = ["x,target", *(f"{i},{values[i % len(values)]}" for i in range(84))]
    table = table_of(tmp_path, "\n".join(lines))
    assert (table.signature.task, table.signature.classes) == (task, classes)


def test_the_plan_may_say_that_few_whole_numbers_are_amounts(tmp_path: Path) -> None:
    table = table_of(tmp_path, "x,target\n" + "\n".join(f"{i},{i % 5}" for i in range(ROWS)), task="regression")
    assert table.signature.task == "regression"
    assert table.target.dtype == np.float64


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path: Path) -> None:
    table = table_of(tmp_path, b"\xef\xbb\xbf" + csv().encode())
    assert [column.name for column in table.signature.columns] == ["x", "colour"]


def test_fields_may_hold_commas_line_breaks_and_letters_of_any_language(tmp_path: Path) -> None:
    text = csv().replace("red", '"röd, \nljus"')
    assert "röd, \nljus" in set(table_of(tmp_path, text).frame["colour"])


def test_dropped_columns_are_gone(tmp_path: Path) -> None:
    assert list(table_of(tmp_path, csv(), drop=("colour",)).frame.columns) == ["x"]


@pytest.mark.parametrize(("distinct", "by_target"), [(100, False), (101, True)])
def test_more_texts_than_may_be_features_are_told_by_their_mean_target(
    tmp_path: Path, distinct: int, by_target: bool
) -> None:
    rows = "\n".join(f"{i},place {i % distinct},{i % 2}" for i in range(404))
    number, place = table_of(tmp_path, f"x,place,target\n{rows}").signature.columns
    assert (number.by_target, place.by_target) == (False, by_target)


class TestDigest:
    def test_the_same_content_has_the_same_digest_whatever_the_file(self, tmp_path: Path) -> None:
        first = table_of(tmp_path, csv())
        pd.read_csv(tmp_path / "table.csv").to_parquet(tmp_path / "other.parquet")
        assert load_table(DataPlan(source="other.parquet"), tmp_path).sha256 == first.sha256

    @pytest.mark.parametrize(
        "change",
        [{"seed": 8}, {"holdout": 0.3}, {"drop": ("colour",)}],
        ids=["seed", "holdout", "columns"],
    )
    def test_another_split_or_other_columns_have_another(self, tmp_path: Path, change: dict[str, Any]) -> None:
        assert table_of(tmp_path, csv()).sha256 != table_of(tmp_path, csv(), **change).sha256

    @pytest.mark.parametrize(("old", "new"), [("0.5,", "0.75,"), ("red", "blue"), ("x,", "z,"), ("yes", "ja")])
    def test_another_value_or_name_has_another(self, tmp_path: Path, old: str, new: str) -> None:
        assert table_of(tmp_path, csv()).sha256 != table_of(tmp_path, csv().replace(old, new)).sha256

    def test_it_is_a_promise_to_other_machines(self) -> None:
        table = load_table(DataPlan(source="sklearn:iris"), Path())
        assert table.sha256 == "805db53914911dd51f8ac9d1d58b654cef25ab386dfdab939061ab1247c208da"


REFUSED = {
    "ragged rows": (csv() + "1,2\n", {}, "Line 42 of .* has 2 fields, and the header has 3"),
    "a quote left open": (csv() + '1,"red,yes\n', {}, "is no CSV"),
    "another encoding": (csv().replace("red", "röd").encode("latin1"), {}, "is not UTF-8"),
    "UTF-16": (csv().encode("utf-16"), {}, "is UTF-16: save it again as UTF-8, for instance with `iconv -f utf-16 "),
    "UTF-16, big end first": ("\ufeff".encode("utf-16-be") + csv().encode("utf-16-be"), {}, "is UTF-16"),
    "UTF-32": (csv().encode("utf-32"), {}, "is UTF-32: save it again as UTF-8, for instance with `iconv -f utf-32 "),
    "a Parquet file": (b"PAR1\x15\x04" + bytes(100), {}, "is a Parquet file: give it a name that ends in .parquet"),
    "a workbook": (b"PK\x03\x04" + bytes(100), {}, "is a ZIP archive, as workbooks are"),
    "columns of one name": (csv("x,x,target"), {}, "several columns called 'x'"),
    "a column without a name": (csv(",colour,target"), {}, "Column 1 of .* has no name"),
    "an empty file": ("", {}, "is empty"),
    "blank lines only": ("\n\n", {}, "has no columns"),
    "a header only": ("x,colour,target\n", {}, "a header and no rows"),
    "another separator": (csv().replace(",", ";"), {}, "single column.*separated by ';'"),
    "an absent target": (csv("x,colour,targets"), {}, "'target', which .* does not have; did you mean targets"),
    "an unknown column to drop": (csv(), {"drop": ("color",)}, "`data.drop` names .*'color'.*did you mean colour"),
    "an unknown date": (csv(), {"dates": ("day",)}, "`data.dates` names the column 'day'.*its columns are x, colour"),
    "dates of mixed formats": (
        csv("since,colour,target", "{i:03.0f}.01.2026,{c},{y}", 1) + "2026-01-31,red,yes\n31/01/2026,red,no\n",
        {"dates": ("since",)},
        r"'since' .* 2 of its values are no ISO 8601 dates, the first '000\.01\.2026' in data row 1",
    ),
    "dates that nobody said are dates": (
        csv(row="{i:04.1f}.2026,{c},{y}"),
        {},
        "list it under `dates` if it holds dates",
    ),
    "a target of texts that are all different": (
        csv(row="{i},{c},{i}-{y}"),
        {},
        "40 distinct texts in 40 rows.*as identifiers",
    ),
    "a target of dates": (csv(row="{i},{y},{c}").replace("red", "1.2.2026").replace("green", "3.2.2026"), {}, "dates"),
    "a target of numbers and words": (
        csv(row="{i},{c},{i}").replace(",0.5\n", ",unknown\n"),
        {},
        "holds numbers in 39 of 40 rows, and texts in others or all, such as 'unknown': write every amount",
    ),
    "a dropped target": (csv(), {"drop": ("target",)}, "the column to predict: remove it from there"),
    "nothing left": (csv(), {"drop": ("x", "colour")}, "no column is left"),
    "a hole in the target": (csv().replace("yes", "", 3), {}, "no value in 3 of 40 rows"),
    "one class": (csv().replace("yes", "no"), {}, "the same value, 'no', in every row"),
    "a constant amount": (csv(row="{i},{c},3.5"), {}, "the same value, '3.5', in every row"),
    "a class of one row": (csv() + "1,red,maybe\n", {}, r"classes with a single row .*: maybe; merge or remove"),
    "many classes of one row": (
        csv(rows=80) + "".join(f"1,red,c{number:02}\n" for number in range(60)),
        {},
        "c00, c01, c02, c03, c04 and 55 more; merge",
    ),
    "a holdout without a class": (csv() + "1,red,maybe\n2,red,maybe\n", {}, "too small to be in the holdout: maybe"),
    "two rows": (csv(rows=2), {}, "leaves fewer than two on one side"),
    "fewer rows aside than classes": ("x,target\n1,a\n2,a\n3,b\n4,b\n5,c\n6,c\n", {}, "a side too small for 3 classes"),
    "a column of holes": (csv(row=",{c},{y}"), {}, "no values at all: leave the column out with `drop = "),
    "an infinite value": (csv() + "inf,red,yes\n", {}, "has 1 infinite values, the first in data row 41"),
    "an infinite target": (csv(row="{i},{c},{i}") + "1,red,-inf\n", {}, "'target' .* has 1 infinite values"),
    "a number beyond single precision": (csv() + "1e300,red,yes\n", {}, r"1 values beyond 3\.4e\+38.*data row 41"),
    "long identifiers": (
        csv(row="90071992547409{y},{c},{y}").replace("yes", "93").replace("no", "95"),
        {},
        r"drop = \[",
    ),
    "longer identifiers": (
        "größe,target\n" + "".join(f"{2**70 + row},{row % 2}\n" for row in range(40)),
        {},
        r'1180591620717411303424, in data row 1\. .*`drop = \["größe"\]`',
    ),
    "identifiers of 400 digits": (
        csv(row=f"1{'0' * 400},{{c}},{{y}}"),
        {},
        r"40 values beyond 3\.4e\+38.*first, 10{39},",
    ),
    "identifiers of 400 digits beside a hole": (csv() + f",red,no\n-{'9' * 399},red,yes\n", {}, "data row 42: replace"),
    "identifiers to predict": ("x,target\n" + "".join(f"{row},{2**70 + row}\n" for row in range(40)), {}, "2\\*\\*53"),
    "dates that are none": (csv(), {"dates": ("colour",)}, "40 of its values are no ISO 8601 dates, the first 'green'"),
    "dates that are numbers": (csv(), {"dates": ("x",)}, "only texts .* are read as dates"),
    "names of things": (csv(row="{i},thing-{i},{y}"), {}, "40 distinct values in 40 filled rows.*drop = "),
    "a text as an amount": (csv(), {"task": "regression"}, "is not a number, and `data.task` says regression"),
    "two classes as many": (csv(), {"task": "multiclass"}, "has 2 distinct values, and `data.task` says multiclass"),
    "too many classes": (
        "x,target\n" + "\n".join(f"{i},c{i // 2}" for i in range(202)),
        {},
        "101 distinct values, and at most 100 are taken as classes",
    ),
    "sentences": (
        "x,target\n" + "\n".join(f"the parcel number {i // 3} came late again,{i % 2}" for i in range(606)),
        {},
        "202 distinct texts in 606 filled rows, half of them of 6 words or more, such as 'the parcel number 0",
    ),
    "thirty sentences": (
        "x,target\n" + "\n".join(f"{'a' * (i // 3)} parcel that came too late,{i % 2}" for i in range(90)),
        {},
        "30 distinct texts in 90 filled rows, half of them of 6 words or more.*sentences are no categories",
    ),
    "numbers with a mark between thousands": (
        "x,target\n" + "\n".join(f'"{1 + i},500",{i % 2}' for i in range(40)),
        {},
        r"holds numbers, such as '1,500', in 40 of 40 filled rows\. .*write them with a point.*Or leave it out",
    ),
}


@pytest.mark.parametrize(
    "texts",
    [
        ["Married, spouse absent", "Never married", "Exec-managerial", "United States of America", "a", "b", "c"],
        ["Strongly agree with what was said", "Neither agree nor disagree with what was said", "I do not know at all"],
        [f"A reason of many words to call, the {letter}" for letter in "abcdefghijklmnopqrst"],
    ],
    ids=["of a census", "of a questionnaire", "again and again"],
)
def test_categories_may_have_many_words(tmp_path: Path, texts: list[str]) -> None:
    lines = ["x,said,target", *(f'{i},"{texts[i % len(texts)]}",{i % 2}' for i in range(400))]
    assert kinds(table_of(tmp_path, "\n".join(lines)))["said"] == "category"


@pytest.mark.parametrize(("text", "plan", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_a_table_that_cannot_be_searched_is_refused_with_the_reason(
    tmp_path: Path, text: str | bytes, plan: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        table_of(tmp_path, text, **plan)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("sklearn:iriss", "did you mean iris"),
        ("kaggle:61", "tables cannot be read from 'kaggle': use sklearn:NAME, openml:ID"),
        ("tables.csv", "did you mean table.csv"),
        ("nowhere/table.csv", "paths are relative to the scenario file"),
        ("folder.csv", "is a folder"),
        ("table.xlsx", "only .csv and .parquet files are read"),
        ("broken.parquet", "cannot be read as Parquet"),
    ],
)
def test_a_source_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path, source: str, told: str) -> None:
    (tmp_path / "table.csv").write_text(csv())
    (tmp_path / "table.xlsx").write_text("x")
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=told):
        load_table(DataPlan(source=source), tmp_path)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ([pd.Timedelta(hours=i) for i in range(ROWS)], "values of type timedelta"),
        ([[1, 2]] * ROWS, "values of type mixed"),
        ([b"raw"] * ROWS, "values of type bytes"),
    ],
)
def test_parquet_columns_that_no_model_takes_are_refused(tmp_path: Path, column: list[Any], told: str) -> None:
    frame = pd.DataFrame({"x": range(ROWS), "odd": column, "target": [0, 1] * (ROWS // 2)})
    frame.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(UsageError, match=told):
        load_table(DataPlan(source="table.parquet"), tmp_path)


BEYOND = 2**53 + 1
"""The first whole number that a double does not hold."""


@pytest.mark.parametrize("beyond", [BEYOND, -BEYOND, 2**60 + 1, 2**63 + 1, 2**70 + 1])
@pytest.mark.parametrize("beside", ["", "NA", "7"], ids=["hole", "word for a hole", "number"])
def test_whole_numbers_that_a_double_would_round_are_refused_beside_holes_too(
    tmp_path: Path, beyond: int, beside: str
) -> None:
    lines = ["x,target", f"{beside},0", *(f"{beyond + i},{i % 2}" for i in range(ROWS))]
    with pytest.raises(UsageError, match=rf"'x' .* the first, {beyond}, in data row 2\.") as refused:
        table_of(tmp_path, "\n".join(lines))
    assert 'leave the column out with `drop = ["x"]` under [data]' in str(refused.value)


def test_a_target_cannot_be_dropped_and_nobody_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'target' .*predict another column") as refused:
        table_of(tmp_path, "x,target\n" + "\n".join(f"{i},{BEYOND + i}" for i in range(ROWS)))
    assert "drop" not in str(refused.value)


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array(range(BEYOND, BEYOND + ROWS)),
        pyarrow.array(range(2**63 + 1, 2**63 + 1 + ROWS), pyarrow.uint64()),
        pyarrow.array([BEYOND, *[None] * (ROWS - 1)]),
        pyarrow.array([Decimal(2**70 + 1 + i) for i in range(ROWS)]),
    ],
    ids=["int64", "uint64", "with holes", "decimal"],
)
def test_whole_numbers_of_a_parquet_file_are_never_rounded_either(tmp_path: Path, column: Any) -> None:
    others = {"x": list(range(ROWS)), "target": [0, 1] * (ROWS // 2)}
    pyarrow.parquet.write_table(pyarrow.table({"id": column, **others}), tmp_path / "table.parquet")
    with pytest.raises(UsageError, match=r"'id' .* the first, .* in data row 1\."):
        load_table(DataPlan(source="table.parquet"), tmp_path)
    assert kinds(load_table(DataPlan(source="table.parquet", drop=("id",)), tmp_path)) == {"x": "number"}


def test_amounts_are_taken_however_large(tmp_path: Path) -> None:
    masses = ["9007199254740993.0", -(2**53), 3 * 2**80, "1.5e18", 3.4e38, ""]
    lines = ["mass,count,target", *(f"{masses[i % 6]},{'' if i % 3 else 2**53 - 1},{i % 2}" for i in range(ROWS))]
    table = table_of(tmp_path, "\n".join(lines))
    assert kinds(table) == {"mass": "number", "count": "number"}
    np.testing.assert_array_equal(table.frame["mass"][:6], [2.0**53, -(2.0**53), 3 * 2.0**80, 1.5e18, 3.4e38, np.nan])
    assert table.frame["count"].max() == 2**53 - 1


def test_decimal_fractions_of_a_parquet_file_are_amounts(tmp_path: Path) -> None:
    amounts = pyarrow.array([Decimal(f"9007199254740993.{i:02}") for i in range(1, ROWS + 1)])
    written = pyarrow.table({"x": amounts, "target": [0, 1] * (ROWS // 2)})
    pyarrow.parquet.write_table(written, tmp_path / "table.parquet")
    assert kinds(load_table(DataPlan(source="table.parquet"), tmp_path)) == {"x": "number"}


def with_days(folder: Path, unit: str, day: str) -> Table:
    days = np.array(["2026-01-01", day, "NaT", "0001-01-01"] * (ROWS // 4), dtype=f"datetime64[{unit}]")
    pd.DataFrame({"day": days, "target": [0, 1] * (ROWS // 2)}).to_parquet(folder / "table.parquet")
    return load_table(DataPlan(source="table.parquet"), folder)


@pytest.mark.parametrize("unit", ["us", "ms"])
@pytest.mark.parametrize(("day", "year"), [("10000-01-01", 10000), ("-0044-03-15", -44)])
def test_dates_that_no_request_can_carry_are_refused(tmp_path: Path, unit: str, day: str, year: int) -> None:
    with pytest.raises(UsageError, match=f"has 10 dates outside .*the year {year} in data row 2: write a hole"):
        with_days(tmp_path, unit, day)
    assert with_days(tmp_path, unit, "9999-12-31").frame["day"][1] == np.datetime64("9999-12-31")


def test_a_target_of_dates_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": range(ROWS), "target": pd.date_range("2026-01-01", periods=ROWS)})
    frame.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(UsageError, match="holds dates: predict a number"):
        load_table(DataPlan(source="table.parquet"), tmp_path)
