"""The tables of what was served: capacities, steps, and the latencies behind the charts.

In: `Findings`. Out: `Table` values in base units. A step or a cell without a figure has its row, with the reason.
"""

from harness.analysis.anatomy import TOLERANCE
from harness.analysis.capacity import met
from harness.analysis.dissection import PART_NAMES
from harness.analysis.findings import Findings
from harness.records.finding import Capacity, Estimate, Field, Table, Values
from harness.records.load import PARTS, StepResult
from harness.records.server import ServerSettings
from harness.units import Unit, format_number

_SETTINGS = (
    Field("batch_requests", "batch", Unit.COUNT),
    Field("batch_wait_s", "waits for it", Unit.SECONDS),
    Field("waiting_s", "may queue for", Unit.SECONDS),
)


def capacity(found: Findings) -> Table:
    """A row per served cell."""
    return Table(
        key="capacity",
        title="Capacity of every served cell",
        fields=(
            Field("candidate", "candidate"),
            Field("runtime", "runtime"),
            Field("target", "target"),
            Field("replicas", "replicas", Unit.COUNT),
            *((Field("max_replicas", "autoscaled to", Unit.COUNT),) if _scale(found) else ()),
            *(_SETTINGS if _differ(found) else ()),
            Field("capacity_rps", "capacity", Unit.RPS),
            Field("missed_rps", "missed at", Unit.RPS),
            Field("p99_s", "p99 there", Unit.SECONDS),
            Field("p99_low_s", "95 % from", Unit.SECONDS),
            Field("p99_high_s", "to", Unit.SECONDS),
            Field("peak_rps", "closed peak", Unit.RPS),
            Field("startup_s", "ready after", Unit.SECONDS),
            Field("remarks", "remarks"),
        ),
        rows=tuple(_capacity_row(found, one) for one in found.capacities),
        note="Capacity: the highest rate offered at which the objective was met. Missed at: the lowest rate above it "
        "at which it was not; empty where no higher rate was tried or missed. Closed peak: the highest throughput with "
        "a fixed number of requests in flight, where no objective holds.",
    )


def open_steps(found: Findings) -> Table:
    """A row per step with arrivals by schedule."""
    objective = found.ledger.scenario.load.objective
    return Table(
        key="open_steps",
        title="Open steps: requests sent by schedule",
        fields=(
            Field("cell", "cell"),
            Field("planned_rps", "planned", Unit.RPS),
            Field("throughput_rps", "answered", Unit.RPS),
            Field("requests", "requests", Unit.COUNT),
            Field("error_share", "errors", Unit.SHARE),
            Field("met", "met"),
            Field("verdict", "verdict"),
            Field("p50_s", "p50", Unit.SECONDS),
            Field("p99_s", "p99", Unit.SECONDS),
            Field("p99_low_s", "95 % from", Unit.SECONDS),
            Field("p99_high_s", "to", Unit.SECONDS),
            Field("p99_certified_s", "certified", Unit.SECONDS),
            Field("p999_s", "p99.9", Unit.SECONDS),
            Field("lag_p99_s", "lag p99", Unit.SECONDS),
            Field("remarks", "remarks"),
            Field("shape", "shape"),
            Field("p90_s", "p90", Unit.SECONDS),
            Field("service_p99_s", "service p99", Unit.SECONDS),
        ),
        rows=tuple(
            (
                found.label(result.cell),
                result.step.rate_rps,
                result.throughput_rps,
                result.planned,
                result.error_share,
                met(result, objective).value if objective else None,
                verdict(result),
                result.scheduled["p50"].value_s,
                result.scheduled["p99"].value_s,
                result.scheduled["p99"].low_s,
                result.scheduled["p99"].high_s,
                result.scheduled["p99"].certified_s,
                result.scheduled["p99.9"].value_s,
                result.lag_p99_s,
                _remarks(result),
                result.step.shape,
                result.scheduled["p90"].value_s,
                result.service["p99"].value_s,
            )
            for cell in found.cells
            for result in found.steps_of(cell, "open")
        ),
        note="Latencies count from the moment a request was due, over successes. An empty latency is not to be "
        "had: the verdict or the sample does not allow it. An interval without an end could not be bounded there. "
        "Certified: what p99 does not pass with 99 % confidence, by MLPerf's rule for independent requests. "
        "Met: whether the step met the objective. Overloaded: the server fell behind, and its latencies would be worse "
        "the longer the step lasted.",
    )


def closed_steps(found: Findings) -> Table:
    """A row per step with a fixed number of requests in flight."""
    return Table(
        key="closed_steps",
        title="Closed steps: a fixed number of requests in flight",
        fields=(
            Field("cell", "cell"),
            Field("shape", "shape"),
            Field("in_flight", "in flight", Unit.COUNT),
            Field("throughput_rps", "answered", Unit.RPS),
            Field("requests", "requests", Unit.COUNT),
            Field("error_share", "errors", Unit.SHARE),
            Field("verdict", "verdict"),
            Field("service_p50_s", "service p50", Unit.SECONDS),
            Field("service_p99_s", "service p99", Unit.SECONDS),
            Field("remarks", "remarks"),
        ),
        rows=tuple(
            (
                found.label(result.cell),
                result.step.shape,
                result.step.in_flight,
                result.throughput_rps,
                result.planned,
                result.error_share,
                verdict(result),
                result.service["p50"].value_s,
                result.service["p99"].value_s,
                _remarks(result),
            )
            for cell in found.cells
            for result in found.steps_of(cell, "closed")
        ),
        note="A closed client waits for its answers, so a slow server is asked less: these latencies promise nothing. "
        "Of users, who may wait between their requests, in flight is how many there are.",
    )


