"""Refits: what an engine found, fitted once more and timed, as a comparison of engines needs it.

In: nothing. Out: `Refit`, of one entrant on one table, and `PredictTime`.
"""

from harness.records.candidate import Configuration
from harness.records.frozen import Frozen


class PredictTime(Frozen):
    """How long a call takes that predicts so many rows, warm."""

    rows: int
    calls_s: tuple[float, ...]
    """Seconds of each call, in their order; the first of all calls is not among them."""


class Refit(Frozen):
    """One entrant of a comparison on one table: fitted on all training rows in a process that did nothing before, and
    asked in another. Both are forks of one that has the table and the libraries, and has neither fitted nor predicted.

    Cold is the first time in a process, warm the second. The imports of the model's library, and all reading, are
    outside either; what that library imports only when it is first used is a part of cold.
    """

    cell: str
    table: str
    entrant: str
    """An engine, `baseline`, or `dummy`."""
    seed: int | None
    """Of the search; None for what was not searched for."""
    configuration: Configuration
    """Empty for the dummy."""
    cv_score: float | None
    """Cross-validated score of the trial it comes from; None where it was not searched for."""
    score: float
    """On the holdout, as the metric of the table defines it."""
    resamples: tuple[float, ...]
    """The same on resampled holdout rows, which are the same rows for every entrant on the table."""
    fit_cold_s: float
    fit_warm_s: float
    load_s: float
    """To make a pipeline of its bytes, in the process that is asked."""
    predict_cold_s: float
    """The first call there, of one row."""
    predict: tuple[PredictTime, ...]
    threads: int
    """That fitting and predicting may use."""
    size_bytes: int
    """Of the fitted pipeline, pickled."""
    peak_memory_bytes: int
    """Most memory of the process that fitted, libraries and table included."""
    fit_memory_bytes: int | None = None
    """Of that, what the warm fit took beyond all that its process held before it, the training rows among that."""
