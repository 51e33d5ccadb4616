"""A refitter that notes what happens to its pipeline, when and in which process; it runs in processes of a refit.

Notes are lines of JSON in the file that `REFIT_NOTES` names.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from harness.stages.refit import Refitter


def note(what: str, **more: Any) -> None:
    line = {"what": what, "process": os.getpid(), "at_s": time.monotonic(), "imported": "lightgbm" in sys.modules}
    with Path(os.environ["REFIT_NOTES"]).open("a") as file:
        file.write(json.dumps(line | more) + "\n")


class WatchedRefitter(Refitter):
    def _unfitted(self) -> Any:
        note("build")
        return Noted(super()._unfitted())


class Noted:
    """A pipeline that takes a while to come out of its bytes."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    def __setstate__(self, state: dict[str, Any]) -> None:
        note("load")
        time.sleep(0.3)
        self.__dict__.update(state)
        note("loaded")

    def fit(self, frame: Any, target: Any) -> "Noted":
        self.pipeline.fit(frame, target)
        note("fitted", threads=_threads())
        return self

    def predict_proba(self, frame: Any) -> Any:
        note("predict", rows=len(frame), unlike=len(frame.drop_duplicates()), threads=_threads())
        return self.pipeline.predict_proba(frame)


def _threads() -> int:
    """The most that a library in this process would use now."""
    return max(int(pool["num_threads"]) for pool in threadpool_info())
