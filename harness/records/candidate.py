"""Models on their way to production: trials, candidates with their signature, checks, and where they are served.

In: nothing. Out: the records that the search, validation and serving stages hand on.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from harness.records.frozen import Frozen
from harness.records.run import Failure
from harness.records.words import ColumnKind, Metric, Scalar, Task

Configuration = dict[str, Scalar]
"""A point of the search space: `family`, and that family's parameters by their scikit-learn names."""

MINIMISED: frozenset[Metric] = frozenset({"log_loss", "rmse"})
"""Metrics of which less is better. Scores are stored as the metric defines them, never with the sign turned."""

RANGE: dict[Metric, tuple[float, float]] = {
    "roc_auc": (0.0, 1.0),
    "accuracy": (0.0, 1.0),
    "log_loss": (0.0, math.inf),
    "r2": (-math.inf, 1.0),
    "rmse": (0.0, math.inf),
}
"""What scores can be: an interval that is not read off scores alone is cut to it."""


def better(metric: Metric, score: float, than: float) -> bool:
    """Whether `score` is strictly better than `than` under `metric`."""
    return score < than if metric in MINIMISED else score > than


class Column(Frozen):
    """One raw column of the table, as the user knows it."""

    name: str
    kind: ColumnKind
    by_target: bool = False
    """A category with more distinct texts than may become a feature each: models see the mean target of a text."""


class Signature(Frozen):
    """What a candidate takes and what it answers."""

    task: Task
    columns: tuple[Column, ...]
    classes: tuple[str, ...] = ()
    """Of a classification: the labels as texts, in the order of the probabilities."""

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Names of the columns in `Batch.numbers`, in order."""
        return tuple(column.name for column in self.columns if column.kind != "category")

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Names of the columns in `Batch.texts`, in order."""
        return tuple(column.name for column in self.columns if column.kind == "category")


class Evaluated(Frozen):
    """What a worker says of one configuration it fitted and scored."""

    configuration: Configuration
    fold_scores: tuple[float, ...] = ()
    """Fewer than the problem has folds where it was pruned."""
    duration_s: float
    """From the moment a worker began with it to the moment it was done, or lost."""
    worker: int
    fit_s: float = 0.0
    """Of that, inside fitting."""
    cpu_s: float | None = None
    """Processor time of all its threads and processes; None where nobody was left to tell."""
    peak_memory_bytes: int | None = None
    """Most memory its process had; of one that was ended, as last seen."""
    rows_share: float = 1.0
    """Share of each fold's rows it was fitted on."""
    pruned: bool = False
    """The engine did not want its other folds."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _scored_or_failed(self) -> Self:
        if bool(self.fold_scores) == (self.failure is not None):
            raise ValueError("an evaluation has scores or a failure, one of the two")
        return self

    @property
    def score(self) -> float | None:
        """Mean over the folds; None where the evaluation failed."""
        return sum(self.fold_scores) / len(self.fold_scores) if self.fold_scores else None

    @property
    def is_whole(self) -> bool:
        """Scored on every fold after fitting on all of its rows: its score can be held against that of any other."""
        return self.failure is None and not self.pruned and self.rows_share == 1.0


class Trial(Frozen):
    """One configuration fitted and scored, at its place in a search cell. Seconds count from the cell's beginning."""

    cell: str
    number: int
    """From 0, in the order in which the trials finished."""
    asked: int
    """From 0, in the order in which the engine proposed them."""
    proposed: int | None = None
    """How many the engine had proposed when it was told of this one, which says what it knew at each; None: it was
    asked whenever a worker was free.
    """
    asked_s: float
    sent_s: float
    """Between both the engine made up its mind."""
    finished_s: float
    transport_s: float = 0.0
    """How long the driver was at sending it to its worker and at fetching the answers, where it does so."""
    last_store_s: float = 0.0
    """How long it took to store the trial that finished before it, whose own record was closed by then; 0 of the first
    one after a beginning."""
    evaluated: Evaluated


Precision = Literal["float32", "float64"]


class Artifact(Frozen):
    """A candidate's form in one runtime: a file of its bundle, or the reason why there is none."""

    runtime: str
    file: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    made_with: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries whose minor version must be the same where it is loaded."""
    precision: Precision | None = None
    """What it computes in; None: in whatever the fitted pipeline does."""
    note: str | None = None
    """What was found where the usual precision was not enough."""
    reason: str | None = None

    @model_validator(mode="after")
    def _file_or_reason(self) -> Self:
        if (self.file is None) == (self.reason is None):
            raise ValueError("an artifact is a file, or the reason why there is none")
        return self


class Candidate(Frozen):
    """A fitted pipeline worth serving."""

    id: str
    """Names the bundle's folder; the hash of what it was fitted from."""
    origin: str
    """The engine that found it, or `baseline`."""
    configuration: Configuration
    cv_score: float | None
    """Cross-validated score of the trial it comes from; None where it was not searched for."""
    fit_s: float
    signature: Signature
    metric: Metric
    artifacts: tuple[Artifact, ...]


CheckName = Literal[
    "holdout_score", "beats_dummy", "expected_score", "same_after_reload", "runtime_parity", "same_over_the_wire"
]


class Check(Frozen):
    """One thing that was verified about a candidate; a failed one keeps it away from traffic."""

    candidate: str
    """Origin of the candidate."""
    name: CheckName
    runtime: str | None = None
    """The runtime it speaks of; None: all of them."""
    target: str | None = None
    passed: bool
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """Interval of `value`, where it has one."""
    bound: float | None = None
    """What `value` was held against."""
    resamples: tuple[float, ...] = ()
    """Of a holdout score: the same on resampled rows, which are the same rows for every candidate of the run."""
    detail: str
    """One sentence for the reader, with the cause where it failed."""


class Endpoint(Frozen):
    """A served candidate, ready for requests."""

    url: str
    """Scheme, host and port, and what all of the server's paths stand below, if anything; no slash at the end."""
    model: str
    """Name under `/v2/models/`; empty where `path` is given."""
    path: str | None = None
    """Path and query of the call, where the server speaks another protocol."""
    startup_s: float
    """From the start of the target to its first `ready`."""
    cores: tuple[int, ...] = ()
    """Cores the server was pinned to; empty: none in particular."""
    processes: tuple[int, ...] = ()
    """Ids of the server's processes, where they are children of this one: the figures are of all of them or of none."""
    replicas: tuple[str, ...] = ()
    """Names of its processes where they are no children of this one, but known to whoever runs them."""
    notes: tuple[str, ...] = ()
    """What a reader of its figures must know, such as settings that were in force."""

    @property
    def infer_path(self) -> str:
        """Path of the call, that of the Open Inference Protocol v2 where no other is given."""
        return f"/v2/models/{self.model}/infer" if self.path is None else self.path
