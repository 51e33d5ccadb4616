"""A server that knows nothing of us: threads of the standard library, plain or TLS, for tests of `harness load`.

`/score` answers any POST, `/get` any GET, `/secret` whoever has the token, `/moved` sends elsewhere, `/broken` fails.
"""

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator

TOKEN = "t0ken"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        known = self.headers.get("authorization") == f"Bearer {TOKEN}"
        match self.path.partition("?")[0]:
            case "/score":
                self.answer(200, b'{"score": 0.5}')
            case "/secret":
                self.answer(200 if known else 401, b"welcome" if known else b"who are you?")
            case "/moved":
                self.answer(301, b"elsewhere")
            case "/broken":
                self.answer(500, b"<html>a stack trace</html>")
            case _:
                self.answer(404, b"nothing here")

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers), b""))  # type: ignore[attr-defined]
        self.answer(200 if self.path.startswith("/get") else 404, b"here")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        """Method, path, headers and body of every request."""
        self._context = context
        self.url = f"{'https' if context else 'http'}://localhost:{self.server_port}"

    def finish_request(self, request: object, client_address: object) -> None:
        if self._context is None:
            super().finish_request(request, client_address)  # type: ignore[arg-type]
            return
        # In the thread of the connection: a client that never shakes hands must not keep others waiting.
        with self._context.wrap_socket(request, server_side=True) as secured:  # type: ignore[arg-type]
            super().finish_request(secured, client_address)

    def handle_error(self, *_: object) -> None: ...


@contextlib.contextmanager
def foreign_server(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
