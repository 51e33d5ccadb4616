"""What does a served candidate cost: beside a bare loop that only parses and predicts, in bytes, and under load?

A 100-tree forest on the breast-cancer table, ONNX, one process on a core of its own and the generator on another, where
there are two. Servers that are compared are loaded in turns, and their ratio is taken round by round. The goals: 0.8 of
the bare loop with everything on; p99 at half of the capacity within 2 ms; 0.8 of the runtime's own limit for 1,000 rows
in bytes; a bundle answers 2 s after it was asked for.
"""

import contextlib
import itertools
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import psutil
import pytest
from conftest import Subject
from pytest_benchmark.fixture import BenchmarkFixture

from harness.clock import SystemClock
from harness.plugins import plugin
from harness.ports import Servable
from harness.process import LOOPBACK, ONE_THREAD, child, child_servers
from harness.records.candidate import Endpoint
from harness.records.load import NEVER, Head, Outcome, Step
from harness.records.rows import Batch
from harness.records.scenario import LoadPlan
from harness.records.server import ServerSettings
from harness.serving.protocol import encode_request
from harness.stages.host import split_cores
from harness.stages.load.generator import Generator, generator

CORES, SERVER_CORES = split_cores()
ROUNDS = 5
STEP_S = 3.0
IN_FLIGHT = 16
ROWS = 1_000


def served(subject: Subject, log: Path, settings: ServerSettings | None = None) -> Servable:
    return Servable(
        "harness.server", subject.bundle, "onnx", "m", 1, SERVER_CORES, log, settings=settings or ServerSettings()
    )


@contextlib.contextmanager
def asgi(subject: Subject, folder: Path, settings: ServerSettings | None = None) -> Iterator[Endpoint]:
    with plugin("targets", "asgi").serve(served(subject, folder / "asgi.log", settings)) as endpoint:
        yield endpoint


@contextlib.contextmanager
def bare(subject: Subject, folder: Path) -> Iterator[Endpoint]:
    command = [sys.executable, str(Path(__file__).with_name("bare_server.py"))]
    command += [
        "--model",
        str(subject.bundle / "model.onnx"),
        "--classes",
        ",".join(subject.candidate.signature.classes),
    ]
    started = child_servers(
        command, what="The bare loop", log=folder / "bare.log", cores=SERVER_CORES, environment=ONE_THREAD
    )
    with started as (port, processes):
        yield Endpoint(url=f"http://{LOOPBACK}:{port}", model="m", startup_s=0.0, processes=processes)


def one_row(subject: Subject) -> list[bytes]:
    rows = subject.rows
    return [
        encode_request(rows.take(slice(place, place + 1)), subject.candidate.signature) for place in range(len(rows))
    ]


def in_bytes(batches: Sequence[Batch]) -> tuple[list[bytes], Head]:
    """Bodies of batches that are alike, and the head that they have in common."""
    shape = list(batches[0].numbers.shape)
    size = {"binary_data_size": 8 * shape[0] * shape[1]}
    given = {"name": "rows", "datatype": "FP64", "shape": shape, "parameters": size}
    header = orjson.dumps({"inputs": [given], "parameters": {"binary_data_output": True}})
    headers = ("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", str(len(header)))
    bodies = [header + np.ascontiguousarray(batch.numbers, "<f8").tobytes() for batch in batches]
    return bodies, Head(headers=headers)


def rate(load: Generator, in_flight: int) -> float:
    """Requests answered in a second, closed."""
    step = Step(shape="b", number=0, mode="closed", in_flight=in_flight, duration_s=STEP_S, warmup_s=0.0)
    columns = load.drive(step).columns
    assert (columns["outcome"] == Outcome.OK).all(), np.unique(columns["outcome"], return_counts=True)
    return len(columns["outcome"]) / STEP_S


def test_everything_on_beside_a_bare_loop(benchmark: BenchmarkFixture, subject: Subject, tmp_path: Path) -> None:
    bodies, plan = one_row(subject), LoadPlan()
    with contextlib.ExitStack() as stack:
        loads = {
            name: stack.enter_context(
                generator(stack.enter_context(server(subject, tmp_path)), bodies, None, plan, CORES, tmp_path / name)
            )
            for name, server in (("bare", bare), ("asgi", asgi))
        }
        for load in loads.values():
            rate(load, IN_FLIGHT)  # warm

        def turns() -> list[dict[str, float]]:
            return [{name: rate(load, IN_FLIGHT) for name, load in loads.items()} for _ in range(ROUNDS)]

        found = benchmark.pedantic(turns, rounds=1)
    ratios = sorted(one["asgi"] / one["bare"] for one in found)
    benchmark.extra_info.update(
        bare_rps=median(one["bare"] for one in found),
        asgi_rps=median(one["asgi"] for one in found),
        ratio=median(ratios),
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
    )


