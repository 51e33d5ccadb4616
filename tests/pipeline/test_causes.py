"""What brings about each cause of the closed list: every one of them is the answer of real code to something real."""

import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from harness.analysis.failures import of_cells
from harness.clock import FakeClock, SystemClock
from harness.pipeline.cells import candidate_cell, micro_cell, search_cell, serve_cell
from harness.pipeline.inputs import read_inputs
from harness.pipeline.report import read_findings
from harness.pipeline.run import _done
from harness.pipeline.work import CellFailedError, Told, Work
from harness.ports import Problem, Proposal
from harness.ray_session import ray_session
from harness.records.candidate import Evaluated, Trial
from harness.records.cell import Cell, cells
from harness.records.run import Cause, Run
from harness.records.scenario import Scenario
from harness.records.table import DataPlan
from harness.records.words import BASELINE
from harness.stages.data import load_table
from harness.stages.fitting import Fitter
from harness.stages.fleet import SearchFleet
from harness.stages.host import fingerprint
from harness.stages.ray_workers import ray_workers
from harness.stages.simulated_workers import SimulatedWorkers
from harness.stages.split import LabelledRows, fold_rows
from harness.stages.supervisor import Supervised, supervised
from harness.store.database import Database
from harness.store.runs import RunFolder
from tests.engines.landscape import TARGET, Landscape

FAULTY = "faulty_fitter:FaultyFitter"
"""Its configurations do what their family is called; see `tests/stages/faulty_fitter.py`."""

