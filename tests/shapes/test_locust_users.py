"""Locust users: one step, at the rate of the open step before it unless told otherwise."""

import pytest

from harness.errors import UsageError
from harness.records.load import Rung, Step
from harness.shapes.locust_users import LocustUsers


def rung(**asked: object) -> Rung:
    step = Step(shape="elsewhere", number=0, duration_s=1.0, warmup_s=0.1, **asked)
    return Rung(step=step, throughput_rps=100.0, p99_s=0.01, error_share=0.0)


def test_it_takes_the_rate_of_the_last_open_step_and_comes_once() -> None:
    before = [rung(mode="open", rate_rps=200.0), rung(mode="open", rate_rps=400.0), rung(mode="closed", in_flight=2)]
    step = LocustUsers(users=3).next_step(before)
    assert step is not None
    assert (step.mode, step.users, step.in_flight, step.pace_rps, step.number) == ("closed", True, 3, 400.0, 3)
    assert step.label == "3 users at 400 req/s"
    after = Rung(step=step, throughput_rps=100.0, p99_s=0.01, error_share=0.0)
    assert LocustUsers(users=3).next_step([*before, after]) is None


def test_a_rate_of_its_own_needs_no_step_before() -> None:
    step = LocustUsers(rate_rps=50.0).next_step([])
    assert step is not None and step.label == "1 user at 50 req/s"


def test_without_either_it_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match=r"takes its rate from an open step before it.*behind the stairs"):
        LocustUsers().next_step([rung(mode="closed", in_flight=2)])