def test_latency_at_half_of_the_capacity(benchmark: BenchmarkFixture, subject: Subject, tmp_path: Path) -> None:
    """Beside a bare loop at the same rate, in turns: what both have is the machine's and the generator's."""
    with contextlib.ExitStack() as stack:
        loads = {
            name: stack.enter_context(
                generator(
                    stack.enter_context(server(subject, tmp_path)),
                    one_row(subject),
                    None,
                    LoadPlan(),
                    CORES,
                    tmp_path / name,
                )
            )
            for name, server in (("asgi", asgi), ("bare", bare))
        }
        rate(loads["bare"], IN_FLIGHT)  # warm
        most = rate(loads["asgi"], IN_FLIGHT)

        def turns() -> list[dict[str, tuple[float, float]]]:
            return [{name: at_rate(load, most / 2) for name, load in loads.items()} for _ in range(ROUNDS)]

        found = benchmark.pedantic(turns, rounds=1)
    benchmark.extra_info.update(capacity_rps=most, asked_rps=most / 2)
    for name in loads:
        p50s_ms, p99s_ms = (sorted(one[name][place] for one in found) for place in (0, 1))
        benchmark.extra_info.update(
            {
                f"{name}_p50_ms": median(p50s_ms),
                f"{name}_p99_ms": median(p99s_ms),
                f"{name}_p99_low_ms": p99s_ms[0],
                f"{name}_p99_high_ms": p99s_ms[-1],
            }
        )


def at_rate(load: Generator, rate_rps: float) -> tuple[float, float]:
    """p50 and p99 of an open step, milliseconds."""
    step = Step(shape="b", number=1, mode="open", rate_rps=rate_rps, duration_s=5.0, warmup_s=1.0)
    columns = load.drive(step).columns
    counted = columns["due_ns"] >= step.warmup_s * 1e9
    assert (columns["done_ns"][counted] != NEVER).all()
    latency_ms = (columns["done_ns"] - columns["due_ns"])[counted] / 1e6
    return float(np.quantile(latency_ms, 0.5)), float(np.quantile(latency_ms, 0.99))


@pytest.mark.parametrize("rows", ["drawn", "the same"])
def test_many_rows_in_bytes(benchmark: BenchmarkFixture, subject: Subject, tmp_path: Path, rows: str) -> None:
    """Beside the runtime by itself on the same core, in turns; on rows that come as they may, or over and over."""
    batches = subject.drawn(ROWS) if rows == "drawn" else [subject.batch(ROWS)]
    bodies, head = in_bytes(batches)
    predict, again, clock = subject.predictor("onnx"), itertools.cycle(batches), SystemClock()

    def alone() -> float:
        began_s, calls = clock.monotonic_s(), 0
        while clock.monotonic_s() - began_s < STEP_S:
            predict(next(again))
            calls += 1
        return ROWS * calls / (clock.monotonic_s() - began_s)

    with (
        asgi(subject, tmp_path) as endpoint,
        generator(endpoint, bodies, None, LoadPlan(), CORES, tmp_path, head=head) as load,
    ):

        def turns() -> list[tuple[float, float]]:
            return [(alone(), ROWS * rate(load, 2)) for _ in range(ROUNDS)]

        found = benchmark.pedantic(turns, rounds=1)
    ratios = sorted(through / by_itself for by_itself, through in found)
    benchmark.extra_info.update(
        rows=rows,
        runtime_rows_per_s=median(by_itself for by_itself, _ in found),
        served_rows_per_s=median(through for _, through in found),
        ratio=median(ratios),
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
    )


@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("runtime", ["onnx", "sklearn_native"])
@pytest.mark.parametrize("rows", [1, 10, 100])
def test_computed_together(
    benchmark: BenchmarkFixture, subject: Subject, tmp_path: Path, batch: int, runtime: str, rows: int
) -> None:
    """What micro-batching brings, at 64 in flight."""
    bodies = [encode_request(drawn, subject.candidate.signature) for drawn in subject.drawn(rows)]
    servable = served(subject, tmp_path / "log", ServerSettings(batch_requests=batch, waiting_s=10.0))
    servable = replace(servable, runtime=runtime)
    with (
        plugin("targets", "asgi").serve(servable) as endpoint,
        generator(endpoint, bodies, None, LoadPlan(), CORES, tmp_path) as load,
    ):
        found = benchmark.pedantic(rate, args=(load, 64), rounds=1)
    benchmark.extra_info.update(answered_rps=found, batch=batch, runtime=runtime, rows=rows)


def test_cold_start(benchmark: BenchmarkFixture, subject: Subject, tmp_path: Path) -> None:
    """From nothing to the first answer, of a row."""
    (body, *_), clock = one_row(subject), SystemClock()

    def first_answer() -> float:
        began_s = clock.monotonic_s()
        with asgi(subject, tmp_path) as endpoint:
            request: Any = urllib.request.Request(endpoint.url + endpoint.infer_path, data=body)
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
            return clock.monotonic_s() - began_s

    found = benchmark.pedantic(lambda: [first_answer() for _ in range(ROUNDS)], rounds=1)
    benchmark.extra_info.update(median_s=median(found), most_s=max(found))


