"""From raw columns to what a model sees: the calendar is checked against the standard library's."""

import datetime
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.candidate import Column
from harness.records.rows import Batch
from harness.space.parts import model_columns, model_inputs
from harness.space.preprocess import RawColumns, to_batch, to_frame

COLUMNS = (
    Column(name="size", kind="number"),
    Column(name="colour", kind="category"),
    Column(name="since", kind="date"),
    Column(name="member", kind="boolean"),
)
EPOCH = datetime.datetime(1970, 1, 1)


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "member": [True, False, None],
            "colour": ["red", None, "green"],
            "size": [1.5, float("nan"), -2.0],
            "since": [pd.Timestamp("2026-01-31 18:00"), pd.NaT, pd.Timestamp("1969-12-31")],
            "unused": [1, 2, 3],
        }
    )


def test_a_batch_holds_the_columns_in_signature_order_with_their_holes() -> None:
    batch = to_batch(frame(), COLUMNS)
    days = (datetime.date(2026, 1, 31) - datetime.date(1970, 1, 1)).days + 0.75
    np.testing.assert_array_equal(batch.numbers, [[1.5, days, 1.0], [np.nan, np.nan, 0.0], [-2.0, -1.0, np.nan]])
    assert batch.texts.tolist() == [["red"], [""], ["green"]]


def test_a_table_of_one_kind_leaves_the_other_matrix_without_columns() -> None:
    batch = to_batch(frame(), COLUMNS[:1])
    assert batch.numbers.shape == (3, 1)
    assert batch.texts.shape == (3, 0)
    assert to_batch(frame(), COLUMNS[1:2]).numbers.shape == (3, 0)


def test_a_batch_survives_the_way_to_a_frame_and_back() -> None:
    batch = to_batch(frame(), COLUMNS)
    again = to_batch(to_frame(batch, COLUMNS), COLUMNS)
    np.testing.assert_array_equal(batch.numbers, again.numbers)
    np.testing.assert_array_equal(batch.texts, again.texts)


def test_texts_of_dates_mean_what_timestamps_mean_with_and_without_time_and_zone() -> None:
    column = (Column(name="since", kind="date"),)
    texts = pd.DataFrame({"since": ["2026-01-31", "2026-01-31T18:00:00", "2026-01-31T20:00:00+02:00", None]})
    days = to_batch(texts, column).numbers[:, 0]
    assert days[1] - days[0] == 0.75
    assert days[2] == days[1]
    assert np.isnan(days[3])


SINCE = (Column(name="since", kind="date"),)


def parts_of(moments: list[datetime.datetime]) -> np.ndarray:
    """As a runtime sees them that computes on a batch."""
    dates = np.array(moments, dtype="datetime64[us]")
    return model_inputs(SINCE)(to_batch(pd.DataFrame({"since": dates}), SINCE))[0]


def calendar(moment: datetime.datetime) -> list[int]:
    return [moment.year, moment.month, moment.day, moment.weekday(), moment.hour]


@given(st.datetimes(min_value=datetime.datetime(1900, 1, 1), max_value=datetime.datetime(2149, 1, 1)))
def test_the_parts_of_a_date_are_the_calendars_to_the_microsecond(moment: datetime.datetime) -> None:
    parts = parts_of([moment])[0]
    assert parts[0] == pytest.approx((moment - EPOCH).total_seconds() / 86400, abs=1e-9)
    assert parts[1:].tolist() == calendar(moment)


@pytest.mark.parametrize(
    "day",
    [
        datetime.datetime(1, 1, 1),
        datetime.datetime(1600, 2, 29),
        datetime.datetime(1969, 12, 31),
        datetime.datetime(1970, 1, 1),
        datetime.datetime(2026, 1, 31),
        datetime.datetime(2300, 6, 15),
        datetime.datetime(9999, 12, 31),
    ],
    ids=lambda day: str(day.year),
)
def test_a_full_hour_is_that_hour_on_every_runtime(day: datetime.datetime) -> None:
    hours = [day + datetime.timedelta(hours=hour) for hour in range(24)]
    parts = parts_of(hours)
    assert parts[:, 1:].tolist() == [calendar(moment) for moment in hours]
    # As a runtime sees them that takes the same batch as a frame.
    batch = to_batch(pd.DataFrame({"since": np.array(hours, dtype="datetime64[us]")}), SINCE)
    assert (RawColumns(["since"], ["date"]).fit_transform(to_frame(batch, SINCE)).to_numpy() == parts).all()


def test_the_last_microsecond_of_a_day_belongs_to_it() -> None:
    for day in (datetime.datetime(1969, 12, 31), datetime.datetime(2026, 1, 31)):
        last = day + datetime.timedelta(days=1, microseconds=-1)
        assert parts_of([last])[0, 1:].tolist() == calendar(last)


def test_a_hole_beside_a_date_leaves_the_date_whole() -> None:
    days = np.array([[np.nan], [20484 + 2 / 24], [np.nan]])
    batch = Batch(days, np.empty((3, 0), dtype=object))
    parts = model_inputs(SINCE)(batch)[0]
    assert np.isnan(parts[[0, 2]]).all()
    assert parts[1, 1:].tolist() == [2026, 1, 31, 5, 2]
    assert to_frame(batch, SINCE)["since"].tolist() == [pd.NaT, pd.Timestamp("2026-01-31 02:00"), pd.NaT]


def test_a_missing_date_has_no_parts() -> None:
    batch = Batch(np.array([[np.nan]]), np.empty((1, 0), dtype=object))
    assert np.isnan(model_inputs((Column(name="since", kind="date"),))(batch)[0]).all()


def test_the_model_sees_numbers_then_texts_with_dates_as_parts() -> None:
    numbers, texts = model_columns(COLUMNS)
    assert numbers == (
        "size",
        "since.days",
        "since.year",
        "since.month",
        "since.day",
        "since.weekday",
        "since.hour",
        "member",
    )
    assert texts == ("colour",)
    made = RawColumns([c.name for c in COLUMNS], [c.kind for c in COLUMNS]).fit_transform(frame())
    assert list(made.columns) == [*numbers, *texts]
    assert made["since.year"].tolist()[:1] == [2026.0]


def test_a_column_called_like_a_part_of_a_date_stays_a_column() -> None:
    columns = (Column(name="since", kind="date"), Column(name="since.days", kind="category"))
    raw = pd.DataFrame({"since": pd.to_datetime(["2026-01-31"]), "since.days": ["many"]})
    made = RawColumns([c.name for c in columns], [c.kind for c in columns]).fit_transform(raw)
    assert made.shape == (1, 7)
    assert made.iloc[0, 0] == 20484.0
    assert made.iloc[0, 6] == "many"


def test_the_rows_of_a_frame_keep_their_index() -> None:
    picked = frame().iloc[[2, 0]]
    made = RawColumns(["size", "colour"], ["number", "category"]).fit_transform(picked)
    assert made.index.tolist() == [2, 0]
    assert made["size"].tolist() == [-2.0, 1.5]
    assert made["colour"].tolist() == ["green", "red"]


def test_the_step_travels_between_processes() -> None:
    step = RawColumns(["size"], ["number"]).fit(frame())
    again = pickle.loads(pickle.dumps(step))
    pd.testing.assert_frame_equal(step.transform(frame()), again.transform(frame()))
