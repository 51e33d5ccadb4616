"""One forest, one client, one row a request: how many answers a second from ours, MLServer, MLflow, BentoML, Ray Serve?

    make peers                                       # their environments, once (0.7 GB)
    .venv/bin/python benchmarks/peers                # three quarters of an hour; --rounds 1 --seconds 1: four minutes

Each server has one process on a core of its own and the generator another, where there are two. In each round every
server is started, shown to answer every row of the holdout with the right probabilities, loaded with more and more
requests in flight, and ended; every other round goes backwards, so that a machine that gets slower is slower for all.
The table goes to stdout; ratios are taken round by round. What is not installed is told. The exit status is 1 where a
server fails or answers wrongly, and 0 whatever the figures are.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import forest
from measuring import CORES, IN_FLIGHT, Round, measured
from servers import CORES as SERVER_CORES
from servers import SERVERS, Server, forest_of

from harness.errors import HarnessError
from harness.space.preprocess import to_frame
from harness.stages.host import fingerprint

GOALS = (
    ("asgi + onnx", "MLServer", 100.0),
    ("asgi + onnx", "BentoML", 100.0),
    ("ray_serve + onnx", "Ray Serve as it comes + onnx", 17.0),
)
"""Which server is to reach how many times the best throughput of which other."""
RAY_SERVE, RAY_SERVE_RPS = "ray_serve + onnx, all cores", 4_500.0
"""And what this one is to reach by itself."""


@dataclass(slots=True)
class Found:
    """What was measured of a server."""

    rounds: list[Round] = field(default_factory=list)
    failure: str | None = None

    def rates_rps(self, in_flight: int) -> list[float]:
        """Of each round."""
        return [one.rates_rps[in_flight] for one in self.rounds]

    def best_rps(self) -> list[float]:
        """Of each round, at the number in flight that is best over all rounds."""
        return max((self.rates_rps(count) for count in IN_FLIGHT), key=median)


def main() -> int:
    options = _options()
    servers = [server for server in SERVERS if not options.only or server.name in options.only]
    found = {server.name: Found() for server in servers if server.is_installed}
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        subject = forest(Path(name) / "forest")
        trees = forest_of(subject, subject.pipeline[-1], Path(name))
        right = subject.pipeline.predict_proba(to_frame(subject.rows, subject.candidate.signature.columns))
        for number in range(options.rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                one = found.get(server.name)
                if one is None or one.failure is not None:
                    continue
                _say(f"round {number + 1} of {options.rounds}: {server.name}")
                # Spawned, not forked: what this process has loaded is not to be in the next one.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                    try:
                        one.rounds.append(alone.submit(measured, server.name, trees, right, options.seconds).result())
                    except HarnessError as error:
                        one.failure = str(error)
                        _say(f"  {error}")
    sys.stdout.writelines(f"{line}\n" for line in _told(servers, found, options.rounds, options.seconds))
    if options.json is not None:
        options.json.write_text(json.dumps({name: _as_data(one) for name, one in found.items()}, indent=1))
    return int(any(one.failure for one in found.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="each starts every server anew (default: 5)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of each step of load (default: 5)")
    names = [server.name for server in SERVERS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"may be repeated: {names}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every rate of every round, as data")
    return parser.parse_args()


def _told(servers: Sequence[Server], found: dict[str, Found], rounds: int, seconds: float) -> Iterator[str]:
    host = fingerprint()
    yield (
        f"{host.cpu}, {host.cores} cores; generator on {list(CORES)}, server on {list(SERVER_CORES)}; "
        f"{rounds} rounds of {seconds:g} s a step, closed load, one row a request; medians of rounds."
    )
    yield ""
    counts = " / ".join(map(str, IN_FLIGHT))
    yield f"| server | requests/s, {counts} in flight | best | p50 / p99 with 1 | {GOALS[0][0]} over it | difference |"
    yield "|---|---|---|---|---|---|"
    first = found.get(GOALS[0][0])
    for server in servers:
        one = found.get(server.name)
        if one is None or one.failure is not None:
            reason = one.failure if one is not None else "not installed: `make peers`"
            yield f"| {server.name} | {reason} | | | | |"
            continue
        rates = " / ".join(f"{median(rates):,.0f}" for rates in map(one.rates_rps, IN_FLIGHT))
        p50_ms, p99_ms = np.quantile(np.concatenate([each.latencies_ms for each in one.rounds]), [0.5, 0.99])
        times = "" if first is None or first.failure else _ratio(first, one)
        yield (
            f"| {server.name} | {rates} | {median(one.best_rps()):,.0f} | {p50_ms:.2f} / {p99_ms:.2f} ms | {times} | "
            f"{max(each.largest_difference for each in one.rounds):.1g} |"
        )
    yield ""
    for server in servers:
        if server.is_installed:
            yield f"- {server.name}: {server.versions}; {server.settings}."
    yield ""
    for high, low, goal in GOALS:
        if all(name in found and not found[name].failure for name in (high, low)):
            reached = median(_ratios(found[high], found[low]))
            yield f"- {high} over {low}: {_ratio(found[high], found[low])}; goal {goal:g}: {_met(reached, goal)}."
    if (tuned := found.get(RAY_SERVE)) and not tuned.failure:
        reached = median(tuned.best_rps())
        yield f"- {RAY_SERVE}: {reached:,.0f} a second; goal {RAY_SERVE_RPS:,.0f}: {_met(reached, RAY_SERVE_RPS)}."


def _ratios(high: Found, low: Found) -> list[float]:
    return [above / below for above, below in zip(high.best_rps(), low.best_rps(), strict=True)]


def _ratio(high: Found, low: Found) -> str:
    ratios = _ratios(high, low)
    return f"{median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"


def _met(reached: float, goal: float) -> str:
    return "met" if reached >= goal else "missed"


def _as_data(found: Found) -> dict[str, object]:
    return {
        "rates_rps": [one.rates_rps for one in found.rounds],
        "latency_ms": [np.quantile(one.latencies_ms, [0.5, 0.99]).tolist() for one in found.rounds],
        "largest_difference": [one.largest_difference for one in found.rounds],
        "failure": found.failure,
    }


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    sys.exit(main())
