"""Tables as people have them, put before the command: read in a stated way, or refused in a paragraph with status 2."""

import gzip
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import tomli_w

from harness.cli.main import main

ROWS = 120
GIGABYTE = 10**9

Told = tuple[int, str, str]
"""Exit status, stdout, stderr."""
Command = Callable[..., Told]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """`harness VERB` on a scenario whose table is `table.csv`, or what `source` names, beside it."""
    before = signal.getsignal(signal.SIGTERM)

    def run(verb: str = "check", *options: str, **data: Any) -> Told:
        scenario = {
            "question": "Can it be searched?",
            "data": {"source": "table.csv", **data},
            "search": {"engines": ["random_search"], "trials": 2},
        }
        path = tmp_path / "scenario.toml"
        path.write_text(tomli_w.dumps(scenario))
        status = main([verb, str(path), *options])
        out, err = capsys.readouterr()
        return status, out, err

    yield run
    signal.signal(signal.SIGTERM, before)


def frame(**columns: Any) -> pd.DataFrame:
    """Two numbers and a category, and a target that the first tells most of."""
    rng = np.random.default_rng(2)
    size = rng.normal(size=ROWS)
    target = np.where(size + 0.3 * rng.normal(size=ROWS) > 0, "yes", "no")
    plain = {"size": size.round(4), "weight": rng.normal(size=ROWS).round(4), "kind": rng.choice(["a", "b"], ROWS)}
    return pd.DataFrame({**plain, **columns, "target": target}).assign(**columns)


def cycled(*values: Any) -> list[Any]:
    return [values[row % len(values)] for row in range(ROWS)]


def csv(**columns: Any) -> str:
    return str(frame(**columns).to_csv(index=False))


MIXED = cycled("2026-01-31", "31/01/2026", "1.2.2026")
SENTENCES = [f"the parcel {'x' * (row % 40)} came late" for row in range(ROWS)]

