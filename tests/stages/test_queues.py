"""What is measured is true: servers whose latency is known beforehand, on real sockets.

A queue with Poisson arrivals has a mean and a p99 that arithmetic gives (`stats.queueing`), but a step of a few seconds
is one sample of it, and by chance alone lies further from them than 10 %. So chance is taken out before, and openly: of
the plans that a seed gives, the first one is taken whose requests, put through the queue on paper, lie within 2 % of
the formulas. What the load generator then measures of a server on a socket must lie within 10 % of them, and each
request must stay about as long as on paper. Where the machine did something else meanwhile the verdict says so, and
the step is done again.
"""

import contextlib
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.reduce import reduce_step
from harness.analysis.validity import judged
from harness.process import child
from harness.records.candidate import Endpoint
from harness.records.ledger import StepEntry
from harness.records.load import Reason, Step
from harness.records.scenario import LoadPlan
from harness.stages.host import split_cores
from harness.stages.load import generator
from harness.stages.schedule import timetable
from harness.stats.queueing import md1_mean_s, md1_quantile_s, mm1_mean_s, mm1_quantile_s, stays_s

GENERATOR, SERVER = split_cores()
SERVICE_S = 0.004
SERVICE_RPS = 1 / SERVICE_S
TRIES = 5
"""Steps that may fall into a moment in which the machine does something else."""

ITS_OWN = {Reason.NOT_STEADY}
"""A short stretch of a queue wanders; that is no fault of a measurement."""


@contextlib.contextmanager
def server(folder: Path, *freeze: float):
    folder.mkdir(parents=True, exist_ok=True)
    port_file = folder / "port"
    command = [sys.executable, str(Path(__file__).with_name("queue_server.py")), str(port_file), *map(str, freeze)]
    with child(command, log=folder / "server.log", cores=SERVER):
        for _ in range(1000):
            if port_file.exists():
                break
            time.sleep(0.02)
        url = f"http://127.0.0.1:{port_file.read_text()}"
        yield Endpoint(url=url, model="", path="/", startup_s=0.0)


def services_s(kind: str, count: int):
    """Service times, one per payload: those of the formula's law at evenly spaced shares, so that they are that law."""
    if kind == "constant":
        return np.full(count, SERVICE_S)
    return -np.log1p(-(np.arange(count) + 0.5) / count) * SERVICE_S


def truth_s(kind: str, rate_rps: float):
    """Mean and p99."""
    if kind == "constant":
        return md1_mean_s(rate_rps, SERVICE_RPS), md1_quantile_s(rate_rps, SERVICE_RPS, 0.99)
    return mm1_mean_s(rate_rps, SERVICE_RPS), mm1_quantile_s(rate_rps, SERVICE_RPS, 0.99)


def on_paper(seed: int, step: Step, service_s):
    """Which requests are measured of the plan, and how long each of its requests stays."""
    plan = timetable(LoadPlan(seed=seed), step, len(service_s))
    return plan.due_ns >= step.warmup_s * 1e9, stays_s(plan.due_ns / 1e9, service_s[plan.payload])


def fitting_seed(step: Step, service_s, truth) -> int:
    for seed in range(20_000):
        measured, stays = on_paper(seed, step, service_s)
        found = stays[measured].mean(), np.quantile(stays[measured], 0.99, method="inverted_cdf")
        if all(abs(part / true - 1) < 0.02 for part, true in zip(found, truth, strict=True)):
            return seed
    raise AssertionError("no plan is like the queue")


def driven(ledgers, endpoint: Endpoint, step: Step, plan: LoadPlan, bodies: list[bytes], folder: Path):
    """A step that the machine did not disturb: its recording, and what is made of it."""
    for attempt in range(TRIES):
        with generator(endpoint, bodies, None, plan, GENERATOR, folder / str(attempt)) as made:
            recording = made.drive(step)
        story = ledgers.Story()
        entry = StepEntry(
            id="s",
            cell=story.cell("serve", "optuna_search").id,
            step=step,
            planned=recording.planned,
            plan_sha256=recording.plan_sha256,
            exchanges_sha256="",
            generator=recording.health,
        )
        story.steps.append(entry)
        result = reduce_step(entry, recording.columns)
        (told,) = judged(story.ledger(), [result])
        if {doubt.reason for doubt in told.doubts} <= ITS_OWN:
            return recording.columns, result
    raise AssertionError(f"not one of {TRIES} steps was undisturbed: {told.doubts}")


