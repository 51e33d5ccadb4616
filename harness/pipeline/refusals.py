"""What a run is refused for before it begins, or goes on: this machine, this place or these files are not for it.

In: its plan or its ledger, and what is known of here. Out: nothing, or UsageError and IntegrityError. What a plan can
be refused for anywhere is `pipeline/plan`'s.
"""

from collections.abc import Iterable

import harness
from harness.analysis.validity import ROOFLINE_SHARE
from harness.errors import IntegrityError, UsageError
from harness.pipeline.inputs import Inputs
from harness.pipeline.plan import Plan
from harness.plugins import clustered_targets
from harness.process import refuse_taken
from harness.records.cell import Cell
from harness.records.ledger import Ledger
from harness.records.run import Roofline, Run
from harness.stages.host import fingerprint
from harness.units import Unit, format_number


def refuse_no_cluster(ray_address: str | None, *, has_page: bool) -> None:
    """Where load is to be sent from a cluster."""
    if ray_address is None:
        raise UsageError('load.placement = "cluster" needs a cluster: name it by --ray-address.')
    if has_page:
        raise UsageError(
            '--ui shows processes of this machine, and with load.placement = "cluster" there are none: leave out one '
            "of the two."
        )


def refuse_beyond(plan: Plan, roofline: Roofline | None) -> None:
    """On a rate of which no step could be believed here."""
    load = plan.scenario.load
    asked_rps = float(load.parameters.get("steady", {}).get("rate_rps", 0.0))
    if roofline is None or not roofline.holds_for(load):
        return
    most_rps = ROOFLINE_SHARE * roofline.rate_rps
    if asked_rps > most_rps:
        raise UsageError(
            f"{format_number(asked_rps, Unit.RPS)} are asked for, and the load generator can be believed here up to "
            f"{format_number(most_rps, Unit.RPS)}: {format_number(ROOFLINE_SHARE, Unit.SHARE)} of the "
            f"{format_number(roofline.rate_rps, Unit.RPS)} that it reached against a server that computes nothing "
            f"({roofline.measured_by}, {roofline.measured_utc}). Ask for less, give it more workers where there are "
            "cores for them, or have `harness doctor` measure it anew."
        )


def refuse_taken_ports(cells: Iterable[Cell], ray_address: str | None) -> None:
    """On a port that somebody else listens on here; with a cluster some targets listen there."""
    elsewhere = clustered_targets() if ray_address is not None else frozenset()
    here = [cell for cell in cells if cell.target not in elsewhere]
    for target, port in sorted({(str(cell.target), int(cell.parameters.get("port", 0))) for cell in here}):
        try:
            refuse_taken(port)
        except UsageError as error:
            raise UsageError(f"The target {target}: {error}") from None


def refuse_elsewhere(run: Run, ray_address: str | None) -> None:
    """To go on with a run of a cluster without one, and the other way round."""
    # Another address is as good: it may be the same cluster, started anew.
    if run.is_on_cluster == (ray_address is not None):
        return
    where, mend = ("on a Ray cluster", "give") if run.is_on_cluster else ("on this machine alone", "leave out")
    raise UsageError(
        f"The run {run.id} was begun {where}: {mend} --ray-address to go on with it, or start a new run. What was "
        "measured on a cluster and on one machine is never pooled."
    )


def refuse_another(ledger: Ledger, plan: Plan, inputs: Inputs) -> None:
    """To go on with a run on another table, in another version or on another machine."""
    run = ledger.run
    if inputs.data_sha256 != run.data_sha256:
        known = {entry.sha256 for entry in ledger.tables}
        other = [one.data.source for one in inputs.searched if one.table.sha256 not in known]
        what = f"The table {other[0]} is not the one" if other else "The requests are not those"
        raise IntegrityError(f"{what} that the run {run.id} began with. Bring back what it was, or start a new run.")
    if inputs.trace_sha256 != run.trace_sha256:
        raise IntegrityError(
            f"The trace in {plan.scenario.load.arrivals} is not the one that the run {run.id} began with. "
            "Bring that one back, or start a new run."
        )
    if harness.__version__ != run.harness_version or plan.cells != ledger.plan:
        raise UsageError(
            f"The run {run.id} was begun by harness {run.harness_version}; this is {harness.__version__}. "
            "Figures of two versions are never pooled: start a new run."
        )
    if fingerprint() != ledger.host:
        raise UsageError(
            f"The run {run.id} was begun on another machine or with other libraries. "
            "Figures of unlike hosts are never pooled: start a new run."
        )
