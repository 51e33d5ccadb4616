"""What each command does.

In: parsed options. Out: data on stdout, talk on stderr, and an exit status. Each verb imports what it needs when it is
called, so that `harness --help` answers at once.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ExitCode

if TYPE_CHECKING:
    from harness.pipeline.run import Finished, Surroundings
    from harness.plugins import Plugin
    from harness.records.table import TableEntry
    from harness.store.runs import RunFolder


def list_verb(options: argparse.Namespace) -> int:
    """Show plug-ins, scenarios, or the keys of a scenario."""
    from harness.plugins import KINDS, inventory
    from harness.store.reference import scenario_reference
    from harness.store.scenarios import scenario_questions

    if options.kind == "keys":
        sys.stdout.write(scenario_reference())
        return ExitCode.GOOD
    kinds = [kind for kind in KINDS if options.kind in (None, kind)]
    found = [plugin for kind in kinds for plugin in inventory(kind)]
    scenarios = scenario_questions(Path("scenarios")) if options.kind in (None, "scenarios") else []
    if options.json:
        listed = [
            {
                "kind": plugin.kind,
                "name": plugin.name,
                "summary": plugin.summary,
                "missing": list(plugin.missing),
                "parameters": dict(plugin.parameters),
            }
            for plugin in found
        ]
        listed.extend({"kind": "scenarios", "name": str(path), "summary": question} for path, question in scenarios)
        data(json.dumps(listed, indent=2, default=str))
        return ExitCode.GOOD
    rows: list[tuple[str, str, str, str]] = []
    rows.extend((plugin.kind, plugin.name, _usable(plugin), _settings(plugin)) for plugin in found)
    rows.extend(("scenarios", str(path), question, "") for path, question in scenarios)
    width = max((len(name) for _, name, _, _ in rows), default=0)
    heading = None
    for kind, name, summary, settings in rows:
        if kind != heading:
            data(f"{'' if heading is None else chr(10)}{kind}")
            heading = kind
        data(f"  {name:<{width}}  {summary}")
        if settings:
            data(f"  {'':<{width}}  {settings}")
    return ExitCode.GOOD


def check_verb(options: argparse.Namespace) -> int:
    """Read and check the tables of a scenario, and print its plan; run nothing."""
    from harness.cli.progress import length
    from harness.pipeline.inputs import read_tables
    from harness.pipeline.plan import resolved
    from harness.store.scenarios import read_scenario

    plan = resolved(read_scenario(options.scenario, options.overrides)[0], str(options.scenario))
    tables = [searched.checked() for searched in read_tables(plan.scenario, options.scenario.parent)]
    planned = list(zip(plan.cells, plan.estimates_s, strict=True))
    if options.json:
        told = {
            "question": plan.scenario.question,
            "tables": [table.model_dump(mode="json") for table in tables],
            "cells": [{**cell.model_dump(mode="json"), "estimated_s": estimate_s} for cell, estimate_s in planned],
            "estimated_s": plan.estimated_s,
        }
        data(json.dumps(told, indent=2))
        return ExitCode.GOOD
    data(plan.scenario.question)
    for table in tables:
        data(f"  {'table':<10} {_described(table)}")
        for check in (check for check in table.checks if check.verdict != "pass"):
            data(f"  {'accepted' if check.verdict == 'fail' else 'warning':<10} {check.name}: {check.detail}")
    width = max((len(cell.label) for cell in plan.cells), default=0)
    for cell, estimate_s in planned:
        data(f"  {cell.kind:<10} {cell.label:<{max(48, width)}} about {length(estimate_s):>7}  {cell.id}")
    data(f"{len(planned)} cells, about {length(plan.estimated_s)} at most; nothing was run.")
    return ExitCode.GOOD


def _described(table: "TableEntry") -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(table.columns.items()))
    classes = f" of {len(table.classes)} classes" if table.task == "multiclass" else ""
    rows = f"{table.train_rows:,} rows to learn from, {table.holdout_rows:,} held out"
    return f"{table.name}: {table.task}{classes}; {rows}; columns: {kinds}"


def run_verb(options: argparse.Namespace) -> int:
    """Run a scenario, or go on with a run."""
    from harness.errors import UsageError

    if options.isolate:
        _isolate(options)
    from harness.pipeline.run import resume, start

    if (options.scenario is None) == (options.resume is None):
        raise UsageError("Give a scenario to run, or --resume RUN to go on with one; one of the two.")
    if options.resume is not None and (options.overrides or options.run_id):
        raise UsageError("A resumed run keeps its scenario and its id: leave out --set and --run-id.")
    if options.simulate:
        return _simulated(options)
    if options.resume is not None:
        return _followed(options, lambda around: resume(options.resume, around), options.ray_address)
    return _followed(
        options, lambda around: start(options.scenario, options.overrides, options.run_id, around), options.ray_address
    )


def _simulated(options: argparse.Namespace) -> int:
    """Repeat the trials of an earlier run of the scenario."""
    from harness.errors import UsageError
    from harness.pipeline.simulate import simulate

    asked = dict(options.simulate)
    if options.resume is not None:
        raise UsageError("A simulation takes seconds and is not resumed: leave out --resume, or --simulate.")
    if "workers" not in asked or len(asked) != len(options.simulate):
        raise UsageError("Give --simulate workers=N once, and --simulate from=RUN at most once.")
    if options.ui or options.ray_address:
        raise UsageError("A simulation uses no Ray and sends no load: leave out --ui and --ray-address.")
    of = asked.get("from")
    return _followed(
        options,
        lambda around: simulate(options.scenario, options.overrides, asked["workers"], of, options.run_id, around),
    )


def load_verb(options: argparse.Namespace) -> int:
    """Put load on a server of the user's own."""
    from harness.errors import UsageError
    from harness.pipeline.load_url import Question, brought
    from harness.pipeline.run import begin

    if options.locustfile is not None and options.ui:
        raise UsageError("--ui shows the requests of our own schedule, and with --locustfile there are none.")
    headers = {}
    for header in options.headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header {header!r} is not NAME:VALUE, as in --header 'X-Tenant: a'.")
        headers[name.strip()] = value.strip()
    requests = {
        "payload": options.payload,
        "template": options.template,
        "protocol": options.protocol if options.protocol != "plain" else None,
        "method": options.method,
        "headers": headers or None,
        "bearer_env": options.bearer_env,
        "ca_file": options.ca_file,
        "locustfile": options.locustfile,
    }
    load = {
        "arrivals": options.arrivals,
        "rows": options.rows,
        "timeout_s": options.timeout,
        "in_flight_max": options.in_flight,
        "workers": options.workers,
        "placement": "cluster" if options.ray_address else None,
        "seed": options.seed,
    }
    question = Question(
        url=options.url,
        requests={key: value for key, value in requests.items() if value is not None},
        load={key: value for key, value in load.items() if value is not None},
        rate_rps=options.rate,
        users=options.users,
        duration_s=options.duration,
        warmup_s=options.warmup,
        objective=options.slo,
    )
    return _followed(options, lambda around: begin(brought(question), options.run_id, around), options.ray_address)


