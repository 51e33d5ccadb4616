"""What a user brings: the scenario, in its parts.

In: the values of a TOML file (read by `store.scenarios`). Out: `Scenario`; what is to be done for it is `records.cell`.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from harness.records.arrivals import parse_arrivals
from harness.records.frozen import Frozen
from harness.records.rows import ROWS_LIMIT
from harness.records.server import BATCH_LIMIT, BATCH_WAIT_LIMIT_S, WAITING_LIMIT_S, WAITING_S, ServerSettings
from harness.records.table import DataPlan
from harness.records.words import EXTERNAL, Measure, Metric, Name, Processes, Protocol, Scalar, Seconds, Seed


def _written_law(text: str) -> str:
    parse_arrivals(text)
    return text


ArrivalsText = Annotated[str, AfterValidator(_written_law)]


class SearchPlan(Frozen):
    """Which engines search, for what, and how long."""

    engines: tuple[Name, ...] = Field(description="Engines, by name; see `harness list engines`.", min_length=1)
    metric: Metric | None = Field(
        default=None,
        description="What is maximised (log_loss and rmse: minimised); left out, roc_auc for binary, accuracy for "
        "multiclass, r2 for regression.",
    )
    trials: PositiveInt = Field(default=20, description="Trials per engine and seed, at most.")
    seconds: Seconds = Field(
        default=30.0,
        description="Seconds per engine and seed, at most. A fit on all training rows has two minutes and four times "
        "as long; beyond it it is killed.",
    )
    trial_seconds: Seconds | None = Field(
        default=None,
        description="Seconds per trial, at most; a trial that does not heed it is killed a second later. Left out, as "
        "long as its search has.",
    )
    memory_bytes: PositiveInt | None = Field(
        default=None,
        description="Memory that the process of a trial, or of a fit on all training rows, may have, table and "
        "libraries included; beyond it it is killed. Left out, what it begins with and, beside that, its share of 80 % "
        "of what its machine has free.",
    )
    folds: Annotated[int, Field(ge=2, le=20)] = Field(default=3, description="Folds of the cross-validation.")
    seeds: tuple[Seed, ...] = Field(default=(1,), description="Each engine searches once per seed.", min_length=1)
    workers: tuple[Processes, ...] = Field(
        default=(2,),
        description="Ray actors that fit and score: a number, or a list of numbers, each of which searches anew and "
        "shows what a further worker buys.",
        min_length=1,
    )
    families: tuple[Name, ...] = Field(
        default=(), description="Model families to search; left out, all that fit the task."
    )
    parameters: dict[Name, dict[str, Scalar]] = Field(
        default={},
        description="Parameters of an engine, in a table of its name: `[search.parameters.NAME]`; "
        "`harness list engines` shows them.",
    )


class ComparePlan(Frozen):
    """How engines are compared: what each found is fitted once more and timed, in processes of its own."""

    rows: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(
        default=(1, 10, 100, 1_000, 10_000), description="Rows per call at which prediction is timed.", min_length=1
    )
    repeats: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=20, description="Calls per number of rows, after one that is not counted."
    )
    seconds: Seconds = Field(
        default=1.0, description="Seconds per number of rows after which no further call begins; one is always made."
    )


class ExpectPlan(Frozen):
    """The answer that is known beforehand: a candidate below it is an error row, not a fast row."""

    score_at_least: float | None = Field(
        default=None,
        description="Lowest holdout score a candidate may have; not for log_loss and rmse.",
    )
    score_at_most: float | None = Field(default=None, description="Highest holdout loss, for log_loss and rmse.")


class ServePlan(Frozen):
    """One target and what is served on it; a scenario may hold several."""

    target: Name = Field(description="Where candidates are served; see `harness list targets`.")
    runtimes: tuple[Name, ...] = Field(
        default=("onnx",), description="How candidates compute; see `harness list runtimes`.", min_length=1
    )
    candidates: tuple[Name, ...] = Field(
        default=(),
        description="Which candidates: names of engines, or `baseline`; left out, all of them.",
    )
    replicas: tuple[Processes, ...] = Field(
        default=(1,), description="Numbers of server processes or replicas, each a cell of its own.", min_length=1
    )
    batch_requests: tuple[Annotated[int, Field(ge=1, le=BATCH_LIMIT)], ...] = Field(
        default=(1,),
        description="Most requests that a server computes together, each number a cell of its own; 1: each by itself.",
        min_length=1,
    )
    batch_wait_s: Annotated[float, Field(ge=0, le=BATCH_WAIT_LIMIT_S)] = Field(
        default=0.0,
        description="How long the first request of a batch may wait for others, where others are likely to come in "
        "that time. At 0 only those are computed together that wait for their turn anyhow.",
    )
    waiting_s: Annotated[float, Field(ge=0, le=WAITING_LIMIT_S)] = Field(
        default=WAITING_S,
        description="For how long a request may have to wait for its turn, as far as that can be foreseen; one that "
        "would wait longer is refused at once.",
    )
    parameters: dict[str, Scalar] = Field(
        default={},
        description="Parameters of the target, in a table of its own: `[serve.parameters]`; "
        "`harness list targets` shows them.",
    )

    @model_validator(mode="after")
    def _waits_for_a_batch(self) -> Self:
        if self.batch_wait_s > 0 and max(self.batch_requests) == 1:
            raise ValueError("batch_wait_s is for batches, and without batch_requests above 1 there are none")
        return self

    @property
    def settings(self) -> tuple[ServerSettings | None, ...]:
        """How servers are told to serve, one after the other; None stands for as usual."""
        told = (
            ServerSettings(
                batch_requests=most,
                batch_wait_s=self.batch_wait_s if most > 1 else 0.0,
                waiting_s=self.waiting_s,
            )
            for most in self.batch_requests
        )
        return tuple(None if one == ServerSettings() else one for one in told)


class RequestsPlan(Frozen):
    """What a server that is there already is asked, in a scenario that searches nothing."""

    payload: str | None = Field(
        default=None,
        description="A `.csv` file with a header, or a file of JSON lines (objects), relative to the scenario file: a "
        "row each, sent again and again in a shuffled order. Left out, every request is the same.",
    )
    template: str | None = Field(
        default=None,
        description="A Jinja file that makes the body of a request: a row's fields are its variables, and `rows` is "
        "the list of all rows of the request.",
    )
    protocol: Protocol = Field(
        default="plain",
        description="How rows travel. `plain`: a row is a JSON object of its fields, several are a list. `v2`: as the "
        "Open Inference Protocol v2 says, with the names and types that the model states; where MLServer states none, "
        "`v2:np` is one matrix of numbers, and `v2:pd` an input per column (a data frame). `mlflow`: MLflow's scoring "
        "server, as `dataframe_split`, or as it says behind the colon; `instances` and `inputs` are rows of values "
        "without names. `bentoml`: as what the service's own page `/docs.json` says that the call takes.",
    )
    method: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3,10}$")] | None = Field(
        default=None, description="The HTTP method; left out, POST where there is a body, else GET."
    )
    headers: dict[str, str] = Field(default={}, description="Headers of every request.")
    bearer_env: str | None = Field(
        default=None,
        description="The environment variable that holds a bearer token; its value is neither recorded nor printed.",
        min_length=1,
    )
    locustfile: str | None = Field(
        default=None,
        description="A locustfile, relative to the scenario file, whose users make the requests in place of all this; "
        "closed load only, so many users as a closed step has in flight.",
    )
    ca_file: str | None = Field(
        default=None,
        description="For https: the certificates to trust (PEM), relative to the scenario file; left out, those of "
        "the system.",
    )

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.locustfile is not None:
            fields = type(self).model_fields.items()
            beside = [name for name, field in fields if name != "locustfile" and getattr(self, name) != field.default]
            if beside:
                raise ValueError(f"with a locustfile {', '.join(beside)} has no meaning: its users decide")
        return self


class Objective(Frozen):
    """The service-level objective: what an answer may take, and at which rate that must hold."""

    p99_s: Seconds = Field(description="The 99th percentile of the scheduled latency stays at or below this.")
    error_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.001, description="Share of requests that may fail."
    )
    rate_rps: PositiveFloat | None = Field(
        default=None, description="The rate the recommended candidate must carry; left out, any rate will do."
    )


class LoadPlan(Frozen):
    """How served cells are loaded."""

    shapes: tuple[Name, ...] = Field(
        default=("ladder", "stairs"),
        description="How load moves, in this order; see `harness list shapes`.",
        min_length=1,
    )
    arrivals: ArrivalsText = Field(
        default="poisson",
        description="How the open steps space their requests: `poisson`, `constant`, `gamma:BURSTINESS` (variance of "
        "the gaps over their squared mean; 1 is Poisson), `ramp:START` (Poisson, from START times the step's rate to "
        "2 - START times), or `trace:FILE` (a CSV file of timestamps, relative to the scenario file, stretched to the "
        "step's rate).",
    )
    rows: Annotated[int, Field(ge=1, le=ROWS_LIMIT)] = Field(
        default=1,
        description=f"Rows per request, at most {ROWS_LIMIT:,}; a holdout of fewer rows is repeated to fill one.",
    )
    workers: Processes = Field(
        default=1, description="Processes that send the load, each its share of every step; more than cores do harm."
    )
    placement: Literal["host", "cluster"] = Field(
        default="host",
        description="Where these processes run: on the `host` of the harness, or spread by Ray over the nodes of the "
        "`cluster` that `--ray-address` names, which must reach the server.",
    )
    timeout_s: Seconds = Field(default=5.0, description="A request without an answer by then has failed.")
    in_flight_max: PositiveInt = Field(
        default=1024, description="Most requests in flight in an open step; beyond it a slot is dropped and counted."
    )
    seed: Seed = Field(default=11, description="Seed of the send times and of the order of the rows.")
    parameters: dict[Name, dict[str, Scalar]] = Field(
        default={},
        description="Parameters of a shape, in a table of its name: `[load.parameters.NAME]`; "
        "`harness list shapes` shows them.",
    )
    objective: Objective | None = Field(default=None, description="The service-level objective.")


class MicroPlan(Frozen):
    """Whether the candidates are also timed in process, by pytest-benchmark."""

    enabled: bool = Field(default=True, description="Time the candidates' prediction and encoding in process.")
    candidates: tuple[Name, ...] = Field(
        default=(), description="Which candidates: names of engines, or `baseline`; left out, all of them."
    )
    seconds: Seconds = Field(default=0.5, description="Longest time per micro benchmark.")


class Gate(Frozen):
    """One condition that a CI job depends on, beside those that follow from `expect` and the objective."""

    name: Name = Field(description="What reports and JUnit call it, in small letters, digits, `-` and `_`.")
    measure: Measure = Field(
        description="score (holdout, of the candidate), capacity_rps (highest rate inside the objective), "
        "served_p99_s or error_share (at the step that carries the capacity)."
    )
    at_least: float | None = Field(default=None, description="The measure must not be below this.")
    at_most: float | None = Field(default=None, description="The measure must not be above this.")
    candidate: Name | None = Field(default=None, description="Only this candidate; left out, the recommended one.")
    runtime: Name | None = Field(default=None, description="Only this runtime; left out, the recommended one.")
    target: Name | None = Field(default=None, description="Only this target; left out, the recommended one.")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least and at_most")
        return self


class Scenario(Frozen):
    """One question to the harness, with everything that determines its answer."""

    question: str = Field(description="What the run is to find out, in words; the report prints it.", min_length=1)
    data: tuple[DataPlan, ...] = Field(
        default=(),
        description="The table, `[data]`, or several, `[[data]]`, on which engines are compared; left out together "
        "with `search`, only servers without a candidate run.",
    )
    search: SearchPlan | None = Field(default=None, description="The search; see `data`.")
    compare: ComparePlan | None = Field(
        default=None, description="A comparison of the engines: there with several tables, asked for with one."
    )
    expect: ExpectPlan = ExpectPlan()
    serve: tuple[ServePlan, ...] = Field(
        default=(), description="Where candidates are served: a list of tables, `[[serve]]`; none serves nothing."
    )
    requests: RequestsPlan | None = Field(
        default=None, description=f"What the one target `{EXTERNAL}` of a scenario without `search` is asked."
    )
    load: LoadPlan = LoadPlan()
    micro: MicroPlan = MicroPlan()
    gates: tuple[Gate, ...] = Field(default=(), description="Conditions for CI: a list of tables, `[[gates]]`.")

    @model_validator(mode="after")
    def _lists_name_each_thing_once(self) -> Self:
        for where, names in (
            ("search.engines", self.search.engines if self.search else ()),
            ("search.seeds", self.search.seeds if self.search else ()),
            ("search.workers", self.search.workers if self.search else ()),
            ("data", tuple(str(table.name) for table in self.tables)),
            ("compare.rows", self.compare.rows if self.compare else ()),
            ("load.shapes", self.load.shapes),
            ("gates", tuple(gate.name for gate in self.gates)),
            ("micro.candidates", self.micro.candidates),
            *((f"serve {plan.target} runtimes", plan.runtimes) for plan in self.serve),
            *((f"serve {plan.target} candidates", plan.candidates) for plan in self.serve),
            *((f"serve {plan.target} replicas", plan.replicas) for plan in self.serve),
            *((f"serve {plan.target} batch_requests", plan.batch_requests) for plan in self.serve),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{where} names one thing twice: {', '.join(map(str, names))}")
        return self

    @model_validator(mode="after")
    def _searches_or_asks(self) -> Self:
        if (not self.data) != (self.search is None):
            given, lacking = ("data", "search") if self.search is None else ("search", "data")
            raise ValueError(f"[{given}] is there and [{lacking}] is not: a search needs both, a load alone neither")
        if self.search is None and not self.serve:
            raise ValueError("there is nothing to do: give [data] and [search], or a [[serve]] table")
        if self.search is None and self.expect != ExpectPlan():
            raise ValueError("[expect] is about candidates, and without [search] there are none")
        if self.search is None and self.compare is not None:
            raise ValueError("[compare] is about searches, and there is no [search]")
        if self.requests is not None:
            if self.search is not None:
                raise ValueError("[requests] goes with no [search]: candidates are asked for rows of their table")
            if [plan.target for plan in self.serve].count(EXTERNAL) != 1:
                raise ValueError(f"[requests] needs exactly one [[serve]] table with target = {EXTERNAL!r}")
        return self

    @model_validator(mode="after")
    def _serves_from_one_table(self) -> Self:
        if len(self.tables) > 1:
            for there, asked in (("[[serve]]", self.serve), ("[[gates]]", self.gates), ("[expect]", self.expect)):
                if asked and asked != ExpectPlan():
                    raise ValueError(
                        f"{there} is about the candidates of one table, and there are {len(self.tables)}: on several, "
                        "engines are compared and nothing is served. Give each table a scenario of its own for that"
                    )
        return self

    @property
    def tables(self) -> tuple[DataPlan, ...]:
        """The plan of each table, by a name of its own; an axis of `data` becomes a table per value."""
        return tuple(table for plan in self.data for table in plan.along_axes())

    @property
    def comparison(self) -> ComparePlan | None:
        """How engines are compared; None where they are not."""
        return self.compare or (ComparePlan() if len(self.tables) > 1 else None)