@pytest.mark.parametrize("kind", ["exponential", "constant"])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_a_queue_has_the_mean_and_the_p99_of_its_formula(ledgers, tmp_path, kind, load):
    rate_rps = load * SERVICE_RPS
    # Fewest requests that bound a p99 are 368: more of them where they are independent, and all the time there is.
    step = Step(shape="t", number=0, mode="open", rate_rps=rate_rps, duration_s=7.0, warmup_s=0.5)
    service_s, truth = services_s(kind, 500), truth_s(kind, rate_rps)
    seed = fitting_seed(step, service_s, truth)
    bodies = [f"{seconds:.6f}".encode() for seconds in service_s]
    with server(tmp_path / "server") as endpoint:
        columns, result = driven(ledgers, endpoint, step, LoadPlan(seed=seed), bodies, tmp_path)
    measured, stays = on_paper(seed, step, service_s)
    latency_s = (columns["done_ns"] - columns["due_ns"]) / 1e9
    assert latency_s[measured].mean() == pytest.approx(truth[0], rel=0.1)
    assert result.scheduled["p99"].value_s == pytest.approx(truth[1], rel=0.1)
    assert np.median(np.abs(latency_s - stays)) < 0.1 * SERVICE_S


class TestFreeze:
    """A server that answers at once, but not for 0.2 s of every second."""

    EVERY_S, FOR_S = 1.0, 0.2
    STEP = Step(shape="t", number=0, mode="open", rate_rps=500.0, duration_s=6.0, warmup_s=0.0)

    def truth_s(self, share: float) -> float:
        """A request that falls into the freeze waits for what is left of it, which is uniform."""
        frozen = self.FOR_S / self.EVERY_S
        return max(0.0, self.FOR_S * (1 - (1 - share) / frozen))

    def test_the_scheduled_latency_shows_it(self, ledgers, tmp_path):
        plan = LoadPlan(arrivals="constant")
        with server(tmp_path / "server", self.EVERY_S, self.FOR_S) as endpoint:
            _, result = driven(ledgers, endpoint, self.STEP, plan, [b"0"], tmp_path)
        assert result.scheduled["p99"].value_s == pytest.approx(self.truth_s(0.99), rel=0.1)
        assert result.scheduled["p90"].value_s == pytest.approx(self.truth_s(0.90), rel=0.1)
        assert result.scheduled["p50"].value_s < 0.005

    def test_closed_load_and_locust_itself_hide_it(self, ledgers, tmp_path):
        closed = Step(shape="t", number=0, mode="closed", in_flight=1, duration_s=4.0, warmup_s=0.0)
        with server(tmp_path / "server", self.EVERY_S, self.FOR_S) as endpoint:
            _, result = driven(ledgers, endpoint, closed, LoadPlan(), [b"0"], tmp_path)
            locust_p99_s = self.locust_p99_s(endpoint, tmp_path)
        # One request waits in each freeze, of the hundreds or thousands that a second has.
        assert result.service["p99"].value_s < 0.1 * self.truth_s(0.99)
        assert locust_p99_s < 0.1 * self.truth_s(0.99)

    def locust_p99_s(self, endpoint: Endpoint, folder: Path) -> float:
        """What Locust prints of the same server, asked at the same rate by users who wait for their answers."""
        (folder / "plain.py").write_text(
            "from locust import FastHttpUser, constant_throughput, task\n"
            "class Plain(FastHttpUser):\n"
            f"    wait_time = constant_throughput({self.STEP.rate_rps})\n"
            "    @task\n"
            "    def ask(self):\n"
            "        self.client.post('/', data=b'0')\n"
        )
        command = [
            sys.executable, "-m", "locust", "--headless", "--locustfile", str(folder / "plain.py"), "--host",
            endpoint.url, "--users", "1", "--run-time", "4", "--json", "--loglevel", "ERROR",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
        (entry,) = json.loads(done.stdout)
        times_ms = sorted((float(time_ms), count) for time_ms, count in entry["response_times"].items())
        beyond = math.ceil(0.99 * entry["num_requests"])
        for time_ms, count in times_ms:
            beyond -= count
            if beyond <= 0:
                return time_ms / 1e3
        raise AssertionError("no request was counted")
