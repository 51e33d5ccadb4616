"""Probe: a server of the user's own, asked once before it is loaded.

In: an endpoint and what its requests have in common. Out: its answer to the first request, or what its model takes; or
one paragraph that says what stands between it and a load: an address, a certificate, a token, a wrong request.
"""

import http.client
import json
import ssl
from typing import Any

from harness.errors import InfrastructureError, UsageError
from harness.process import address_of
from harness.records.candidate import Endpoint
from harness.records.load import Head
from harness.records.words import Protocol
from harness.stages.dialects import Stated, model_inputs, refuse_no_answer, service_arguments

_TIMEOUT_S = 30.0
_SHOWN_BYTES = 300


def first_answer(endpoint: Endpoint, head: Head, body: bytes, protocol: Protocol = "plain") -> bytes:
    """What the server answers to one request of the load. Raises InfrastructureError where that is no success, or no
    answer by the protocol.
    """
    status, reason, answer = _asked(endpoint, head, head.method, endpoint.infer_path, body)
    if not 200 <= status < 300:
        raise InfrastructureError(
            f"{endpoint.url} answered {status} {reason} to the first request ({head.method} {endpoint.infer_path}), so "
            f"there is nothing to measure.{_hint(status)} It said: {_shown(answer)}"
        )
    try:
        refuse_no_answer(protocol, answer)
    except ValueError as error:
        raise InfrastructureError(
            f"What {endpoint.url} answered to the first request ({head.method} {endpoint.infer_path}) is no answer of "
            f"the protocol {protocol}: {error}. Are address and protocol right? It said: {_shown(answer)}"
        ) from None
    return answer


def stated_by(endpoint: Endpoint, head: Head, protocol: Protocol) -> Stated:
    """What the server says that its model takes. Raises InfrastructureError where it should and does not."""
    if protocol == "v2":
        path, where = f"/v2/models/{endpoint.model}", "the Open Inference Protocol v2 has the model's inputs"
    elif protocol == "bentoml":
        path, where = "/docs.json", "a BentoML service says what its calls take"
    else:
        return None
    status, reason, answer = _asked(endpoint, head, "GET", path, b"")
    if status != 200:
        raise InfrastructureError(
            f"{endpoint.url} answered {status} {reason} to GET {path}, where {where}.{_hint(status)} It said: "
            f"{_shown(answer)}"
        )
    try:
        found: Any = json.loads(answer)
        found = found if type(found) is dict else {}
        call = endpoint.infer_path.partition("?")[0]
        return model_inputs(found) if protocol == "v2" else service_arguments(found, call)
    except ValueError as error:
        hint = (
            ". MLServer may state none: v2:np sends one matrix, v2:pd an input per column" if protocol == "v2" else ""
        )
        raise InfrastructureError(
            f"{endpoint.url} does not say what its model takes: its answer to GET {path}, where {where}, is of no use: "
            f"{error}{hint}. It said: {_shown(answer)}"
        ) from None


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """What https connections trust. Raises UsageError on a file without certificates."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise UsageError(f"The file of certificates {ca_file} cannot be used: {error.reason}. Give PEM.") from None


def _asked(endpoint: Endpoint, head: Head, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
    host, port = address_of(endpoint.url)
    connection: http.client.HTTPConnection
    if endpoint.url.startswith("https"):
        context = tls_context(head.ca_file)
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, body or None, dict(head.headers))
        response = connection.getresponse()
        return response.status, response.reason, response.read()
    except ssl.SSLCertVerificationError as error:
        raise InfrastructureError(
            f"The certificate of {endpoint.url} is not trusted: {error.verify_message}. If it is the right server, "
            "name the file of the certificates that it is signed with (ca_file, --ca-file)."
        ) from None
    except ssl.SSLError as error:
        raise InfrastructureError(
            f"{endpoint.url} does not speak TLS as it should: {error.reason or error}. Is it plain http?"
        ) from None
    except TimeoutError:
        raise InfrastructureError(f"{endpoint.url} did not answer the first request within {_TIMEOUT_S:g} s.") from None
    except (OSError, http.client.HTTPException) as error:
        raise InfrastructureError(
            f"{endpoint.url} gave no answer to the first request: {type(error).__name__}: {error}."
            + ("" if endpoint.url.startswith("https") else " Does it want https?")
        ) from None
    finally:
        connection.close()


def _hint(status: int) -> str:
    if status in (401, 403):
        return " It wants to know who asks: give a bearer token or a header."
    if status in (404, 405):
        return " Are path and method right?"
    if 300 <= status < 400:
        return " It sends elsewhere, and a load follows nobody: give the address that it names."
    return " Is the payload what it expects?" if 400 <= status < 500 else ""


def _shown(answer: bytes) -> str:
    text = " ".join(answer[:_SHOWN_BYTES].decode("utf-8", errors="replace").split())
    return f"{text!r}{' ...' if len(answer) > _SHOWN_BYTES else ''}" if text else "nothing."
