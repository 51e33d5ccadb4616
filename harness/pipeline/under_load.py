"""Under load: the steps that a served cell is put through, and what each leaves in the run folder.

In: the work of a cell, the endpoint it is served at, and what that is asked. Out: `asked`, what a cell's server is to
be asked; `walked_under_load`, after which every step is recorded.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.reduce import reduce_step, rung
from harness.pipeline.plan import steps
from harness.pipeline.work import Work, blamed_on
from harness.ray_session import ray_session
from harness.records.candidate import Endpoint
from harness.records.cell import Cell
from harness.records.ledger import StepEntry
from harness.records.load import JSON_POST, Beat, Head, Rung, Step
from harness.records.run import Cause
from harness.records.words import EXTERNAL
from harness.stages.data import holdout_batch
from harness.stages.load.generator import Generator, Recording, generator
from harness.stages.load.locust_users import LocustUsers
from harness.stages.load.schedule import audit_step
from harness.stages.validate import new_bodies, request_bodies
from harness.store.exchanges import write_exchanges
from harness.units import Unit, format_number


@dataclass(frozen=True, slots=True)
class Asked:
    """What the server of a cell is asked."""

    bodies: Sequence[bytes]
    new: Sequence[bytes] = ()
    """Bodies that were never sent, for asking whether answers are remembered."""
    head: Head = JSON_POST
    locustfile: Path | None = None
    """Whose users make the requests in place of the bodies."""


def asked(work: Work, cell: Cell) -> Asked:
    """Rows of the table, or the user's own requests; a server that answers anything is asked for that."""
    requests = work.inputs.requests
    if requests is not None and cell.target == EXTERNAL:
        return Asked(requests.bodies, head=requests.head, locustfile=requests.locustfile)
    if not work.inputs.searched:
        return Asked((requests and requests.bodies) or [b"{}"])
    plan, table = work.scenario.load, work.searched(cell).table
    batch = holdout_batch(table)
    bodies = request_bodies(batch, table.signature, plan.rows, plan.seed)
    new = new_bodies(batch, table.signature, plan.rows, bodies, plan.seed) if cell.candidate else []
    return Asked(bodies, new)


def walked_under_load(
    work: Work,
    cell: Cell,
    endpoint: Endpoint,
    questions: Asked,
    expected: Sequence[bytes] | None,
    refuse_dead: Callable[[], None],
) -> None:
    """Put an endpoint under the load of the scenario; `refuse_dead` raises where it is no more.

    `expected` is what each body must be answered, where that is known.
    """
    with contextlib.ExitStack() as stack:
        with blamed_on(Cause.GENERATOR, work):
            load = stack.enter_context(_load(work, cell, endpoint, questions, expected))
        _drive(work, cell, load, refuse_dead)


@dataclass(frozen=True, slots=True)
class _Load:
    """What drives the steps of a cell."""

    users: LocustUsers
    generator: Generator | None
    """None where users of a locustfile make all requests."""

    def drive(self, step: Step, watch: Callable[[Beat], object]) -> Recording:
        """Have a step walked by those whose it is."""
        return self.users.drive(step, watch) if step.users or not self.generator else self.generator.drive(step, watch)


@contextlib.contextmanager
def _load(
    work: Work, cell: Cell, endpoint: Endpoint, questions: Asked, expected: Sequence[bytes] | None
) -> Iterator[_Load]:
    plan, folder, cores = work.scenario.load, work.folder.logs / "load" / cell.id, work.host.generator_cores
    users = LocustUsers(questions.locustfile, endpoint, plan, cores, folder, questions.bodies, questions.head)
    if questions.locustfile is not None:
        yield _Load(users, None)
        return
    trace_s = work.inputs.trace_s
    with (
        ray_session(plan.workers, work.ray_address) if plan.placement == "cluster" else contextlib.nullcontext(),
        generator(
            endpoint,
            questions.bodies,
            expected,
            plan,
            cores,
            folder,
            trace_s,
            questions.new,
            questions.head,
            work.page,
        ) as made,
    ):
        yield _Load(users, made)


def _drive(work: Work, cell: Cell, load: _Load, refuse_dead: Callable[[], None]) -> None:
    """Walk the shapes of load, a step at a time, keeping each before the next that the server has outlived."""

    def keep(step: Step, recording: Recording, new_from: int | None = None) -> StepEntry:
        refuse_dead()
        step_id = f"{cell.id}-{step.number:02d}"
        entry = StepEntry(
            id=step_id,
            cell=cell.id,
            step=step,
            planned=recording.planned,
            new_from=new_from,
            requests=recording.requests,
            plan_sha256=recording.plan_sha256,
            exchanges_sha256=write_exchanges(work.folder.exchanges(step_id), recording.columns),
            generator=recording.health,
        )
        work.database.record(cell.id, entry)
        return entry

    def drive(step: Step) -> Rung:
        step = step.model_copy(update={"users": step.users or load.generator is None})
        work.tell(f"{step.shape}: {step.label}")
        with blamed_on(Cause.GENERATOR, work):
            recording = load.drive(step, lambda beat: work.tell(f"{step.shape}: {step.label}; {_told(beat)}"))
        return rung(reduce_step(keep(step, recording), recording.columns))

    number = sum(1 for _ in steps(work.scenario.load, drive))
    if load.generator and load.generator.new:
        work.tell("asking whether it remembers answers")
        with blamed_on(Cause.GENERATOR, work):
            audit = load.generator.audit(number)
        keep(audit_step(number), audit, load.generator.payloads)


def _told(beat: Beat) -> str:
    """How a step is going, in a line."""
    rate = f"{beat.answered / beat.span_s:,.0f} answered/s"
    failed = f"{beat.failed:,} failed" if beat.failed else ""
    p50, p99 = (
        "" if value_s is None else f"{name} {format_number(value_s, Unit.SECONDS)}"
        for name, value_s in (("p50", beat.p50_s), ("p99", beat.p99_s))
    )
    lag = "" if beat.lag_p99_s is None else f"lag p99 {format_number(beat.lag_p99_s, Unit.SECONDS)}"
    return ", ".join(part for part in (rate, failed, p50, p99, f"{beat.in_flight:,} in flight", lag) if part)