NOWHERE = "127.0.0.1:1"
TABLE = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
FRAME, LABELS = TABLE.frame.iloc[TABLE.train].reset_index(drop=True), TABLE.target[TABLE.train]
FOLDS = fold_rows(TABLE.training, 3, 1)
PROBLEM = Problem("binary", "roc_auc", ("logistic",), 3, 1, 60.0, 1, memory_bytes=2**30)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where something may go wrong."""

    folder: Path
    trials: Supervised
    stack: ExitStack

    def trial(self, family: str, limit_s: float = 30.0) -> Cause | None:
        """Of a trial in a process of its own, that does what its family is called."""
        return cause(self.trials.evaluate(Proposal({"family": family}), (0,), limit_s))

    def work(self, ray_address: str | None = None, **changes: object) -> Work:
        """On a run of the iris table, whose keys `changes` replace."""
        scenario = Scenario.model_validate(
            {
                "question": "Which?",
                "data": [{"source": "sklearn:iris"}],
                "search": {"engines": ["random_search"], "families": ["logistic"]},
                **changes,
            }
        )
        labels = dict.fromkeys(("id", "scenario", "scenario_sha256", "data_sha256", "harness_version"), "made")
        run, host = Run(data_folder="/", started_utc="2026-01-01T00:00:00Z", **labels), fingerprint()
        plan, folder = cells(scenario, ("null", "external")), RunFolder(self.folder)
        database = self.stack.enter_context(Database.create(folder.database, run, host, scenario, (), plan))
        inputs, clock = read_inputs(scenario, self.folder), SystemClock()
        return Work(folder, database, scenario, host, inputs, clock, lambda words: None, ray_address=ray_address)


@pytest.fixture(scope="module")
def trials() -> Iterator[Supervised]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "stages"))
        with supervised(0, pickle.dumps((FRAME, LABELS, TABLE.signature)), FAULTY) as made:
            made.start(PROBLEM, FOLDS, 1)
            yield made


@pytest.fixture
def scene(tmp_path: Path, trials: Supervised) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(tmp_path, trials, stack)


def cause(evaluated: Evaluated) -> Cause | None:
    return evaluated.failure.cause if evaluated.failure else None


def done(work: Work, kind: str, do: Callable[[Work, Cell], Told]) -> Cause | None:
    """Of the first cell of its kind."""
    cell = next(cell for cell in work.database.ledger().plan if cell.kind == kind)
    work.database.begin(cell)
    try:
        do(work, cell)
    except CellFailedError as error:
        return error.cause
    return None


def a_family_that_does_not_exist(scene: Scene) -> Cause | None:
    fitter = Fitter(0, FRAME, LABELS, TABLE.signature)
    fitter.start(PROBLEM, FOLDS)
    return cause(fitter.evaluate(Proposal({"family": "tree_of_life"})))


def rows_without_an_end(scene: Scene) -> Cause | None:
    fitter = Fitter(0, FRAME.replace(FRAME.iloc[0, 0], np.inf), LABELS, TABLE.signature)
    fitter.start(PROBLEM, FOLDS)
    return cause(fitter.evaluate(Proposal({"family": "logistic"})))


def a_search_without_a_trial_that_succeeds(scene: Scene) -> Cause | None:
    workers = SimulatedWorkers(Landscape(failing_above=0.0), 1, FakeClock(), TARGET)
    fleet = SearchFleet(workers, LabelledRows(TARGET, "binary", "stratified"))
    return done(scene.work(), "search", lambda work, cell: search_cell(work, cell, fleet, PROBLEM))


def a_node_that_is_killed(scene: Scene) -> Cause | None:
    """The only one with a CPU, by the trial that is on it."""
    with ray_session(0):
        cluster = Cluster()
        cluster.head_node = ray._private.worker._global_node  # it is up already
        node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, include_dashboard=False)
        with ray_workers(TABLE, 1, SystemClock(), FAULTY) as workers:
            fleet = SearchFleet(workers, TABLE.training)
            fleet.start(PROBLEM)
            (found,) = fleet.evaluate(lambda: Proposal({"family": "kill_node"}))
        cluster.remove_node(node, allow_graceful=False)
    return cause(found.evaluated)


def a_model_that_lives_in_another_environment(scene: Scene) -> Cause | None:
    work = scene.work(search={"engines": ["autogluon"]})
    found = Evaluated(configuration={"family": "CAT"}, fold_scores=(0.9,), duration_s=1.0, worker=0)
    plan = {(cell.kind, cell.engine or cell.candidate): cell for cell in work.database.ledger().plan}
    cell, times_s = plan["search", "autogluon"].id, {"asked_s": 0.0, "sent_s": 0.0, "finished_s": 1.0}
    work.database.record(cell, Trial(cell=cell, number=0, asked=0, evaluated=found, **times_s))
    with pytest.raises(CellFailedError) as failed:
        candidate_cell(work, plan["candidate", "autogluon"])
    return failed.value.cause


def a_score_that_no_model_has(scene: Scene) -> Cause | None:
    work = scene.work(expect={"score_at_least": 1.0}, search={"engines": ["random_search"], "metric": "accuracy"})
    assert done(work, "candidate", candidate_cell) is None
    return done(work, "micro", micro_cell)


def a_server_that_is_not_there(scene: Scene) -> Cause | None:
    serve = [{"target": "external", "parameters": {"url": f"http://{NOWHERE}"}}]
    return done(scene.work(serve=serve), "serve", serve_cell)


def a_load_from_a_cluster_that_is_not_there(scene: Scene) -> Cause | None:
    work = scene.work(NOWHERE, serve=[{"target": "null"}], load={"placement": "cluster"})
    return done(work, "serve", serve_cell)


def a_bundle_that_is_gone_when_it_is_timed(scene: Scene) -> Cause | None:
    work = scene.work()
    assert done(work, "candidate", candidate_cell) is None
    (candidate,) = work.database.ledger().candidates
    assert candidate.origin == BASELINE
    (work.folder.candidate(candidate.id) / "signature.json").unlink()
    return done(work, "micro", micro_cell)


def a_run_that_is_interrupted(scene: Scene) -> Cause | None:
    """In a cell, by the signal of Ctrl-C; the cell is told as it is in the report."""
    work = scene.work()
    (cell, *_) = work.database.ledger().plan

    def interrupted(work: Work, cell: Cell) -> Told:
        signal.raise_signal(signal.SIGINT)
        return Told()

    with pytest.raises(KeyboardInterrupt):
        _done(work, cell, interrupted)
    failed = {one.where: one.cause for one in of_cells(read_findings(work.folder))}
    return failed[cell.label]


PROVOKED: dict[Cause, Callable[[Scene], Cause | None]] = {
    Cause.CONFIG: a_family_that_does_not_exist,
    Cause.DATA: rows_without_an_end,
    Cause.MEMORY: lambda scene: scene.trial("allocate"),
    Cause.TIME: lambda scene: scene.trial("sleep", limit_s=0.1),
    Cause.ENGINE_ERROR: lambda scene: scene.trial("raise"),
    Cause.ENGINE_NO_MODEL: a_search_without_a_trial_that_succeeds,
    Cause.NONFINITE_METRIC: lambda scene: scene.trial("no_number"),
    Cause.WORKER_LOST: lambda scene: scene.trial("die"),
    Cause.NODE_LOST: a_node_that_is_killed,
    Cause.NOT_CONVERTIBLE: a_model_that_lives_in_another_environment,
    Cause.CHECK_FAILED: a_score_that_no_model_has,
    Cause.TARGET: a_server_that_is_not_there,
    Cause.GENERATOR: a_load_from_a_cluster_that_is_not_there,
    Cause.BENCHMARK: a_bundle_that_is_gone_when_it_is_timed,
    Cause.DISK: lambda scene: scene.trial("fill_disk"),
    Cause.INTERRUPTED: a_run_that_is_interrupted,
    Cause.UNKNOWN: lambda scene: scene.trial("exit"),
}


LONG = frozenset({Cause.NODE_LOST, Cause.BENCHMARK, Cause.CHECK_FAILED})
"""They take a cluster, or a served candidate."""


@pytest.mark.parametrize("cause", [pytest.param(one, marks=pytest.mark.long if one in LONG else ()) for one in Cause])
def test_every_cause_is_what_something_real_comes_to(cause: Cause, scene: Scene) -> None:
    assert PROVOKED[cause](scene) is cause
