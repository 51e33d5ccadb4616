"""What the application promises to any client that comes along, asked without a server in between."""

import asyncio
import gzip
import json
import re
import threading
import time
import zlib

import numpy as np
import orjson
import pytest

from harness.errors import UsageError
from harness.records.candidate import Column, Signature
from harness.records.rows import Prediction
from harness.records.server import ServerSettings
from harness.serving import queue
from harness.serving.app import App
from harness.serving.limits import Limits
from harness.serving.work import Model

SIGNATURE = Signature(task="regression", columns=(Column(name="x", kind="number"),))
GOOD = orjson.dumps({"inputs": [{"name": "rows", "datatype": "FP64", "shape": [2, 1], "data": [1.5, 2.0]}]})
INFER = "/v2/models/double/infer"
JSON = b"application/json"


def double(batch):
    return Prediction(values=2 * batch.numbers[:, 0], probabilities=None)


def model(predict=double, name="double", version=None, example=None):
    return Model(name, version, "none", SIGNATURE, predict, example)


async def trickled(app):
    """The status for a body that comes a byte at a time, and never whole."""
    sent = []

    async def receive():
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"1", "more_body": True}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": INFER, "headers": []}, receive, send)
    return sent[0]["status"]


async def asked(app, path, method="GET", chunks=(b"",), headers=(), gone=False):
    """Status, headers and body of one request; None where the application sent nothing."""
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

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "server": ("127.0.0.1", 80)}
    await app(scope, receive, send)
    if not sent:
        return None
    start, body = sent
    found = dict(start["headers"])
    assert found[b"content-length"] == b"%d" % len(body["body"])
    return start["status"], found, body["body"]


def ask(path, method="GET", chunks=(b"",), headers=(), predict=double, gone=False, **served):
    """As `asked`, of a fresh application; its answer is JSON."""
    app = App([model(predict)], **served)
    found = asyncio.run(asked(app, path, method, chunks, headers, gone))
    if found is None:
        return None
    status, headers, body = found
    assert headers[b"content-type"] == JSON
    return status, headers, json.loads(body)


def test_rows_are_answered():
    status, _, answer = ask(INFER, "POST", [GOOD])

    assert status == 200
    assert answer == {
        "model_name": "double",
        "outputs": [{"name": "value", "datatype": "FP64", "shape": [2], "data": [3.0, 4.0]}],
    }


def test_a_body_that_does_not_come_to_its_end_is_not_waited_for_for_ever():
    assert asyncio.run(trickled(App([model()], limits=Limits(send_s=0.05)))) == 408


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


@pytest.mark.parametrize(
    "path",
    [
        "/v3",
        "/v2/",
        "/v2/models/other",
        "/v2/models/other/infer",
        "/v2/models/double/../double",
        "/v2/models/double/versions/1",
    ],
)
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


@pytest.mark.parametrize("together", [1, 4])
def test_values_that_lead_to_no_number_are_400_with_their_row(together):
    """Numbers that 32-bit floats can hold are taken; a graph that adds them up may leave their range."""

    def lost(batch):
        return Prediction(values=np.array([1.0, np.nan]), probabilities=None)

    status, _, answer = ask(INFER, "POST", [GOOD], predict=lost, settings=ServerSettings(batch_requests=together))
    assert status == 400
    assert answer == {"error": "inputs: the model's prediction is not a finite number, of row 1"}


def test_a_body_beyond_the_limit_is_413_however_it_is_sent():
    def never(batch):
        pytest.fail("the model was asked")

    small = {"predict": never, "limits": Limits(body_bytes=100)}
    # The rest of these bodies is never asked for: `receive` would fail on an empty list.
    stated = ask(INFER, "POST", [b"x", b"x" * 100], [(b"content-length", b"101")], **small)
    in_one = ask(INFER, "POST", [b"x" * 101], **small)
    in_pieces = ask(INFER, "POST", [b"x" * 60, b"x" * 60, b"x" * 60], **small)
    bomb = ask(INFER, "POST", [gzip.compress(b"0" * 10**6)[:100]], [(b"content-encoding", b"gzip")], **small)
    for answer in (stated, in_one, in_pieces, bomb):
        assert answer[0] == 413
        assert answer[1][b"connection"] == b"close"


def test_a_client_that_left_is_not_answered():
    assert ask(INFER, "POST", [GOOD[:10]], gone=True) is None


