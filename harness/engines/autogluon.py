"""AutoGluon: its own portfolios of models, each fitted and blended as AutoGluon does, in an environment of its own.

In: a problem and a fleet. Out: what finishes, as it does.

A trial is a whole AutoGluon fit, for each fold on its rows: a portfolio and the kinds of models it may take from it,
blended by AutoGluon's weighted ensemble for the metric of the problem. AutoGluon prepares tables in its own way, and
what it makes does not load in our environment: it is compared with other engines, on the same folds and by refits in
its own environment, and there is no candidate to serve. `space` knows none of its configurations, `build` makes what
is fitted.
"""

import io
import itertools
import os
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from harness.ports import Finished, Fleet, Foreign, Problem, Proposal
from harness.records.candidate import Configuration, Signature
from harness.records.words import Metric
from harness.space.families import FAMILY
from harness.sweeper import swept_place

if TYPE_CHECKING:
    import pandas as pd

REQUIRES = ("autogluon.tabular",)

PORTFOLIOS = ("default", "light", "zeroshot")
"""AutoGluon's own names, what it does unasked first. `very_light` has no forests: most parts of it would be empty."""

KINDS = ("GBM", "RF", "XT")
"""Kinds of models whose libraries are in its environment: LightGBM, random forests, extra trees."""

_FIT_SHARE = 0.8
"""Of a fold's time: AutoGluon heeds its limit between models only, and the answers are still to be computed."""

_METRICS: Mapping[Metric, str] = {
    "roc_auc": "roc_auc",
    "accuracy": "accuracy",
    "log_loss": "log_loss",
    "r2": "r2",
    "rmse": "root_mean_squared_error",
}


@dataclass(frozen=True, slots=True)
class Autogluon:
    """What AutoGluon does unasked, then its other portfolios and parts of them in an order that follows the seed.

    The search ends when there are no more of them. Nothing is learned from scores: AutoGluon's way is to blend many
    models well and not to tune one.
    """

    foreign: ClassVar[Foreign] = Foreign("harness.engines.autogluon:build", "autogluon")

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        left = iter(_configurations(problem.seed))
        return fleet.evaluate(lambda: next((Proposal(configuration) for configuration in left), None))


def build(configuration: Configuration, signature: Signature, problem: Problem) -> "_Blend":
    """An unfitted model over raw columns, of AutoGluon's."""
    return _Blend(configuration, signature, problem)


def _configurations(seed: int) -> list[Configuration]:
    parts = [part for size in range(len(KINDS), 0, -1) for part in itertools.combinations(KINDS, size)]
    first, *others = [
        {FAMILY: "autogluon", "portfolio": portfolio, "kinds": "+".join(part)}
        for portfolio in PORTFOLIOS
        for part in parts
    ]
    return [first, *(others[position] for position in np.random.default_rng(seed).permutation(len(others)))]


class _Blend:
    """AutoGluon's predictor, with the methods of scikit-learn's models; its files go when it goes."""

    def __init__(self, configuration: Configuration, signature: Signature, problem: Problem) -> None:
        self._configuration = configuration
        self._problem = problem
        self._classes = len(signature.classes)
        self._label = "target"
        while self._label in {column.name for column in signature.columns}:
            self._label += "_"
        self._folder = _own_folder(self)

    def __getstate__(self) -> dict[str, Any]:
        """With its files: those of this process go with it."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(self._folder, arcname=".")
        others = {name: value for name, value in vars(self).items() if name != "_predictor"}
        return others | {"_folder": packed.getvalue()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Its models are in memory when it is there: to read them is no part of its first answer."""
        from autogluon.tabular import TabularPredictor

        packed = state["_folder"]
        vars(self).update(state | {"_folder": _own_folder(self)})
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(self._folder, filter="data")
        self._predictor = TabularPredictor.load(self._folder)
        self._predictor.persist(max_memory=None)

    def fit(self, frame: "pd.DataFrame", target: NDArray[Any]) -> Self:
        from autogluon.tabular import TabularPredictor

        problem = self._problem
        several = problem.task == "multiclass" and problem.metric == "roc_auc"
        self._predictor = TabularPredictor(
            label=self._label,
            problem_type=problem.task,
            eval_metric="roc_auc_ovr_macro" if several else _METRICS[problem.metric],
            path=self._folder,
            verbosity=0,
            learner_kwargs={"cache_data": False},
        ).fit(
            frame.assign(**{self._label: target}),
            hyperparameters=self._configuration["portfolio"],
            included_model_types=str(self._configuration["kinds"]).split("+"),
            time_limit=_FIT_SHARE * (problem.trial_seconds or problem.seconds) / problem.folds,
            num_cpus=1,
            num_gpus=0,
        )
        return self

    def predict(self, frame: "pd.DataFrame") -> NDArray[np.float64]:
        return np.asarray(self._predictor.predict(frame), dtype=np.float64)

    def predict_proba(self, frame: "pd.DataFrame") -> NDArray[np.float64]:
        # A class that is rare in a fold is left out by AutoGluon.
        answers = self._predictor.predict_proba(frame).reindex(columns=range(self._classes), fill_value=0.0)
        return np.asarray(answers, dtype=np.float64)


def _own_folder(blend: _Blend) -> str:
    # Below the run's own folder: a trial that is killed removes nothing.
    folder = tempfile.mkdtemp(prefix=f"autogluon-{os.getpid()}-", dir=swept_place())
    weakref.finalize(blend, shutil.rmtree, folder, ignore_errors=True)
    return folder
