"""The page at `/`: which models a server has, what they take and answer, and how to ask them.

In: models and the server's address. Out: `page`, HTML that loads nothing; and `call`, a line for a shell.
"""

import html
import shlex
from collections.abc import Sequence

from harness.serving.protocol import metadata
from harness.serving.work import Model

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "pre{background:#f4f4f4;padding:.8rem;overflow:auto;white-space:pre-wrap;word-break:break-word}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1rem .2rem 0;border-bottom:1px solid #ddd}"
)


def call(model: str, example: bytes | None, address: str, token_env: str | None = None) -> str | None:
    """A `curl` line that asks a model for the answer to a real row; None where there is no example.

    `token_env` is the environment variable with the token that the server wants.
    """
    if example is None:
        return None
    token = "" if token_env is None else f' -H "Authorization: Bearer ${token_env}"'
    url = shlex.quote(f"{address}/v2/models/{model}/infer")
    return f"curl -s {url} -H 'Content-Type: application/json'{token} -d {shlex.quote(example.decode())}"


def page(models: Sequence[Model], address: str, with_token: bool) -> str:
    """The whole page; `with_token` where the server wants one."""
    parts = "".join(_model(model, address, with_token) for model in models)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Models served here</title>'
        f"<style>{_STYLE}</style></head><body><h1>Models served here</h1>{parts}<p>The protocol is the Open Inference "
        'Protocol v2; <a href="openapi.json">its description</a> and <a href="metrics">figures for Prometheus</a>.'
        "</p></body></html>"
    )


def _model(model: Model, address: str, with_token: bool) -> str:
    stated = metadata(model.signature, model.name, model.version)
    columns = "".join(
        f"<tr><td>{html.escape(column.name)}</td><td>{column.kind}</td></tr>" for column in model.signature.columns
    )
    outputs = "".join(
        f"<tr><td>{output['name']}</td><td>{output['datatype']}</td><td>{_shape(output['shape'])}</td></tr>"
        for output in stated["outputs"]
    )
    classes = ", ".join(map(html.escape, model.signature.classes))
    line = call(model.name, model.example, address, "TOKEN" if with_token else None)
    return (
        f"<h2>{html.escape(model.name)}</h2><p>A {model.signature.task} model, computed by {html.escape(model.runtime)}"
        + (f", version {html.escape(model.version)}" if model.version is not None else "")
        + ".</p>"
        + (f"<pre>{html.escape(line)}</pre>" if line is not None else "")
        + f"<h3>It takes</h3><table><tr><th>column</th><th>kind</th></tr>{columns}</table>"
        + f"<h3>It answers</h3><table><tr><th>output</th><th>datatype</th><th>shape</th></tr>{outputs}</table>"
        + (f"<p>Classes, in the order of the probabilities: {classes}.</p>" if classes else "")
    )


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join("rows" if size < 0 else str(size) for size in shape) + "]"
