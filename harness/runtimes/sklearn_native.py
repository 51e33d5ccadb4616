"""The candidate as scikit-learn computes it: the fitted pipeline, stored by skops.

In: a fitted Pipeline. Out: `model.skops`, and a predictor over raw columns. A skops file names the types it wants to
build; only types of a fixed list are built, whatever a file says of itself. Unlike a pickle it runs nothing else.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness.errors import IntegrityError, NotConvertibleError, one_line
from harness.ports import Form, Predictor, SklearnPipeline
from harness.records.candidate import Signature
from harness.records.rows import Batch, Prediction

REQUIRES = ("sklearn", "skops", "threadpoolctl")

TRUSTED = (
    "collections.OrderedDict",
    "harness.space.build.CalibrationParts",
    "harness.space.preprocess.RawColumns",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.StratifiedKFold",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
)
"""What a file may hold beyond skops' own list of harmless types: what the model families are made of, no more."""


@dataclass(frozen=True, slots=True)
class SklearnNative:
    """The scikit-learn API, as it was fitted."""

    artifact: ClassVar[str] = "model.skops"
    same_minor: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    def export(self, pipeline: SklearnPipeline, signature: Signature, sample: Batch) -> Form:
        import skops.io

        try:
            stored: bytes = skops.io.dumps(pipeline)
        except Exception as error:  # skops has no closed set of errors
            raise NotConvertibleError(f"skops cannot store it: {type(error).__name__}: {one_line(error)}") from error
        unknown = _untrusted(stored)
        if unknown:
            raise NotConvertibleError(f"it holds types that would not be loaded again: {', '.join(unknown)}")
        return Form(stored)

    def load(self, artifact: Path, signature: Signature) -> Predictor:
        """As the port says. The limit of one thread holds for the whole process from here on: a serving process holds
        one model, and setting the limit around each prediction would cost more than most predictions do.
        """
        import skops.io
        from threadpoolctl import threadpool_limits

        try:
            stored = artifact.read_bytes()
            unknown = _untrusted(stored)
            pipeline = None if unknown else skops.io.loads(stored, trusted=list(TRUSTED))
        except (OSError, zipfile.BadZipFile) as error:
            raise IntegrityError(
                f"{artifact} cannot be read as a skops file: {type(error).__name__}: {one_line(error)}."
            ) from error
        except Exception as error:  # whatever a damaged file makes skops stumble over
            raise IntegrityError(f"{artifact} cannot be loaded: {type(error).__name__}: {one_line(error)}.") from error
        if unknown:
            raise IntegrityError(
                f"{artifact} holds types that are not loaded from files: {', '.join(unknown)}. It was not written by "
                "this harness, or was changed since: export the candidate again."
            )
        _one_thread(pipeline)
        threadpool_limits(limits=1)
        return _predictor(pipeline, signature)


def _predictor(pipeline: SklearnPipeline, signature: Signature) -> Predictor:
    from harness.space.preprocess import to_frame

    columns = signature.columns
    if signature.task == "regression":

        def value(batch: Batch) -> Prediction:
            values = np.asarray(pipeline.predict(to_frame(batch, columns)), dtype=np.float64)
            return Prediction(values=values, probabilities=None)

        return value

    known = np.asarray(pipeline.classes_, dtype=np.intp)
    classes = len(signature.classes)

    def probable(batch: Batch) -> Prediction:
        given = np.asarray(pipeline.predict_proba(to_frame(batch, columns)), dtype=np.float64)
        if len(known) == classes:
            probabilities = given
        else:  # a class without a training row has no column
            probabilities = np.zeros((len(given), classes))
            probabilities[:, known] = given
        return Prediction(values=probabilities.argmax(axis=1).astype(np.float64), probabilities=probabilities)

    return probable


def _untrusted(stored: bytes) -> list[str]:
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(data=stored)) - set(TRUSTED))


def _one_thread(pipeline: Any) -> None:
    names = [name for name in pipeline.get_params() if name == "n_jobs" or name.endswith("__n_jobs")]
    pipeline.set_params(**dict.fromkeys(names, 1))
