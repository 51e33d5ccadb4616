"""The server as it describes itself, held to that by schemathesis: no 5xx, and no answer that it does not state."""

import jsonschema
import numpy as np
import orjson
import pytest
import schemathesis
from hypothesis import settings
from signatures import MIXED, NUMBERS

from harness.records.rows import MISSING_TEXT, Batch, Prediction
from harness.serving.app import App
from harness.serving.openapi import openapi
from harness.serving.protocol import encode_request
from harness.serving.work import Model


def likely(batch):
    chances = np.full((len(batch), 2), 0.5)
    return Prediction(values=chances.argmax(axis=1).astype(float), probabilities=chances)


def nothing(batch):
    return Prediction(values=np.zeros(len(batch)), probabilities=None)


NO_TEXTS = np.empty((2, 0), dtype=object)
OF_NUMBERS = encode_request(Batch(np.array([[1.5, np.nan], [2.0, 3.0]]), NO_TEXTS), NUMBERS)
OF_ALL = encode_request(
    Batch(np.array([[1.5, 20_000.5, 1.0], [np.nan] * 3]), np.array([["red"], [MISSING_TEXT]], dtype=object)), MIXED
)
MODELS = [
    Model("numbers", None, "none", NUMBERS, likely, OF_NUMBERS),
    Model("mixed", "3", "none", MIXED, nothing, OF_ALL),
]
APP = App(MODELS)
# Of four inputs there are thousands of cases at the edges of the schema, one after the other: what is drawn is enough.
CONFIG = schemathesis.Config.from_dict({"phases": {"coverage": {"enabled": False}}})
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP, config=CONFIG)


@SCHEMA.parametrize()
@settings(max_examples=60, deadline=None)
def test_the_server_is_as_it_says(case):
    # That data has as many values as a shape says, JSON Schema cannot: not all that it allows is accepted.
    case.call_and_validate(excluded_checks=[schemathesis.checks.positive_data_acceptance])


def test_every_path_that_it_describes_is_there_and_every_status_it_gives_is_described():
    described = openapi(MODELS)["paths"]
    assert {"/", "/openapi.json", "/v2", "/v2/models/mixed", "/v2/models/mixed/infer", "/metrics"} <= set(described)
    assert described["/v2/models/mixed/versions/3/infer"] == described["/v2/models/mixed/infer"]
    responses = described["/v2/models/mixed/infer"]["post"]["responses"]
    assert {"200", "400", "413", "503"} <= set(responses)
    assert set(responses["200"]["content"]) == {"application/json", "application/octet-stream"}


def each_by_itself(body):
    """The request for two columns of numbers, as one input per column."""
    (rows,) = orjson.loads(body)["inputs"]
    columns = zip(("height", "width"), (rows["data"][::2], rows["data"][1::2]), strict=True)
    return {"inputs": [{"name": name, "datatype": "FP64", "shape": [2], "data": data} for name, data in columns]}


@pytest.mark.parametrize(
    ("model", "request_of_it"),
    [
        ("numbers", orjson.loads(OF_NUMBERS)),
        ("numbers", each_by_itself(OF_NUMBERS)),
        ("mixed", orjson.loads(OF_ALL)),
        ("mixed", {**orjson.loads(OF_ALL), "outputs": [{"name": "value", "parameters": {"binary_data": True}}]}),
    ],
)
def test_what_the_server_takes_is_described_whatever_the_order_and_nothing_twice(model, request_of_it):
    content = openapi(MODELS)["paths"][f"/v2/models/{model}/infer"]["post"]["requestBody"]["content"]
    described = jsonschema.Draft202012Validator(content["application/json"]["schema"])
    described.validate(request_of_it)
    inputs = request_of_it["inputs"]
    described.validate({**request_of_it, "inputs": inputs[::-1]})
    assert not described.is_valid({**request_of_it, "inputs": [inputs[0], *inputs[:-1]]} if inputs[1:] else {})
    assert not described.is_valid({**request_of_it, "inputs": [{**inputs[0], "shape": [1, 2, 3]}, *inputs[1:]]})


def test_the_token_is_described_where_one_is_wanted_and_not_for_health():
    told = openapi(MODELS, with_token=True)
    assert told["security"] == [{"bearer": []}]
    assert told["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
    assert told["paths"]["/v2/health/live"]["get"]["security"] == []
    assert "401" in told["paths"]["/v2"]["get"]["responses"]
    assert "401" not in openapi(MODELS)["paths"]["/v2"]["get"]["responses"]
