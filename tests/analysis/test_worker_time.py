"""Where workers' time went, against schedules drawn by hand."""

import math

import pytest

from harness.analysis.worker_time import worker_time
from harness.records.candidate import Evaluated, Trial
from harness.records.growth import Spent
from harness.records.run import Cause, Failure, SearchStart


def trial(
    number: int,
    worker: int,
    asked_s: float,
    sent_s: float,
    finished_s: float,
    took_s: float,
    fit_s: float,
    cause: Cause | None = None,
    **drivers_s: float,
) -> Trial:
    evaluated = Evaluated(
        configuration={"family": "knn"},
        fold_scores=() if cause else (0.5,),
        duration_s=took_s,
        fit_s=fit_s,
        worker=worker,
        failure=None if cause is None else Failure.of(cause, "ended"),
    )
    return Trial(
        cell="c",
        number=number,
        asked=number,
        asked_s=asked_s,
        sent_s=sent_s,
        finished_s=finished_s,
        evaluated=evaluated,
        **drivers_s,
    )


def test_every_second_of_a_schedule_is_where_it_was_spent() -> None:
    """Two workers. The driver asks from 0 to 1 and to 2; the first ends at 6, is stored for a quarter of a second and
    told until 7; from there it asks anew until 9.
    """
    found = worker_time(
        [
            trial(0, 0, 0.0, 1.0, 6.0, took_s=4.0, fit_s=3.0, transport_s=0.2),  # a second on the way
            # Ends at 9, while nothing is asked; it is stored for half a second, which nobody waits for.
            trial(1, 1, 1.0, 2.0, 10.0, took_s=7.0, fit_s=7.0, last_store_s=0.25),
            trial(2, 0, 7.0, 9.0, 14.0, took_s=5.0, fit_s=5.0, last_store_s=0.5),
        ],
        workers=3,
        beside_s=0.5,
        start=SearchStart(took_s=0.4, put_s=0.1, fetched_s=(0.05, 0.05, 0.1)),
    )
    assert found.wall_s == 14.0
    assert found.spent_s == pytest.approx(
        {
            Spent.FIT: 15.0,
            Spent.SCORE: 1.0,
            Spent.LOST: 0.0,
            Spent.ASK: 1.0 + 2.0 + 2.0,  # worker 1 waits for worker 0's proposal, then for its own
            Spent.STORED: 0.25,
            Spent.TOLD: 0.75,
            Spent.HAND_OVER: 1.0 + 1.0,
            Spent.RESTART: 0.0,
            Spent.OBJECT_STORE: 3 * 0.1 + 0.2,  # all wait for the driver's putting, each for its own fetching
            Spent.START: 3 * 0.4 - 0.5,
            Spent.READY: 3 * 0.1,
            Spent.END: 4.0,
            Spent.UNUSED: 14.0,
        }
    )
    assert math.fsum(found.spent_s.values()) == pytest.approx(3 * (14.0 + 0.5))
    # By the order of their ends: asked 1 s, sent and fetched 0.2 s, stored and told 1 s; asked 1 s, and stored 0.5 s
    # after the last ask, where nobody sees how long the telling took; of the last one not even the storing.
    assert found.coordinator_s == pytest.approx((2.2, 1.5, 2.0))


def test_a_worker_waits_for_what_the_driver_does_for_others() -> None:
    """Worker 1 is done at 3, and is heard at 6: the driver asks for worker 0 from 2 to 5, and stores nothing."""
    found = worker_time(
        [
            trial(0, 0, 0.0, 0.0, 2.0, took_s=2.0, fit_s=2.0),
            trial(1, 1, 0.0, 0.0, 6.0, took_s=3.0, fit_s=3.0),
            trial(2, 0, 2.0, 5.0, 8.0, took_s=3.0, fit_s=3.0),
        ],
        workers=2,
    )
    assert found.spent_s[Spent.ASK] == pytest.approx(3.0 + 2.0)
    assert found.spent_s[Spent.HAND_OVER] == pytest.approx(1.0)


def test_a_wait_after_a_kill_is_for_the_worker_and_not_for_the_driver() -> None:
    found = worker_time(
        [
            trial(0, 0, 0.0, 0.0, 2.0, took_s=2.0, fit_s=0.0, cause=Cause.TIME),
            trial(1, 0, 5.0, 5.0, 6.0, took_s=1.0, fit_s=1.0),
        ],
        workers=1,
    )
    assert (found.spent_s[Spent.RESTART], found.spent_s[Spent.TOLD]) == (3.0, 0.0)
    # Its time is neither fitting nor scoring: nothing came of it.
    assert (found.spent_s[Spent.LOST], found.spent_s[Spent.FIT], found.spent_s[Spent.SCORE]) == (2.0, 1.0, 0.0)