def requests(found: Findings) -> Table:
    """A row per name under which users of a locustfile made requests."""
    return Table(
        key="requests",
        title="Requests of the users, by name",
        fields=(
            Field("cell", "cell"),
            Field("step", "step"),
            Field("request", "request"),
            Field("requests", "requests", Unit.COUNT),
            Field("failed", "failed", Unit.COUNT),
            Field("p50_s", "p50", Unit.SECONDS),
            Field("p90_s", "p90", Unit.SECONDS),
            Field("p99_s", "p99", Unit.SECONDS),
            Field("remarks", "remarks"),
        ),
        rows=tuple(
            (
                found.label(result.cell),
                result.step.label,
                one.name,
                one.requests,
                one.failed,
                one.latency["p50"].value_s,
                one.latency["p90"].value_s,
                one.latency["p99"].value_s,
                one.latency["p99"].reason,
            )
            for result in found.results
            for one in result.by_request
        ),
    )


def curve(found: Findings, steps: list[StepResult]) -> Table:
    """The distribution of the scheduled latency of some steps, as the chart draws it."""
    return Table(
        key="latency_curve",
        title="Latency by share of requests",
        fields=(
            Field("cell", "cell"),
            Field("step", "step"),
            Field("share", "share of requests", Unit.SHARE),
            Field("latency_s", "answered within", Unit.SECONDS),
        ),
        rows=tuple(
            (found.label(result.cell), result.step.label, share, latency)
            for result in steps
            for share, latency in result.curve
        ),
    )


def anatomy(found: Findings) -> Table:
    """A row per cell and step whose latency was taken apart."""
    return Table(
        key="latency_anatomy",
        title="Parts of the median request",
        fields=(
            Field("cell", "cell"),
            Field("load", "load"),
            Field("step", "step"),
            Field("p50_s", "p50", Unit.SECONDS),
            Field("total_s", "parts together", Unit.SECONDS),
            *(Field(f"{part}_s", PART_NAMES[part], Unit.SECONDS) for part in PARTS),
            Field("averaged", "averaged", Unit.COUNT),
            Field("sampled", "sampled", Unit.COUNT),
            Field("remarks", "remarks"),
        ),
        rows=tuple(
            (
                found.label(one.cell),
                one.load,
                "carries the cell" if one.carries else "lowest load",
                one.anatomy.p50_s,
                one.anatomy.total_s,
                *(one.anatomy.parts_s.get(part) for part in PARTS),
                one.anatomy.averaged or None,
                one.anatomy.sampled,
                one.anatomy.reason and f"Not told: {one.anatomy.reason}.",
            )
            for one in found.dissections
        ),
        note="Means over the requests whose scheduled latency is nearest to its median, a tenth of those whose answer "
        f"was asked where the server's time went. They are told where they come to p50 within {100 * TOLERANCE:g} %. "
        "Network and proxy is what is left: the network, a proxy where there is one, the wait in front of a server "
        "that is computing and reads nothing meanwhile, its reading and writing of HTTP, and the moment until the "
        "generator has read the answer. Where requests are computed together, decode, predict and encode have the wait "
        "for the others in them.",
    )


def verdict(result: StepResult) -> str:
    """In a word each: whether the step's figures are to be believed, and what not to believe them for."""
    told = "overloaded" if result.overloaded is not None else "valid"
    if result.doubts:
        reasons = ", ".join(doubt.reason.value.replace("_", " ") for doubt in result.doubts)
        told = f"{told}, invalid: {reasons}" if result.overloaded is not None else f"invalid: {reasons}"
    return told


def remark(estimate: Estimate) -> str:
    """What a reader must know of a figure: why it is missing, and its warnings."""
    return " ".join(part for part in (estimate.reason, *estimate.warnings) if part)


def _capacity_row(found: Findings, one: Capacity) -> Values:
    result = found.cell_results.get(one.cell)
    told = one.settings or ServerSettings()
    notes = f"Notes: {'; '.join(result.notes)}." if result and result.notes else ""
    return (
        one.candidate,
        one.runtime,
        one.target,
        one.replicas,
        *((one.max_replicas,) if _scale(found) else ()),
        *((told.batch_requests, told.batch_wait_s, told.waiting_s) if _differ(found) else ()),
        one.rate.value,
        one.rate.high,
        one.p99.value,
        one.p99.low,
        one.p99.high,
        one.peak.value,
        result.startup_s if result else None,
        " ".join(part for part in (remark(one.rate), notes) if part),
    )


def _scale(found: Findings) -> bool:
    """Whether some target adds replicas by itself."""
    return any(one.max_replicas is not None for one in found.capacities)


def _differ(found: Findings) -> bool:
    """Whether some cell is not served as usual."""
    return any(one.settings is not None for one in found.capacities)


def _remarks(result: StepResult) -> str:
    failed = ", ".join(f"{kind} {count:,}" for kind, count in result.failed.items())
    told = [f"Failed: {failed}."] if failed else []
    if result.refused:
        told.append(f"The server refused {result.refused:,} of them (503): its queue was full.")
    told += [f"{doubt.text[:1].upper()}{doubt.text[1:]}. {doubt.advice}" for doubt in result.doubts]
    if result.overloaded is not None:
        told.append(f"{result.overloaded[:1].upper()}{result.overloaded[1:]}.")
    if not result.doubts and result.measured_from_s > result.step.warmup_s:
        told.append(f"Steady, and measured, only from {format_number(result.measured_from_s, Unit.SECONDS)} on.")
    if result.locust_p99_s is not None:
        told.append(f"Locust itself says p99 {format_number(result.locust_p99_s, Unit.SECONDS)}.")
    return " ".join([*told, *result.warnings])