def test_it_starts_and_stops_as_a_server_asks():
    app = App([model()])
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [(b"GZip", gzip.compress(GOOD, mtime=0)), (b"deflate", zlib.compress(GOOD)), (b"identity", GOOD)],
)
def test_a_body_may_be_compressed(encoding, packed):
    status, _, answer = ask(INFER, "POST", [packed], [(b"content-encoding", encoding)])
    assert (status, answer["outputs"][0]["data"]) == (200, [3.0, 4.0])


@pytest.mark.parametrize(
    ("encoding", "packed", "status"),
    [
        (b"br", GOOD, 415),
        (b"gzip", GOOD, 400),
        (b"gzip", gzip.compress(GOOD, mtime=0)[:-9], 400),
        (b"gzip", gzip.compress(GOOD, mtime=0) + b"more", 400),
    ],
    ids=["unknown", "no gzip", "half of it", "more behind it"],
)
def test_what_cannot_be_unpacked_is_refused(encoding, packed, status):
    found, _, answer = ask(INFER, "POST", [packed], [(b"content-encoding", encoding)])
    assert found == status and set(answer) == {"error"}


def in_bytes(*values, name="rows", more=b"", header_length=None):
    raw = np.array(values, "<f8").tobytes()
    given = {"name": name, "datatype": "FP64", "shape": [len(values), 1], "parameters": {"binary_data_size": len(raw)}}
    header = orjson.dumps({"inputs": [given], "parameters": {"binary_data_output": True}})
    length = str(len(header) if header_length is None else header_length).encode()
    return header + raw + more, [(b"inference-header-content-length", length)]


def test_tensors_may_come_and_go_as_bytes_behind_the_json():
    body, headers = in_bytes(1.5, 2.0)
    status, answered, answer = asyncio.run(asked(App([model()]), INFER, "POST", [body], headers))
    assert (status, answered[b"content-type"]) == (200, b"application/octet-stream")
    length = int(answered[b"inference-header-content-length"])
    stated = json.loads(answer[:length])
    assert stated["outputs"] == [
        {"name": "value", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}}
    ]
    assert np.frombuffer(answer[length:], "<f8").tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (in_bytes(1.5, more=b"x"), "body: has 1 bytes"),
        (in_bytes(1.5, header_length=10**9), "body: ends before"),
        (in_bytes(1.5, header_length=3), "body: not JSON"),
        ((in_bytes(1.5)[0], [(b"inference-header-content-length", b"-1")]), "inference-header-content-length"),
        ((in_bytes(1.5)[0], []), "body: not JSON"),
        (in_bytes(1.5, name="other"), "'other'"),
    ],
    ids=["more than was stated", "beyond the body", "within the JSON", "no length", "no header", "unknown"],
)
def test_bytes_that_are_not_as_stated_are_400(given, said):
    body, headers = given
    status, _, answer = ask(INFER, "POST", [body], headers)
    assert status == 400 and answer["error"].startswith(said)


def test_every_answer_says_where_its_time_went():
    def slow(batch):
        time.sleep(0.02)
        return double(batch)

    _, headers, _ = ask(INFER, "POST", [GOOD], predict=slow)
    timing = headers[b"server-timing"].decode()
    stages = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", timing)}
    assert list(stages) == ["received", "queued", "decoded", "predicted", "encoded"]
    assert stages["predicted"] >= 20.0 > stages["decoded"] + stages["encoded"]


def test_several_models_answer_by_name_and_version():
    def triple(batch):
        return Prediction(values=3 * batch.numbers[:, 0], probabilities=None)

    app = App([model(), model(triple, "triple", "v7")])

    async def all_of_them():
        paths = [INFER, "/v2/models/triple/infer", "/v2/models/triple/versions/v7/infer"]
        return [json.loads((await asked(app, path, "POST", [GOOD]))[2]) for path in paths]

    answers = asyncio.run(all_of_them())
    assert [answer["outputs"][0]["data"] for answer in answers] == [[3.0, 4.0], [4.5, 6.0], [4.5, 6.0]]
    assert [answer.get("model_version") for answer in answers] == [None, "v7", "v7"]


