"""A machine is fit to measure, or each thing that disturbs it is named."""

from typing import Any

import pytest

from harness.analysis.fitness import disturbances, fit_up_to_rps, notes, told
from harness.records.diagnosis import Diagnosis, Gaps, Lag, Listener, Reached
from harness.records.run import Host, Roofline

HOST = Host(
    system="Linux 6.1",
    machine="x86_64",
    cpu="A processor",
    cores=2,
    memory_bytes=24 * 2**30,
    python="3.11.9",
    versions={"numpy": "2.4.0", "locust": "2.47.0"},
    generator_cores=(1,),
    target_cores=(0,),
)


def lag(rate_rps: float, p99_s: float = 1e-4, sustained: bool = True) -> Lag:
    return Lag(
        rate_rps=rate_rps,
        requests=round(rate_rps),
        p50_s=p99_s / 2,
        p99_s=p99_s,
        max_s=2 * p99_s,
        answered_rps=rate_rps,
        sustained=sustained,
    )


def gaps(lost_s: float = 0.001, longest_s: float = 0.0005) -> Gaps:
    return Gaps(seconds_s=2.0, threshold_s=5e-5, count=9, longest_s=longest_s, lost_s=lost_s)


def quiet(**changes: Any) -> Diagnosis:
    """A machine that nothing is to be said against: roofline 60,000 requests/s, of which 50,000 were sustained."""
    found = Diagnosis(
        host=HOST,
        timer="timerfd",
        priority="raised",
        open_files_soft=1024,
        open_files_hard=None,
        gaps=gaps(),
        idle=tuple(lag(rate) for rate in (100.0, 1000.0, 2000.0, 4000.0)),
        closed=(Reached(in_flight=1, answered_rps=20_000), Reached(in_flight=2, answered_rps=60_000)),
        open=(lag(40_000.0), lag(50_000.0), lag(63_000.0, 0.005, sustained=False)),
        roofline=Roofline(
            rate_rps=60_000, measured_utc="2026-01-01T00:00:00Z", measured_by="m", workers=1, rows=1, host=HOST
        ),
    )
    return found.model_copy(update=changes)


def test_a_quiet_machine_is_fit_up_to_seven_tenths_of_its_roofline() -> None:
    assert disturbances(quiet()) == () and notes(quiet()) == ()
    assert fit_up_to_rps(quiet()) == pytest.approx(42_000)


def test_it_is_fit_no_further_than_the_generator_was_on_time() -> None:
    assert fit_up_to_rps(quiet(open=(lag(31_500.0), lag(40_000.0, 0.005, sustained=False)))) == 31_500
    assert fit_up_to_rps(quiet(open=())) == 4000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"host": HOST.model_copy(update={"target_cores": (0, 1)})}, "share a core"),
        ({"gaps": gaps(lost_s=0.021)}, "took 1.05 % of the time"),
        ({"gaps": gaps(lost_s=0.012, longest_s=0.0101)}, "stood still for 10.1 ms"),
        ({"idle": (lag(1000.0), lag(2000.0, 0.0011))}, "p99 of its lag is 1.10 ms at 2,000 req/s"),
        ({"idle": (lag(100.0, sustained=False),), "open": ()}, "not one open rate was sustained"),
    ],
    ids=["cores", "lost", "longest", "lag", "nothing sustained"],
)
def test_each_disturbance_is_named(changes: dict[str, Any], said: str) -> None:
    (only,) = disturbances(quiet(**changes))
    assert said in only


def test_at_its_bounds_it_is_fit() -> None:
    at_the_bounds = quiet(gaps=gaps(lost_s=0.02, longest_s=0.01), idle=(lag(2000.0, 0.001), lag(4000.0, 0.9)))
    assert disturbances(at_the_bounds) == ()


def test_a_missing_priority_and_a_low_limit_of_files_are_notes() -> None:
    found = quiet(priority="ordinary", open_files_hard=1024)
    assert disturbances(found) == ()
    priority, files = notes(found)
    assert "no higher priority" in priority
    assert "1,024 files open, too few for load.in_flight_max = 1,024" in files
    assert notes(quiet(open_files_hard=4096)) == ()
    (timer,) = notes(quiet(timer="spin"))
    assert "spins between requests" in timer and disturbances(quiet(timer="spin")) == ()


def test_where_cores_are_shared_nobody_asked_for_priority() -> None:
    shared = HOST.model_copy(update={"target_cores": (1,)})
    assert notes(quiet(priority="ordinary", host=shared)) == ()


def test_everything_that_was_found_is_told() -> None:
    assert list(told(quiet())) == [
        ("system", "Linux 6.1, x86_64"),
        ("processor", "A processor, 2 cores"),
        ("the generator's cores", "1"),
        ("the servers' cores", "0 (not shared)"),
        ("memory", "24.0 GiB"),
        ("Python", "3.11.9"),
        ("libraries", "locust 2.47.0, numpy 2.4.0"),
        ("open files", "1,024, at most unlimited"),
        ("the generator's timer", "timerfd"),
        ("the generator's priority", "raised"),
        (
            "a core that spins",
            "4.5 gaps above 50.0 µs per second, the longest 500 µs, 0.05 % of the time lost",
        ),
        ("lag at 100 req/s", "p50 50.0 µs, p99 100 µs, max 200 µs of 100"),
        ("lag at 1,000 req/s", "p50 50.0 µs, p99 100 µs, max 200 µs of 1,000"),
        ("lag at 2,000 req/s", "p50 50.0 µs, p99 100 µs, max 200 µs of 2,000"),
        ("lag at 4,000 req/s", "p50 50.0 µs, p99 100 µs, max 200 µs of 4,000"),
        ("closed, 1 in flight", "20,000 req/s"),
        ("closed, 2 in flight", "60,000 req/s"),
        ("open, 40,000 req/s", "sustained; p50 50.0 µs, p99 100 µs, max 200 µs of 40,000"),
        ("open, 50,000 req/s", "sustained; p50 50.0 µs, p99 100 µs, max 200 µs of 50,000"),
        ("open, 63,000 req/s", "not sustained; p50 2.50 ms, p99 5.00 ms, max 10.0 ms of 63,000"),
        ("highest open rate", "50,000 req/s sustained"),
        ("roofline", "60,000 req/s answered by a server that computes nothing"),
    ]


def test_what_ray_opens_beyond_loopback_is_told_with_the_way_to_close_it() -> None:
    listeners = (
        Listener(process="agent", address="127.0.0.1", port=1),
        Listener(process="agent", address="192.0.2.7", port=4),
        Listener(process="raylet", address="::", port=2),
        Listener(process="raylet", address="0.0.0.0", port=3),
        Listener(process="monitor", address="::1", port=5),
    )
    found = quiet(listeners=listeners)
    opened = {what: value for what, value in told(found) if what.startswith("open: ")}
    assert opened == {"open: Ray's agent": "192.0.2.7:4", "open: Ray's raylet": "*:2, *:3"}
    (note,) = notes(found)
    assert note.startswith("while Ray runs, 3 of its ports are open beyond loopback") and "--isolate" in note
    assert disturbances(found) == ()
    assert notes(quiet(listeners=(listeners[0], listeners[4]))) == ()
