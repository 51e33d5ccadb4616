"""A run: where it was made, what became of its cells, and why something failed.

In: nothing. Out: `Host`, `Roofline`, `Run`, `Failure`, `CellState`, `MicroResult` and `Progress`.
"""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import PositiveFloat, PositiveInt

from harness.records.frozen import Frozen
from harness.records.scenario import LoadPlan


class Cause(StrEnum):
    """Why something failed: a closed list, so that failures can be counted."""

    CONFIG = "config"
    DATA = "data"
    MEMORY = "memory"
    TIME = "time"
    ENGINE_ERROR = "engine_error"
    ENGINE_NO_MODEL = "engine_no_model"
    NONFINITE_METRIC = "nonfinite_metric"
    WORKER_LOST = "worker_lost"
    NODE_LOST = "node_lost"
    NOT_CONVERTIBLE = "not_convertible"
    CHECK_FAILED = "check_failed"
    TARGET = "target"
    GENERATOR = "generator"
    BENCHMARK = "benchmark"
    DISK = "disk"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"


INFRASTRUCTURE = frozenset(
    {Cause.TARGET, Cause.GENERATOR, Cause.BENCHMARK, Cause.WORKER_LOST, Cause.NODE_LOST, Cause.DISK, Cause.MEMORY}
)
"""Causes that lie with the machine, not with the candidate: a cell that failed so is tried again on resume."""

MESSAGE_LIMIT = 400


class Failure(Frozen):
    """Why something did not end well."""

    cause: Cause
    message: str

    @classmethod
    def of(cls, cause: Cause, error: BaseException | str) -> "Failure":
        """A failure with its message on one line of at most `MESSAGE_LIMIT` characters.

        Of a text with many lines, such as one that ends with a log, the first and the last are kept: what failed, and
        what it said last.
        """
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()] or [""]
        half = MESSAGE_LIMIT // 2
        line = lines[0] if len(lines) == 1 else f"{lines[0][:half]} … {lines[-1][-half + 3 :]}"
        return cls(cause=cause, message=line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…")


class Host(Frozen):
    """The machine of a run; figures of unlike hosts are never pooled."""

    system: str
    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str
    versions: dict[str, str]
    """Of the libraries that can change a figure."""
    generator_cores: tuple[int, ...]
    target_cores: tuple[int, ...]
    """Where the load generator and the server were pinned; equal where they had to share."""

    @property
    def shared_cores(self) -> bool:
        """Whether generator and server competed for the same cores."""
        return bool(set(self.generator_cores) & set(self.target_cores))


class Roofline(Frozen):
    """The most that the load generator does on a host: the rate it reached against a server that computes nothing."""

    rate_rps: PositiveFloat
    measured_utc: str
    measured_by: str
    """A run's id, or the command that measured it."""
    workers: PositiveInt
    """Processes that sent the load."""
    rows: PositiveInt
    """Rows per request: large bodies take the generator's time too."""
    host: Host
    """Where that holds."""

    def holds_for(self, load: LoadPlan) -> bool:
        """Whether it is of such a load, sent from one host; of which, whoever reads it has looked at."""
        return load.placement == "host" and (self.workers, self.rows) == (load.workers, load.rows)


class Run(Frozen):
    """One run of one scenario."""

    id: str
    scenario: str
    """Name of the scenario: its file's, without the suffix."""
    data_folder: str
    """Where relative paths of the scenario's data begin, as an absolute path; for resuming, never printed."""
    scenario_sha256: str
    data_sha256: str
    """Digest of the table's content, its columns and the split."""
    trace_sha256: str | None = None
    """Digest of the recorded times that the load repeats, where it does."""
    harness_version: str
    started_utc: str
    finished_utc: str | None = None
    roofline: Roofline | None = None
    """What was known of the generator when the run began; a run with steps on the target `null` has its own."""


class CellState(StrEnum):
    """How far a cell has come. An open cell is begun anew when the run is resumed."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    """Ended with a failure that belongs in the report, such as a candidate that does not convert."""


class CellResult(Frozen):
    """What became of a cell."""

    id: str
    label: str
    kind: str
    state: CellState
    duration_s: float | None = None
    failure: Failure | None = None
    startup_s: float | None = None
    """Of a served cell: from the start of the target to ready."""
    notes: tuple[str, ...] = ()


class MicroResult(Frozen):
    """One micro benchmark of one candidate: every raw round."""

    cell: str
    candidate: str
    """Origin of the candidate."""
    benchmark: str
    """What was timed, such as `predict`."""
    runtime: str | None
    rows: int | None
    rounds_s: tuple[float, ...]
    """Seconds per call, a value per round."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a watcher of a run is told, whenever something moves."""

    stage: str
    cell: int
    cells: int
    label: str
    """The cell's."""
    message: str
    left_s: float
    """A guess."""
