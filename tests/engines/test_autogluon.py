"""AutoGluon: what it proposes always, and what comes of it where its environment is installed."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from harness.clock import SystemClock
from harness.engines.autogluon import KINDS, PORTFOLIOS, Autogluon
from harness.engines.random_search import RandomSearch
from harness.environments import interpreter, is_installed
from harness.ports import Finished, Problem, Proposal
from harness.ray_session import ray_session
from harness.records.candidate import Configuration, Trial
from harness.records.run import Failure
from harness.records.scenario import ComparePlan
from harness.records.table import DataPlan
from harness.space.score import score
from harness.stages.data import Table, load_table
from harness.stages.fleet import SearchFleet
from harness.stages.ray_workers import ray_workers
from harness.stages.refit import order, refitted
from harness.stages.search import search
from harness.stages.split import fold_rows

PROBLEM = Problem("binary", "roc_auc", ("logistic",), 3, 2, 240.0, 1)
here_only = pytest.mark.skipif(not is_installed("autogluon"), reason="its environment is not installed: make autogluon")


class Listening:
    """A fleet that only writes down what it is asked."""

    workers = 1
    trials = 99

    def __init__(self) -> None:
        self.asked: list[Configuration] = []

    def evaluate(self, ask: Any, go_on: Any = None) -> Iterator[Finished]:
        while (proposal := ask()) is not None:
            self.asked.append(proposal.configuration)
        return iter(())

    def inside(self, loop: Any) -> Iterator[Finished]:
        raise AssertionError("it has no loop of its own")


def asked(seed: int) -> list[Configuration]:
    fleet = Listening()
    Autogluon().search(Problem("binary", "roc_auc", (), 3, 99, 60.0, seed), fleet)
    return fleet.asked


def test_it_begins_with_what_autogluon_does_unasked_and_ends_when_nothing_is_left() -> None:
    first = {"family": "autogluon", "portfolio": "default", "kinds": "GBM+RF+XT"}
    assert asked(1)[0] == asked(2)[0] == first
    assert asked(1) == asked(1) != asked(2)
    # Three portfolios, and of three kinds of models every set but the empty one.
    assert len(asked(1)) == len({tuple(one.values()) for one in asked(1)}) == 3 * (2**3 - 1)


def table(folder: Path) -> Table:
    """What AutoGluon is to be given as it is: numbers with holes, texts, and dates."""
    rng = np.random.default_rng(3)
    number, kind = rng.normal(size=240), rng.choice(["north", "south", "west"], size=240)
    frame = pd.DataFrame(
        {
            "number": np.where(rng.random(240) < 0.1, np.nan, number),
            "kind": kind,
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, 240), unit="D"),
            "target": np.where(number + (kind == "north") + rng.normal(scale=0.7, size=240) > 0, "yes", "no"),
        }
    )
    frame.to_csv(folder / "rows.csv", index=False)
    return load_table(DataPlan(source="rows.csv", dates=("since",)), folder)


ALONE = """
import json, sys
import numpy as np, pandas as pd
from autogluon.tabular import TabularPredictor

asked = json.load(sys.stdin)
frame = pd.DataFrame(asked["frame"])
frame["since"] = pd.to_datetime(frame["since"])
frame["number"] = frame["number"].astype(float)
answers = []
for number, (fitted, scored) in enumerate(asked["folds"]):
    rows = frame.iloc[fitted].assign(target=np.array(asked["target"])[fitted])
    predictor = TabularPredictor("target", "binary", "roc_auc", path=asked["path"] + str(number), verbosity=0)
    predictor.fit(rows, hyperparameters="light", included_model_types=["XT"], num_cpus=1)
    answers.append(predictor.predict_proba(frame.iloc[scored])[1].tolist())
print(json.dumps(answers))
"""


@here_only
def test_every_portfolio_has_every_kind_of_model() -> None:
    question = (
        "import json; from autogluon.tabular.configs.hyperparameter_configs import get_hyperparameter_config as of\n"
        f"print(json.dumps([sorted(of(name)) for name in {PORTFOLIOS!r}]))"
    )
    told = subprocess.run([interpreter("autogluon"), "-c", question], capture_output=True, text=True, check=True)
    for kinds in json.loads(told.stdout.splitlines()[-1]):
        assert set(KINDS) <= set(kinds)


@here_only
def test_its_trials_are_autogluons_own_fits_on_the_folds_of_everybody(tmp_path: Path) -> None:
    made = table(tmp_path)
    target, rows = made.target[made.train], made.frame.iloc[made.train].reset_index(drop=True)
    configuration: Configuration = {"family": "autogluon", "portfolio": "light", "kinds": "XT"}

    class One:
        foreign = Autogluon.foreign

        def search(self, problem: Problem, fleet: Any) -> Iterator[Finished]:
            return islice(fleet.evaluate(lambda: Proposal(configuration)), 1)

    trials: list[Trial] = []
    with ray_session(1), ray_workers(made, 1, SystemClock()) as workers:
        fleet = SearchFleet(workers, made.training)
        search(One(), PROBLEM, fleet, trials.append, "foreign")
        # The same workers' places are taken by our own environment again.
        search(RandomSearch(), PROBLEM, fleet, trials.append, "ours")
    assert [trial.cell for trial in trials] == ["foreign", "ours", "ours"]
    assert [trial.evaluated.failure for trial in trials] == [None] * 3

    folds = fold_rows(made.training, PROBLEM.folds, PROBLEM.seed)
    written = json.loads(rows.to_json(orient="columns", date_format="iso"))
    question = {
        "frame": {name: list(values.values()) for name, values in written.items()},
        "target": target.tolist(),
        "folds": [[part.tolist() for part in fold] for fold in folds],
        "path": str(tmp_path / "alone"),
    }
    told = subprocess.run(
        [interpreter("autogluon"), "-c", ALONE], input=json.dumps(question), capture_output=True, text=True, check=True
    )
    answers = json.loads(told.stdout.splitlines()[-1])
    alone = [roc_auc_score(target[scored], answer) for (_, scored), answer in zip(folds, answers, strict=True)]
    assert trials[0].evaluated.fold_scores == pytest.approx(alone, abs=1e-9)
    assert min(alone) > 0.7  # it learned something


@here_only
def test_what_it_found_is_fitted_once_more_and_timed_in_its_environment(tmp_path: Path) -> None:
    made = table(tmp_path)
    configuration: Configuration = {"family": "autogluon", "portfolio": "light", "kinds": "XT"}
    asked = order(made, configuration, 7, 200.0, foreign=replace(PROBLEM, foreign=Autogluon.foreign))
    answer = refitted(asked, ComparePlan(rows=(1, 1000), repeats=2, seconds=0.1), ())
    assert not isinstance(answer, Failure), answer
    found, timed = answer
    assert score("roc_auc", made.target[made.holdout], found.answers) > 0.7
    assert [(one.rows, min(one.calls_s) > 0) for one in timed.predict] == [(1, True), (1000, True)]
    assert min(*found.fits_s, timed.load_s, timed.predict_cold_s) > 0
    assert len(found.pipeline) > 100_000  # its models went along
