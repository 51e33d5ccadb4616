"""What is to be sent when: the same for everyone who is under the same load."""

import numpy as np
import pytest

from harness.records.load import Step
from harness.records.scenario import LoadPlan
from harness.stages.load.schedule import CLOSED_RPS_MAX, timetable

PLAN = LoadPlan(seed=3)


def open_step(number: int, rate_rps: float) -> Step:
    return Step(shape="t", number=number, mode="open", rate_rps=rate_rps, duration_s=2.0, warmup_s=0.0)


def closed_step(number: int, in_flight: int) -> Step:
    return Step(shape="t", number=number, mode="closed", in_flight=in_flight, duration_s=0.1, warmup_s=0.0)


def test_two_candidates_are_sent_the_same_at_a_rate_whenever_they_come_to_it() -> None:
    one, other = (timetable(PLAN, open_step(number, 500.0), 20) for number in (3, 8))
    assert np.array_equal(one.due_ns, other.due_ns) and np.array_equal(one.payload, other.payload)
    assert one.sha256 == other.sha256


@pytest.mark.parametrize(
    "other",
    [
        timetable(PLAN, open_step(3, 500.0), 20, repeat=1),
        timetable(PLAN, open_step(3, 501.0), 20),
        timetable(LoadPlan(seed=4), open_step(3, 500.0), 20),
        timetable(PLAN, open_step(3, 500.0), 21),
    ],
    ids=["a repeat", "another rate", "another seed", "other payloads"],
)
def test_whatever_else_differs_makes_another_plan(other) -> None:
    assert other.sha256 != timetable(PLAN, open_step(3, 500.0), 20).sha256


def test_closed_load_has_payloads_for_as_many_requests_as_could_be_sent() -> None:
    table = timetable(PLAN, closed_step(0, 8), 20)
    assert len(table.due_ns) == 0
    assert len(table.payload) >= CLOSED_RPS_MAX * 0.1
    assert table.sha256 == timetable(PLAN, closed_step(5, 8), 20).sha256


def test_a_step_without_its_rate_is_a_bug_of_ours() -> None:
    for mode in ("open", "closed"):
        with pytest.raises(ValueError, match="has no"):
            timetable(PLAN, Step(shape="t", number=0, mode=mode, duration_s=1.0, warmup_s=0.0), 1)
