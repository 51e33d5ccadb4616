"""Micro benchmarks of a candidate inside a run: the code of `benchmarks/`, run by pytest-benchmark in a child process.

In: a bundle, and the cores it may use. Out: `MicroResult` records with every raw round. The child is a plain
`pytest benchmarks/bench_predict.py --bundle ...`, which anybody can repeat by hand.
"""

import json
import subprocess
import sys
from pathlib import Path

from harness.errors import InfrastructureError
from harness.process import child, log_tail
from harness.records.candidate import Candidate
from harness.records.run import MicroResult
from harness.store.files import write_atomically

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
"""The folder of the checkout; an installation without one has no micro stage."""

BATCH_ROWS = (1, 10, 100, 1_000)
"""Sizes of the batches whose prediction is timed."""

_TIMEOUT_S = 600.0


def micro_benchmarks(
    cell: str, candidate: Candidate, rows: bytes, bundle: Path, seconds: float, cores: tuple[int, ...], folder: Path
) -> list[MicroResult]:
    """Time a candidate's prediction and encoding, at most `seconds` per benchmark, with files in `folder`.

    `rows` is an inference request with the rows to time it with.

    Raises InfrastructureError, with the end of the log, where the benchmarks fail.
    """
    suite = BENCHMARKS / "bench_predict.py"
    if not suite.is_file():
        raise InfrastructureError(f"The micro benchmarks are part of a checkout, and {suite} is not there.")
    folder.mkdir(parents=True, exist_ok=True)
    output, log, asked = folder / f"{cell}.json", folder / f"{cell}.log", folder / f"{cell}.request.json"
    write_atomically(asked, rows)
    command = [
        *(
            sys.executable,
            "-m",
            "pytest",
            str(suite),
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "pytest_benchmark.plugin",
            "--benchmark-only",
        ),
        f"--bundle={bundle}",
        f"--rows={asked}",
        # Rounds of half a millisecond at least: enough to see a spread, few enough to keep every one of them.
        *("--benchmark-min-time=0.0005", f"--benchmark-max-time={seconds}"),
        f"--benchmark-json={output}",
    ]
    # Other plug-ins of pytest stay out: Locust's and Hypothesis's have no business in a process that is timed.
    with child(command, log=log, cores=cores, environment={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}) as process:
        try:
            code = process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise InfrastructureError(
                f"The micro benchmarks of {candidate.origin} did not end within {_TIMEOUT_S:.0f} s. Their log ends:\n"
                f"{log_tail(log)}"
            ) from None
    if code != 0:
        raise InfrastructureError(
            f"The micro benchmarks of {candidate.origin} failed. Their log ends:\n{log_tail(log)}"
        )
    report = json.loads(output.read_text(encoding="utf-8"))
    return [_result(cell, candidate.origin, benchmark) for benchmark in report["benchmarks"]]


def _result(cell: str, candidate: str, benchmark: dict[str, dict[str, object]]) -> MicroResult:
    told = benchmark["extra_info"]
    return MicroResult.model_validate(
        {
            "cell": cell,
            "candidate": candidate,
            "benchmark": told["benchmark"],
            "runtime": told.get("runtime"),
            "rows": told.get("rows"),
            "rounds_s": tuple(benchmark["stats"]["data"]),  # type: ignore[arg-type]
        }
    )