def drive(load: Generator, number: int, rate_rps: float, duration_s: float) -> dict[str, Any]:
    """An open step's exchanges, all of them."""
    step = Step(shape="b", number=number, mode="open", rate_rps=rate_rps, duration_s=duration_s, warmup_s=0.0)
    return dict(load.drive(step).columns)


def p99_ms(columns: dict[str, Any], outcome: Outcome = Outcome.OK, since_s: float = 0.0, until_s: float = 1e9) -> float:
    """Scheduled latency of what was due in that time and came to that."""
    due_s = columns["due_ns"] / 1e9
    own = (columns["outcome"] == outcome) & (due_s >= since_s) & (due_s < until_s)
    latency_ms = (columns["done_ns"] - columns["due_ns"])[own] / 1e6
    return float(np.quantile(latency_ms, 0.99)) if own.any() else float("inf")


def test_good_traffic_beside_abuse(benchmark: BenchmarkFixture, subject: Subject, tmp_path: Path) -> None:
    """A fifth of the capacity in good requests, with and without 50 bad ones a second, in turns: p99 within 1.5."""
    with (
        asgi(subject, tmp_path) as endpoint,
        generator(endpoint, one_row(subject), None, LoadPlan(), CORES, tmp_path) as load,
    ):
        asked_rps = rate(load, IN_FLIGHT) / 5
        address = urlsplit(endpoint.url)
        command = [sys.executable, str(Path(__file__).with_name("abuser.py")), str(address.hostname), str(address.port)]
        command += [endpoint.infer_path, "50", str(STEP_S * 2 + 1)]

        def turns() -> list[tuple[float, float]]:
            found = []
            for number in range(ROUNDS):
                calm_ms = p99_ms(drive(load, number, asked_rps, STEP_S * 2))
                log = tmp_path / f"abuser-{number}.log"
                with child(command, log=log, cores=CORES):
                    while "begins" not in log.read_text():
                        SystemClock().sleep(0.05)
                    found.append((calm_ms, p99_ms(drive(load, number, asked_rps, STEP_S * 2))))
            return found

        found = benchmark.pedantic(turns, rounds=1)
    ratios = sorted(beside / calm for calm, beside in found)
    benchmark.extra_info.update(
        asked_rps=asked_rps,
        calm_p99_ms=median(calm for calm, _ in found),
        beside_p99_ms=median(beside for _, beside in found),
        ratio=median(ratios),
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
    )


def through_overload(load: Generator, memory_bytes: Callable[[], int]) -> dict[str, float]:
    """A server of about 200 requests a second is offered 100, then 2,000, and then 100 again."""
    calm_ms = p99_ms(drive(load, 0, 100.0, 10.0))
    peak = max(rate(load, in_flight) for in_flight in (1, 2, 4, 8))
    before_bytes = memory_bytes()
    over = drive(load, 1, 2_000.0, 10.0)
    more_bytes = memory_bytes() - before_bytes
    after = drive(load, 2, 100.0, 10.0)
    goodput = float((over["outcome"] == Outcome.OK).sum() / 10.0)
    return {
        "calm_p99_ms": calm_ms,
        "peak_rps": peak,
        "goodput_rps": goodput,
        "goodput_of_peak": goodput / peak,
        "goodput_p99_ms": p99_ms(over),
        "refused_rps": float((over["status"] == 503).sum() / 10.0),
        "otherwise_rps": float(((over["status"] != 503) & (over["outcome"] != Outcome.OK)).sum() / 10.0),
        "refused_p99_ms": p99_ms(over, Outcome.HTTP_ERROR),
        "more_memory_mib": more_bytes / 2**20,
        "p99_after_5_s_ms": p99_ms(after, since_s=5.0),
    }


def slow(subject: Subject, folder: Path, cores: tuple[int, ...]) -> Servable:
    return Servable("slow_server", subject.bundle, "onnx", "m", 1, cores, folder / "slow.log")


def test_overload(
    benchmark: BenchmarkFixture, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with (
        plugin("targets", "asgi").serve(slow(subject, tmp_path, SERVER_CORES)) as endpoint,
        generator(endpoint, one_row(subject), None, LoadPlan(), CORES, tmp_path) as load,
    ):
        server = psutil.Process(endpoint.processes[0])
        found = benchmark.pedantic(through_overload, args=(load, lambda: server.memory_info().rss), rounds=1)
    benchmark.extra_info.update(found)


def test_overload_of_ray_serve(
    benchmark: BenchmarkFixture, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with Ray Serve on all cores, the generator's too: on one, HAProxy would take from the model's."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with (
        plugin("targets", "ray_serve").serve(slow(subject, tmp_path, ())) as endpoint,
        generator(endpoint, one_row(subject), None, LoadPlan(), CORES, tmp_path) as load,
    ):
        started = psutil.Process().children(recursive=True)
        serving = [one for one in started if one.name() == "haproxy" or one.name().startswith("ray::ServeRepl")]

        def memory_bytes() -> int:
            return sum(one.memory_info().rss for one in serving)

        found = benchmark.pedantic(through_overload, args=(load, memory_bytes), rounds=1)
    benchmark.extra_info.update(found)
