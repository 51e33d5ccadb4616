"""The raw exchanges on disk: the same columns back, small, and never half a file."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.errors import IntegrityError
from harness.records.arrivals import Poisson
from harness.records.load import EXCHANGE_COLUMNS, NEVER, STAGE_COLUMNS, Outcome
from harness.stats.arrivals import due_ns, payload_order
from harness.store.exchanges import read_exchanges, write_exchanges


def realistic(rows_per_s: float = 2000.0):
    """Three seconds of Poisson arrivals, answered after a millisecond or so."""
    random = np.random.default_rng(7)
    due = due_ns(Poisson(), rows_per_s, 3.0, seed=7)
    n = len(due)
    dispatch = due + random.gamma(2.0, 50_000, n).astype(np.int64)
    sent = dispatch + random.gamma(2.0, 2_000, n).astype(np.int64)
    done = sent + random.gamma(2.0, 500_000, n).astype(np.int64)
    columns = {
        "due_ns": due,
        "dispatch_ns": dispatch,
        "sent_ns": sent,
        "done_ns": done,
        "status": np.full(n, 200, np.int16),
        "outcome": np.full(n, Outcome.OK, np.int8),
        "bytes": random.integers(150, 160, n).astype(np.int32),
        "payload": payload_order(n, 200, seed=7),
        "worker": np.zeros(n, np.int16),
    }
    # All of so few rows are asked: the worst case of a file.
    for stage, mean_ns in zip(STAGE_COLUMNS, (5e3, 4e4, 5e4, 2e5, 4e4), strict=True):
        columns[stage] = 1000 * (random.gamma(4.0, mean_ns / 4, n) / 1000).astype(np.int64)
    columns["done_ns"][5] = NEVER
    return columns


def same(left, right):
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


def test_columns_come_back_as_they_were(tmp_path):
    columns = realistic()
    write_exchanges(tmp_path / "a.parquet", columns)
    assert same(read_exchanges(tmp_path / "a.parquet"), columns)


@given(st.data(), st.integers(0, 40))
def test_any_values_of_the_right_types_come_back(tmp_path_factory, data, rows):
    columns = {name: data.draw(arrays(dtype, rows)) for name, dtype in EXCHANGE_COLUMNS.items()}
    path = tmp_path_factory.mktemp("any") / "a.parquet"
    write_exchanges(path, columns)
    assert same(read_exchanges(path), columns)


def test_an_exchange_takes_at_most_thirty_bytes(tmp_path):
    columns = realistic()
    write_exchanges(tmp_path / "a.parquet", columns)
    assert (tmp_path / "a.parquet").stat().st_size / len(columns["due_ns"]) <= 30


def test_the_digest_is_of_the_file_and_the_same_for_the_same_columns(tmp_path):
    digests = [write_exchanges(tmp_path / name, realistic()) for name in ("a.parquet", "b.parquet")]
    assert digests == [hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest()] * 2


def test_a_missing_file_is_an_integrity_error(tmp_path):
    with pytest.raises(IntegrityError, match="missing"):
        read_exchanges(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_torn_file_is_an_integrity_error(tmp_path, share):
    path = tmp_path / "a.parquet"
    write_exchanges(path, realistic())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(IntegrityError, match="damaged"):
        read_exchanges(path)


def test_a_file_of_other_columns_is_an_integrity_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"due_ns": [1, 2]}), path)
    with pytest.raises(IntegrityError, match="does not hold the columns"):
        read_exchanges(path)


def test_a_file_from_before_servers_were_asked_for_their_stages_is_read_without_them(tmp_path):
    columns = realistic()
    write_exchanges(tmp_path / "new.parquet", columns)
    older = pq.read_table(tmp_path / "new.parquet").drop_columns(list(STAGE_COLUMNS))
    pq.write_table(older, tmp_path / "old.parquet")
    unknown = {name: np.full(len(older), NEVER) for name in STAGE_COLUMNS}
    assert same(read_exchanges(tmp_path / "old.parquet"), columns | unknown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda columns: columns.pop("worker"), "exchange columns are"),
        (lambda columns: columns.update(extra=columns["status"]), "exchange columns are"),
        (lambda columns: columns.update(status=columns["status"].astype(np.int64)), "status is int16"),
        (lambda columns: columns.update(status=columns["status"][:-1]), "differ in shape"),
    ],
)
def test_columns_that_are_not_exchanges_are_refused_and_leave_no_file(tmp_path, change, message):
    columns = realistic()
    change(columns)
    with pytest.raises(ValueError, match=message):
        write_exchanges(tmp_path / "a.parquet", columns)
    assert list(tmp_path.iterdir()) == []