REFUSED: dict[str, tuple[str | bytes, dict[str, Any], list[str]]] = {
    "ragged rows": (csv() + "1,2\n", {}, ["Line 122 of", "has 2 fields, and the header has 4"]),
    "another encoding": (csv(kind=cycled("röd", "blå")).encode("latin1"), {}, ["is not UTF-8 (byte 0xf6)", "iconv"]),
    "null bytes": (csv(kind=cycled("a", "b\0")), {}, ["Line 3 of", "null byte", "tr -d"]),
    "compressed": (gzip.compress(csv().encode()), {}, ["is compressed by gzip", "gunzip"]),
    "semicolons and decimal commas": (
        str(frame().to_csv(index=False, sep=";", decimal=",")),
        {},
        ["a single column, 'size;weight;kind;target'", "separated by ';': separate them by commas"],
    ),
    "a target of unique strings": (
        csv(target=[f"id-{row}" for row in range(ROWS)]),
        {},
        ["120 distinct texts in 120 rows, such as 'id-0'", "as identifiers, names and free text do"],
    ),
    "infinities": (csv(weight=cycled(1.5, np.inf)), {}, ["'weight'", "60 infinite values, the first in data row 2"]),
    "dates of mixed formats": (
        csv(seen=MIXED),
        {},
        ["'seen' holds dates that are written in 3 ways ('2026-01-31', '31/01/2026', '1.2.2026')", "under `dates`"],
    ),
    "dates of mixed formats that are said to be dates": (
        csv(seen=MIXED),
        {"dates": ["seen"]},
        ["80 of its values are no ISO 8601 dates, the first '31/01/2026' in data row 2"],
    ),
    "dates of the year 0": (csv(seen="0000-12-31"), {"dates": ["seen"]}, ["120 dates outside the years 1 to 9999"]),
    "sentences": (csv(said=SENTENCES), {}, ["'said'", "40 distinct texts", "sentences are no categories", "drop = "]),
    "names with line breaks": (
        csv(**{"a\nb": 1}),
        {"target": "absent"},
        ["'absent', which the table table.csv does not have; its columns are size, weight, kind, a b"],
    ),
    "classes with line breaks": (
        csv(target=["a\nb", *["c", "d"] * (ROWS // 2)][:ROWS]),
        {},
        ["classes with a single row cannot be learned and checked: a b; merge or remove"],
    ),
    "a name that no disk takes": (csv(), {"source": "t" * 300 + ".csv"}, ["cannot be read: File name too long"]),
    "bounds of a column of texts": (
        csv(),
        {"columns": {"kind": {"at_least": 1.0}}},
        ["'kind' is of kind category, and at_least and at_most are about numbers"],
    ),
    "a column that gives the answer away": (
        csv(paid=frame()["target"].map({"yes": 1, "no": 0})),
        {},
        ["The table table failed its checks: The column 'paid' alone predicts", 'accept = ["leaking_column"]'],
    ),
    "copies in the holdout": (
        "\n".join([csv(), *csv().splitlines()[1:], ""]).replace("\n\n", "\n"),
        {},
        ["failed its checks", "holdout rows have the same features as a training row", 'accept = ["shared_rows"]'],
    ),
}


@pytest.mark.parametrize(("text", "data", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_a_table_is_refused_in_a_paragraph(
    command: Command, tmp_path: Path, text: str | bytes, data: dict[str, Any], told: list[str]
) -> None:
    (tmp_path / "table.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    status, out, err = command(**data)
    assert (status, out) == (2, "")
    assert err.startswith("harness: ") and err.count("\n") == 1
    assert [part for part in told if part not in err] == []


def test_texts_of_a_parquet_file_that_are_not_utf_8_are_told(command: Command, tmp_path: Path) -> None:
    ends = np.arange(0, 2 * (ROWS + 1), 2, dtype=np.int32)
    texts = pyarrow.StringArray.from_buffers(ROWS, pyarrow.py_buffer(ends), pyarrow.py_buffer(b"\xff\xfe" * ROWS))
    table = pyarrow.Table.from_pandas(frame()).append_column("name", texts)
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    status, _, err = command(source="table.parquet")
    assert status == 2
    assert "The column 'name' of" in err and "has texts that are not UTF-8" in err


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}], ids=["lists", "records"])
def test_groups_of_a_parquet_file_that_have_no_names_are_told(command: Command, tmp_path: Path, value: Any) -> None:
    frame(group=[value] * ROWS).to_parquet(tmp_path / "table.parquet")
    status, _, err = command(source="table.parquet", split="grouped", group="group")
    assert status == 2
    assert "The column 'group' of the table table.parquet names the groups of the rows, and holds values that" in err


@pytest.mark.parametrize("fault", ["a column that gives the answer away", "copies in the holdout"])
def test_a_table_that_fails_its_checks_stops_a_run_before_there_is_one(
    command: Command, tmp_path: Path, fault: str
) -> None:
    text, _, told = REFUSED[fault]
    (tmp_path / "table.csv").write_text(str(text))
    status, out, err = command("run", "--results", str(tmp_path / "results"))
    assert (status, out) == (2, "")
    assert told[0] in err and err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("verb", ["check", "run"])
def test_two_gigabytes_beyond_the_memory_given_are_refused_unread(command: Command, tmp_path: Path, verb: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("size,kind,target\n" + "1.5,red,0\n" * 150_000)
    os.truncate(path, 2 * GIGABYTE)  # what follows is a hole: it takes no disk
    results = ["--results", str(tmp_path / "results")] if verb == "run" else []
    status, out, err = command(verb, "--set", "search.memory_bytes=4000000000", *results)
    assert (status, out) == (2, "")
    assert "rows of 3 columns, to hold which takes about" in err
    assert "3.73 GiB are the limit given (`search.memory_bytes`): bring a sample of its rows" in err
    assert not (tmp_path / "results").exists()


def test_what_can_be_read_is_told_with_what_speaks_against_it(command: Command, tmp_path: Path) -> None:
    """A byte order mark, line ends of Windows, dates that nobody said are dates, a constant."""
    text = csv(seen=cycled("2026-01-31", "2026-02-28", ""), always=1).replace("\n", "\r\n")
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    status, out, err = command()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].split(maxsplit=1)[1] == (
        "table: binary; 90 rows to learn from, 30 held out; columns: category 2, number 3"
    )
    assert lines[2].split(maxsplit=2)[:2] == ["warning", "mistaken_kind:"]
    assert lines[3].split(maxsplit=2)[:2] == ["warning", "constant_column:"]
    assert lines[-1].endswith("nothing was run.")


def test_a_program_reads_the_checks_as_rows(command: Command, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(csv(seen=MIXED))
    status, out, _ = command("check", "--json", accept=["mistaken_kind"])
    (table,) = json.loads(out)["tables"]
    assert status == 0
    assert [check["column"] for check in table["checks"] if check["verdict"] == "fail"] == ["seen"]


def test_ten_thousand_columns_are_read_and_checked(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names = [f"x{column}" for column in range(9_900)] + [f"t{column}" for column in range(99)]
    lines = [",".join([*names, "twin", "target"])]
    for row in range(60):
        numbers = [str(number) for number in rng.integers(0, 1_000, 9_900)]
        texts = rng.choice(["red", "green"], 99).tolist()
        lines.append(",".join([*numbers, *texts, numbers[7], "yes" if row % 2 else "no"]))
    (tmp_path / "table.csv").write_text("\n".join(lines))
    status, out, err = command()
    assert (status, err) == (0, "")
    assert "columns: category 99, number 9,901" in out
    assert "duplicate_column: The column 'twin' is a copy of 'x7'" in out