@pytest.mark.parametrize("given", [[], [(b"authorization", b"Bearer wrong")], [(b"authorization", b"secret")]])
@pytest.mark.parametrize(("path", "method"), [(INFER, "POST"), ("/metrics", "GET"), ("/v3", "GET"), ("/", "GET")])
def test_without_the_token_nothing_is_said(path, method, given):
    status, headers, answer = ask(path, method, [GOOD], given, token="secret")
    assert (status, headers[b"www-authenticate"]) == (401, b"Bearer")
    assert "secret" not in json.dumps(answer)


def test_with_the_token_all_is_as_without_one():
    assert ask(INFER, "POST", [GOOD], [(b"authorization", b"Bearer secret")], token="secret")[0] == 200
    assert ask("/v2/health/ready", token="secret")[0] == 200  # whoever looks whether a server is there has none


def test_prometheus_is_told_of_requests_by_status_and_of_their_time():
    app = App([model()])

    async def some():
        for body in (GOOD, GOOD, b"{"):
            await asked(app, INFER, "POST", [body])
        return await asked(app, "/metrics")

    status, headers, text = asyncio.run(some())
    assert status == 200 and headers[b"content-type"].startswith(b"text/plain; version=0.0.4")
    lines = text.decode().splitlines()
    labels = 'model="double",runtime="none"'
    assert f'inference_requests_total{{code="200",{labels}}} 2.0' in lines
    assert f'inference_requests_total{{code="400",{labels}}} 1.0' in lines
    assert f"inference_request_seconds_count{{{labels}}} 3.0" in lines
    assert f"inference_in_flight{{{labels}}} 0.0" in lines


def test_a_page_for_people_has_a_line_that_asks_the_model():
    status, headers, body = asyncio.run(asked(App([model(name="<b>", example=GOOD)]), "/"))
    page = body.decode()
    assert status == 200 and headers[b"content-type"].startswith(b"text/html")
    assert "curl -s" in page and "127.0.0.1:80/v2/models/" in page
    assert "<b>" not in page and "&lt;b&gt;" in page


def test_behind_a_proxy_the_page_has_the_address_of_all_and_not_what_a_client_says_of_it():
    app = App([model(example=GOOD)], address="http://127.0.0.1:80/h")
    page = asyncio.run(asked(app, "/", headers=[(b"host", b"evil.example")]))[2].decode()
    assert f"curl -s http://127.0.0.1:80/h{INFER} " in page and "evil" not in page


def test_a_line_is_logged_for_each_request_where_that_is_wanted(caplog):
    with caplog.at_level("INFO", logger="harness.access"):
        ask(INFER, "POST", [b"{"], settings=ServerSettings(access_log="requests.jsonl"))
        ask(INFER, "POST", [b"{"])
    (record,) = [record for record in caplog.records if record.name == "harness.access"]
    line = json.loads(record.message)
    assert (line["method"], line["path"], line["status"]) == ("POST", INFER, 400)
    assert line["took_ms"] >= 0


def crowd(predict, requests, settings):
    """So many requests at once; the statuses, and seconds until each was answered."""
    app = App([model(predict)], settings)

    async def one():
        began_s = time.perf_counter()
        status, headers, _ = await asked(app, INFER, "POST", [GOOD])
        return status, headers, time.perf_counter() - began_s

    async def all_of_them():
        await one()  # until then nobody knows how long it takes
        return await asyncio.gather(*(one() for _ in range(requests)))

    return asyncio.run(all_of_them())


def test_beyond_the_queue_requests_are_refused_at_once_and_told_when_to_come_again():
    def slow(batch):
        time.sleep(0.02)
        return double(batch)

    found = crowd(slow, 30, ServerSettings(waiting_s=0.1))
    refused = [(headers, took_s) for status, headers, took_s in found if status == 503]
    assert {status for status, _, _ in found} == {200, 503}
    assert 22 <= len(refused) < 29  # who goes ahead takes a fiftieth of a second, or more on a busy machine
    assert all(int(headers[b"retry-after"]) >= 1 for headers, _ in refused)
    assert max(took_s for _, took_s in refused) < min(took_s for status, _, took_s in found if status == 200)


def test_a_slow_model_computes_beside_the_loop_and_a_quick_one_in_it(monkeypatch):
    monkeypatch.setattr(queue, "IN_LOOP_S", 0.05)  # what a busy machine does to a quick one is less
    threads = []

    def watched(seconds):
        def predict(batch):
            threads.append(threading.current_thread())
            time.sleep(seconds)
            return double(batch)

        return predict

    crowd(watched(0.1), 3, ServerSettings())
    assert threading.main_thread() not in threads
    threads.clear()
    crowd(watched(0.0), 3, ServerSettings())
    assert threads[1:] == [threading.main_thread()] * 3


