"""A core that spins: what the machine takes away from a process that never sleeps.

In: a core, and for how long. Out: `Gaps`. A child reads the monotonic clock in a loop; where two readings lie further
apart than a reading takes, something else had the core: a hypervisor, an interrupt, another process. It has ordinary
priority, as the servers have.
"""

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns

from harness.errors import InfrastructureError
from harness.process import child, die_with_parent, end_of_log, on_cores
from harness.records.diagnosis import Gaps
from harness.store.files import write_atomically

THRESHOLD_S = 50e-6
"""A turn of the loop takes a tenth of a microsecond, and an interrupt a few."""

_MARGIN_S = 30.0


def spinning(seconds: float, cores: tuple[int, ...], others: tuple[int, ...], folder: Path) -> Gaps:
    """Spin on `cores` for so long, with files in `folder`; this process waits on `others`, out of the way.

    Raises InfrastructureError, with the end of the log, where the child fails.
    """
    output, log = folder / "spin.json", folder / "spin.log"
    command = [sys.executable, "-m", __name__, "--seconds", str(seconds), "--output", str(output)]
    with child(command, log=log, cores=cores) as process, on_cores(others):
        try:
            status = process.wait(seconds + _MARGIN_S)
        except subprocess.TimeoutExpired:
            status = None
    if status != 0:
        how = "did not end" if status is None else f"ended with status {status}"
        raise InfrastructureError(f"The child that spins on a core {how}.{end_of_log(log)}")
    return Gaps.model_validate_json(output.read_bytes())


def spin(seconds: float) -> Gaps:
    """Read the clock for so long, and tell of the gaps."""
    threshold_ns, gaps_ns = round(THRESHOLD_S * 1e9), []
    began_ns = last_ns = perf_counter_ns()
    end_ns = began_ns + round(seconds * 1e9)
    while last_ns < end_ns:
        now_ns = perf_counter_ns()
        if now_ns - last_ns > threshold_ns:
            gaps_ns.append(now_ns - last_ns)
        last_ns = now_ns
    return Gaps(
        seconds_s=(last_ns - began_ns) / 1e9,
        threshold_s=THRESHOLD_S,
        count=len(gaps_ns),
        longest_s=max(gaps_ns, default=0) / 1e9,
        lost_s=sum(gaps_ns) / 1e9,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Spin, and leave what was found in a file."""
    parser = argparse.ArgumentParser(prog="python -m harness.stages.spin")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    die_with_parent()
    gc.disable()
    write_atomically(given.output, json.dumps(spin(given.seconds).model_dump()).encode())


if __name__ == "__main__":
    main()
