"""What the load stage measures, on real sockets, against servers whose latencies are arithmetic.

A server that freezes makes a request that is due meanwhile wait for what is left of the freeze, so percentiles follow
from the length of the freezes and the time between them. Closed load, and Locust as it comes, do not send while they
wait, so most of those requests never exist and their percentiles tell next to nothing (coordinated omission). This is
why latency counts from a time that is known beforehand.

A single server with a queue has the sojourn times of `harness.stats.queueing`, mean and p99 to be met within a tenth.
A few seconds have too few requests for that: at 70 % load the p99 of eight seconds differs by tens of percent from one
stretch of the same traffic to the next, whoever measures it. But what a step sends is known beforehand:
arrivals follow from the plan's seed, and service times are the request bodies, whose order does so too. So the plan is
chosen: the first seed whose requests, by Lindley's recursion and without any measurement, have the mean and the p99 of
the formulas within a hundredth. What is left of the tenth is the instrument's: waking up three times on the way costs
it a few tenths of a millisecond. The recursion also says what each single request should have taken.

A step that the verdict finds fault with, or in which the server was not on time itself, since the machine did something
else, is done again, at most `TRIES` times.
"""

import contextlib
import csv
import math
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.validity import LAG_S
from harness.ports import Servable
from harness.process import child
from harness.records.candidate import Endpoint
from harness.records.load import Step, StepResult
from harness.records.scenario import LoadPlan
from harness.stages.host import split_cores
from harness.stages.load.generator import Columns, generator
from harness.stages.load.schedule import timetable
from harness.stats.queueing import md1_mean_s, md1_quantile_s, mm1_mean_s, mm1_quantile_s, sojourns_s
from harness.targets.stalling import Stalling

pytestmark = pytest.mark.alone

CORES, SERVER_CORES = split_cores()

TRIES = 5

FREEZE_S, EVERY_S = 0.2, 1.0
FROZEN_RPS = 400.0

SERVICE_S = 0.007
SHUFFLED = 400
"""Bodies, which the plan sends in another order in each round."""


def open_step(rate_rps: float, duration_s: float) -> Step:
    return Step(shape="t", number=0, mode="open", rate_rps=rate_rps, duration_s=duration_s, warmup_s=0.0)


def verdict(ledgers, step: Step, columns: Columns, **told: object) -> StepResult:
    """The step as a report would print it."""
    story = ledgers.Story()
    story.step(story.cell("serve", "optuna_search"), step, columns, **told)
    return story.reduced()[0]


def measured(
    ledgers,
    endpoint: Endpoint,
    bodies: list[bytes],
    plan: LoadPlan,
    step: Step,
    folder: Path,
    server_late_s: Callable[[], float] = lambda: 0.0,
) -> tuple[StepResult, Columns]:
    """The first of `TRIES` steps, all of the same requests, that nothing is said against; no other is looked at."""
    doubts = []
    server_late_s()
    for attempt in range(TRIES):
        with generator(endpoint, bodies, None, plan, CORES, folder / f"load-{attempt}") as running:
            recording = running.drive(step)
        found = verdict(ledgers, step, recording.columns, planned=recording.planned, generator=recording.health)
        late_s = server_late_s()
        if not found.doubts and late_s <= LAG_S:
            return found, recording.columns
        doubts.append("; ".join([*(doubt.text for doubt in found.doubts), f"p99 of the server's lag {late_s} s"]))
    pytest.fail("not one step that can be believed:\n" + "\n".join(doubts))


def waited_s(share: float) -> float:
    """The quantile of what requests wait that come at any time, all alike: for a share freeze / every of the time they
    wait for what is left of the freeze."""
    return FREEZE_S * (1 - (1 - share) / (FREEZE_S / EVERY_S))


@pytest.fixture(scope="module")
def freezing(tmp_path_factory) -> Iterator[Endpoint]:
    log = tmp_path_factory.mktemp("stalling") / "log"
    servable = Servable("", bundle=None, runtime=None, model="m", replicas=1, cores=SERVER_CORES, log=log)
    with Stalling(freeze_s=FREEZE_S, every_s=EVERY_S).serve(servable) as found:
        yield found


def test_open_load_tells_what_requests_to_a_freezing_server_wait(ledgers, freezing, tmp_path):
    # A slot of the steadiness test, half a second, is never mostly frozen, so nothing of the ten freezes is cropped.
    plan, step = LoadPlan(arrivals="constant"), open_step(FROZEN_RPS, 10 * EVERY_S)
    found, _ = measured(ledgers, freezing, [b"{}"], plan, step, tmp_path)
    assert found.succeeded == found.planned
    assert found.scheduled["p99"].value_s == pytest.approx(waited_s(0.99), rel=0.1)
    assert found.scheduled["p90"].value_s == pytest.approx(waited_s(0.9), rel=0.1)
    assert found.scheduled["p50"].value_s < 0.1 * waited_s(0.9)


def test_closed_load_omits_nearly_all_of_it(ledgers, freezing, tmp_path):
    step = Step(shape="t", number=0, mode="closed", in_flight=1, duration_s=3 * EVERY_S, warmup_s=0.0)
    found, columns = measured(ledgers, freezing, [b"{}"], LoadPlan(), step, tmp_path)
    assert (columns["done_ns"] - columns["due_ns"]).max() > 0.8 * FREEZE_S * 1e9, "it did meet a freeze"
    assert found.scheduled["p99"].value_s < 0.1 * waited_s(0.99)