def test_requests_that_wait_are_computed_together_where_that_is_wanted():
    sizes = []

    def watched(batch):
        sizes.append(len(batch))
        return double(batch)

    found = crowd(watched, 12, ServerSettings(batch_requests=4))
    assert [status for status, _, _ in found] == [200] * 12
    assert max(sizes) == 8 and sum(sizes) == 2 * 13  # two rows each


def test_a_request_that_breaks_the_model_does_not_break_those_it_is_computed_with():
    def picky(batch):
        if (batch.numbers == 13.0).any():
            raise ValueError("thirteen")
        return double(batch)

    app = App([model(picky)], ServerSettings(batch_requests=8))
    bodies = [GOOD, GOOD.replace(b"1.5", b"13.0"), GOOD, b"{"]

    async def all_of_them():
        return await asyncio.gather(*(asked(app, INFER, "POST", [body]) for body in bodies))

    found = asyncio.run(all_of_them())
    assert [status for status, _, _ in found] == [200, 500, 200, 400]
    assert json.loads(found[2][2])["outputs"][0]["data"] == [3.0, 4.0]


def test_one_that_waits_for_others_does_so_only_where_they_are_likely_to_come():
    """Alone it would wait a second for nobody."""
    app = App([model()], ServerSettings(batch_requests=4, batch_wait_s=1.0))

    async def one():
        began_s = time.perf_counter()
        await asked(app, INFER, "POST", [GOOD])
        return time.perf_counter() - began_s

    assert asyncio.run(one()) < 0.5


def test_a_model_has_answered_its_own_example_before_anybody_asks_it():
    asked_for = []

    def watched(batch):
        asked_for.append(batch.numbers.ravel().tolist())
        return double(batch)

    App([model(watched, example=GOOD)])
    assert asked_for == [[1.5, 2.0]] * 2  # cold, and so that it is known how long it takes


def test_a_model_that_does_not_answer_its_own_example_is_not_served():
    def broken(batch):
        raise RuntimeError("lost")

    with pytest.raises(UsageError, match="double does not answer its own example"):
        App([model(broken, example=GOOD)])


def test_whoever_leaves_the_queue_is_not_computed():
    computed = []

    def slow(batch):
        computed.append(batch.numbers[0, 0])
        time.sleep(0.05)
        return double(batch)

    app = App([model(slow, example=GOOD)])
    computed.clear()

    async def some():
        bodies = [GOOD.replace(b"1.5", str(number).encode()) for number in (1, 2, 3)]
        tasks = [asyncio.create_task(asked(app, INFER, "POST", [body])) for body in bodies]
        await asyncio.sleep(0.02)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(some())
    assert (first[0], third[0]) == (200, 200) and isinstance(second, asyncio.CancelledError)
    assert computed == [1.0, 3.0]


def test_a_server_may_start_again_after_it_has_stopped():
    def slow(batch):
        time.sleep(0.01)
        return double(batch)

    app = App([model(slow)])

    async def life():
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        answer = await asked(app, INFER, "POST", [GOOD])

        async def receive():
            return messages.pop(0)

        async def send(message):
            pass

        await app({"type": "lifespan"}, receive, send)
        return answer[0]

    assert [asyncio.run(life()), asyncio.run(life())] == [200, 200]


@pytest.mark.parametrize("body", [b"", b"{"], ids=["empty", "short"])
def test_bad_requests_teach_the_queue_nothing(body):
    """Each takes next to no bytes for its microseconds: by them good ones would seem to take milliseconds."""
    threads, rows = [], 500
    data = {"name": "rows", "datatype": "FP64", "shape": [rows, 1], "data": [1.5] * rows}
    good = orjson.dumps({"inputs": [data]})

    def watched(batch):
        threads.append(threading.current_thread())
        return double(batch)

    app = App([model(watched, example=good)])
    threads.clear()

    async def all_of_them():
        for _ in range(200):
            assert (await asked(app, INFER, "POST", [body]))[0] == 400
        return await asked(app, INFER, "POST", [good])

    assert asyncio.run(all_of_them())[0] == 200
    assert threads == [threading.main_thread()]
