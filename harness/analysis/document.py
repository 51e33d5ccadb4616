"""The report as a document: what was found, in the order in which a reader needs it.

In: `Findings`, for which `read_steps` reduces the exchanges of the run folder, one file at a time. Out: `Document`,
which the exporters turn into bytes. The same records give the same document.
"""

from collections.abc import Iterator

from harness.analysis import comparison_tables, data_tables, growth_tables, growth_words, load_tables, tables
from harness.analysis.dissection import routing_sentence
from harness.analysis.drawable import Picture
from harness.analysis.failures import all_failed, costs, failures
from harness.analysis.findings import Findings
from harness.analysis.omission import omission
from harness.analysis.ranking_words import power
from harness.analysis.reduce import reduce_step
from harness.analysis.simulation import simulation_warnings
from harness.analysis.summary import summary
from harness.analysis.validity import judged
from harness.records.comparison import Ranking
from harness.records.finding import Chart, Document, Section, Table
from harness.records.ledger import Ledger
from harness.records.load import StepResult
from harness.records.words import EXTERNAL
from harness.stats.quantile import SLOTS, sample_floor
from harness.store.exchanges import read_exchanges, refuse_altered
from harness.store.runs import RunFolder
from harness.units import Unit, format_bound


def read_steps(folder: RunFolder, ledger: Ledger) -> tuple[StepResult, ...]:
    """Every recorded step, reduced and judged; only one step's exchanges are in memory at a time.

    Raises IntegrityError where a step's file is missing or not what it was when it was written.
    """
    results = []
    for entry in ledger.steps:
        path = folder.exchanges(entry.id)
        refuse_altered(path, entry.exchanges_sha256)
        results.append(reduce_step(entry, read_exchanges(path)))
    return judged(ledger, results)


def document(found: Findings) -> Document:
    """The whole report of a run."""
    warnings = tuple(_warnings(found))
    return Document(
        title=f"{'' if found.ledger.run.simulation is None else 'Simulated: '}{found.ledger.scenario.question}",
        recommendation=found.sentence,
        warnings=warnings,
        sections=tuple(_sections(found)),
        summary=summary(found, warnings).model_dump(mode="json"),
        verdict=found.verdict,
        exit_code=found.exit_code,
        steps=found.results,
    )


def _sections(found: Findings) -> Iterator[Section]:
    from harness.analysis import comparison_pictures, pictures

    kinds = {cell.kind for cell in found.ledger.plan}
    if found.ledger.run.simulation is None:
        yield Section("Gates", _gate_words(found), tables=_filled(tables.gates(found)))
    if found.ranking is not None:
        yield Section(
            "Engines compared",
            tuple(_comparison_words(found, found.ranking)),
            _drawn(*comparison_pictures.of_comparison(found, found.ranking)),
            _filled(*comparison_tables.of_comparison(found, found.ranking)),
        )
    yield from _data(found)
    if "candidate" in kinds:
        yield Section(
            "Candidates",
            () if found.ledger.candidates else ("No candidate came to be; the failures below say why.",),
            _drawn(pictures.candidates(found)),
            _filled(tables.candidates(found), tables.configurations(found), tables.checks(found)),
        )
    if kinds & {"candidate", "serve"}:
        yield from _served(found)
    if found.ledger.micro:
        yield Section("Computing, in process", (), _drawn(pictures.micro(found)), _filled(tables.micro(found)))
    if "search" in kinds:
        yield Section(
            "Search",
            () if found.ledger.trials else ("No trial was recorded.",),
            _drawn(pictures.search(found)),
            _filled(tables.search(found), growth_tables.worker_time(found), tables.trials(found)),
        )
    yield from _growing(found)
    failed = all_failed(found)
    yield Section("Failures", () if failed else ("Nothing failed.",), tables=_filled(costs(failed), failures(failed)))
    yield Section("Machine and method", tuple(_method(found)), tables=_filled(tables.host(found)))


def _data(found: Findings) -> Iterator[Section]:
    """What the tables hold, and whether anything was found in them; nothing where there are none."""
    if found.ledger.tables:
        verdicts = {check.verdict for entry in found.ledger.tables for check in entry.checks}
        words = ("No check of the data found anything to warn of.",) if verdicts == {"pass"} else ()
        yield Section("Data", words, tables=_filled(data_tables.read(found), data_tables.checks(found)))


