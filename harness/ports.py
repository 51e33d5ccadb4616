"""The five ports: what a plug-in of each kind must be.

In: nothing. Out: the Protocols `Engine`, `Runtime`, `Target`, `Shape` and `Exporter`, and the few words they need. A
plug-in is one frozen dataclass in one file of its port's folder. The file's name is the plug-in's name, the dataclass's
fields are its parameters, and the module's constant `REQUIRES` names the libraries that it imports, inside its
functions only, so that listing plug-ins loads none of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

from numpy.typing import NDArray

from harness.records.candidate import Configuration, Endpoint, Evaluated, Precision, Signature
from harness.records.finding import Document
from harness.records.load import Rung, Step
from harness.records.rows import Batch, Prediction
from harness.records.server import ServerSettings
from harness.records.words import Metric, Task

SklearnPipeline: TypeAlias = Any
"""A scikit-learn Pipeline; scikit-learn has no types."""

Predictor = Callable[[Batch], Prediction]
"""A loaded candidate: rows in, answers out; the same rows give the same answers."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """An engine whose library has its own environment, and models that `space` does not know and nobody can serve."""

    build: str
    """What makes an unfitted model of a configuration, a signature and a problem, by import path; it fits and answers
    as scikit-learn's pipelines do."""
    environment: str
    """Name of one of `harness.environments`; its workers run there."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What an engine is asked to solve. The table itself stays with the workers."""

    task: Task
    metric: Metric
    families: tuple[str, ...]
    """Names of `space.families`, already narrowed to the task."""
    folds: int
    trials: int
    seconds: float
    seed: int
    trial_seconds: float | None = None
    """Longest time of one trial; None: as long as the search has."""
    memory_bytes: int | None = None
    """Most memory of one trial; None: its share of what its machine has free."""
    foreign: Foreign | None = None
    """Whose models are fitted, and where; None: those of `space`, in our own environment."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an engine wants evaluated."""

    configuration: Configuration
    rows_share: float = 1.0
    """Of each fold's rows to fit on, the first so many of a fixed shuffled order: less is cheaper and says less."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A proposal that came to its end, and when. Seconds count from the beginning of the search."""

    asked: int
    """Which proposal of the engine's it was, from 0."""
    asked_s: float
    """When the engine was asked for it."""
    sent_s: float
    """When a worker was given it: the engine had answered by then."""
    finished_s: float
    """When the fleet knew what came of it."""
    evaluated: Evaluated
    transport_s: float = 0.0
    """How long the fleet itself was at sending it to its worker, and at fetching the answers."""
    is_known: bool = False
    """It was recorded before the search was interrupted, and is told to the engine again."""
    proposed: int = 0
    """How many proposals the engine had made when it was told of this one."""
    moved: int = 0
    """How far both numbers move in the record: there are trials of another way that the engine took before."""


class Workbench(Protocol):
    """What a worker holds for an engine whose loop runs inside it."""

    target: NDArray[Any]
    """Class index, or value, per training row."""

    def attempt(self, configuration: Configuration) -> Evaluated | None:
        """Fit and score a configuration on the problem's folds, as the fleet would; None once the budget is spent."""
        ...


Loop = Callable[[Workbench, Problem], Iterable[Evaluated]]
"""An engine's own loop: yields every evaluation of its workbench as it has it."""

GoOn = Callable[[int, tuple[float, ...]], bool]
"""Whether a proposal (by its number) is worth its next fold, after these scores."""


class Fleet(Protocol):
    """The workers, as an engine sees them. It keeps the budget: both methods end when trials or seconds are spent."""

    workers: int

    @property
    def trials(self) -> int:
        """How many proposals there is room for: those of the problem, but for what an engine that was interrupted did
        on another way than the one it takes now.
        """
        ...

    def evaluate(self, ask: Callable[[], Proposal | None], go_on: GoOn | None = None) -> Iterator[Finished]:
        """Keep every worker busy with what `ask` returns, until it returns None; yield what finishes, as it does.

        `ask` runs in the caller's thread and has been told of everything yielded before. With `go_on`, each fold but
        the last is followed by its answer; a proposal that is not to go on has finished, pruned.
        """
        ...

    def inside(self, loop: Loop) -> Iterator[Finished]:
        """Run an engine's own loop in one worker; yield what it yields, while it goes on."""
        ...


