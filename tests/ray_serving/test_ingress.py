"""What stands before Ray Serve's way to the application, on the server that Serve uses, with a short way behind it."""

import contextlib
import http.client
import threading
import time

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from harness.ray_serving import ingress
from harness.ray_serving.ingress import middlewares, stand_before
from harness.records.server import ServerSettings
from harness.serving.app import App
from tests.serving.test_app import GOOD, INFER, double, model

TOKEN = "s3cret"


class Counted:
    """A transport that keeps what is written to it, piece by piece."""

    def __init__(self, transport, written):
        self.transport = transport
        self.written = written

    def write(self, data):
        self.written.append(bytes(data))
        self.transport.write(data)

    def __getattr__(self, name):
        return getattr(self.transport, name)


@contextlib.contextmanager
def behind_it(app):
    """The port of a server, the headers that come through to Serve's way, and what was written to connections."""
    let_in, written = [], []

    async def way(scope, receive, send):
        let_in.append(dict(scope["headers"]))
        await app(scope, receive, send)

    class Connection(HttpToolsProtocol):
        def connection_made(self, transport):
            super().connection_made(Counted(transport, written))

    stand_before(app)
    (before,) = middlewares()
    whole = before.cls(way, *before.args, **before.kwargs)
    server = uvicorn.Server(uvicorn.Config(whole, http=Connection, lifespan="off", log_level="error", port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1], let_in, written
    finally:
        server.should_exit = True
        thread.join()
        ingress._here.clear()


def asked(port, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_an_answer_is_one_piece_whatever_is_asked():
    with behind_it(App([model()])) as (port, let_in, written):
        for method, path, body, status in (
            ("POST", INFER, GOOD, 200),
            ("POST", INFER, b"{", 400),
            ("GET", "/v2/health/ready", None, 200),
            ("HEAD", "/v2/health/ready", None, 200),
            ("GET", "/nowhere", None, 404),
        ):
            written.clear()
            found, headers, answer = asked(port, method, path, body)
            assert (found, len(written)) == (status, 1), (method, path)
            assert len(answer) == (0 if method == "HEAD" else int(headers["content-length"]))
    assert {headers[b"x-request-disconnect-disabled"] for headers in let_in} == {b"?1"}


def test_who_would_wait_too_long_is_refused_before_it_and_strangers_as_ever():
    began, ends, is_known = threading.Event(), threading.Event(), []

    def slow(batch):
        if is_known:
            began.set()
            assert ends.wait(30)
        is_known.append(time.sleep(0.02))  # how long it takes, which the queue has to have seen
        return double(batch)

    app = App([model(slow)], ServerSettings(waiting_s=0.0), token=TOKEN)
    known = {"authorization": f"Bearer {TOKEN}"}
    with behind_it(app) as (port, let_in, _), contextlib.ExitStack() as stack:
        stack.callback(ends.set)
        answers = [asked(port, "POST", INFER, GOOD, known)]
        askers = [
            threading.Thread(target=lambda: answers.append(asked(port, "POST", INFER, GOOD, known))) for _ in range(2)
        ]
        askers[0].start()
        assert began.wait(30)
        askers[1].start()
        while len(let_in) < 3:  # the second waits for the first, and so nobody may any more
            time.sleep(0.01)
        status, headers, _ = asked(port, "POST", INFER, GOOD, known)
        assert (status, headers["retry-after"], len(let_in)) == (503, "1", 3)
        assert asked(port, "POST", INFER, GOOD)[0] == 401
        assert asked(port, "GET", "/v2/health/ready")[0] == 200
        text = asked(port, "GET", "/metrics", headers=known)[2].decode()
        assert 'inference_rejected_total{model="double",runtime="none"} 1.0' in text
        ends.set()
        for asker in askers:
            asker.join()
    assert [status for status, _, _ in answers] == [200, 200, 200]


def test_where_no_application_is_nothing_stands():
    """Serve's own proxies ask for it too."""
    assert middlewares() == []
