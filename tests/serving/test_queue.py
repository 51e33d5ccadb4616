"""How much the queue lets in of what it does not know, and what it learns by."""

import asyncio
import time

import numpy as np
import orjson
import pytest

from harness.records.candidate import Column, Signature
from harness.records.rows import Prediction
from harness.serving.limits import Limits
from harness.serving.queue import Queue, QueueFullError
from harness.serving.work import Job, Model, Wire

SIGNATURE = Signature(task="regression", columns=(Column(name="x", kind="number"),))


def body(rows):
    return orjson.dumps({"inputs": [{"name": "rows", "datatype": "FP64", "shape": [rows, 1], "data": [1.5] * rows}]})


def wire(predict, example=None):
    return Wire.of(Model("m", None, "none", SIGNATURE, predict, example), Limits())


def statuses(queue, of, bodies):
    """Of requests that come all at once; 503 for one that finds the queue full."""

    async def one(sent):
        job = Job(of, sent, None, time.monotonic(), time.monotonic())
        try:
            await queue.answered(job)
        except QueueFullError:
            return 503
        return job.outcome.status

    async def all_of_them():
        return await asyncio.gather(*(one(sent) for sent in bodies))

    try:
        return asyncio.run(all_of_them())
    finally:
        queue.close()


def slow(batch):
    time.sleep(0.02)
    return Prediction(values=batch.numbers[:, 0], probabilities=None)


def no_number(batch):
    time.sleep(0.02)
    return Prediction(values=np.full(len(batch), np.nan), probabilities=None)


def broken(batch):
    time.sleep(0.02)
    return broken_at_once(batch)


def broken_at_once(batch):
    raise RuntimeError("lost")


def test_a_size_that_was_never_computed_is_taken_for_one_between_as_long_and_as_much_longer_as_it_is_larger():
    of = wire(slow)
    of.seconds = {8: 0.001, 14: 0.004}
    assert of.guessed_s(b"x" * 200, 1.0) == of.expected_s(b"x" * 200) == 0.001
    assert of.guessed_s(b"x" * 1000, 1.0) == 0.002  # of ten bits
    assert of.guessed_s(b"x" * 50_000, 1.0) == 0.008  # of sixteen, by the nearer one


def test_the_first_burst_of_larger_requests_is_not_let_in_whole():
    queue, of = Queue(most_s=0.1), wire(slow, example=body(1))
    queue.warm(of)
    found = statuses(queue, of, [body(100)] * 30)
    assert set(found) == {200, 503}
    assert found.count(200) <= 3  # it would be five, were they taken for no larger than the example


@pytest.mark.parametrize(("most_s", "waiting"), [(0.0, 1), (0.12, 3)])
def test_few_wait_for_a_model_of_which_nothing_is_known(most_s, waiting):
    found = statuses(Queue(most_s), wire(broken_at_once), [body(1)] * 50)
    assert found.count(500) == waiting


@pytest.mark.parametrize(("predict", "status"), [(no_number, 400), (broken, 500)])
@pytest.mark.parametrize("together", [1, 2])
def test_time_that_a_model_spent_for_nothing_is_spent_as_well(predict, status, together):
    of = wire(predict)
    assert statuses(Queue(10.0, together), of, [body(1), b"{"]) == [status, 400]
    assert 0.02 <= of.expected_s(body(1)) < np.inf
    assert of.expected_s(b"{") == np.inf
