"""The target asgi, asked by clients that know nothing of us: Triton's own, and those that mean no good."""

import contextlib
import dataclasses
import gzip
import json
import os
import re
import signal
import socket
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton

from harness.analysis.anatomy import TOLERANCE
from harness.analysis.reduce import reduce_step
from harness.errors import InfrastructureError
from harness.process import LOOPBACK
from harness.records.load import STAGE_COLUMNS, Step
from harness.records.scenario import LoadPlan
from harness.records.server import ServerSettings
from harness.runtimes.onnx import Onnx
from harness.serving.limits import Limits
from harness.serving.protocol import encode_request
from harness.stages.load.generator import generator
from harness.stages.load.timing import DENSE
from harness.targets.asgi import Asgi
from tests.raw_http import send_parts

INFER = "/v2/models/c1/infer"


@pytest.fixture(scope="module")
def served(bundle, tmp_path_factory):
    from harness.ports import Servable

    log = tmp_path_factory.mktemp("asgi") / "server.log"
    servable = Servable("harness.server", bundle, "onnx", "c1", 1, (), log, beside={"other": bundle})
    with Asgi().serve(servable) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def under_load(served, batch, signature, tmp_path_factory):
    bodies = [encode_request(batch.take(np.array([row])), signature) for row in range(10)]
    with generator(served, bodies, None, LoadPlan(seed=1), (), tmp_path_factory.mktemp("load")) as running:
        yield running


@pytest.fixture
def client(served):
    with contextlib.closing(triton.InferenceServerClient(urlsplit(served.url).netloc)) as made:
        yield made


def as_triton_sends(batch, binary):
    """The rows of the batch as inputs of Triton's client."""
    dates = np.array(
        ["" if days != days else str(np.datetime64(int(days), "D")) for days in batch.numbers[:, 1]], dtype=object
    )
    columns = {
        "height": ("FP64", batch.numbers[:, 0]),
        "colour": ("BYTES", batch.texts[:, 0]),
        "sold": ("BYTES", dates),
        "new": ("BOOL", batch.numbers[:, 2].astype(bool)),
    }
    inputs = []
    for name, (datatype, values) in columns.items():
        given = triton.InferInput(name, [len(batch)], datatype)
        given.set_data_from_numpy(values, binary_data=binary)
        inputs.append(given)
    return inputs


@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritons_client_is_answered_as_in_process(client, batch, bundle, signature, binary_output, compression):
    outputs = [triton.InferRequestedOutput(name, binary_output) for name in ("label", "probabilities")]
    answer = client.infer(
        "c1", as_triton_sends(batch, True), outputs=outputs, request_id="a-7", request_compression_algorithm=compression
    )
    wanted = Onnx().load(bundle / "model.onnx", signature)(batch)
    assert np.array_equal(answer.as_numpy("probabilities"), wanted.probabilities)
    labels = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("label")]
    assert labels == [signature.classes[int(value)] for value in wanted.values]
    assert (answer.get_response()["id"], answer.get_response()["model_version"]) == ("a-7", "c1")


def test_tritons_client_may_send_json_where_nothing_is_missing(client, batch, bundle, signature):
    whole = batch.take(np.flatnonzero(np.isfinite(batch.numbers).all(axis=1)))
    answer = client.infer("c1", as_triton_sends(whole, False))
    wanted = Onnx().load(bundle / "model.onnx", signature)(whole)
    assert np.array_equal(answer.as_numpy("probabilities"), wanted.probabilities)


def test_tritons_client_finds_what_it_looks_for(client):
    assert client.is_server_live() and client.is_server_ready()
    for model in ("c1", "other"):
        assert client.is_model_ready(model) and client.is_model_ready(model, "c1")
    assert not client.is_model_ready("none")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    stated = client.get_model_metadata("c1")
    assert {one["name"] for one in stated["inputs"]} == {"height", "colour", "sold", "new"}


def test_tritons_client_is_told_what_it_got_wrong(client, batch):
    with pytest.raises(triton.InferenceServerException, match="colour: is missing") as refused:
        client.infer("c1", [one for one in as_triton_sends(batch, True) if one.name() != "colour"])
    assert refused.value.status() == "400"


def spoken(served, *parts, wait_s=5.0, pause_s=0.0):
    """What a server says to these bytes; whatever comes within `wait_s` seconds."""
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=wait_s) as sock:
        send_parts(sock, parts, pause_s)
        found = b""
        with contextlib.suppress(OSError):
            while piece := sock.recv(65_536):
                found += piece
                if b"\r\n\r\n" in found and not _is_short(found):
                    break
        return found


