"""Requests that are computed together: what one of them does to the others."""

import orjson

from harness.records.candidate import Column, Signature
from harness.records.rows import Prediction
from harness.serving.limits import Limits
from harness.serving.work import Job, Model, Wire, compute_together

SIGNATURE = Signature(task="regression", columns=(Column(name="x", kind="number"),))


def job(wire, *values):
    rows = {"name": "rows", "datatype": "FP64", "shape": [len(values), 1], "data": values}
    return Job(wire, orjson.dumps({"inputs": [rows]}), None, 0.0, 0.0)


def test_one_that_leads_to_no_number_is_refused_alone_and_the_model_is_asked_once():
    sizes = []

    def unlucky(batch):
        sizes.append(len(batch))
        values = batch.numbers[:, 0].copy()
        values[values == 13.0] = float("inf")
        return Prediction(values=values, probabilities=None)

    wire = Wire.of(Model("m", None, "none", SIGNATURE, unlucky), Limits())
    jobs = [job(wire, 1.0), job(wire, 2.0, 13.0), job(wire, 3.0, 4.0)]
    compute_together(jobs)

    assert sizes == [5]
    assert [one.outcome.status for one in jobs] == [200, 400, 200]
    assert jobs[1].outcome.error.endswith("of row 1")  # its own second one
    said = [orjson.loads(one.outcome.answer.body)["outputs"][0]["data"] for one in (jobs[0], jobs[2])]
    assert said == [[1.0], [3.0, 4.0]]