def _served(found: Findings) -> Iterator[Section]:
    """What served cells did under load."""
    from harness.analysis import pictures

    if not found.capacities:
        yield Section("Served", ("The scenario serves nothing, so no rate can be promised.",))
        return
    opened = any(result.step.mode == "open" for result in found.results)
    yield Section(
        "Served under open load" if opened else "Served",
        () if found.results else ("No step of load was recorded.",),
        _drawn(pictures.open_load(found)),
        _filled(load_tables.capacity(found), load_tables.open_steps(found)),
    )
    tail = pictures.tail(found)
    if tail is not None:
        picture, steps = tail
        yield Section("The tail of the latency", (), _drawn(picture), _filled(load_tables.curve(found, steps)))
    yield from _dissected(found)
    closed = load_tables.closed_steps(found)
    if closed.rows:
        tables_of_it = _filled(closed, load_tables.requests(found))
        yield Section("Served under closed load", (), _drawn(pictures.closed_load(found)), tables_of_it)


def _dissected(found: Findings) -> Iterator[Section]:
    """Where the time of requests went; nothing where no server says."""
    from harness.analysis import pictures

    if found.dissections:
        yield Section(
            "Where the time of a request goes",
            tuple(routing_sentence(one) for one in found.routings),
            _drawn(*pictures.anatomies(found)),
            _filled(load_tables.anatomy(found)),
        )


def _growing(found: Findings) -> Iterator[Section]:
    """What growing scales show; nothing where nothing grew."""
    from harness.analysis import growth_pictures

    grown = [one for one in found.growth.searches if len(one.scales) > 1]
    if not grown and not found.growth.sizes and found.ledger.run.simulation is None:
        return
    yield Section(
        "Growing scales",
        growth_words.words(found.growth, None if found.ledger.run.simulation else found.ledger.host.cores),
        _drawn(growth_pictures.rates(found), growth_pictures.utilisation(found), *growth_pictures.fits(found)),
        _filled(
            growth_tables.simulation(found),
            growth_tables.search_scales(found),
            growth_tables.laws(found),
            growth_tables.sizes(found),
        ),
    )


def _drawn(*pictures: Picture | None) -> tuple[Chart, ...]:
    # matplotlib takes half a second to import, and reading a run's steps needs none of it.
    from harness.analysis.charts import draw

    return tuple(draw(picture) for picture in pictures if picture is not None)


def _filled(*made: Table) -> tuple[Table, ...]:
    return tuple(table for table in made if table.rows)


def _comparison_words(found: Findings, ranking: Ranking) -> Iterator[str]:
    if found.comparison is None:  # else it is the first line already
        yield ranking.sentence
    could = power(len(ranking.tables), len(ranking.entrants), ranking.separation)
    if could is not None:
        yield could
    if ranking.flips is not None:
        yield ranking.flips


def _gate_words(found: Findings) -> tuple[str, ...]:
    gates = found.verdict.gates
    if not gates:
        return ("The scenario has no gate, no objective and no expected score: nothing was asked that could fail.",)
    told = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}
    counts = [
        f"{count} {words}"
        for answer, words in told.items()
        if (count := sum(gate.answer.value == answer for gate in gates))
    ]
    return (f"Of {len(gates)} gate{'' if len(gates) == 1 else 's'}: {', '.join(counts)}.",)


def _warnings(found: Findings) -> Iterator[str]:
    """What a reader must know before any figure."""
    ledger = found.ledger
    yield from simulation_warnings(ledger)
    if ledger.run.finished_utc is None:
        yield "The run is not finished: what follows is what was recorded so far."
    if ledger.host.shared_cores and found.results and ledger.scenario.load.placement == "host":
        cores = ", ".join(map(str, sorted(set(ledger.host.generator_cores) & set(ledger.host.target_cores))))
        yield (
            f"The load generator and the servers shared cores ({cores}): capacities are lower, and latencies higher, "
            "than the servers alone would show."
        )
    yield from _data_warnings(found)
    yield from found.ranking.warnings if found.ranking else ()
    yield from _load_warnings(found)
    failed = sum(result.failure is not None for result in ledger.results)
    if failed:
        yield f"{failed} of {len(ledger.plan)} cells failed; the failures are listed with their causes."
    lost = sum(trial.evaluated.failure is not None for trial in ledger.trials)
    if lost:
        yield f"{lost} of {len(ledger.trials)} trials failed; they count in no score."


def _data_warnings(found: Findings) -> Iterator[str]:
    for entry in found.ledger.tables:
        for verdict, words in (("fail", "failed and were accepted"), ("warn", "warn")):
            names = dict.fromkeys(check.name.replace("_", " ") for check in entry.checks if check.verdict == verdict)
            if names:
                yield f"Checks of the table {entry.name} {words}: {', '.join(names)}. Data says what to do."


