"""What Locust's page is told of a window of rows, and who may do what with it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InfrastructureError
from harness.records.load import Outcome, Step
from harness.stages.load.page import bucket_ns, only_to_look_at, page, summary, worker_report
from harness.stages.load.pulse import Window

STEP = Step(shape="stairs", number=3, mode="open", rate_rps=2000.0, duration_s=4.0, warmup_s=0.0)


def window(latency_ns, outcome=None):
    latency_ns = np.array(latency_ns, dtype=np.int64)
    due_ns = np.arange(len(latency_ns)) * 500_000_000
    return Window(
        from_s=0.0,
        until_s=4.0,
        due_ns=due_ns,
        done_ns=due_ns + latency_ns,
        outcome=np.array([Outcome.OK] * len(latency_ns) if outcome is None else outcome, dtype=np.int8),
        bytes=np.full(len(latency_ns), 10, dtype=np.int32),
        lag_ns=np.empty(0, dtype=np.int64),
        dropped=0,
        in_flight=0,
    )


@given(st.integers(1, 10**12))
def test_a_latency_keeps_three_digits(latency_ns):
    (kept,) = bucket_ns(np.array([latency_ns])).tolist()
    assert abs(kept - latency_ns) <= 0.005 * latency_ns
    assert len(str(kept).rstrip("0")) <= 3


@pytest.mark.parametrize(("latency_ns", "shown_ms"), [(400_000, 0.4), (412_345, 0.412), (147_449_999, 147.0)])
def test_what_locust_would_round_away_is_there(latency_ns, shown_ms):
    assert summary("x", "POST", window([latency_ns]))["response_ms"] == [[shown_ms], [1]]


def test_rows_become_a_report_of_a_locust_worker():
    outcome = [Outcome.OK, Outcome.TIMEOUT, Outcome.OK, Outcome.TIMEOUT, Outcome.HTTP_ERROR]
    told = json.loads(
        json.dumps(summary("a step", "GET", window([1_000_000, 2_000_000, 1_000_000, 4_000_000, 500_000], outcome)))
    )
    report = worker_report(told, 1000.0)
    (entry,) = report["stats"]
    assert (entry["name"], entry["num_requests"], entry["num_failures"]) == ("a step", 5, 3)
    assert {told["method"] for told in (entry, *report["errors"].values())} == {"GET"}
    assert entry["total_response_time"] == pytest.approx(8.5)
    assert (entry["min_response_time"], entry["max_response_time"]) == (0.5, 4.0)
    assert entry["response_times"] == {0.5: 1, 1.0: 2, 2.0: 1, 4.0: 1}
    assert entry["total_content_length"] == 50
    # They were done half a second after one another, and the step began four seconds ago.
    assert entry["num_reqs_per_sec"] == {996: 2, 997: 2, 998: 1}
    assert entry["num_fail_per_sec"] == {996: 1, 997: 1, 998: 1}
    assert {key: report["stats_total"][key] for key in entry if key not in ("name", "method")} == {
        key: value for key, value in entry.items() if key not in ("name", "method")
    }
    assert {error["error"]: error["occurrences"] for error in report["errors"].values()} == {
        "timeout": 2,
        "http_error": 1,
    }


class Master:
    """A way to a master that is gone."""

    def __init__(self):
        self.told = []

    def tell(self, message, what):
        self.told.append(message)
        raise InfrastructureError("it died")


def test_a_page_that_is_gone_is_told_of_once_and_raises_nothing():
    said, master = [], Master()
    with page(said.append) as made, made.served_by(master):
        for _ in range(3):
            made.tell(STEP, "POST", window([1_000_000]))
        assert said == [f"Locust's page is up: {made.address}", "Locust's page is gone: it died"]
    assert len(master.told) == 1 and master.told[0]["name"] == "03 stairs: 2,000 req/s"


@pytest.mark.parametrize(
    ("environ", "passed"),
    [
        ({}, True),
        ({"HTTP_HOST": "localhost:9999"}, True),
        ({"HTTP_ORIGIN": "http://127.0.0.1:4000"}, True),
        ({"REQUEST_METHOD": "HEAD"}, True),
        ({"REQUEST_METHOD": "POST"}, False),
        ({"REQUEST_METHOD": "OPTIONS"}, False),
        ({"HTTP_HOST": "rebound.example:4000"}, False),
        ({"HTTP_HOST": ""}, False),
        ({"HTTP_ORIGIN": "https://elsewhere.example"}, False),
        ({"HTTP_ORIGIN": "null"}, False),
    ],
)
def test_who_may_look_at_the_page_and_that_nobody_may_do_more(environ, passed):
    statuses = []
    guarded = only_to_look_at(lambda environ, start_response: [b"the page"])
    asked = {"REQUEST_METHOD": "GET", "HTTP_HOST": "127.0.0.1:4000", **environ}
    body = guarded(asked, lambda status, headers: statuses.append(status))
    assert (body == [b"the page"]) is passed
    assert statuses == ([] if passed else ["403 Forbidden"])
