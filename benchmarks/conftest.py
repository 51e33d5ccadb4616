"""What the micro benchmarks share: the candidate that is timed, and rows to time it with.

`pytest benchmarks/` fits a forest on the breast-cancer table; `--bundle results/RUN/candidates/ID --rows REQUEST.json`
times a candidate of a run on rows of its own. Inside a run the harness calls the same code.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import NotConvertibleError
from harness.ports import Predictor
from harness.process import die_with_parent
from harness.records.candidate import Candidate, Trial
from harness.records.cell import cells
from harness.records.rows import UNLEARNED_ROWS, Batch
from harness.records.run import Host, Run
from harness.records.scenario import Scenario, SearchPlan
from harness.records.table import DataPlan
from harness.serving.protocol import decode_request
from harness.stages.export import exported, loaded
from harness.store.bundle import read_bundle, write_bundle
from harness.store.database import Database

_FEWEST_BATCHES = 16


@dataclass(frozen=True, slots=True)
class Subject:
    """A candidate on disk, and rows that it can be asked about."""

    bundle: Path
    candidate: Candidate
    rows: Batch
    pipeline: Any = None
    """As it was fitted, where that was here."""

    def predictor(self, runtime: str) -> Predictor:
        """The candidate, loaded; skips the benchmark where it has no such form."""
        try:
            return loaded(self.bundle, runtime)[1]
        except NotConvertibleError as reason:
            pytest.skip(str(reason))

    def batch(self, count: int) -> Batch:
        """`count` rows; those at hand over and over where there are fewer."""
        return self.rows.take(np.arange(count) % len(self.rows))

    def drawn(self, count: int) -> list[Batch]:
        """Batches of `count` rows, each drawn from those at hand; to be taken in turns (why: `UNLEARNED_ROWS`)."""
        random = np.random.default_rng(0)
        batches = max(_FEWEST_BATCHES, UNLEARNED_ROWS // count)
        return [self.rows.take(random.integers(0, len(self.rows), count)) for _ in range(batches)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=Path, help="folder of the candidate to time (default: a forest fitted here)")
    parser.addoption("--rows", type=Path, help="an inference request whose rows are used (with --bundle)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--bundle"):
        die_with_parent()


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    bundle = request.config.getoption("--bundle")
    if bundle is None:
        yield forest(tmp_path_factory.mktemp("candidate") / "forest")
        return
    candidate = read_bundle(bundle)
    rows = request.config.getoption("--rows")
    if rows is None:
        pytest.exit("--bundle needs --rows: a file with an inference request for that candidate", returncode=2)
    yield Subject(bundle, candidate, decode_request(rows.read_bytes(), candidate.signature))


def forest(bundle: Path) -> Subject:
    """The default: a forest of a hundred trees, fitted on the breast-cancer table."""
    # Here, not above: inside a run the candidate is given, and these take seconds to import.
    from harness.space.build import build
    from harness.space.preprocess import to_batch
    from harness.stages.data import load_table

    table = load_table(DataPlan(source="sklearn:breast_cancer"), Path())
    configuration = {"family": "random_forest", "n_estimators": 100}
    pipeline = build(configuration, table.signature, seed=1)
    pipeline.fit(table.frame.iloc[table.train], table.target[table.train])
    rows = to_batch(table.frame.iloc[table.holdout], table.signature.columns)
    files, artifacts = exported(pipeline, table.signature, rows)
    candidate = Candidate(
        id="forest",
        origin="baseline",
        configuration=configuration,
        cv_score=None,
        fit_s=0.0,
        signature=table.signature,
        metric="roc_auc",
        artifacts=artifacts,
    )
    write_bundle(bundle, candidate, files)
    return Subject(bundle, candidate, rows, pipeline)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Callable[[Trial], None]]:
    """Where the trials of a run are kept, with a commit each."""
    run = Run(
        id="bench",
        scenario="bench",
        scenario_sha256="",
        data_sha256="",
        data_folder=".",
        harness_version="",
        started_utc="",
    )
    host = Host(
        system="",
        machine="",
        cpu="",
        cores=1,
        memory_bytes=1,
        python="",
        versions={},
        generator_cores=(0,),
        target_cores=(0,),
    )
    scenario = Scenario(
        question="What does a trial cost?",
        data=(DataPlan(source="sklearn:breast_cancer"),),
        search=SearchPlan(engines=("random_search",)),
    )
    plan = tuple(cell for cell in cells(scenario, ()) if cell.kind == "search")
    with Database.create(tmp_path / "run.db", run, host, scenario, (), plan) as database:
        yield lambda trial: database.record(plan[0].id, trial)
