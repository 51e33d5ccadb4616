"""Where a server's time went, by its own word: read strictly, and asked of some rows only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.load import NEVER, STAGE_COLUMNS, STAGES
from harness.serving.inference import _server_timing
from harness.serving.work import Job
from harness.stages.load.timing import DENSE, SAMPLE, SPARSE, chosen, stage_columns, stages_ns

OURS = "received;dur=0.011, queued;dur=0.200, decoded;dur=3.000, predicted;dur=40.123, encoded;dur=0.000"
READ = (11_000, 200_000, 3_000_000, 40_123_000, 0)


def test_what_our_own_server_writes_is_read_to_the_microsecond():
    job = Job(None, b"", None, began_s=1.0, received_s=1.000011)
    job.taken_s, job.decoded_s, job.predicted_s, job.encoded_s = 1.000211, 1.003211, 1.043334, 1.043334
    assert _server_timing(job).decode() == OURS
    assert stages_ns(OURS) == READ


@pytest.mark.parametrize("header", ["cdn;desc=hit, {}", "{}, edge;dur=12", "{},total", "{} , a;dur=1e9;desc=x"])
def test_what_a_proxy_adds_is_left_aside(header):
    assert stages_ns(header.format(OURS)) == READ


@pytest.mark.parametrize(
    "header",
    [
        "",
        "total;dur=5",
        OURS.replace(", encoded;dur=0.000", ""),
        f"{OURS}, queued;dur=0.200",
        OURS.replace("0.200", "-0.200"),
        OURS.replace("0.200", "nan"),
        OURS.replace("0.200", "1e3"),
        OURS.replace("0.200", "99999999.000"),
        OURS.replace("0.200", "0.2001"),
        OURS.replace("0.200", ".2"),
        OURS.replace("0.200", "\N{ARABIC-INDIC DIGIT TWO}"),
        OURS.replace("queued;dur", "queued; dur"),
        OURS.replace("queued", "Queued"),
        OURS.replace(", ", "; "),
        '"' + OURS,
    ],
)
def test_what_is_not_exactly_ours_says_nothing(header):
    assert stages_ns(header) is None


@given(st.text(max_size=300) | st.lists(st.sampled_from([*OURS.split(", "), ",", ";", "queued;dur=", "9" * 20])))
def test_whatever_a_stranger_says_is_stages_or_nothing(header):
    read = stages_ns(header if isinstance(header, str) else ",".join(header))
    assert read is None or (len(read) == len(STAGES) and all(0 <= length < 1e16 for length in read))


def test_rows_that_were_not_asked_or_said_nothing_have_no_stages():
    columns = stage_columns({1: OURS, 3: "total;dur=5"}, 4)
    assert {name: str(column.dtype) for name, column in columns.items()} == STAGE_COLUMNS
    assert tuple(column[1] for column in columns.values()) == READ
    assert all((np.delete(column, 1) == NEVER).all() for column in columns.values())


@pytest.mark.parametrize("rows", [0, 1, SAMPLE, 50 * SAMPLE])
def test_of_a_plan_all_rows_are_asked_or_a_sample_of_them(rows):
    asked = chosen(rows, planned=True)
    assert len(asked) == rows and set(asked) <= {0, 1}
    assert sum(asked) == rows or abs(sum(asked) - SAMPLE) < 0.1 * SAMPLE


def test_of_a_closed_step_the_first_rows_are_asked_and_few_of_the_others():
    asked = np.frombuffer(chosen(100_000, planned=False), dtype=np.uint8)
    assert asked[:DENSE].all()
    assert asked[DENSE:].mean() == pytest.approx(SPARSE, rel=0.1)


def test_the_sample_has_no_rhythm():
    """With as many connections, of which each has its turn, every one of them is asked about as often as the others."""
    rows = np.flatnonzero(np.frombuffer(chosen(64_000, planned=True), dtype=np.uint8))
    counts = np.bincount(rows % 16, minlength=16)
    assert counts.min() > 0.7 * counts.mean()