class Engine(Protocol):
    """Searches for configurations. Seeded, and deterministic: what it proposes follows from the seed and from what it
    was told since it was asked first. So a search that was interrupted goes on by telling it the same again.

    One whose library cannot share our environment has a class attribute `foreign`.
    """

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        """Everything that the fleet yields, failures too, as it does."""
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """A candidate as one runtime computes it."""

    data: bytes
    """What its file in a bundle holds."""
    precision: Precision | None = None
    """What it computes in; None: in whatever the fitted pipeline does."""
    note: str | None = None
    """What was found where the usual precision was not enough."""


class Runtime(Protocol):
    """How a candidate computes."""

    artifact: ClassVar[str]
    """Name of its file in a bundle."""

    same_minor: ClassVar[tuple[str, ...]]
    """Distributions that read such a file only in the minor version that wrote it."""

    def export(self, pipeline: SklearnPipeline, signature: Signature, sample: Batch) -> Form:
        """The form of a fitted pipeline; `sample` is rows on which it may be compared with the pipeline, or none.

        Raises NotConvertibleError, with the reason, where this pipeline has no such form.
        """
        ...

    def load(self, artifact: Path, signature: Signature) -> Predictor:
        """The candidate, ready to predict, on one thread. Raises IntegrityError on a file it must not load."""
        ...


@dataclass(frozen=True, slots=True)
class Servable:
    """What a target is asked to serve, and where."""

    entry: str
    """Module of a serving process: run as `python -m ENTRY serve ...`, or asked for `application(bundles, ...)`."""
    bundle: Path | None
    """Folder of the candidate; None for a target that serves nothing of ours."""
    runtime: str | None
    model: str
    replicas: int
    cores: tuple[int, ...]
    """Cores the server may use; empty: any."""
    log: Path
    """File for what the server prints."""
    beside: Mapping[str, Path] = field(default_factory=dict)
    """Further candidates in the same server, by the names they have there."""
    settings: ServerSettings = field(default_factory=ServerSettings)
    ray_address: str | None = None
    """The Ray cluster that the user named, for a target that is `clustered`; None: there is none."""

    @property
    def bundles(self) -> dict[str, Path]:
        """All candidates by name."""
        return {} if self.bundle is None else {self.model: self.bundle, **self.beside}


class Target(Protocol):
    """Where a candidate is served.

    One that listens on a port of the user's choice has it as its parameter `port`, 0 for any: a run looks whether it
    can be had before it begins. One that adds replicas by itself has how many there may be as its parameter
    `max_replicas`, 0 for a fixed number: what it carries is then told of no number of them.

    One that is served on the Ray cluster of a servable has a class attribute `clustered`, which is true. One whose
    server goes on by itself when it has lost a part has a method `refuse_changed`, which is given the endpoint and
    raises InfrastructureError then: it is called between steps.
    """

    bare: ClassVar[bool]
    """It serves nothing of ours: no bundle, no candidate, no runtime."""

    def serve(self, servable: Servable) -> AbstractContextManager[Endpoint]:
        """Ready before it is entered, nothing left running after it is left.

        Raises InfrastructureError with the end of the log where the server does not become ready.
        """
        ...


class Shape(Protocol):
    """How load moves from step to step: a pure state machine."""

    def next_step(self, history: Sequence[Rung]) -> Step | None:
        """The next step of this shape, given the cell's finished steps (of earlier shapes too); None at the end."""
        ...


class Exporter(Protocol):
    """A form of the report."""

    def export(self, document: Document) -> Mapping[str, bytes]:
        """Files by their path inside the report folder; the same document gives the same bytes."""
        ...
