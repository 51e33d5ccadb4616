"""Made-up runs whose answers are known: the generator writes exchanges of a given latency and a given capacity.

A cell of capacity C answers an open step of rate r < C in a few milliseconds, and lets the queue grow at r >= C: by
fluid arithmetic a request due at t is answered (r / C - 1) * t later than at rest. Scores, intervals, checks and
failures are given, so every figure of the report can be worked out by hand.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.reduce import reduce_step
from harness.analysis.validity import judged
from harness.records.candidate import Artifact, Candidate, Check, Column, Evaluated, Signature, Trial
from harness.records.cell import Cell, cells
from harness.records.ledger import Ledger, StepEntry
from harness.records.load import (
    EXCHANGE_COLUMNS,
    NEVER,
    NO_STATUS,
    STAGE_COLUMNS,
    STAGES,
    GeneratorHealth,
    Outcome,
    Step,
    StepResult,
    WorkerHealth,
)
from harness.records.refit import PredictTime, Refit
from harness.records.run import Cause, CellResult, CellState, Failure, Host, MicroResult, Roofline, Run
from harness.records.scenario import Scenario
from harness.records.table import DataCheck, TableEntry
from harness.records.words import BASELINE, DUMMY, Metric

REST_S = 0.002
"""Median latency of an idle cell."""

Exchanges = dict[str, NDArray[Any]]


def scenario(**changes: object) -> Scenario:
    """A binary question with two engines, one runtime and one target; `changes` replace top-level keys."""
    told: dict[str, object] = {
        "question": "Which model should serve the breast-cancer table?",
        "data": [{"source": "sklearn:breast_cancer"}],
        "search": {"engines": ["optuna_search", "random_search"], "metric": "roc_auc", "trials": 6},
        "expect": {"score_at_least": 0.9},
        "serve": [{"target": "asgi", "runtimes": ["onnx"]}],
        "load": {"objective": {"p99_s": 0.05, "rate_rps": 400}},
    }
    return Scenario.model_validate({**told, **changes})


def exchanges(
    due_ns: NDArray[np.int64], latency_ns: NDArray[np.int64], lag_ns: NDArray[np.int64] | int = 0
) -> Exchanges:
    """Columns in which every request succeeds: due, sent `lag_ns` later, answered `latency_ns` after it was due."""
    n = len(due_ns)
    columns = {name: np.zeros(n, dtype=dtype) for name, dtype in EXCHANGE_COLUMNS.items()}
    columns["due_ns"][:] = due_ns
    columns["dispatch_ns"][:] = due_ns + lag_ns
    columns["sent_ns"][:] = due_ns + lag_ns
    columns["done_ns"][:] = due_ns + latency_ns
    columns["status"][:] = 200
    columns["outcome"][:] = Outcome.OK
    columns["bytes"][:] = 120
    for name in STAGE_COLUMNS:
        columns[name][:] = NEVER
    return columns


def stated(columns: Exchanges, network_share: float = 0.5) -> Exchanges:
    """The same exchanges, each answered with where its time went: a share of it on the way, half of the rest in
    predicting, and the other half in equal parts with everything else."""
    inside = (1 - network_share) * (columns["done_ns"] - columns["sent_ns"])
    for stage in STAGES:
        columns[f"{stage}_ns"][:] = np.floor(inside * (0.5 if stage == "predicted" else 0.125))
    return columns


def fail(columns: Exchanges, rows: NDArray[np.intp] | slice, outcome: Outcome) -> Exchanges:
    """The same exchanges, `rows` of them ended by `outcome` without an answer."""
    columns["outcome"][rows] = outcome
    columns["status"][rows] = 503 if outcome is Outcome.HTTP_ERROR else NO_STATUS
    if outcome is not Outcome.HTTP_ERROR:
        columns["done_ns"][rows] = NEVER
    if outcome is Outcome.DROPPED:
        columns["sent_ns"][rows] = NEVER
        columns["dispatch_ns"][rows] = NEVER
    return columns


def open_exchanges(step: Step, capacity_rps: float, seed: int) -> Exchanges:
    """What an open step brings from a cell of a known capacity."""
    rng = np.random.default_rng(seed)
    rate = step.rate_rps or 0.0
    n = round(rate * step.duration_s)
    due = np.sort(rng.uniform(0, step.duration_s, n))
    overload = max(0.0, rate / capacity_rps - 1)
    latency = rng.lognormal(np.log(REST_S), 0.35, n) / (1 - min(0.9, rate / capacity_rps)) ** 0.5 + overload * due
    return exchanges((due * 1e9).astype(np.int64), (latency * 1e9).astype(np.int64))


def closed_exchanges(step: Step, capacity_rps: float) -> Exchanges:
    """What a closed step brings from a cell of a known capacity: in flight over latency, at most the capacity."""
    in_flight = step.in_flight or 1
    throughput = min(capacity_rps, in_flight / REST_S)
    n = round(throughput * step.duration_s)
    due = np.linspace(0, step.duration_s, n, endpoint=False)
    return exchanges((due * 1e9).astype(np.int64), np.full(n, int(in_flight / throughput * 1e9)))


def open_step(number: int, rate_rps: float, duration_s: float = 6.0, warmup_s: float = 1.0) -> Step:
    return Step(shape="stairs", number=number, mode="open", rate_rps=rate_rps, duration_s=duration_s, warmup_s=warmup_s)


def closed_step(number: int, in_flight: int, duration_s: float = 3.0) -> Step:
    return Step(shape="ladder", number=number, mode="closed", in_flight=in_flight, duration_s=duration_s, warmup_s=1.0)


def step_entry(step: Step, columns: Exchanges, **changes: object) -> StepEntry:
    """A step that nothing is to be said against, with the exchanges it left."""
    health = WorkerHealth(cpu_share=0.3, started_late_s=0.0, gc_s=0.0, clock_moved_s=0.0, timer="timerfd")
    entry = StepEntry(
        id="step",
        cell="cell",
        step=step,
        planned=len(columns["due_ns"]),
        plan_sha256="1" * 64,
        exchanges_sha256="0" * 64,
        generator=GeneratorHealth(workers=(health,)),
    )
    return entry.model_copy(update=changes)


def table_entry(name: str, source: str, metric: Metric = "roc_auc") -> TableEntry:
    """A table of which nothing is to be said: binary, but where the metric is one of regressions."""
    regression = metric in {"r2", "rmse"}
    return TableEntry(
        name=name,
        source=source,
        task="regression" if regression else "binary",
        metric=metric,
        classes=() if regression else ("no", "yes"),
        train_rows=426,
        holdout_rows=143,
        columns={"number": 30},
        sha256="c" * 64,
        checks=(
            DataCheck(name="class_balance", verdict="pass", value=0.6, bound=0.2, detail="The classes are even."),
            DataCheck(name="constant_column", column="zero", verdict="warn", value=1.0, bound=0.0, detail="It is 0."),
        ),
    )


class Story:
    """A run in the making: say what happened, then ask for its ledger and its reduced steps."""

    def __init__(self, told: Scenario | None = None, bare_targets: Iterable[str] = ("null", "external")) -> None:
        self.scenario = told or scenario()
        self.plan: tuple[Cell, ...] = cells(self.scenario, tuple(bare_targets))
        self.results: dict[str, CellResult] = {}
        self.trials: list[Trial] = []
        self.refits: list[Refit] = []
        self.candidates: list[Candidate] = []
        self.checks: list[Check] = []
        self.steps: list[StepEntry] = []
        self.exchanges: dict[str, Exchanges] = {}
        self.micro: list[MicroResult] = []
        self.shared_cores = False
        self.metrics: dict[str, Metric] = {}
        """Of tables, where it is not roc_auc."""
        self.roofline: Roofline | None = None
        """What was known of the generator when the run began."""

    def cell(
        self,
        kind: str,
        name: str | None = None,
        target: str | None = None,
        replicas: int | None = None,
        table: str | None = None,
        seed: int | None = None,
    ) -> Cell:
        return next(
            cell
            for cell in self.plan
            if cell.kind == kind
            and table in {None, cell.table}
            and seed in {None, cell.seed}
            and name in {None, cell.candidate, cell.engine}
            and target in {None, cell.target}
            and replicas in {None, cell.replicas}
        )

    def done(self, cell: Cell, failure: Failure | None = None, **fields: object) -> None:
        state = CellState.FAILED if failure else CellState.DONE
        self.results[cell.id] = CellResult.model_validate(
            {"id": cell.id, "label": cell.label, "kind": cell.kind, "state": state, "duration_s": 1.0}
            | {"failure": failure, **fields}
        )

    def lost(self) -> "Story":
        """What nothing came of so far among the refits has failed."""
        for cell in self.plan:
            if cell.kind == "refit" and cell.id not in self.results:
                self.done(cell, failure=Failure(cause=Cause.ENGINE_NO_MODEL, message="no trial succeeded"))
        return self

    def searched(
        self,
        engine: str,
        scores: Iterable[float | None],
        table: str | None = None,
        seed: int | None = None,
        every_s: float = 0.5,
    ) -> None:
        """A trial per score, `every_s` after the one before; None is a trial that ran out of memory."""
        cell = self.cell("search", engine, table=table, seed=seed)
        for number, score in enumerate(scores):
            failure = Failure(cause=Cause.MEMORY, message="MemoryError: no room") if score is None else None
            evaluated = Evaluated(
                configuration={"family": "random_forest", "max_depth": 3 + number},
                fold_scores=() if score is None else (score, score),
                duration_s=0.4,
                worker=0,
                failure=failure,
            )
            began_s = every_s * number
            self.trials.append(
                Trial(
                    cell=cell.id,
                    number=number,
                    asked=number,
                    asked_s=began_s,
                    sent_s=began_s,
                    finished_s=began_s + every_s,
                    evaluated=evaluated,
                )
            )
        self.done(cell)

    def refitted(
        self,
        table: str,
        entrant: str,
        score: float,
        seed: int | None = None,
        spread: float = 0.0,
        alike: bool = True,
        fit_s: float = 1.0,
        call_s: float = 1e-3,
        sizes: Iterable[int] = (1, 1000),
    ) -> None:
        """A model of an entrant, fitted once more: its score on resampled rows has a standard deviation of `spread`.

        `alike`: it errs on the same rows as every other that is. A call takes `call_s` for a row, and as much for every
        further hundred; cold everything takes three times as long.
        """
        cell = self.cell("refit", entrant, table=table, seed=seed)
        noise = np.random.default_rng(0 if alike else zlib.crc32(cell.id.encode())).normal(size=200)
        predict = tuple(
            PredictTime(rows=rows, calls_s=tuple(call_s * (1 + rows // 100) * (1 + 0.01 * (n % 5)) for n in range(20)))
            for rows in sizes
        )
        self.refits.append(
            Refit(
                cell=cell.id,
                table=table,
                entrant=entrant,
                seed=cell.seed,
                configuration={} if entrant == DUMMY else {"family": "random_forest"},
                cv_score=score if cell.seed is not None else None,
                score=score,
                resamples=tuple((score + spread * (noise - noise.mean())).tolist()),
                fit_cold_s=3 * fit_s,
                fit_warm_s=fit_s,
                load_s=0.01,
                predict_cold_s=3 * call_s,
                predict=predict,
                threads=1,
                size_bytes=50_000,
                peak_memory_bytes=200 * 2**20,
            )
        )
        self.done(cell)

    def candidate(
        self,
        origin: str,
        score: float,
        low: float,
        high: float,
        family: str = "random_forest",
        metric: Metric = "roc_auc",
        passed: bool = True,
        alike: bool = False,
    ) -> None:
        """A candidate with its holdout score; `passed` False: it does not beat the dummy model; `alike`: it errs on the
        same rows as every other candidate that is."""
        self.candidates.append(
            Candidate(
                id=f"id-{origin}",
                origin=origin,
                configuration={"family": family, "max_depth": 7, "learning_rate": 0.1234567},
                cv_score=score,
                fit_s=0.8,
                signature=Signature(
                    task="regression" if metric in {"r2", "rmse"} else "binary",
                    columns=(Column(name="radius", kind="number"),),
                    classes=() if metric in {"r2", "rmse"} else ("0", "1"),
                ),
                metric=metric,
                artifacts=(Artifact(runtime="onnx", file="model.onnx", sha256="0" * 64, size_bytes=1000),),
            )
        )
        detail = f"{metric} {score} on 143 holdout rows"
        self.checks += [
            Check(
                candidate=origin,
                name="holdout_score",
                passed=True,
                value=score,
                low=low,
                high=high,
                resamples=tuple(self._resampled(origin, score, low, high, alike)),
                detail=detail,
            ),
            Check(candidate=origin, name="beats_dummy", passed=passed, value=score, bound=0.5, detail="against 0.5"),
            Check(candidate=origin, name="runtime_parity", runtime="onnx", passed=True, detail="largest difference 0"),
        ]
        self.done(self.cell("candidate", origin))

    def _resampled(self, origin: str, score: float, low: float, high: float, alike: bool) -> Iterable[float]:
        noise = np.random.default_rng(0 if alike else zlib.crc32(origin.encode())).normal(size=200)
        return (score + (high - low) / 3.92 * (noise - noise.mean())).tolist()

    def step(self, cell: Cell, step: Step, columns: Exchanges, **changes: object) -> None:
        told = {"id": f"{cell.id}-{step.shape}-{step.number}", "cell": cell.id, **changes}
        entry = step_entry(step, columns, **told)
        self.steps.append(entry)
        self.exchanges[entry.id] = columns

    def loaded(
        self, cell: Cell, capacity_rps: float, rates: Iterable[float], in_flight: Iterable[int] = (1, 2, 4, 8)
    ) -> None:
        """Open and closed steps on a cell of a known capacity."""
        number = 0
        for number, users in enumerate(in_flight):
            asked = closed_step(number, users)
            self.step(cell, asked, closed_exchanges(asked, capacity_rps))
        for rate in rates:
            number += 1
            planned = open_step(number, rate)
            columns = open_exchanges(planned, capacity_rps, seed=number)
            # Of ours each says where its time goes; the one that computes nothing, and a stranger's, do not.
            self.step(cell, planned, columns if cell.candidate is None else stated(columns))
        self.done(cell, startup_s=1.25)

    def timed(self, origin: str, runtime: str, per_call_s: Mapping[int, float]) -> None:
        cell = self.cell("micro", origin)
        for rows, seconds in per_call_s.items():
            rounds = tuple(seconds * (1 + 0.01 * (number % 5)) for number in range(40))
            self.micro.append(
                MicroResult(
                    cell=cell.id, candidate=origin, benchmark="predict", runtime=runtime, rows=rows, rounds_s=rounds
                )
            )
        self.done(cell)

    def ledger(self) -> Ledger:
        target_cores = (0, 1) if self.shared_cores else (1,)
        return Ledger(
            run=Run(
                id="20260101-000000-quickstart",
                scenario="quickstart",
                scenario_sha256="a" * 64,
                data_sha256="b" * 64,
                data_folder="/scenarios",
                harness_version="0.1.0",
                started_utc="2026-01-01T00:00:00Z",
                finished_utc="2026-01-01T00:05:00Z",
                roofline=self.roofline,
            ),
            host=Host(
                system="Linux 6.1",
                machine="x86_64",
                cpu="A processor",
                cores=2,
                memory_bytes=24 * 2**30,
                python="3.11.9",
                versions={"numpy": "2.4.0", "scikit-learn": "1.9.1"},
                generator_cores=(0,),
                target_cores=target_cores,
            ),
            scenario=self.scenario,
            tables=tuple(
                table_entry(str(plan.name), plan.source, self.metrics.get(str(plan.name), "roc_auc"))
                for plan in self.scenario.tables
            ),
            plan=self.plan,
            results=tuple(self.results.values()),
            trials=tuple(self.trials),
            refits=tuple(self.refits),
            candidates=tuple(self.candidates),
            checks=tuple(self.checks),
            steps=tuple(self.steps),
            micro=tuple(self.micro),
        )

    def reduced(self) -> tuple[StepResult, ...]:
        return judged(self.ledger(), [reduce_step(entry, self.exchanges[entry.id]) for entry in self.steps])


def whole_run() -> Story:
    """Three candidates, all served. Best in score: optuna_search, tied with random_search, which carries more."""
    story = Story()
    story.searched("optuna_search", [0.95, 0.97, None, 0.985, 0.98, 0.991])
    story.searched("random_search", [0.96, 0.965, 0.98, 0.979, None, 0.988])
    story.candidate(BASELINE, 0.941, 0.921, 0.961, family="logistic_regression")
    story.candidate("optuna_search", 0.9931, 0.984, 0.999)
    story.candidate("random_search", 0.9902, 0.981, 0.998, family="lightgbm")
    for origin, capacity, rates in (
        (BASELINE, 1900.0, (400, 800, 1200, 1600, 2000)),
        ("optuna_search", 1000.0, (400, 800, 1200)),
        ("random_search", 1500.0, (400, 800, 1200, 1600)),
    ):
        story.loaded(story.cell("serve", origin), capacity, rates)
    for origin, native, onnx in (
        (BASELINE, 1.2e-4, 7e-6),
        ("optuna_search", 4.5e-3, 8e-6),
        ("random_search", 5e-4, 7.5e-6),
    ):
        story.timed(origin, "sklearn_native", {1: native, 32: 1.2 * native, 1024: 3 * native})
        story.timed(origin, "onnx", {1: onnx, 32: 3 * onnx, 1024: 60 * onnx})
    return story


ENTRANTS = ("flaml_search", "optuna_search", "random_search")


def comparison_scenario(
    tables: Iterable[str], seeds: Iterable[int] = (1, 2), engines: Iterable[str] = ENTRANTS, **changes: object
) -> Scenario:
    """Engines and the baseline on several tables."""
    return scenario(
        question="Which engine finds the best models?",
        data=[{"source": "sklearn:breast_cancer", "name": name} for name in tables],
        search={"engines": list(engines), "trials": 6, "seeds": list(seeds)},
        expect={},
        serve=[],
        load={},
        **changes,
    )


def compared(scores: Mapping[str, Mapping[str, float | None]], seeds: Iterable[int] = (1,), **fields: Any) -> Story:
    """A comparison in which entrant E scores `scores[table][E]` with every seed, over a dummy of 0.5; None failed."""
    seeds = tuple(seeds)
    story = Story(comparison_scenario(scores, seeds, compare={}))
    for table, of in scores.items():
        story.refitted(table, DUMMY, 0.5)
        for entrant, score in of.items():
            for seed in (None,) if entrant == BASELINE else seeds:
                if score is None:
                    failure = Failure(cause=Cause.ENGINE_NO_MODEL, message="no trial succeeded")
                    story.done(story.cell("refit", entrant, table=table, seed=seed), failure=failure)
                else:
                    story.refitted(table, entrant, score, seed=seed, **fields)
    return story
