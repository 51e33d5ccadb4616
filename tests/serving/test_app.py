"""What the application promises to any client that comes along, asked without a server in between."""

import asyncio
import json

import numpy as np
import orjson
import pytest

import harness.serving.app as app_room
from harness.records.candidate import Column, Signature
from harness.records.rows import Prediction
from harness.serving.app import application

SIGNATURE = Signature(task="regression", columns=(Column(name="x", kind="number"),))
GOOD = orjson.dumps({"inputs": [{"name": "rows", "datatype": "FP64", "shape": [2, 1], "data": [1.5, 2.0]}]})
INFER = "/v2/models/double/infer"


def double(batch):
    return Prediction(values=2 * batch.numbers[:, 0], probabilities=None)


def ask(path, method="GET", chunks=(b"",), headers=(), predict=double, gone=False):
    """Status, headers and parsed body of one request; None where the application sent nothing."""
    app = application(predict, SIGNATURE, "double")
    messages = [
        {"type": "http.request", "body": chunk, "more_body": place < len(chunks) - 1 or gone}
        for place, chunk in enumerate(chunks)
    ]
    if gone:
        messages.append({"type": "http.disconnect"})
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(app(scope, receive, send))
    if not sent:
        return None
    start, body = sent
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"%d" % len(body["body"])
    return start["status"], headers, json.loads(body["body"])


def test_rows_are_answered():
    status, _, answer = ask(INFER, "POST", [GOOD])

    assert status == 200
    assert answer == {
        "model_name": "double",
        "outputs": [{"name": "value", "datatype": "FP64", "shape": [2], "data": [3.0, 4.0]}],
    }


def test_a_body_may_come_in_pieces():
    assert ask(INFER, "POST", [GOOD[:10], b"", GOOD[10:]])[0] == 200


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/double/ready", {"name": "double", "ready": True}),
    ],
)
def test_its_health_can_be_asked(path, said):
    assert ask(path)[::2] == (200, said)


def test_it_says_what_it_is_and_what_it_takes():
    assert ask("/v2")[2]["name"] == "automl-harness"
    stated = ask("/v2/models/double")[2]
    assert stated["inputs"] == [{"name": "rows", "datatype": "FP64", "shape": [-1, 1]}]
    assert stated["outputs"] == [{"name": "value", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize("path", ["/", "/v2/", "/v2/models/other", "/v2/models/other/infer", "/metrics"])
def test_what_is_not_there_is_404(path):
    status, _, answer = ask(path)
    assert status == 404
    assert set(answer) == {"error"}


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [(INFER, "GET", b"POST"), ("/v2", "POST", b"GET"), ("/v2/health/live", "PUT", b"GET")],
)
def test_a_wrong_method_is_405_with_the_right_one(path, method, allowed):
    status, headers, _ = ask(path, method)
    assert status == 405
    assert headers[b"allow"] == allowed


def test_a_bad_request_is_400_and_names_the_field():
    status, _, answer = ask(INFER, "POST", [GOOD.replace(b"1.5", b'"1.5"')])
    assert status == 400
    assert answer["error"].startswith("rows: data must be numbers")


def test_a_failing_model_is_500_without_its_inner_life(caplog):
    def broken(batch):
        raise RuntimeError("a secret of the model")

    status, _, answer = ask(INFER, "POST", [GOOD], predict=broken)

    assert status == 500
    assert "secret" not in json.dumps(answer)
    assert "a secret of the model" in caplog.text


def test_a_prediction_that_is_no_number_is_500():
    def lost(batch):
        return Prediction(values=np.array([np.nan]), probabilities=None)

    assert ask(INFER, "POST", [GOOD], predict=lost)[0] == 500


def test_a_body_beyond_the_limit_is_413_however_it_is_sent(monkeypatch):
    monkeypatch.setattr(app_room, "BODY_LIMIT_BYTES", 100)

    def never(batch):
        pytest.fail("the model was asked")

    stated = ask(INFER, "POST", [b"x" * 101], [(b"content-length", b"101")], never)
    in_one = ask(INFER, "POST", [b"x" * 101], (), never)
    # The rest of this body is never asked for: `receive` would fail on an empty list.
    in_pieces = ask(INFER, "POST", [b"x" * 60, b"x" * 60, b"x" * 60], (), never)
    for answer in (stated, in_one, in_pieces):
        assert answer[0] == 413
        assert answer[1][b"connection"] == b"close"


def test_a_client_that_left_is_not_answered():
    assert ask(INFER, "POST", [GOOD[:10]], gone=True) is None


def test_it_starts_and_stops_as_a_server_asks():
    app = application(double, SIGNATURE, "double")
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
