"""A run: where it was made, what became of its cells, and why something failed.

In: nothing. Out: `Host`, `Roofline`, `Run` with its `Simulation`, `Failure`, `CellState`, `MicroResult` and
`Progress`.
"""

import re
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
    """Nobody can say: a process that ended by itself without an answer, an error of Ray's own. What a library raised is
    known by its error, what a signal ended is a lost worker."""


INFRASTRUCTURE = frozenset(
    {Cause.TARGET, Cause.GENERATOR, Cause.BENCHMARK, Cause.WORKER_LOST, Cause.NODE_LOST, Cause.DISK, Cause.MEMORY}
)
"""Causes that lie with the machine, not with the candidate: a cell that failed so is tried again on resume."""

MESSAGE_LIMIT = 400

_HIDDEN = "***"
_KEY = r"(?:password|passwd|passphrase|pwd|secret|token|credentials?|(?:api|access|private|account|secret)[_-]?key)"
_SECRETS = (
    # The user of a URL, with a password or a token.
    (re.compile(r"([a-z][a-z0-9+.-]{0,20}://)[^/\s?#]+@", re.IGNORECASE), rf"\1{_HIDDEN}@"),
    (re.compile(r"\b((?:proxy-)?authorization['\"]?\s*[:=]\s*)(['\"]?)(?:\w+\s+)?[^\s'\",]+", re.I), rf"\1\2{_HIDDEN}"),
    # A digit, for "the bearer of this" is an ordinary text.
    (re.compile(r"\b(bearer\s+)(?=\S*\d)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{_HIDDEN}"),
    # `token=1`, `"token": "1"` and `x-api-key: 1`, but neither `max_tokens=1` nor `unexpected token: 1`.
    (
        re.compile(
            rf"((?:{_KEY}['\"]?\s*=(?!=)|{_KEY}['\"]\s*:|\bx-[\w-]{{0,30}}(?:key|token)\s*:)\s*)"
            r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&'\")\]}]+)",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
    # Keys that say by their beginning what they are: those of AWS, GitHub, Hugging Face, OpenAI and Slack.
    (re.compile(r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|(?:gh[pousr]_|github_pat_|hf_|sk-|xox[a-z]-)[\w-]{16,})\b"), _HIDDEN),
    (re.compile(r"(?<![\w.~-])(?:/home/[^/\s:'\",)\]]+|/Users/[^/\s:'\",)\]]+|/root)(?=[/\s:'\",)\]]|$)"), "~"),
)
"""What a message must not carry on to a report, and what stands there instead."""


class Failure(Frozen):
    """Why something did not end well."""

    cause: Cause
    message: str

    @classmethod
    def of(cls, cause: Cause, error: BaseException | str) -> "Failure":
        """A failure with its message, `redacted`, on one line of at most `MESSAGE_LIMIT` characters.

        Of a text with many lines, such as one that ends with a log, the first and the last are kept: what failed, and
        what it said last.
        """
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()] or [""]
        # Before anything is cut: half a secret is one that no pattern knows.
        first, last = redacted(lines[0]), redacted(lines[-1])
        half = MESSAGE_LIMIT // 2
        line = first if len(lines) == 1 else f"{first[:half]} … {last[-half + 3 :]}"
        return cls(cause=cause, message=line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…")


def redacted(text: str) -> str:
    """The text without credentials and without the names of users.

    Hidden are the user part of URLs, authorization headers and bearer tokens, values that are named as passwords,
    tokens, secrets or keys, keys of well-known services, and home folders, which become `~`. Not caught: a secret
    without a name or a known beginning, one in another encoding, one with spaces that is not in quotes, one in a row of
    the user's own table, and names of users outside of paths.
    """
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


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


class RecordedSearch(Frozen):
    """What a search came to that a simulation repeats."""

    table: str
    engine: str
    seed: int
    workers: int
    trials: int
    """But those that a limit or a lost worker ended."""
    wall_s: float
    """From its beginning to its last trial."""
    rate_trials_per_s: float
    best: float | None
    """Best cross-validated score."""


class Simulation(Frozen):
    """Whose trials a simulated run repeats, and what came of them when they ran."""

    run: str
    """Its id."""
    recorded: tuple[RecordedSearch, ...]
    left_out: tuple[str, ...] = ()
    """Engines of the scenario whose configurations are not of the shared space: none is near another."""


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
    simulation: Simulation | None = None
    """None: its trials ran."""
    is_on_cluster: bool = False
    """Whether a Ray cluster that was there already did what Ray does in it."""


class CellState(StrEnum):
    """How far a cell has come. An open cell is begun anew when the run is resumed."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    """Ended with a failure that belongs in the report, such as a candidate that does not convert."""


class SearchStart(Frozen):
    """What it took until the workers of a search were ready for it. Those of the search before stand already."""

    took_s: float
    put_s: float = 0.0
    """Of that: table and folds into the object store, by the driver."""
    fetched_s: tuple[float, ...] = ()
    """Of each worker: the table out of it."""


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
    search_start: SearchStart | None = None
    """Of a search cell that was done."""
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
