"""How long does a candidate take, in process, for one row and for many, and what do the wire's encodings cost?"""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from conftest import Subject
from pytest_benchmark.fixture import BenchmarkFixture

from harness.plugins import installed
from harness.ports import Predictor
from harness.records.candidate import Precision
from harness.records.rows import Batch
from harness.serving.protocol import decode_request, decode_response, encode_request, encode_response
from harness.stages.micro import BATCH_ROWS

ROWS_ON_THE_WIRE = (1, 100)


@pytest.mark.parametrize("rows", BATCH_ROWS)
@pytest.mark.parametrize("runtime", installed("runtimes"))
def test_predict(benchmark: BenchmarkFixture, subject: Subject, runtime: str, rows: int) -> None:
    benchmark.extra_info.update(benchmark="predict", runtime=runtime, rows=rows)
    timed(benchmark, subject.predictor(runtime), subject.drawn(rows))


def timed(benchmark: BenchmarkFixture, predict: Predictor, batches: Sequence[Batch]) -> None:
    """Time a predictor on batches in turns."""
    predict(batches[0])  # the first call pays for what is only made once
    again = itertools.cycle(batches)
    prediction = benchmark(lambda: predict(next(again)))
    assert len(prediction.values) == len(batches[0])
    assert np.isfinite(prediction.values).all()


@pytest.mark.parametrize("rows", BATCH_ROWS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_double_costs(benchmark: BenchmarkFixture, subject: Subject, precision: Precision, rows: int) -> None:
    """The same forest as a graph of floats and as one of doubles, which is taken where floats are not enough."""
    if subject.pipeline is None:
        pytest.skip("a bundle holds one graph, in the precision it was found to need")
    from harness.runtimes.onnx import converted, predictor  # here, not above: it is not for runs

    signature = subject.candidate.signature
    benchmark.extra_info.update(benchmark="predict", runtime="onnx", precision=precision, rows=rows)
    predict = predictor(converted(subject.pipeline, signature, precision), signature)
    timed(benchmark, predict, subject.drawn(rows))


@pytest.mark.parametrize("rows", ROWS_ON_THE_WIRE)
def test_encode_request(benchmark: BenchmarkFixture, subject: Subject, rows: int) -> None:
    signature, batch = subject.candidate.signature, subject.batch(rows)
    benchmark.extra_info.update(benchmark="encode_request", rows=rows)
    body = benchmark(encode_request, batch, signature)
    again = decode_request(body, signature)
    np.testing.assert_array_equal(again.numbers, batch.numbers)


@pytest.mark.parametrize("rows", ROWS_ON_THE_WIRE)
def test_decode_request(benchmark: BenchmarkFixture, subject: Subject, rows: int) -> None:
    signature, batch = subject.candidate.signature, subject.batch(rows)
    benchmark.extra_info.update(benchmark="decode_request", rows=rows)
    decoded = benchmark(decode_request, encode_request(batch, signature), signature)
    np.testing.assert_array_equal(decoded.numbers, batch.numbers)


@pytest.mark.parametrize("rows", ROWS_ON_THE_WIRE)
def test_encode_response(benchmark: BenchmarkFixture, subject: Subject, rows: int) -> None:
    signature = subject.candidate.signature
    runtime = next(artifact.runtime for artifact in subject.candidate.artifacts if artifact.file)
    prediction = subject.predictor(runtime)(subject.batch(rows))
    benchmark.extra_info.update(benchmark="encode_response", rows=rows)
    body = benchmark(encode_response, prediction, signature, "model")
    np.testing.assert_array_equal(decode_response(body, signature).values, prediction.values)