def _followed(
    options: argparse.Namespace, work: "Callable[[Surroundings], Finished]", ray_address: str | None = None
) -> int:
    """Show how a run goes on and what it came to; its exit status."""
    from harness.cli.progress import watching
    from harness.clock import SystemClock
    from harness.pipeline.run import Surroundings
    from harness.stages.load.page import page

    clock = SystemClock()
    begun: list[RunFolder] = []
    with watching(sys.stderr, clock) as watch, page(talk) if options.ui else nullcontext() as shown:
        around = Surroundings(options.results, ray_address, begun.append, watch, clock, shown, _is_isolated(options))
        try:
            finished = work(around)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_what_is_kept(begun, options)) from None
    document = finished.document
    if options.json:
        data(json.dumps(document.summary, indent=2))
    else:
        data(document.recommendation)
        for gate in document.verdict.gates:
            data(f"gate {gate.name}: {gate.answer}: {gate.sentence}")
        data(f"report: {finished.folder.report / 'report.html'}")
    for result in finished.failed:
        talk(f"harness: {result.kind} {result.label} failed: {result.failure.message if result.failure else ''}")
    if finished.failed:
        talk(f"harness: `{_resume_command(finished.folder, options)}` tries again what the machine failed.")
    return document.exit_code


def report_verb(options: argparse.Namespace) -> int:
    """Make the report of a run anew."""
    from harness.pipeline.report import write_report
    from harness.store.runs import find_run

    folder = find_run(options.results, options.run)
    formats = [name.strip() for name in options.format.split(",") if name.strip()]
    document = write_report(folder, formats)
    data(document.recommendation)
    data(f"report: {folder.report}")
    return ExitCode.GOOD


def gate_verb(options: argparse.Namespace) -> int:
    """Say what the gates of a run say."""
    from harness.analysis.self_test import self_test
    from harness.errors import NotTrustworthyError
    from harness.pipeline.report import read_findings
    from harness.store.runs import find_run

    found = read_findings(find_run(options.results, options.run))
    verdict = found.verdict
    if not verdict.gates:
        raise NotTrustworthyError(
            f"The scenario of {options.run} has no gate: name an expected score, an objective, or [[gates]]."
        )
    if options.self_test:
        complaints = self_test(found.ledger, found.results)
        if complaints:
            raise NotTrustworthyError(" ".join(complaints))
        for gate in verdict.gates:
            data(f"{gate.name}: fails on ruined records, abstains without any")
        return ExitCode.GOOD
    if options.json:
        data(verdict.model_dump_json(indent=2))
    else:
        for gate in verdict.gates:
            data(f"{gate.answer:<12} {gate.name}: {gate.sentence}")
    if found.exit_code is ExitCode.INFRASTRUCTURE:
        talk(f"harness: the machine failed {len(found.ledger.failed_by_the_machine)} of the run's cells.")
    elif found.ledger.run.finished_utc is None:
        talk("harness: the run is not finished.")
    return found.exit_code


