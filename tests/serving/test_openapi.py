"""The server as it describes itself, held to that by schemathesis: no 5xx, and no answer that it does not state."""

import numpy as np
import schemathesis
from hypothesis import settings
from signatures import MIXED, NUMBERS

from harness.records.rows import Prediction
from harness.serving.app import App
from harness.serving.openapi import openapi
from harness.serving.work import Model


def likely(batch):
    chances = np.full((len(batch), 2), 0.5)
    return Prediction(values=chances.argmax(axis=1).astype(float), probabilities=chances)


def nothing(batch):
    return Prediction(values=np.zeros(len(batch)), probabilities=None)


MODELS = [Model("numbers", None, "none", NUMBERS, likely), Model("mixed", None, "none", MIXED, nothing)]
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
    assert {"/v2", "/v2/models/mixed", "/v2/models/mixed/infer", "/metrics"} <= set(described)
    assert {"200", "400", "413", "503"} <= set(described["/v2/models/mixed/infer"]["post"]["responses"])
