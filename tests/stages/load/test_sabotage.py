"""Ten ways to spoil a measurement, each done for real: with its own reason, without a figure, ending a job with 4."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest

from harness.analysis.findings import Findings, findings
from harness.analysis.summary import summary
from harness.errors import ExitCode
from harness.records.load import Reason, Step
from harness.records.scenario import LoadPlan, Scenario
from harness.stages.host import split_cores
from harness.stages.load import crew
from harness.stages.load import generator as load
from harness.stages.load.columns import Columns
from harness.stages.load.generator import Generator, Recording, generator
from harness.stages.load.schedule import audit_step

pytestmark = pytest.mark.alone

CORES = split_cores()[0]

HONEST = [b"slow 0.002 row %d" % row for row in range(20)]

BUSY_MACHINE = {Reason.GENERATOR_LATE, Reason.GAPS_OFF, Reason.STARTED_LATE, Reason.NOT_STEADY}
"""What a machine that does something else meanwhile gives on its own."""


def step(rate_rps: float = 300.0, duration_s: float = 2.0) -> Step:
    return Step(shape="t", number=0, mode="open", rate_rps=rate_rps, duration_s=duration_s, warmup_s=0.0)


SERVER = Scenario.model_validate({"question": "How fast?", "serve": [{"target": "external"}]})
"""Nothing is asked of it but to answer: it is up to the step alone what the run comes to."""


def verdict(ledgers: ModuleType, *recordings: tuple[Step, Recording, int | None]) -> Findings:
    """What a run says of these steps."""
    story = ledgers.Story(SERVER)
    cell = story.cell("serve", target="external")
    for asked, recording, new_from in recordings:
        told = {"planned": recording.planned, "generator": recording.health, "new_from": new_from}
        story.step(cell, asked, recording.columns, **told)
    return findings(story.ledger(), story.reduced())


def reasons(found: Findings) -> set[Reason]:
    """Of a run whose first step must not show a figure."""
    result = found.results[0]
    assert result.throughput_rps is None
    assert {latency.value_s for latency in (*result.scheduled.values(), *result.service.values())} == {None}
    assert found.exit_code is ExitCode.NOT_TRUSTWORTHY
    assert {headline.value for headline in summary(found, ()).headlines} == {None}
    return {doubt.reason for doubt in result.doubts}


def processes() -> list[psutil.Process]:
    """The processes of the load generator that send."""
    ours = [each for each in psutil.Process().children() if str(crew.LOCUSTFILE) in each.cmdline()]
    return [each for each in ours if "--master" not in each.cmdline()]


@contextlib.contextmanager
def meddling(how: Callable[[psutil.Process], None]) -> Iterator[None]:
    """Something happens to one process of the generator meanwhile, in a thread of its own."""
    thread = threading.Thread(target=how, args=(processes()[-1],))
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture
def spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have every child begin with some code."""

    def begin_with(code: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return begin_with


@contextlib.contextmanager
def running(server, tmp_path: Path, bodies: list[bytes] = HONEST, **plan: object) -> Iterator[Generator]:
    with generator(server.endpoint, bodies, bodies, LoadPlan(**plan), CORES, tmp_path / "load") as made:
        yield made


def test_an_honest_step_has_its_figures(ledgers, server, tmp_path):
    with running(server, tmp_path) as made:
        tried = (verdict(ledgers, (step(), made.drive(step()), None)) for _ in range(5))
        found = next((found for found in tried if not found.results[0].doubts), None)
    assert found is not None, "not one of five steps"
    assert found.results[0].throughput_rps == pytest.approx(300, rel=0.2)
    assert found.exit_code is ExitCode.GOOD


def test_a_starved_generator(ledgers, server, tmp_path):
    def starve(process: psutil.Process) -> None:
        for _ in range(25):
            process.suspend()
            time.sleep(0.06)
            process.resume()
            time.sleep(0.02)

    with running(server, tmp_path) as made, meddling(starve):
        found = verdict(ledgers, (step(), made.drive(step()), None))
    assert Reason.GENERATOR_LATE in reasons(found)


def test_a_system_without_timerfd_is_spun_on(ledgers, server, tmp_path, spoilt):
    spoilt(
        "import ctypes, os\n"
        "if hasattr(os, 'timerfd_create'):\n"
        "    del os.timerfd_create\n"
        "class Without(ctypes.CDLL):\n"
        "    def __getattr__(self, name):\n"
        "        if name == 'timerfd_create':\n"
        "            raise AttributeError(name)\n"
        "        return super().__getattr__(name)\n"
        "ctypes.CDLL = Without\n"
    )
    with running(server, tmp_path) as made:
        recording = made.drive(step())
        found = verdict(ledgers, (step(), recording, None))
    assert {worker.timer for worker in recording.health.workers} == {"spin"}
    # It takes all of a core, and nothing is said against that.
    assert {doubt.reason for doubt in found.results[0].doubts} <= BUSY_MACHINE
    assert np.all(recording.columns["dispatch_ns"] >= recording.columns["due_ns"])


def test_a_tiny_connection_pool(ledgers, server, tmp_path):
    with running(server, tmp_path, [b"slow 0.05"], in_flight_max=2) as made:
        found = verdict(ledgers, (step(), made.drive(step()), None))
    assert Reason.POOL_TOO_SMALL in reasons(found)


def test_a_killed_worker(ledgers, server, tmp_path):
    def kill(process: psutil.Process) -> None:
        time.sleep(0.7)
        process.kill()

    with running(server, tmp_path, workers=2) as made, meddling(kill):
        found = verdict(ledgers, (step(), made.drive(step()), None))
    assert {Reason.WORKER_LOST, Reason.ROWS_MISSING} <= reasons(found)


def test_a_late_start(ledgers, server, tmp_path, monkeypatch):
    monkeypatch.setitem(load.LEAD_S, "host", -0.3)
    with running(server, tmp_path) as made:
        found = verdict(ledgers, (step(), made.drive(step()), None))
    assert Reason.STARTED_LATE in reasons(found)


def test_a_storm_of_garbage_collections(ledgers, server, tmp_path, spoilt):
    spoilt(
        "import gc, time\n"
        "clock, calls = time.monotonic_ns, 0\n"
        "def storm():\n"  # the generator looks at the clock a few times for every request
        "    global calls\n"
        "    calls += 1\n"
        "    if calls % 500 == 0:\n"
        "        heap = [[] for _ in range(100_000)]\n"
        "        gc.collect()\n"
        "    return clock()\n"
        "time.monotonic_ns = storm\n"
    )
    with running(server, tmp_path) as made:
        found = verdict(ledgers, (step(), made.drive(step()), None))
    assert Reason.GARBAGE_COLLECTED in reasons(found)


def test_a_lost_spool(ledgers, server, tmp_path, monkeypatch):
    recorded = crew.Worker.recorded

    def torn(worker: crew.Worker, what: str) -> Columns:
        if worker.spool.stem.endswith("-1"):
            os.truncate(worker.spool, 100)
        return recorded(worker, what)

    monkeypatch.setattr(crew.Worker, "recorded", torn)
    with running(server, tmp_path, workers=2) as made:
        found = verdict(ledgers, (step(), made.drive(step()), None))
    assert {Reason.WORKER_LOST, Reason.ROWS_MISSING} <= reasons(found)


def test_a_replica_that_is_restarted(ledgers, server, tmp_path):
    with running(server, tmp_path) as made:
        server.order(b"name 0.8 second")
        found = verdict(ledgers, (step(), made.drive(step()), None))
    server.order(b"name 0 first")
    assert reasons(found) - BUSY_MACHINE == {Reason.SERVERS_CHANGED}


def test_a_server_that_remembers_its_answers(ledgers, server, tmp_path):
    old = [b"once 0.004 %d" % row for row in range(20)]
    new = [b"once 0.004 %d" % row for row in range(20, 220)]
    with generator(server.endpoint, old, old, LoadPlan(), CORES, tmp_path / "load", new=new) as made:
        recording = made.drive(step())
        audit = made.audit(1)
    assert np.bincount(audit.columns["payload"] >= 20).tolist() == [200, 200]
    found = verdict(ledgers, (step(), recording, None), (audit_step(1), audit, 20))
    assert reasons(found) - BUSY_MACHINE == {Reason.ANSWERS_CACHED}


def test_a_server_that_forgets_passes_the_same_audit(ledgers, server, tmp_path):
    new = [b"slow 0.002 row %d" % row for row in range(20, 220)]
    with generator(server.endpoint, HONEST, HONEST, LoadPlan(), CORES, tmp_path / "load", new=new) as made:
        recording = made.drive(step())
        audit = made.audit(1)
    found = verdict(ledgers, (step(), recording, None), (audit_step(1), audit, 20))
    assert {doubt.reason for doubt in found.results[0].doubts} <= BUSY_MACHINE


def test_a_clock_that_is_set(ledgers, server, tmp_path, spoilt):
    spoilt(
        "import time\n"
        "clock, begun = time.time_ns, time.monotonic()\n"
        # Locust takes seconds to start; the step is under way for most of the time after that.
        "time.time_ns = lambda: clock() + int(1e9 * (time.monotonic() - begun))\n"
    )
    with running(server, tmp_path) as made:
        found = verdict(ledgers, (step(), made.drive(step()), None))
    assert Reason.CLOCK_MOVED in reasons(found)


def test_a_failing_server(ledgers, server, tmp_path):
    with running(server, tmp_path, [*HONEST[:9], b"fail"]) as made:
        found = verdict(ledgers, (step(), made.drive(step()), None))
    assert reasons(found) - BUSY_MACHINE == {Reason.ERRORS}