def serve_verb(options: argparse.Namespace) -> int:
    """Serve a candidate until interrupted."""
    from harness.clock import SystemClock
    from harness.errors import UsageError
    from harness.pipeline.serve import described, served, wait_for_its_end
    from harness.records.server import ServerSettings
    from harness.store.scenarios import overridden

    if options.batch_wait and options.batch == 1:
        raise UsageError("--batch-wait is for requests that are computed together: say how many by --batch.")
    parameters = overridden({} if options.port is None else {"port": options.port}, options.overrides)
    settings = ServerSettings(
        batch_requests=options.batch,
        batch_wait_s=options.batch_wait,
        waiting_s=options.waiting,
        token_env=options.token_env,
        access_log=str(options.access_log.resolve()) if options.access_log else None,
    )
    asked = (options.bundles, options.target, options.runtime, options.processes, parameters, settings, talk)
    with served(*asked, options.ray_address) as server:
        try:  # from the first word on: whoever reads the address may end it before the last one is said
            data(f"{server.endpoint.url}{server.endpoint.infer_path}")
            for line in described(server, settings.token_env):
                talk(line)
            talk(f"Ready after {server.endpoint.startup_s:.1f} s; what it logs comes here. Ctrl-C ends it.")
            wait_for_its_end(server, SystemClock())
        except KeyboardInterrupt:
            talk("Stopping.")
            return ExitCode.GOOD


def verify_verb(options: argparse.Namespace) -> int:
    """Check every file of a run."""
    from harness.pipeline.verify import verified
    from harness.store.runs import find_run

    for line in verified(find_run(options.results, options.run)):
        data(line)
    return ExitCode.GOOD


def doctor_verb(options: argparse.Namespace) -> int:
    """Look at the machine, and keep the roofline of the load generator."""
    from harness.analysis.fitness import disturbances, fit_up_to_rps, notes, told
    from harness.clock import SystemClock
    from harness.pipeline.doctor import examined
    from harness.units import Unit, format_number

    found = examined(options.results, options.seconds, lambda words: talk(f"doctor: {words}"), SystemClock())
    wrong, up_to_rps = disturbances(found), fit_up_to_rps(found)
    if options.json:
        verdict = {"fit": not wrong, "fit_up_to_rps": up_to_rps, "disturbances": wrong, "notes": notes(found)}
        data(json.dumps({**verdict, **found.model_dump(mode="json"), "sustained_rps": found.sustained_rps}, indent=2))
        return ExitCode.NOT_TRUSTWORTHY if wrong else ExitCode.GOOD
    lines = list(told(found))
    width = max(len(what) for what, _ in lines)
    for what, value in lines:
        data(f"{what:<{width}}  {value}")
    for note in notes(found):
        data(f"note: {note}.")
    for disturbance in wrong:
        data(f"disturbed: {disturbance}.")
    data(
        f"{'Not fit' if wrong else 'Fit'} to measure{'' if wrong else f', up to {format_number(up_to_rps, Unit.RPS)}'}."
    )
    return ExitCode.NOT_TRUSTWORTHY if wrong else ExitCode.GOOD


def data(line: str) -> None:
    """Say something that a program may read."""
    sys.stdout.write(f"{line}\n")


def talk(line: str) -> None:
    """Say something to the person at the terminal."""
    sys.stderr.write(f"{line}\n")


def _isolate(options: argparse.Namespace) -> None:
    """Before anything is imported that starts a thread, which would stay behind in the machine's network."""
    from harness.errors import UsageError
    from harness.isolation import isolate

    if options.ray_address is not None:
        raise UsageError("--isolate cuts the way to every other machine, and --ray-address asks for it: leave out one.")
    if options.ui:
        raise UsageError("--ui is a page for a browser, and with --isolate none could reach it: leave out one of them.")
    isolate()


def _is_isolated(options: argparse.Namespace) -> bool:
    return bool(getattr(options, "isolate", False))  # only `harness run` has the option


def _resume_command(folder: "RunFolder", options: argparse.Namespace) -> str:
    """Or a run that was isolated would go on with open ports, and one on a cluster on this machine."""
    address = getattr(options, "ray_address", None)
    cluster = f" --ray-address {address}" if address is not None else ""
    return folder.resume_command + cluster + (" --isolate" if _is_isolated(options) else "")


def _what_is_kept(begun: "Sequence[RunFolder]", options: argparse.Namespace) -> str:
    """What an interrupted command says of the run that it had begun, if it had."""
    if not begun:
        return "No run had begun."
    return f"Finished cells are kept: go on with `{_resume_command(begun[0], options)}`."


def _usable(plugin: "Plugin") -> str:
    return f"not installed: needs {', '.join(plugin.missing)}" if plugin.missing else plugin.summary


def _settings(plugin: "Plugin") -> str:
    """The parameters of a plug-in with their defaults, as a scenario writes them."""
    return ", ".join(f"{name} = {json.dumps(default)}" for name, default in plugin.parameters.items())
