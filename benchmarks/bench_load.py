"""What does the load generator reach, and how late is it, against a server that computes nothing?

One generator, and two, on cores of their own where there are two; beside them Locust as it comes, and wrk where it is
installed. Each step is one round; what it found is in the extra info. The goals: lag p99 of 0.5 ms at 2,000 requests/s
and of 1 ms at 4,000; 10,000 requests/s within a percent of what was asked; two processes 1.8 times one, where each has
a core.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.plugins import plugin
from harness.ports import Servable
from harness.process import on_cores
from harness.records.candidate import Endpoint
from harness.records.load import NEVER, Outcome, Step
from harness.records.scenario import LoadPlan
from harness.stages.host import split_cores
from harness.stages.load.generator import Generator, generator

CORES, SERVER_CORES = split_cores()
STEP_S = 5.0
IN_FLIGHT = (1, 2, 4, 8, 16, 32)
RATES = (2_000, 4_000, 10_000, 16_000, 25_000, 40_000)

LOCUSTFILE = """
import os
from locust import FastHttpUser, constant, constant_throughput, task
rate = float(os.environ.get("REQUESTS_PER_S", 0))

class Visitor(FastHttpUser):
    wait_time = constant_throughput(rate) if rate else constant(0)

    @task
    def ask(self):
        self.client.post("/v2/models/m/infer", data=b"{}")
"""


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    log = tmp_path_factory.mktemp("null") / "server.log"
    servable = Servable("", bundle=None, runtime=None, model="m", replicas=1, cores=SERVER_CORES, log=log)
    with plugin("targets", "null").serve(servable) as endpoint:
        yield endpoint


@pytest.fixture(scope="module", params=[1, 2], ids=["one", "two"])
def load(
    request: pytest.FixtureRequest, null: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generator]:
    plan, folder = LoadPlan(workers=request.param), tmp_path_factory.mktemp("load")
    with generator(null, [b"{}"], None, plan, CORES, folder) as running:
        yield running


@pytest.mark.parametrize("rate_rps", RATES)
def test_open(benchmark: BenchmarkFixture, load: Generator, rate_rps: float) -> None:
    step = Step(shape="b", number=0, mode="open", rate_rps=rate_rps, duration_s=STEP_S, warmup_s=0.5)
    columns = benchmark.pedantic(load.drive, args=(step,), rounds=1).columns
    begun = (columns["sent_ns"] != NEVER) & (columns["due_ns"] >= step.warmup_s * 1e9)
    lag_s = (columns["sent_ns"] - columns["due_ns"])[begun] / 1e9
    benchmark.extra_info.update(
        benchmark="open",
        asked_rps=rate_rps,
        answered_share=float((columns["outcome"] == Outcome.OK).mean()),
        answered_in_time_share=float((columns["done_ns"][columns["done_ns"] != NEVER] <= STEP_S * 1e9).mean()),
        lag_p50_ms=float(np.quantile(lag_s, 0.5) * 1e3),
        lag_p99_ms=float(np.quantile(lag_s, 0.99) * 1e3),
    )


@pytest.mark.parametrize("in_flight", IN_FLIGHT)
def test_closed(benchmark: BenchmarkFixture, load: Generator, in_flight: int) -> None:
    step = Step(shape="b", number=0, mode="closed", in_flight=in_flight, duration_s=STEP_S, warmup_s=0.0)
    columns = benchmark.pedantic(load.drive, args=(step,), rounds=1).columns
    benchmark.extra_info.update(
        benchmark="closed", answered_rps=float((columns["outcome"] == Outcome.OK).sum() / STEP_S)
    )


@pytest.mark.parametrize("rate_rps", [0, 2_000, 4_000], ids=["closed", "2000", "4000"])
def test_locust_as_it_comes(benchmark: BenchmarkFixture, null: Endpoint, tmp_path: Path, rate_rps: int) -> None:
    """Ten users that wait for their answers; with a rate each has a tenth of it."""
    (tmp_path / "plain.py").write_text(LOCUSTFILE)
    command = [
        sys.executable, "-m", "locust", "--headless", "--locustfile", str(tmp_path / "plain.py"), "--host", null.url,
        "--users", "10", "--spawn-rate", "10", "--run-time", "5", "--csv", str(tmp_path / "told"), "--only-summary",
    ]  # fmt: skip
    environment = {**os.environ, "REQUESTS_PER_S": str(rate_rps / 10)}

    def run() -> None:
        with on_cores(CORES):
            subprocess.run(command, env=environment, capture_output=True, check=True)

    benchmark.pedantic(run, rounds=1)
    with (tmp_path / "told_stats.csv").open() as file:
        told = next(line for line in csv.DictReader(file) if line["Name"] == "Aggregated")
    benchmark.extra_info.update(
        benchmark="locust", asked_rps=rate_rps, answered_rps=float(told["Requests/s"]), p99_ms=float(told["99%"])
    )


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk(benchmark: BenchmarkFixture, null: Endpoint, tmp_path: Path) -> None:
    """One thread, eight connections, closed."""
    (tmp_path / "post.lua").write_text('wrk.method = "POST"\nwrk.body = "{}"\n')
    command = ["wrk", "-t1", "-c8", "-d5s", "-s", str(tmp_path / "post.lua"), null.url + null.infer_path]

    def run() -> str:
        with on_cores(CORES):
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    told = re.search(r"Requests/sec:\s+([\d.]+)", benchmark.pedantic(run, rounds=1))
    assert told is not None
    benchmark.extra_info.update(benchmark="wrk", answered_rps=float(told[1]))
