"""FLAML: its own AutoML loop (cost-frugal local search per family) in one worker, over the same space as the others.

In: a problem and a fleet. Out: evaluations while FLAML goes on.

FLAML prepares tables in its own way, which no other engine would share and which does not export. So it is given a
table of row numbers, and learners that do not learn: when it scores one of them, the whole pipeline of that
configuration is evaluated by the worker, on the folds that every engine uses. FLAML keeps what makes it FLAML: which
family is tried next, and which configuration of it.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.ports import Finished, Fleet, Problem, Workbench
from harness.records.candidate import MINIMISED, Configuration, Evaluated
from harness.records.run import Cause, Failure
from harness.records.words import Scalar
from harness.space.families import Choice, Family, FloatRange, IntegerRange, Parameter, defaults, families_for

REQUIRES = ("flaml",)

_STEPS_PER_TRIAL = 10

_FAILED_LOSS = 1e30
"""Worse than any score. Not infinite: FLAML subtracts losses, and ends its search on what is not a number."""

_READING_S = 1e-4
"""What it takes FLAML to look at its clock. Not nothing: it divides by lengths."""

REPEATS = 100
"""How often in a row it may propose only what it has proposed before; then there is nothing left to try."""


@dataclass(frozen=True, slots=True)
class FlamlSearch:
    """FLAML's CFO, in one worker however many there are: each of its steps starts from what the last one scored."""

    cost_aware: bool = True
    """Let FLAML weigh families by the seconds that their trials took, as it does by itself: the search depends on how
    busy the machine is. Off, a trial is a trial, and a seeded search repeats."""

    def search(self, problem: Problem, fleet: Fleet) -> Iterator[Finished]:
        return fleet.inside(self.loop)

    def loop(self, workbench: Workbench, problem: Problem) -> Iterator[Evaluated]:
        """FLAML's loop, in a thread, so that each evaluation is handed on while the next one runs."""
        found: queue.SimpleQueue[Evaluated | None] = queue.SimpleQueue()
        known: dict[str, Evaluated] = {}
        clock, repeats = _TrialClock(), 0

        def attempt(configuration: Configuration) -> Evaluated:
            nonlocal repeats
            evaluated, repeats = known.get(repr(configuration)), repeats + 1
            if evaluated is None:
                evaluated, repeats = None if clock.is_over else workbench.attempt(configuration), 0
                if evaluated is None:
                    raise _BudgetSpentError
                known[repr(configuration)] = evaluated
                clock.move(evaluated.duration_s)
                found.put(evaluated)
            elif repeats > REPEATS:
                raise _BudgetSpentError
            return evaluated

        def work() -> None:
            try:
                with _read_by_flaml(clock):
                    fit(problem, workbench.target, attempt, self.cost_aware)
            except _BudgetSpentError:
                pass
            except Exception as error:
                # FLAML itself broke. That is a result too: a row without a configuration.
                failure = Failure.of(Cause.ENGINE_ERROR, error)
                found.put(Evaluated(configuration={}, duration_s=0.0, worker=0, failure=failure))
            finally:
                found.put(None)

        thread = threading.Thread(target=work, name="flaml", daemon=True)
        thread.start()
        try:
            while (evaluated := found.get()) is not None:
                yield evaluated
        finally:
            clock.is_over = True
            thread.join()


class _BudgetSpentError(Exception):
    """Raised through FLAML to end its loop: its own limits are soft."""


class _TrialClock:
    """Time as FLAML sees it: that of the trials alone.

    By the machine's clock, a search that is told its recorded answers again, in no time, would go another way.
    """

    def __init__(self) -> None:
        self.is_over = False
        """Nobody wants to know what FLAML proposes next."""
        self._now_s = 0.0

    def move(self, seconds: float) -> None:
        self._now_s += seconds

    def time(self) -> float:
        """As `time.time`. Raises _BudgetSpentError when it is over."""
        if self.is_over:
            raise _BudgetSpentError
        self._now_s += _READING_S
        return self._now_s

    perf_counter = time


