"""A worker shares the memory of its machine with those workers that are on it, and with no others."""

import pickle
import re
from pathlib import Path

import pytest

from harness.ports import Problem, Proposal
from harness.records.table import DataPlan
from harness.stages.data import load_table
from harness.stages.split import fold_rows
from harness.stages.supervisor import MEMORY_SHARE, free_memory_bytes
from harness.stages.worker import Worker

MIB = 2**20


def test_workers_of_other_machines_take_nothing_from_the_memory_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    table = load_table(DataPlan(source="sklearn:iris"), Path())
    rows = pickle.dumps((table.frame.iloc[table.train], table.target[table.train], table.signature))
    problem, folds = Problem("multiclass", "accuracy", ("logistic",), 3, 10, 60.0, 1), fold_rows(table.training, 3, 1)
    here = int(MEMORY_SHARE * free_memory_bytes() / (200 * MIB))  # each gets about 200 MiB
    worker = Worker(0, lambda: [rows, pickle.dumps(table.target)], "faulty_fitter:FaultyFitter")

    def limit_mib(*machines: str) -> float:
        worker.start(problem, folds, machines)
        failure = worker.evaluate(Proposal({"family": "allocate"}), (0,), 30.0).failure
        assert failure is not None
        return float(re.findall(r"its limit is ([\d.]+) MiB", failure.message)[0])

    with worker._stack:  # elsewhere it ends with its process
        own = (worker.machine(),) * here
        assert limit_mib(*own, *("elsewhere",) * 9 * here) > limit_mib(*own * 10) + 100
