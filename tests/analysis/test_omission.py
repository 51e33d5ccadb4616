"""What closed load leaves out is said where it is no queue that makes the difference."""

from types import ModuleType

import numpy as np
import pytest

from harness.analysis.omission import omission
from harness.records.load import GeneratorHealth, Step, StepResult

RATE_RPS = 200.0
USER = Step(
    shape="locust_users", number=9, mode="closed", in_flight=1, users=True, pace_rps=400.0, duration_s=3.0, warmup_s=1.0
)


def steps(ledgers: ModuleType, stalled: float, rate_rps: float = RATE_RPS, told: bool = False) -> list[StepResult]:
    """A server that answers in a millisecond, but for that share of the time; closed load meets none."""
    story = ledgers.Story()
    cell = story.cell("serve", "optuna_search")
    alone, opened = ledgers.closed_step(0, 1), ledgers.open_step(1, rate_rps)
    columns = ledgers.closed_exchanges(alone, 1000.0)
    story.step(cell, alone, columns)
    due_ns = np.arange(0, opened.duration_s * 1e9, 1e9 / rate_rps).astype(np.int64)
    wait_ns = np.maximum(0, stalled * 1e9 - due_ns % 1_000_000_000).astype(np.int64)
    story.step(cell, opened, ledgers.exchanges(due_ns, wait_ns + 1_000_000))
    if told:
        health = ledgers.step_entry(USER, columns).generator.workers
        story.step(cell, USER, columns, generator=GeneratorHealth(workers=health, locust_p99_s=0.003))
    return list(story.reduced())


def test_a_server_that_stalls_is_told_with_what_closed_load_and_locust_say_of_it(ledgers: ModuleType) -> None:
    said = omission(steps(ledgers, stalled=0.2, told=True))
    assert said is not None
    assert said.startswith("At 200 req/s requests that come at their own time have p99 19")
    assert "closed load with 1 in flight " in said and "Locust itself 3.00 ms with 1 user at 400 req/s" in said


@pytest.mark.parametrize(
    ("stalled", "rate_rps"), [(0.0, RATE_RPS), (0.2, 10_000.0)], ids=["it does not stall", "a queue may do that"]
)
def test_nothing_is_said_otherwise(ledgers: ModuleType, stalled: float, rate_rps: float) -> None:
    assert omission(steps(ledgers, stalled, rate_rps)) is None