@contextmanager
def _read_by_flaml(clock: _TrialClock) -> Iterator[None]:
    """FLAML has no parameter for its clock, so inside its modules read this one where they say `time`."""
    from flaml.automl import automl  # noqa: F401 - with it come all the modules that take part

    modules = [
        module for name, module in sys.modules.items() if name.startswith("flaml.") and vars(module).get("time") is time
    ]
    for module in modules:
        vars(module)["time"] = clock
    try:
        yield
    finally:
        for module in modules:
            vars(module)["time"] = time


def fit(
    problem: Problem, target: NDArray[Any], attempt: Callable[[Configuration], Evaluated], cost_aware: bool
) -> None:
    """Run FLAML to the end of its budget. It minimises losses from zero up: scores go in as their distance from 1."""
    from flaml.automl.automl import AutoML

    def loss(_rows: object, _target: object, learner: Any, *_unused: object) -> tuple[float, dict[str, float]]:
        score = attempt(learner.configuration).score
        if score is None:
            return _FAILED_LOSS, {}
        return (score if problem.metric in MINIMISED else 1.0 - score), {}

    rows = np.arange(len(target)).reshape(-1, 1)
    families = families_for(problem.task, problem.families)
    automl: Any = AutoML()  # type: ignore[no-untyped-call]
    for family in families:
        automl.add_learner(family.name, _learner(family))
    automl.fit(
        rows,
        target,
        # Validation rows are given, so that FLAML neither splits nor, at the end, fits its best learner again.
        X_val=rows,
        y_val=target,
        eval_method="holdout",
        task=problem.task,
        metric=loss,
        estimator_list=[family.name for family in families],
        # A step may propose what was tried before, which is no trial: `attempt` counts those.
        max_iter=_STEPS_PER_TRIAL * problem.trials,
        time_budget=problem.seconds if cost_aware else -1,
        seed=problem.seed,
        n_jobs=1,
        verbose=0,
        sample=False,
        auto_augment=False,
        skip_transform=True,
        early_stop=False,
        retrain_full=False,
        model_history=False,
        mlflow_logging=False,
        log_file_name="",
        use_ray=False,
        use_spark=False,
    )


def _learner(family: Family) -> type[Any]:
    """A learner of FLAML's that knows a family's space, and learns nothing."""
    from flaml.automl.model import BaseEstimator

    class Learner(BaseEstimator):
        @classmethod
        def search_space(cls, data_size: object, task: object, **_unused: object) -> dict[str, dict[str, Any]]:
            return {
                parameter.name: {"domain": domain(parameter), "init_value": parameter.default}
                for parameter in family.parameters
            }

        @property
        def configuration(self) -> Configuration:
            # Where all around a point was tried, FLAML proposes nothing, by which it means what a learner is by itself.
            return defaults(family) | {
                parameter.name: plain(parameter, self.params[parameter.name])
                for parameter in family.parameters
                if parameter.name in self.params
            }

        def fit(self, *_unused: object, **_more: object) -> float:
            return 0.0

    return Learner


def domain(parameter: Parameter) -> Any:
    """A parameter's range in FLAML's words."""
    from flaml.tune.sample import choice, lograndint, loguniform, randint, uniform

    match parameter:
        case FloatRange():
            return (loguniform if parameter.log else uniform)(parameter.low, parameter.high)
        case IntegerRange():
            # Their upper bound is not part of the range.
            return (lograndint if parameter.log else randint)(parameter.low, parameter.high + 1)
        case Choice():
            return choice(list(parameter.choices))


def plain(parameter: Parameter, value: Any) -> Scalar:
    """A value that FLAML has drawn, as a configuration holds it: FLAML's numbers are numpy's at times."""
    match parameter:
        case FloatRange():
            return float(value)
        case IntegerRange():
            return int(value)
        case Choice():
            return str(value)