def _is_short(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) < lengths[0]


def request(body, *headers, length=None, path=INFER, method="POST"):
    stated = len(body) if length is None else length
    lines = [f"{method} {path} HTTP/1.1", "host: here", f"content-length: {stated}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def replaced(good, **inputs):
    """A request with some of its inputs changed: a tensor, or a change to one."""
    whole = json.loads(good)
    for given in whole["inputs"]:
        given.update(inputs.get(given["name"], {}))
    return json.dumps(whole).encode()


def first_row(good, name, value):
    given = next(one for one in json.loads(good)["inputs"] if one["name"] == name)
    return {name: {"data": [value, *given["data"][1:]]}}


def corpus(good):
    """Whatever is wrong with a request, what is said of it, and what a server of ours answers: name, bytes, status."""
    limits = Limits()
    without = json.dumps({"inputs": json.loads(good)["inputs"][1:]}).encode()
    twice = json.dumps({"inputs": json.loads(good)["inputs"] + json.loads(good)["inputs"][:1]}).encode()
    more = json.dumps({"inputs": [*json.loads(good)["inputs"], {"name": "more", "shape": [1], "data": [1]}]}).encode()
    deep = b'{"inputs":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    bomb = gzip.compress(b" " * (limits.body_bytes + 1))
    bodies = {
        "empty": (b"", "body"),
        "cut short": (good[:-10], "body"),
        "not UTF-8": (good.replace(b'"red"', b'"\xff\xfe"', 1), "body"),
        "not an object": (b"[1, 2]", "body"),
        "a text for a number": (replaced(good, **first_row(good, "height", "1.5")), "height"),
        "a bool for a number": (replaced(good, **first_row(good, "height", True)), "height"),
        "a number for a text": (replaced(good, **first_row(good, "colour", 3)), "colour"),
        "NaN": (good.replace(b'"data":[', b'"data":[NaN,', 1), "body"),
        "1e400": (good.replace(b'"data":[null', b'"data":[1e400', 1), "body"),
        "a missing column": (without, "height"),
        "an extra column": (more, "'more'"),
        "a column twice": (twice, "'height'"),
        "no rows": (replaced(good, height={"shape": [0], "data": []}), "height"),
        "more rows than are taken": (replaced(good, height={"shape": [limits.rows + 1]}), "height"),
        "a shape of another size": (replaced(good, height={"shape": [3]}), "inputs"),
        "a shape of a million digits": (good.replace(b'"shape":[20]', b'"shape":[' + b"9" * 10**6 + b"]", 1), "body"),
        "a million digits": (good.replace(b'"data":[null', b'"data":[' + b"9" * 10**6, 1), "body"),
        "10,000 deep": (deep, "body"),
        **{
            f"{what} 1,000 deep": (replaced(good, height={what: json.loads("[" * 900 + "]" * 900)}), "height")
            for what in ("shape", "datatype", "data")
        },
        "a long text": (replaced(good, **first_row(good, "colour", "x" * (limits.text_characters + 1))), "colour"),
        "a surrogate": (good.replace(b'"red"', b'"\\ud800"', 1), "body"),
        "a name that is none": (replaced(good, height={"name": "\u2028\0<b>" * 99}), "'\\u2028\\x00<b>"),
        "a shape of bools": (replaced(good, height={"shape": [True]}), "height"),
        "a shape beyond 64 bits": (replaced(good, height={"shape": [2**80]}), "height"),
        "a fraction of an integer": (replaced(good, height={"datatype": "INT8"}), "height"),
        "bytes that do not follow": (replaced(good, height={"parameters": {"binary_data_size": 8}}), "'height'"),
        "no date": (replaced(good, **first_row(good, "sold", "2026-02-30")), "sold"),
        "a year of 10,000": (replaced(good, **first_row(good, "sold", "10000-01-01")), "sold"),
    }
    for name, (body, field) in bodies.items():
        yield name, [request(body)], 400, field
    yield "a gzip bomb", [request(bomb, "content-encoding: gzip")], 413, "a body may have"
    yield "no gzip", [request(good, "content-encoding: gzip")], 400, "body"
    yield "an unknown compression", [request(good, "content-encoding: br")], 415, "content-encoding"
    yield "a body too large", [request(b"x" * 70_000, length=limits.body_bytes + 1)], 413, "a body may have"
    zeros = "0" * 18 + str(limits.body_bytes + 1)
    yield "a length with zeros in front", [request(b"x" * 70_000, length=zeros)], 413, "a body may have"
    yield "a length of no number", [request(good, length="ten")], 400, "this is no HTTP"
    yield "a negative length", [request(good, length=-1)], 400, "this is no HTTP"
    yield "two lengths", [request(good, "content-length: 5")], 400, "this is no HTTP"
    yield "a length with a sign", [request(good, length=f"+{len(good)}")], 400, "this is no HTTP"
    yield "a length beyond 64 bits", [request(good, length=2**64 + len(good))], 400, "this is no HTTP"
    both = "transfer-encoding: chunked"
    yield "a length and chunks", [request(good, both)], 400, "this is no HTTP"
    chunks = [both, "transfer-encoding: identity"]
    yield (
        "two ways to send it",
        [request(b"0\r\n\r\n", *chunks).replace(b"content-length: 5\r\n", b"")],
        400,
        "this is no",
    )
    for name, size in {"negative": b"-1", "of no number": b"0x5", "beyond 64 bits": b"1%016x" % 5}.items():
        broken = request(size + b"\r\nabcde\r\n0\r\n\r\n", both)
        yield f"a chunk {name}", [re.sub(rb"content-length: \d+\r\n", b"", broken)], 400, "this is no HTTP"
    lines = {
        "folded": "x: a\r\n b",
        "a line feed alone": "x: a\nb: c",
        "NUL": "x: a\0b",
        "no name": ": a",
        "a space": "x y: a",
    }
    for name, line in lines.items():
        yield f"a header with {name}", [request(good, line)], 400, "this is no HTTP"
    yield "line feeds alone", [request(good).replace(b"\r\n", b"\n")], 400, "this is no HTTP"
    yield "HTTP/2", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 400, "this is no HTTP"
    yield "a tunnel", [b"CONNECT h:80 HTTP/1.1\r\nhost: h\r\n\r\n"], 400, "a connection cannot be used"
    yield "a path of bytes", [request(good).replace(b"/c1/", b"/\xff/")], 400, "this is no HTTP"
    yield "the wrong method", [request(b"", method="GET")], 405, "GET is not allowed"
    yield "an unknown method", [request(b"", method="PAINT")], 400, "this is no HTTP"
    for path in ("/v2/models/c1/../../etc/passwd", "/v2/models/%2e%2e/infer", "//v2/models/c1/infer", "/v2/models/c1"):
        yield f"the path {path}", [request(good, path=path)], 405 if path.endswith("c1") else 404, ""
    yield "a path of 100,000", [request(good, path="/" + "a" * 100_000)], 431, "a request may have"
    yield "1,000 headers", [request(good, *(f"x-{n}: 1" for n in range(1_000)))], 431, "a request may have"
    yield "a header of 100,000", [request(good, "x: " + "a" * 100_000)], 431, "a request may have"
    yield "no HTTP", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400, "this is no HTTP"


@pytest.fixture(scope="module")
def good(batch, signature):
    return encode_request(batch, signature)


def test_whatever_is_wrong_is_said_in_json_with_a_status_of_400(served, good):
    wrong = []
    for name, parts, status, field in corpus(good):
        answer = spoken(served, *parts)
        head, _, body = answer.partition(b"\r\n\r\n")
        try:
            said = json.loads(body)["error"]
            assert head.startswith(b"HTTP/1.1 %d " % status) and said.startswith(field), said
            assert "\n" not in said and "Traceback" not in said and len(said) < 400
        except (ValueError, KeyError, AssertionError) as error:
            wrong.append((name, status, answer[:300], str(error)[:200]))
    assert not wrong, "\n".join(map(str, wrong))
    assert spoken(served, request(good)).startswith(b"HTTP/1.1 200 ")


def test_columns_may_come_in_any_order_and_of_a_category_that_nobody_knows(served, good):
    usual = json.loads(spoken(served, request(good)).partition(b"\r\n\r\n")[2])
    turned = json.dumps({"inputs": json.loads(good)["inputs"][::-1]}).encode()
    assert json.loads(spoken(served, request(turned)).partition(b"\r\n\r\n")[2]) == usual
    unknown = replaced(good, **first_row(good, "colour", "ultraviolet"))
    assert spoken(served, request(unknown)).startswith(b"HTTP/1.1 200 ")


@pytest.fixture
def hasty(servable, monkeypatch):
    """A server that waits for a request for half a second, keeps who idles for one, and takes eight connections."""
    code = (
        "import harness.server as s, harness.serving.limits as l, sys\n"
        "s.LIMITS, s.KEEP_ALIVE_S = l.Limits(send_s=0.5, end_s=0.2, connections=8), 1\n"
        "sys.exit(s.main())\n"
    )
    import sys

    import harness.targets.asgi as room

    original = room.child_servers

    def patched(command, **more):
        return original([sys.executable, "-c", code, *command[3:]], **more)

    monkeypatch.setattr(room, "child_servers", patched)
    with Asgi().serve(servable) as endpoint:
        yield endpoint


def test_each_way_to_send_a_request_gets_the_same_answer_in_its_turn(served, good):
    """Plain requests go straight to the model and others through ASGI; on one connection they come in any order."""
    start = f"POST {INFER} HTTP/1.1\r\nhost: h\r\n".encode()
    length = b"content-length: %d\r\n" % len(good)
    packed = gzip.compress(good)
    ways = {
        "plain": start + length + b"\r\n" + good,
        "kept": start + b"Connection: Keep-Alive\r\n" + length + b"\r\n" + good,
        "chunked": start + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(good), good),
        "expected": start + b"expect: 100-continue\r\n" + length + b"\r\n" + good,
        "packed": start + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed,
        "of another path": start.replace(b"/c1/", b"/c%31/") + length + b"\r\n" + good,
        "old": start.replace(b"1.1", b"1.0") + length + b"\r\n" + good,
    }
    order = ["plain", "chunked", "plain", "plain", "expected", "kept", "packed", "plain", "of another path", "old"]
    together, address = b"".join(ways[way] for way in order), urlsplit(served.url)
    for parts in ([together], [together[:700], together[700:]], [ways[way] for way in order]):
        with socket.create_connection((address.hostname, address.port), timeout=30) as sock:
            for part in parts:
                sock.sendall(part)
                time.sleep(0.01)
            said = sock.makefile("rb").read()  # the last one ends the connection
        answers = [part.split(b"\r\n\r\n", 1) for part in said.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        assert len(answers) == len(order)
        assert len({body.removesuffix(b"HTTP/1.1 100 Continue\r\n\r\n") for _, body in answers}) == 1
        assert [b"connection: close" in head for head, _ in answers] == [False] * (len(order) - 1) + [True]


def test_a_head_that_is_known_still_counts_the_body_behind_it(served, good):
    """A head is remembered by its bytes: with a shorter, a longer or another body it does not say the same again."""
    whole, other = request(good, "x-of: this-test"), good.replace(b"red", b"tan")
    assert len(other) == len(good) and other != good
    first, again = spoken(served, whole), spoken(served, whole)
    assert first.split(b"\r\n\r\n")[1] == again.split(b"\r\n\r\n")[1]
    assert spoken(served, whole[:-1], whole[-1:], pause_s=0.05).startswith(b"HTTP/1.1 200 ")
    behind = request(other, "connection: close")
    assert spoken(served, whole[:-1], whole[-1:] + behind, pause_s=0.05).startswith(b"HTTP/1.1 200 ")
    assert spoken(served, whole[:-1] + b"?").startswith(b"HTTP/1.1 400 ")
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as sock:
        sock.sendall(whole + request(other, "x-of: this-test", "connection: close"))
        assert sock.makefile("rb").read().count(b"HTTP/1.1 200 OK") == 2


def test_what_looks_like_a_head_within_a_header_is_not_known(served, good):
    """Else whoever sends it as the second piece of a request of his own decides what others' requests are for."""
    to_other = request(good, path="/v2/models/other/infer")
    start = f"POST {INFER} HTTP/1.1\r\nhost: here\r\nx-ends-later: ".encode()
    assert b'"model_name":"c1"' in spoken(served, start, to_other, pause_s=0.1)
    for _ in range(2):
        assert b'"model_name":"other"' in spoken(served, to_other)


def test_who_sends_slowly_is_told_so_and_holds_nothing(hasty, good):
    whole = request(good)
    for begun in (
        whole[:10],
        whole[:-5],
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n",
    ):
        answer = spoken(hasty, begun)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"may take 0.5 s to send" in answer
    for _ in range(2):  # the second time its head is known
        assert spoken(hasty, whole).startswith(b"HTTP/1.1 200 ")
        assert spoken(hasty, whole[:30], whole[30:], pause_s=0.2).startswith(b"HTTP/1.1 200 ")
        assert spoken(hasty, whole[:-9], whole[-9:], pause_s=0.2).startswith(b"HTTP/1.1 200 ")
        assert spoken(hasty, whole[:-9]).startswith(b"HTTP/1.1 408 ")


def test_who_asks_on_is_kept_and_who_does_not_is_let_go(hasty, good):
    address = urlsplit(hasty.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as sock:
        for _ in range(5):
            sock.sendall(request(good))
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4)  # together twice as long as one may idle
        assert sock.recv(1) == b""


def test_who_connects_and_never_asks_is_let_go(hasty):
    address = urlsplit(hasty.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as sock:
        assert sock.recv(1) == b""


def test_who_has_sent_half_when_the_server_ends_is_told_so(hasty, good):
    address = urlsplit(hasty.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as sock:
        sock.sendall(request(good)[:-5])
        assert spoken(hasty, request(good)).startswith(b"HTTP/1.1 200 ")  # so the half is there too
        os.kill(hasty.processes[0], signal.SIGTERM)
        answer = sock.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 503 ") and b"connection: close" in answer


def test_who_holds_all_connections_keeps_the_others_out_and_no_longer(hasty, good):
    address = urlsplit(hasty.url)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection((address.hostname, address.port)))
        time.sleep(0.2)
        assert spoken(hasty, request(good)) == b""
    time.sleep(0.2)
    assert spoken(hasty, request(good)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("mode", "load"), [("open", {"rate_rps": 300.0}), ("closed", {"in_flight": 2})], ids=["open", "closed"]
)
def test_under_load_the_parts_of_the_median_request_add_up_to_it(under_load, ledgers, mode, load):
    step = Step(shape="t", number=0, mode=mode, duration_s=1.5, warmup_s=0.3, **load)
    columns = under_load.drive(step).columns
    result = reduce_step(ledgers.step_entry(step, columns), columns)
    found = result.anatomy
    assert result.error_share == 0 and found.reason is None
    assert found.total_s == pytest.approx(result.scheduled["p50"].value_s, rel=TOLERANCE)
    assert all(found.parts_s[part] > 0 for part in ("lag", "network", "decoded", "predicted", "encoded"))
    # Of so few requests each was asked, and none states more time than it took.
    stages_ns = sum(columns[name] for name in STAGE_COLUMNS)
    assert np.all(stages_ns > 0) or result.planned > DENSE
    assert np.all(stages_ns <= columns["done_ns"] - columns["sent_ns"])


def test_good_requests_are_answered_beside_bad_ones(served, good):
    stop = threading.Event()

    def abuse():
        while not stop.is_set():
            for _, parts, _, _ in corpus(good):
                spoken(served, *parts, wait_s=2.0)

    thread = threading.Thread(target=abuse)
    thread.start()
    try:
        assert all(spoken(served, request(good)).startswith(b"HTTP/1.1 200 ") for _ in range(50))
    finally:
        stop.set()
        thread.join()


def test_a_token_is_wanted_where_one_is_named(servable, good, monkeypatch):
    monkeypatch.setenv("MODEL_TOKEN", "a-secret")
    asked = dataclasses.replace(servable, settings=ServerSettings(token_env="MODEL_TOKEN"))
    with Asgi().serve(asked) as endpoint:
        for _ in range(2):
            assert spoken(endpoint, request(good)).startswith(b"HTTP/1.1 401 ")
            assert spoken(endpoint, request(good, "authorization: Bearer a-secret")).startswith(b"HTTP/1.1 200 ")
        assert spoken(endpoint, request(good, "authorization: Bearer a-secreT")).startswith(b"HTTP/1.1 401 ")


def test_whichever_process_is_asked_tells_prometheus_of_all(servable, good):
    with Asgi().serve(dataclasses.replace(servable, replicas=2)) as endpoint:
        for _ in range(20):
            assert spoken(endpoint, request(good)).startswith(b"HTTP/1.1 200 ")
        text = spoken(endpoint, request(b"", path="/metrics", method="GET")).decode()
    assert 'inference_requests_total{code="200",model="c1",runtime="onnx"} 20.0' in text
    assert LOOPBACK in endpoint.url


def test_each_request_is_a_line_of_json_where_a_file_is_named(servable, good, tmp_path):
    file = tmp_path / "requests.jsonl"
    with Asgi().serve(dataclasses.replace(servable, settings=ServerSettings(access_log=str(file)))) as endpoint:
        spoken(endpoint, request(good))
        spoken(endpoint, request(b"{"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["status"] for line in lines if line["path"] == INFER] == [200, 400]


def test_a_log_that_cannot_be_written_is_told(servable, tmp_path):
    asked = dataclasses.replace(servable, settings=ServerSettings(access_log=str(tmp_path / "none" / "file")))
    with pytest.raises(InfrastructureError, match="cannot be written: No such file"), Asgi().serve(asked):
        pytest.fail("entered")
