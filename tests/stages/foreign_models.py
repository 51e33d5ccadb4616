"""Models of a library that is in an environment of its own only: they refuse to be made anywhere else."""

import os
from typing import Any

from sklearn.dummy import DummyClassifier

from harness.ports import Problem
from harness.records.candidate import Configuration, Signature

REQUIRES = ("colorsys",)  # a library that nothing else here imports


def build(configuration: Configuration, signature: Signature, problem: Problem) -> Any:
    """A model that knows the shares of the classes, and nothing else."""
    if "FOREIGN_ENVIRONMENT" not in os.environ:
        raise RuntimeError("this is not its environment")
    return DummyClassifier(strategy="prior")
