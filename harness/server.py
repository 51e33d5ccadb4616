"""The entry of a serving process: bundles, a runtime and the application, put together.

In: the folders of candidates by the names to serve them under, and the name of a runtime. Out: `application`, for
servers that run ASGI applications themselves; `python -m harness.server serve`, a uvicorn process on an inherited
socket, which answers whom it let in before it ends, and is gone when its parent is; `python -m harness.server predict`,
a fresh process that answers requests from stdin on stdout, a line each.
"""

import argparse
import gc
import logging
import math
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from harness.errors import ExitCode, HarnessError, InfrastructureError, UsageError, one_line
from harness.process import BACKLOG, announce_ready, die_with_parent
from harness.records.server import ServerSettings
from harness.serving.app import App
from harness.serving.connections import connection_class
from harness.serving.drain import DrainingServer
from harness.serving.limits import Limits
from harness.serving.protocol import BadRequestError, request_reader, response_writer
from harness.serving.work import Model
from harness.stages.export import loaded
from harness.store.bundle import read_example

KEEP_ALIVE_S = 3600
"""A connection that idles is kept: at a low rate a load generator's pool would otherwise find its connections closed
under it, and count as errors of the model what is a setting of the server (uvicorn's own default is 5 s)."""

LIMITS = Limits()


def application(
    bundles: Mapping[str, Path],
    runtime: str,
    settings: ServerSettings,
    address: str | None = None,
    replica: str | None = None,
) -> App:
    """The ASGI application that serves the candidates in these folders, every digest verified first.

    `address` and `replica` are for one behind a proxy: where clients ask, and how it is called there.

    Raises UsageError, IntegrityError or NotConvertibleError.
    """
    token = settings.token()
    settings.check_log()
    if settings.access_log is not None:
        _log_access(settings.access_log)
    models = [_model(name, bundle, runtime) for name, bundle in bundles.items()]
    return App(models, settings, LIMITS, token, address, replica)


def _log_access(file: str) -> None:
    access = logging.getLogger("harness.access")
    access.addHandler(logging.FileHandler(file))
    access.setLevel(logging.INFO)
    access.propagate = False


def _model(name: str, bundle: Path, runtime: str) -> Model:
    candidate, predict = loaded(bundle, runtime)
    return Model(name, candidate.id, runtime, candidate.signature, predict, read_example(bundle))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve or predict; the exit status is the error's own."""
    parser = _parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if given.command == "predict":
            return _predict(given.bundle, given.runtime, given.model)
        die_with_parent()
        _serve(given)
    except HarnessError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return int(ExitCode.GOOD)


def _predict(bundle: Path, runtime: str, model: str | None) -> int:
    candidate, predict = loaded(bundle, runtime)
    read = request_reader(candidate.signature)
    write = response_writer(candidate.signature, model or candidate.id)
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            request = read(line, None)
        except BadRequestError as error:
            raise UsageError(f"The request in line {number} of stdin cannot be answered: {error}.") from error
        try:
            answer = write(predict(request.batch), request.id, request.outputs).body
        except Exception as error:  # a model may raise anything, or answer what is no number
            told = f"{type(error).__name__}: {one_line(error)}"
            raise UsageError(f"The model does not answer the request in line {number} of stdin: {told}.") from error
        sys.stdout.buffer.write(answer + b"\n")
    sys.stdout.buffer.flush()
    return int(ExitCode.GOOD)


def _serve(given: argparse.Namespace) -> None:
    """Until told to end. Raises InfrastructureError where whom it had let in was not answered in time."""
    import uvicorn

    bundles = {name: Path(folder) for name, _, folder in (one.partition("=") for one in given.model)}
    told = ServerSettings.model_validate_json(given.settings)
    app = application(bundles, given.runtime, told)
    config = uvicorn.Config(
        cast("Any", app),
        http=connection_class(app),
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",  # at "warning" it has a line for each request that is none, which strangers may send
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(told.drain_s),
        server_header=False,
        proxy_headers=False,
    )
    # What is here now stays: no collection is to look at it again, for as long as a request waits.
    gc.collect()
    gc.freeze()
    server = DrainingServer(config, lambda: announce_ready(given.ready_fd) if given.ready_fd is not None else None)
    with socket.socket(fileno=given.fd) as sock:
        server.run(sockets=[sock])
    if not server.has_drained:
        raise InfrastructureError(
            f"Not all requests were answered within the {told.drain_s:g} s that a server has to end."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.server", description="The entry of a serving process.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer HTTP until stopped")
    predict = commands.add_parser("predict", help="answer requests from stdin on stdout, one per line")
    for command in (serve, predict):
        command.add_argument("--runtime", required=True, help="how it computes")
    serve.add_argument("--model", required=True, action="append", help="NAME=FOLDER; may come again")
    serve.add_argument("--settings", default="{}", help="how it is served, in JSON")
    predict.add_argument("--bundle", type=Path, required=True, help="folder of the candidate")
    predict.add_argument("--model", help="name in the answer; left out, the candidate's id")
    serve.add_argument("--fd", type=int, required=True, help="an inherited socket that listens already")
    serve.add_argument("--ready-fd", type=int, help="an inherited pipe that is told when requests are answered")
    return parser


if __name__ == "__main__":
    sys.exit(main())
