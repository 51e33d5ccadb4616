"""A table that is far too large is refused before it is read."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from harness.errors import UsageError
from harness.records.table import DataPlan
from harness.stages.data import load_table
from harness.stages.memory import TableSize, csv_size, parquet_size, refuse_too_large
from harness.stages.synthetic import synthetic_plan

GIGABYTE = 10**9


def two_gigabytes(folder: Path) -> None:
    """A CSV file of 2 GB that takes 2 MB of the disk: a hole follows its first rows."""
    path = folder / "table.csv"
    with path.open("w") as file:
        file.write("size,colour,target\n")
        file.writelines(f"{row % 1000:09.3f},red,{row % 2}\n" for row in range(100_000))
    os.truncate(path, 2 * GIGABYTE)
    assert path.stat().st_blocks * 512 < 5_000_000


def test_a_csv_file_of_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    two_gigabytes(tmp_path)  # read to its end, it would be refused for what is in its hole
    with pytest.raises(UsageError, match=r"about \d+,\d+,\d+ rows of 3 columns.*the limit given.*a sample") as refused:
        load_table(DataPlan(source="table.csv"), tmp_path, memory_bytes=4 * GIGABYTE)
    assert "\n" not in str(refused.value)


def test_a_parquet_file_is_refused_by_what_it_says_of_itself(tmp_path: Path) -> None:
    rows = 5_000_000
    constant = pyarrow.array(np.zeros(rows, dtype=np.int8))
    written = pyarrow.table({"a": constant, "b": constant, "target": constant})
    pyarrow.parquet.write_table(written, tmp_path / "table.parquet")
    assert (tmp_path / "table.parquet").stat().st_size < 100_000
    with pytest.raises(UsageError, match=r"about 5,000,000 rows of 3 columns, to hold which takes about 916 MiB"):
        load_table(DataPlan(source="table.parquet"), tmp_path, memory_bytes=GIGABYTE // 2)


def test_a_synthetic_table_is_refused_before_it_is_made() -> None:
    plan = DataPlan(source="synthetic:binary", parameters={"rows": 100_000_000, "columns": 10_000})
    with pytest.raises(UsageError, match=r"100,000,000 rows of 10,000 columns.*are free here"):
        load_table(plan, Path())


def test_the_matrices_that_mix_informative_columns_count() -> None:
    parameters: dict[str, Any] = {"rows": 20, "columns": 20_000, "informative_share": 1.0}
    few = DataPlan(source="synthetic:binary", parameters=parameters)  # its cells are 26 MB, and its matrices 6.4 GB
    with pytest.raises(UsageError, match=r"about 20 rows of 20,000 columns, to hold which takes about 5\.98 GiB"):
        load_table(few, Path(), memory_bytes=GIGABYTE)
    assert synthetic_plan("regression", parameters).size("regression").peak_bytes < GIGABYTE // 10


def test_a_table_that_fits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x,target\n" + "".join(f"{row},{row % 2}\n" for row in range(1_000)))
    assert len(load_table(DataPlan(source="table.csv"), tmp_path, memory_bytes=10**6).frame) == 1_000


@pytest.mark.parametrize("rows", [100, 200_000])
def test_the_measures_of_a_csv_file_are_near_the_truth(tmp_path: Path, rows: int) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"a": rng.normal(size=rows), "b": rng.integers(0, 9, rows), "c": rng.choice(["x", "yy"], rows)}
    )
    frame.to_csv(tmp_path / "table.csv", index=False)
    found = csv_size(tmp_path / "table.csv", "utf-8-sig")
    assert found.rows == pytest.approx(rows, rel=0.01)
    assert (found.numbers, found.texts) == (2, 1)


def test_the_measures_of_a_parquet_file_are_the_truth(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0.5] * 70, "b": [True] * 70, "c": ["x"] * 70, "d": pd.Timestamp("2026-01-01")})
    frame.to_parquet(tmp_path / "table.parquet")
    assert parquet_size(tmp_path / "table.parquet") == TableSize(rows=70, numbers=3, texts=1)


@pytest.mark.parametrize("text", ["", "\n\n", "a,b\n", '"', "\x00\x00"])
def test_what_is_no_table_has_a_size_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    refuse_too_large(csv_size(tmp_path / "table.csv", "utf-8-sig"), GIGABYTE, "It")
