"""A bare ASGI loop: what a model costs on uvicorn when nothing is done but to parse, predict and answer.

In: `--model FILE` (an ONNX graph of one input), `--classes N,N`, and what `process.child_servers` adds. Out: a server
that believes whatever it is told: no validation, no limits, no figures. What the harness's own server adds to that is
held against it.
"""

import argparse
import socket
from typing import Any, cast

import numpy as np
import onnxruntime
import orjson
import uvicorn

from harness.process import BACKLOG, announce_ready, die_with_parent


def application(file: str, classes: list[str]) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    wanted = [session.get_outputs()[-1].name]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        answer = b"{}"
        if body:  # whoever looks whether it is there sends none
            (given,) = orjson.loads(body)["inputs"]
            rows = np.array(given["data"], dtype=np.float32).reshape(given["shape"])
            (likely,) = session.run(wanted, {name: rows})
            labels = [classes[place] for place in likely.argmax(axis=1).tolist()]
            outputs = [
                {"name": "label", "datatype": "BYTES", "shape": [len(rows)], "data": labels},
                {"name": "probabilities", "datatype": "FP64", "shape": likely.shape, "data": likely.ravel().tolist()},
            ]
            answer = orjson.dumps({"model_name": "m", "outputs": outputs})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--classes", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    given = parser.parse_args()
    die_with_parent()
    app = cast("Any", application(given.model, given.classes.split(",")))
    settings = uvicorn.Config(
        app, http="httptools", loop="uvloop", ws="none", lifespan="off", access_log=False, log_level="warning",
        backlog=BACKLOG, timeout_keep_alive=3600, server_header=False, proxy_headers=False,
    )  # fmt: skip

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            announce_ready(given.ready_fd)

    with socket.socket(fileno=given.fd) as sock:
        Server(settings).run(sockets=[sock])


if __name__ == "__main__":
    main()
