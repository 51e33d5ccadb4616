"""A look at the machine: is it fit to measure, and what can the load generator do here?

In: a results folder, and how long it may take. Out: a `Diagnosis`, and the roofline kept in the results folder. A core
spins alone first; then the real generator loads the target `null`, idle, closed and open; at last a Ray session shows
what it listens on.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from harness.analysis.reduce import reduce_step
from harness.analysis.validity import ERROR_SHARE, LAG_S, RATE_OFF
from harness.clock import Clock, SystemClock
from harness.errors import InfrastructureError
from harness.plugins import plugin
from harness.ports import Servable, Target
from harness.process import allow_open_files, open_file_limits
from harness.records.diagnosis import Diagnosis, Lag, Reached
from harness.records.ledger import StepEntry
from harness.records.load import NEVER, Step, StepResult, WorkerHealth
from harness.records.run import Host, Roofline
from harness.records.scenario import LoadPlan
from harness.records.words import ROOFLINE
from harness.shapes.stairs import preferred_rps
from harness.stages.host import fingerprint
from harness.stages.listeners import ray_listeners
from harness.stages.load.generator import Generator, Recording, generator
from harness.stages.spin import spinning
from harness.store.roofline import keep_roofline
from harness.store.runs import disk_failures, locked

IDLE_RPS = (100.0, 1000.0, 2000.0, 4000.0)
"""Rates at which the generator has little to do, and should be on time."""

NAME = "harness doctor"

_SPIN, _IDLE, _CLOSED, _OPEN = 0.1, 0.06, 0.04, 0.05
"""Lengths of the spinning, and of a step of each kind, as shares of the whole."""
_SHAPE = "doctor"
_WARMUP = 0.2
"""Of a step."""
_LIMIT = 64
"""Most requests in flight in closed load, more than one core of this generator has use for."""
_GAIN = 0.05
"""Less than this share of throughput more is nothing more."""
_CLIMB = 6
"""Most steps of the climb; ten make a decade, and below stand the idle rates."""
_IN_FLIGHT_MAX = 256
_SPARE_FILES = 256

_NUMBERS = ",".join(f"{number / 7:.6f}" for number in range(30))
_REQUEST = b'{"inputs":[{"name":"row","shape":[1,30],"datatype":"FP64","data":[%s]}]}' % _NUMBERS.encode()
"""A row of thirty numbers: the server that computes nothing reads its length only."""


@dataclass(frozen=True, slots=True)
class Driven:
    """A step of load, and what came of it."""

    result: StepResult
    recording: Recording

    @property
    def worker(self) -> WorkerHealth:
        """The one process that sent it."""
        return self.recording.health.workers[0]


Drive = Callable[[Step], Driven]


def examined(results: Path, seconds: float, tell: Callable[[str], None], clock: Clock) -> Diagnosis:
    """Look at this machine for about so many seconds, and as long as Ray takes; keep its roofline in `results`.

    Raises LockedError where a run is going on there, InfrastructureError where the generator, the server or Ray fails.
    """
    host, limits = fingerprint(), open_file_limits()
    with locked(results), disk_failures("look again"), tempfile.TemporaryDirectory(prefix="harness-doctor-") as folder:
        allow_open_files(_IN_FLIGHT_MAX + _SPARE_FILES)
        tell(f"a core spins for {_SPIN * seconds:.1f} s")
        gaps = spinning(_SPIN * seconds, host.generator_cores, host.target_cores, Path(folder))
        target: Target = plugin("targets", ROOFLINE)
        servable = _nothing_to_serve(host, Path(folder))
        plan = LoadPlan(in_flight_max=_IN_FLIGHT_MAX)
        tell("starting the generator")
        with (
            target.serve(servable) as endpoint,
            generator(endpoint, [_REQUEST], None, plan, host.generator_cores, Path(folder)) as load,
        ):
            walked = list[Driven]()
            drive = _driving(load, walked, tell)
            idle = [_lag(drive(_open_step(rate, _IDLE * seconds))) for rate in IDLE_RPS]
            closed = list(_closed(drive, _CLOSED * seconds))
            climbed = list(_climb(drive, _OPEN * seconds, max(one.answered_rps for one in closed)))
        best_rps = max((_answered_rps(one.result) for one in walked), default=0.0)
        if best_rps <= 0:
            raise InfrastructureError("The server that computes nothing answered no request of the load generator.")
        found = Diagnosis(
            host=host,
            timer=walked[0].worker.timer,
            priority=walked[0].worker.priority,
            open_files_soft=limits[0],
            open_files_hard=limits[1],
            gaps=gaps,
            idle=tuple(idle),
            closed=tuple(closed),
            open=tuple(climbed),
            roofline=Roofline(
                rate_rps=best_rps,
                measured_utc=clock.utc_label(),
                measured_by=NAME,
                workers=plan.workers,
                rows=plan.rows,
                host=host,
            ),
        )
        keep_roofline(results, found.roofline)
        tell("starting Ray, to see what it listens on")
        return found.model_copy(update={"listeners": ray_listeners(SystemClock())})


def _nothing_to_serve(host: Host, folder: Path) -> Servable:
    return Servable(
        entry="",
        bundle=None,
        runtime=None,
        model="nothing",
        replicas=1,
        cores=host.target_cores,
        log=folder / "server.log",
    )


def _driving(load: Generator, walked: list[Driven], tell: Callable[[str], None]) -> Drive:
    """What drives a step, numbers it, and keeps it in `walked`."""
    numbers = count()

    def drive(step: Step) -> Driven:
        numbered = step.model_copy(update={"number": next(numbers)})
        tell(f"{step.mode} load, {step.label}")
        recording = load.drive(numbered)
        entry = StepEntry(
            id="",
            cell="",
            step=numbered,
            planned=recording.planned,
            plan_sha256=recording.plan_sha256,
            exchanges_sha256="",
            generator=recording.health,
        )
        walked.append(Driven(reduce_step(entry, recording.columns), recording))
        return walked[-1]

    return drive


def _closed(drive: Drive, step_s: float) -> Iterator[Reached]:
    """Closed load in rungs, until two of them bring nothing more.

    One is not enough: with few in flight the two sides may fall into step and take turns, one request at a time, where
    a moment later they find several at a time to work on, and do twice as much.
    """
    in_flight, best_rps, in_vain = 1, 0.0, 0
    while in_flight <= _LIMIT and in_vain < 2:
        step = Step(
            shape=_SHAPE,
            number=0,
            mode="closed",
            in_flight=in_flight,
            duration_s=step_s,
            warmup_s=_WARMUP * step_s,
        )
        reached = Reached(in_flight=in_flight, answered_rps=_answered_rps(drive(step).result))
        yield reached
        in_vain = 0 if reached.answered_rps > (1 + _GAIN) * best_rps else in_vain + 1
        best_rps = max(best_rps, reached.answered_rps)
        in_flight *= 2


def _climb(drive: Drive, step_s: float, peak_rps: float) -> Iterator[Lag]:
    """Open load at preferred numbers from half the closed peak on: up as far as it is sustained, or down to where it
    is."""
    if peak_rps <= 0:
        return
    place, direction = 0, 0
    for _ in range(_CLIMB):
        lag = _lag(drive(_open_step(preferred_rps(peak_rps / 2, place), step_s)))
        yield lag
        turned = 1 if lag.sustained else -1
        if direction not in (0, turned):
            return
        direction = turned
        place += direction


def _open_step(rate_rps: float, duration_s: float) -> Step:
    return Step(
        shape=_SHAPE,
        number=0,
        mode="open",
        rate_rps=rate_rps,
        duration_s=duration_s,
        warmup_s=_WARMUP * duration_s,
    )


def _lag(driven: Driven) -> Lag:
    """Read off all requests that were sent after the warm-up. The quantiles are plain ones of one moment, no more."""
    result, columns = driven.result, driven.recording.columns
    due, sent = columns["due_ns"], columns["sent_ns"]
    chosen = (sent != NEVER) & (due >= result.step.warmup_s * 1e9)
    lag_s = (sent - due)[chosen] / 1e9
    if not len(lag_s):
        raise InfrastructureError(f"The load generator sent nothing at {result.step.label}.")
    p50_s, p99_s, max_s = (float(value) for value in np.quantile(lag_s, (0.5, 0.99, 1.0), method="inverted_cdf"))
    return Lag(
        rate_rps=result.step.rate_rps or 0.0,
        requests=len(lag_s),
        p50_s=p50_s,
        p99_s=p99_s,
        max_s=max_s,
        answered_rps=_answered_rps(result),
        sustained=_on_rate(result) and p99_s <= LAG_S,
    )


def _on_rate(result: StepResult) -> bool:
    """Whether what was sent, and what was answered, is within a percent of what was due in the same time."""
    window_s = result.step.duration_s - result.measured_from_s
    due_rps = result.planned / window_s
    # Those that straddle the ends of the window are no percent of anything.
    missing = max(0.0, (due_rps - _answered_rps(result)) * window_s - 2) / max(1, result.planned)
    return abs(result.observed.rate_off or 0.0) <= RATE_OFF and missing <= RATE_OFF


def _answered_rps(result: StepResult) -> float:
    return 0.0 if result.error_share > ERROR_SHARE else result.throughput_rps or 0.0