def _load_warnings(found: Findings) -> Iterator[str]:
    workers = [worker for entry in found.ledger.steps if not entry.step.users for worker in entry.generator.workers]
    if any(worker.timer == "spin" for worker in workers):
        yield (
            "This system has no timers that the load generator can wait with to a fraction of a millisecond, so it "
            "looked at the clock all the time: how much of its core it needed is not known, and not judged."
        )
    for served in found.capacities:
        omitted = omission([result for result in found.results if result.cell == served.cell])
        if omitted is not None:
            yield f"{found.label(served.cell)}: {omitted}"
    cell = found.recommended_cell
    if cell is not None and cell.rate.value is not None:
        for warning in cell.rate.warnings:
            yield f"{found.label(cell.cell)}: {warning}"
    invalid = sum(bool(result.doubts) for result in found.results)
    if invalid:
        yield f"{invalid} of {len(found.results)} steps have no figures; the tables of steps say why, and what to do."
    warned = sum(bool(result.warnings) for result in found.results)
    if warned:
        yield f"{warned} of {len(found.results)} steps carry a warning of their own; the tables of steps print them."


def _method(found: Findings) -> Iterator[str]:
    scenario, host = found.ledger.scenario, found.ledger.host
    load = scenario.load
    yield from _data_words(found)
    if found.results:
        apart = "Generator and servers " + ("shared cores" if host.shared_cores else "were kept on cores of their own")
        if any(cell.target == EXTERNAL for cell in found.ledger.plan):
            apart = f"{apart}, but for the server at {EXTERNAL}, of which that is not known"
        opened = any(result.step.mode == "open" for result in found.results)
        arrivals = f"{load.arrivals} arrivals in open steps, " if opened else ""
        warmups = sorted({result.step.warmup_s for result in found.results})
        spans = " to ".join(format_bound(end, Unit.SECONDS) for end in dict.fromkeys((warmups[0], warmups[-1])))
        yield (
            f"Load: {arrivals}{load.rows} row{'' if load.rows == 1 else 's'} per "
            f"request, a timeout of {format_bound(load.timeout_s, Unit.SECONDS)}, at most {load.in_flight_max} "
            f"requests in flight. {apart}. The first {spans} of each step warm up and are not "
            "measured."
        )
        yield (
            "Scheduled latency counts from the moment a request was due to its answer, so a request that had to wait "
            "for the generator or behind a pause shows it. Service latency counts from the moment it was sent. Lag is "
            "the difference: how late the generator was. Percentiles are observed values (the inverse of the "
            "empirical distribution) over successes; failed, dropped and censored requests count as errors."
        )
        yield (
            f"Intervals are meant to hold in 95 of 100 steps: the wider of exact order statistics and one over {SLOTS} "
            "slots of time, as neighbouring requests wait for the same things. An end that the sample cannot bound is "
            "left empty. On a simulated queue they held in 90 to 98 of 100 steps up to a load of 0.6, and in 86 to 95 "
            "closer to saturation. A percentile that its sample cannot bound at all is not printed: "
            f"p99 needs {sample_floor(0.99):,} successes, p99.9 needs {sample_floor(0.999):,}."
        )
    if found.ranking is not None:
        yield from _comparison_method(found)
    if not any(cell.kind == "candidate" for cell in found.ledger.plan):
        return
    yield (
        "Recommendation: among the candidates that passed their checks and carry the load inside the objective, the "
        "best holdout score. All whose difference to it may be chance are tied with it (a 95 % interval of the "
        "difference, over the same resampled rows for both), and the tie goes to capacity."
    )


def _data_words(found: Findings) -> Iterator[str]:
    told = found.ledger.scenario.tables
    scored = "search and score what it found. Score intervals are 95 % bootstrap intervals over these rows."
    for data in told if len(told) == 1 else ():
        kept = f"{data.holdout:.0%} of the rows were kept away"
        yield f"Data: {data.source}, predicting {data.target}; {kept} from the {scored}"
    if len(told) > 1:
        each = "; ".join(f"{data.name} ({data.source}, {data.holdout:.0%})" for data in told)
        yield f"Data: {each}. These shares of the rows were kept away from the {scored}"


def _comparison_method(found: Findings) -> Iterator[str]:
    plan, search = found.ledger.scenario.comparison, found.ledger.scenario.search
    threads = ", ".join(map(str, sorted({refit.threads for refit in found.ledger.refits})))
    if plan is None or search is None or not threads:
        return
    yield (
        f"Comparison: what each engine found ({max(search.workers)} at work on each search) is fitted once more on all "
        "training rows in a process that did nothing before, and asked in another. The dummy model never looks at the "
        "features: it is 0 on the normalised scale and what failed is scored as it, but it has no rank. Average ranks "
        "are tested by Friedman's test, pairs by Nemenyi's (Demsar, JMLR 7, 2006), at 5 %."
    )
    yield (
        f"Times: {threads} thread{'' if threads == '1' else 's'} in fitting and predicting; up to {plan.repeats} calls "
        f"per number of rows, none begun after {format_bound(plan.seconds, Unit.SECONDS)}, after one that is not "
        "counted. All are of this one host."
    )
