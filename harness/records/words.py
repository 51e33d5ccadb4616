"""The words that scenarios are written in: names, numbers and choices that several of their tables are made of.

In: nothing. Out: the types of such values, and the names that have a meaning of their own.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

BASELINE = "baseline"
"""The origin of the plain model (logistic or ridge) that every search is compared with."""

DUMMY = "dummy"
"""The entrant of a comparison that never looks at the features: what a failed one is scored as."""

EXTERNAL = "external"
"""The target that is there already; what it is sent may be the user's own requests."""

PLAIN, ROUTED = "asgi", "ray_serve"
"""Targets that run the same application: a server that is asked itself, and one behind a proxy that routes."""

ROOFLINE = "null"
"""The target that computes nothing: what is measured there is the load generator."""

Scalar = bool | int | float | str
TableName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,99}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Share = Annotated[float, Field(gt=0, lt=1)]
Seconds = Annotated[float, Field(gt=0, le=500_000)]
"""A length of time that is waited for, almost six days at most: timers of the system overflow not far beyond it."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Processes = Annotated[int, Field(ge=1, le=256)]
Protocol = Literal[
    "plain",
    "v2",
    "v2:np",
    "v2:pd",
    "mlflow",
    "mlflow:dataframe_records",
    "mlflow:instances",
    "mlflow:inputs",
    "bentoml",
]
Task = Literal["binary", "multiclass", "regression"]
Metric = Literal["roc_auc", "accuracy", "log_loss", "r2", "rmse"]
ColumnKind = Literal["number", "boolean", "date", "category"]
Split = Literal["plain", "stratified", "grouped", "time"]
Measure = Literal["score", "capacity_rps", "served_p99_s", "error_share"]
