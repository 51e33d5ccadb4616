"""Is this machine fit to measure? What disturbs it, what is worth knowing, and all of it in words.

In: a `Diagnosis`. Out: `disturbances` (none: it is fit), `notes`, `fit_up_to_rps`, and `told`, pairs of what and value
for a terminal.
"""

from collections.abc import Iterator

from harness.analysis.validity import LAG_S, ROOFLINE_SHARE
from harness.records.diagnosis import Diagnosis, Lag
from harness.records.scenario import LoadPlan
from harness.units import Unit, format_number

LOST_SHARE = 0.01
"""Of the time of a core that spins: who is missing a percent is missing it in the tail."""

GAP_S = 0.01
"""One pause of this length is the p99 of a second at a hundred requests."""

LAG_RATE_RPS = 2000.0
"""At this rate the generator is far from its limits, and has samples enough for a p99."""

_EVERYWHERE = ("0.0.0.0", "::")


def disturbances(found: Diagnosis) -> tuple[str, ...]:
    """What would be taken for a server's doing; none where the machine is fit to measure."""
    return tuple(_disturbances(found))


def notes(found: Diagnosis) -> tuple[str, ...]:
    """What is worth knowing, and spoils nothing by itself."""
    return tuple(_notes(found))


def fit_up_to_rps(found: Diagnosis) -> float:
    """Beyond this rate an open step would not be believed: too near the roofline, or late (see `analysis.validity`)."""
    return min(ROOFLINE_SHARE * found.roofline.rate_rps, found.sustained_rps or 0.0)


def told(found: Diagnosis) -> Iterator[tuple[str, str]]:
    """What was found, a pair for each line."""
    host, gaps = found.host, found.gaps
    own = "shared" if host.shared_cores else "not shared"
    yield "system", f"{host.system}, {host.machine}"
    yield "processor", f"{host.cpu}, {host.cores} cores"
    yield "the generator's cores", _listed(host.generator_cores)
    yield "the servers' cores", f"{_listed(host.target_cores)} ({own})"
    yield "memory", format_number(host.memory_bytes, Unit.BYTES)
    yield "Python", host.python
    yield "libraries", ", ".join(f"{name} {version}" for name, version in sorted(host.versions.items()))
    yield "open files", f"{_limit(found.open_files_soft)}, at most {_limit(found.open_files_hard)}"
    yield "the generator's timer", found.timer
    yield "the generator's priority", found.priority
    yield (
        "a core that spins",
        f"{gaps.count_per_s:.3g} gaps above {_seconds(gaps.threshold_s)} per second, the longest "
        f"{_seconds(gaps.longest_s)}, {_share(gaps.lost_share)} of the time lost",
    )
    for lag in found.idle:
        yield f"lag at {_rate(lag.rate_rps)}", _lag(lag)
    for reached in found.closed:
        yield f"closed, {reached.in_flight} in flight", _rate(reached.answered_rps)
    for lag in found.open:
        yield f"open, {_rate(lag.rate_rps)}", f"{'sustained' if lag.sustained else 'not sustained'}; {_lag(lag)}"
    sustained = found.sustained_rps
    yield "highest open rate", "none was sustained" if sustained is None else f"{_rate(sustained)} sustained"
    yield "roofline", f"{_rate(found.roofline.rate_rps)} answered by a server that computes nothing"
    for process in sorted({one.process for one in found.listeners if one.is_open}):
        ports = [
            f"{_host(one.address)}:{one.port}" for one in found.listeners if one.is_open and one.process == process
        ]
        yield f"open: Ray's {process}", ", ".join(ports)


def _disturbances(found: Diagnosis) -> Iterator[str]:
    gaps = found.gaps
    if found.host.shared_cores:
        yield "the generator and the servers share a core: each is measured waiting for the other"
    if gaps.lost_share > LOST_SHARE:
        yield (
            f"something took {_share(gaps.lost_share)} of the time from a process that never sleeps, where "
            f"{_share(LOST_SHARE)} may go: other work on this machine, or the machine that it is a part of"
        )
    if gaps.longest_s > GAP_S:
        yield f"a process that never sleeps stood still for {_seconds(gaps.longest_s)}, where {_seconds(GAP_S)} may be"
    lag = next((one for one in found.idle if one.rate_rps == LAG_RATE_RPS), None)
    if lag is not None and lag.p99_s > LAG_S:
        yield (
            f"the generator is late: p99 of its lag is {_seconds(lag.p99_s)} at {_rate(lag.rate_rps)}, where "
            f"{_seconds(LAG_S)} may be"
        )

    if found.sustained_rps is None:
        yield "not one open rate was sustained: the generator was late, or off its rate by more than a percent"


def _notes(found: Diagnosis) -> Iterator[str]:
    if found.priority != "raised" and not found.host.shared_cores:
        yield "the system permits no higher priority: other work on the generator's core would make it late"
    if found.timer != "timerfd":
        yield "the generator spins between requests: the system has no timerfd, and its other timers are good to 1 ms"
    wanted, limit = LoadPlan().in_flight_max, found.open_files_hard
    if limit is not None and limit <= wanted:
        yield f"a process may have {limit:,} files open, too few for load.in_flight_max = {wanted:,} (`ulimit -Hn`)"
    reached = sum(one.is_open for one in found.listeners)
    if reached:
        yield (
            f"while Ray runs, {reached} of its ports are open beyond loopback, most of them others each time; calls "
            "need a token, its metrics do not. `harness run --isolate` closes them all, and so does a firewall that "
            "lets no connection in"
        )


def _lag(lag: Lag) -> str:
    return f"p50 {_seconds(lag.p50_s)}, p99 {_seconds(lag.p99_s)}, max {_seconds(lag.max_s)} of {lag.requests:,}"


def _listed(cores: tuple[int, ...]) -> str:
    return ", ".join(map(str, cores))


def _host(address: str) -> str:
    return "*" if address in _EVERYWHERE else f"[{address}]" if ":" in address else address


def _limit(files: int | None) -> str:
    return "unlimited" if files is None else f"{files:,}"


def _rate(value: float) -> str:
    return format_number(value, Unit.RPS)


def _seconds(value: float) -> str:
    return format_number(value, Unit.SECONDS)


def _share(value: float) -> str:
    return format_number(value, Unit.SHARE)