def test_locust_as_it_comes_omits_nearly_all_of_it(freezing, tmp_path):
    told = locust_says(freezing, tmp_path, rate_rps=FROZEN_RPS, users=1, seconds=5)
    assert float(told["Request Count"]) > 100 and told["Failure Count"] == "0"
    assert float(told["Max Response Time"]) > 0.8 * FREEZE_S * 1e3, "it did meet a freeze"
    assert float(told["99%"]) < 0.3 * waited_s(0.99) * 1e3
    assert float(told["90%"]) < 0.3 * waited_s(0.9) * 1e3


def locust_says(endpoint: Endpoint, folder: Path, rate_rps: float, users: int, seconds: int) -> dict[str, str]:
    """The line of all requests in the statistics that Locust writes, in milliseconds."""
    script = Path(__file__).with_name("few_users.py")
    command = [
        sys.executable, "-m", "locust", "--headless", "--locustfile", str(script), "--host", endpoint.url,
        "--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s", "--csv", str(folder / "told"),
    ]  # fmt: skip
    rate = {"REQUESTS_PER_S": str(rate_rps / users)}
    with child(command, log=folder / "locust.log", cores=CORES, environment=rate) as process:
        assert process.wait(60) == 0, (folder / "locust.log").read_text()
    with (folder / "told_stats.csv").open() as file:
        return next(line for line in csv.DictReader(file) if line["Name"] == "Aggregated")


@dataclass(frozen=True)
class Queue:
    """One law of service times, with its formulas."""

    service_s: tuple[float, ...]
    mean_s: Callable[[float, float], float]
    quantile_s: Callable[[float, float, float], float]

    @property
    def bodies(self) -> list[bytes]:
        return [b"%.9f" % seconds for seconds in self.service_s]


# The middles of as many equally likely parts of the exponential distribution: all are sent about equally often.
EXPONENTIAL = tuple(-SERVICE_S * math.log1p(-(part + 0.5) / SHUFFLED) for part in range(SHUFFLED))

QUEUES = {
    "M/M/1": Queue(EXPONENTIAL, mm1_mean_s, mm1_quantile_s),
    "M/D/1": Queue((SERVICE_S,), md1_mean_s, md1_quantile_s),
}

CHOSEN = 0.01
"""How far the plan itself may lie from the formulas."""

DURATIONS_S = {0.3: 9.5, 0.5: 6.5, 0.7: 6.5}
"""By load: well above the 368 requests that a p99 takes."""


@contextlib.contextmanager
def queue_server(folder: Path) -> Iterator[Endpoint]:
    script, port_file = Path(__file__).with_name("queue_server.py"), folder / "port"
    with child([sys.executable, str(script), str(port_file)], log=folder / "server.log", cores=SERVER_CORES):
        for _ in range(1000):
            if port_file.exists():
                break
            time.sleep(0.02)
        yield Endpoint(url=f"http://127.0.0.1:{port_file.read_text()}", model="m", startup_s=0.0)


def server_late_s(endpoint: Endpoint) -> float:
    """How late its answers were since this was last asked, p99."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{endpoint.url}/late", timeout=30) as told:
        return float(told.read())


def chosen(ledgers, queue: Queue, step: Step) -> tuple[LoadPlan, np.ndarray]:
    """The first plan whose requests have the figures of the formulas within `CHOSEN`, and what each should take."""
    rate_rps, service_s = step.rate_rps, np.array(queue.service_s)
    mean_s = queue.mean_s(rate_rps, SERVICE_S)
    p99_s = queue.quantile_s(rate_rps, SERVICE_S, 0.99)
    for plan in (LoadPlan(seed=seed) for seed in range(10_000)):
        planned = timetable(plan, step, len(service_s))
        expected_s = sojourns_s(planned.due_ns / 1e9, service_s[planned.payload])
        if abs(expected_s.mean() / mean_s - 1) > CHOSEN:
            continue
        columns = ledgers.exchanges(planned.due_ns, np.rint(expected_s * 1e9).astype(np.int64))
        found = verdict(ledgers, step, columns)
        if found.doubts or found.overloaded or found.measured_from_s > 0:
            continue  # queues wander, and some would be cropped or called unsteady
        if abs(found.scheduled["p99"].value_s / p99_s - 1) < CHOSEN:
            return plan, expected_s
    pytest.fail("no plan has the figures of the formulas")


@pytest.mark.parametrize("load", [pytest.param(load, marks=[pytest.mark.long] * (load < 0.7)) for load in DURATIONS_S])
@pytest.mark.parametrize("law", QUEUES)
def test_a_queue_is_as_slow_as_theory_says(ledgers, tmp_path, law, load):
    queue, step = QUEUES[law], open_step(load / SERVICE_S, DURATIONS_S[load])
    plan, expected_s = chosen(ledgers, queue, step)
    with queue_server(tmp_path) as endpoint:
        found, columns = measured(
            ledgers, endpoint, queue.bodies, plan, step, tmp_path, lambda: server_late_s(endpoint)
        )
    assert found.succeeded == found.planned == len(expected_s)
    latency_s = (columns["done_ns"] - columns["due_ns"]) / 1e9
    p99_s = found.scheduled["p99"].value_s
    assert latency_s.mean() == pytest.approx(queue.mean_s(step.rate_rps, SERVICE_S), rel=0.1)
    assert p99_s == pytest.approx(queue.quantile_s(step.rate_rps, SERVICE_S, 0.99), rel=0.1)
    assert np.median(np.abs(latency_s - expected_s)) < 0.1 * SERVICE_S
