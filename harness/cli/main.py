"""The command `harness`: verbs, options and exit statuses.

In: argv. Out: an exit status of `errors.ExitCode`. What the verbs do is in `cli.verbs`.
"""

import argparse
import math
import re
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from harness import __version__
from harness.cli import verbs
from harness.cli.verbs import talk
from harness.errors import ExitCode, HarnessError

_DESCRIPTION = """\
Give the harness a table and a service-level objective: Ray workers search for models, the candidates are checked,
served and put under Locust load at growing scales, and a report says which one to ship and how much it carries."""

_EXIT_CODES = """\
exit status: 0 good; 1 a bug in the harness; 2 usage, scenario or data; 3 a gate failed; 4 not trustworthy or
inconclusive; 5 infrastructure or target failed; 6 results folder locked; 7 integrity; 130 interrupted, resumable"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status: int = options.verb(options)
    except HarnessError as error:
        talk(f"harness: {error}")
        return int(error.exit_code)
    except KeyboardInterrupt as interruption:
        talk(f"\nharness: interrupted; nothing is left running. {interruption}".rstrip())
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        return int(ExitCode.GOOD)
    except Exception:
        traceback.print_exc()
        talk("harness: this is a bug in the harness; please report it with the lines above.")
        return int(ExitCode.BUG)
    return int(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, do, summary, add_options in _VERBS:
        command = commands.add_parser(name, help=summary, description=summary, epilog=_EXIT_CODES)
        command.set_defaults(verb=do, name=name)
        add_options(command)
    return parser


def _list_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", nargs="?", choices=_LISTABLE, metavar="KIND", help=", ".join(_LISTABLE))
    _json_option(command)


def _check_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("scenario", type=Path, metavar="SCENARIO", help="a TOML file")
    _set_option(command)
    _json_option(command)


def _run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("scenario", type=Path, nargs="?", metavar="SCENARIO", help="a TOML file")
    _set_option(command)
    command.add_argument(
        "--simulate",
        action="append",
        default=[],
        type=_simulated,
        metavar="workers=N,N",
        help="repeat the trials of an earlier run in virtual time, searches only, with so many workers; a second "
        "--simulate from=RUN names that run (default: the scenario's latest)",
    )
    command.add_argument("--resume", metavar="RUN", help="go on with an unfinished run (an id, or `latest`)")
    command.add_argument("--run-id", metavar="ID", help="name of the run's folder (default: time and scenario)")
    command.add_argument("--ray-address", metavar="ADDRESS", help="a running Ray cluster (default: a local one)")
    command.add_argument(
        "--isolate", action="store_true", help="in a network of its own that has only loopback: nothing in, nothing out"
    )
    _ui_option(command)
    _results_option(command)
    _json_option(command)


def _report_options(command: argparse.ArgumentParser) -> None:
    _run_argument(command)
    command.add_argument("--format", metavar="NAMES", default="", help="some of `harness list exporters`, by comma")


def _gate_options(command: argparse.ArgumentParser) -> None:
    _run_argument(command)
    command.add_argument("--self-test", action="store_true", help="show, on this run, that each gate can fail")
    _json_option(command)


def _serve_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "bundles",
        nargs="+",
        metavar="BUNDLE",
        help="folder: results/RUN/candidates/ID, or NAME=FOLDER to serve it under a name of yours",
    )
    command.add_argument("--target", default="asgi", metavar="NAME", help="one of `harness list targets`")
    command.add_argument("--runtime", default="onnx", metavar="NAME", help="one of `harness list runtimes`")
    command.add_argument("--processes", type=_count, default=1, metavar="N", help="server processes or replicas")
    command.add_argument("--port", type=_port, metavar="PORT", help="default: one that is free")
    command.add_argument("--token-env", metavar="NAME", help="environment variable with a token that clients must send")
    command.add_argument("--batch", type=_count, default=1, metavar="N", help="most requests computed together")
    command.add_argument(
        "--batch-wait", type=_up_to(1), default=0.0, metavar="SECONDS", help="how long one may wait for others"
    )
    command.add_argument(
        "--waiting", type=_up_to(60), default=0.5, metavar="SECONDS", help="a request that would wait longer is refused"
    )
    command.add_argument("--access-log", type=Path, metavar="FILE", help="append a JSON line per request to a file")
    command.add_argument(
        "--ray-address", metavar="ADDRESS", help="a running Ray cluster, for --target ray_serve (default: a local one)"
    )
    _set_option(command, "change one parameter of the target, such as opened=true")


def _load_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("url", metavar="URL", help="where requests go, such as http://127.0.0.1:8080/score")
    asked = command.add_argument_group("what is sent")
    asked.add_argument("--payload", metavar="FILE", help="rows: a .csv file with a header, or JSON lines")
    asked.add_argument("--template", metavar="FILE", help="a Jinja file that makes the body; fields are its variables")
    asked.add_argument(
        "--protocol",
        default="plain",
        metavar="NAME",
        help="plain (a row is a JSON object), v2, v2:np, v2:pd (MLServer), mlflow, mlflow:FIELD, or bentoml",
    )
    asked.add_argument("--rows", type=_count, metavar="N", help="rows per request (default: 1)")
    asked.add_argument("--method", metavar="NAME", help="default: POST where there is a body, else GET")
    asked.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", dest="headers", help="may be repeated"
    )
    asked.add_argument("--bearer-env", metavar="NAME", help="environment variable that holds a bearer token")
    asked.add_argument("--ca-file", metavar="FILE", help="certificates to trust for https (PEM)")
    asked.add_argument("--locustfile", metavar="FILE", help="have its users make the requests, unchanged; with --users")
    load = command.add_argument_group("how much; neither a rate nor users: as much as it carries")
    how = load.add_mutually_exclusive_group()
    how.add_argument("--rate", type=_positive, metavar="RPS", help="open load: requests a second, by schedule")
    how.add_argument("--users", type=_count, metavar="N", help="closed load: requests in flight at any moment")
    load.add_argument("--duration", type=_positive, metavar="S", help="measured seconds of a step (default: 30)")
    load.add_argument("--warmup", type=_positive, metavar="S", help="seconds before that (default: 2)")
    load.add_argument("--arrivals", metavar="LAW", help="poisson (default), constant, gamma:B, ramp:S or trace:FILE")
    load.add_argument(
        "--slo", type=_objective, metavar="p99=TIME", help="the objective: p99=50ms, or p99=50ms,errors=1%%"
    )
    load.add_argument("--timeout", type=_positive, metavar="S", help="a request without an answer by then has failed")
    load.add_argument("--in-flight", type=_count, metavar="N", help="with --rate: most at any moment (default: 1024)")
    load.add_argument("--workers", type=_count, metavar="N", help="processes that send (default: 1)")
    load.add_argument("--ray-address", metavar="ADDRESS", help="a Ray cluster, on whose nodes they run (default: here)")
    load.add_argument("--seed", type=int, metavar="N", help="of send times and the order of rows")
    command.add_argument("--run-id", metavar="ID", help="name of the run's folder (default: time and host)")
    _ui_option(command)
    _results_option(command)
    _json_option(command)


def _doctor_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seconds", type=_look, default=20.0, metavar="S", help="about how long (default: 20)")
    _results_option(command)
    _json_option(command)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _objective(text: str) -> dict[str, float]:
    """`p99=50ms,errors=1%` as keys of `[load.objective]`."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, bound = part.strip().partition("=")
        number = re.fullmatch(r"(\d+\.?\d*|\.\d+)(us|ms|s|%)", bound.strip())
        unit = number[2] if number else ""
        if number and name == "p99" and unit in _SECONDS and float(number[1]) > 0:
            found["p99_s"] = float(number[1]) * _SECONDS[unit]
        elif number and name == "errors" and unit == "%" and float(number[1]) < 100:
            found["error_share"] = float(number[1]) / 100
        else:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is neither p99=TIME (50ms, 0.2s) nor errors=SHARE (1%)")
    if "p99_s" not in found:
        raise argparse.ArgumentTypeError(f"{text!r} lacks p99=TIME, such as p99=50ms")
    return found


_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def _simulated(text: str) -> tuple[str, str | tuple[int, ...]]:
    """`workers=1,2,64` or `from=RUN`."""
    key, _, value = text.partition("=")
    if key == "from" and value:
        return key, value
    if key == "workers" and value:
        return key, tuple(sorted({_count(part.strip()) for part in value.split(",")}))
    raise argparse.ArgumentTypeError(f"{text!r} is neither workers=N (or workers=N,N,N) nor from=RUN")


def _look(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 4 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 4 to 600")
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 256")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a whole number from 0 to 65535")
    return int(text)


def _up_to(most_s: float) -> Callable[[str], float]:
    def seconds(text: str) -> float:
        try:
            given = float(text)
        except ValueError:
            given = math.nan
        if not 0 <= given <= most_s:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {most_s:g}")
        return given

    return seconds


def _run_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="a run's id, or `latest`")
    _results_option(command)


def _results_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs (default: results)"
    )


def _set_option(command: argparse.ArgumentParser, what: str = "change one key, for once") -> None:
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=what)


def _ui_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ui",
        action="store_true",
        help="show the load on Locust's own page, on this machine only; figures stay the same where a core is spare",
    )


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


_LISTABLE = ("engines", "runtimes", "targets", "shapes", "exporters", "scenarios", "keys")

_VERBS: tuple[tuple[str, Callable[[argparse.Namespace], int], str, Callable[[argparse.ArgumentParser], None]], ...] = (
    ("list", verbs.list_verb, "Show plug-ins (installed, or why not), scenarios, or the keys of one.", _list_options),
    (
        "check",
        verbs.check_verb,
        "Check the tables of a scenario, and print its plan with an estimated duration.",
        _check_options,
    ),
    ("run", verbs.run_verb, "Run a scenario: search, check, serve, load, compare, report.", _run_options),
    ("load", verbs.load_verb, "Put load on a server of your own, and say how it did.", _load_options),
    ("report", verbs.report_verb, "Make the report of a run anew, from what was recorded.", _report_options),
    ("gate", verbs.gate_verb, "Say what the gates of a run say, as an exit status.", _gate_options),
    ("serve", verbs.serve_verb, "Serve a candidate of a run until interrupted.", _serve_options),
    ("verify", verbs.verify_verb, "Check that every file of a run is what was written.", _run_argument),
    ("doctor", verbs.doctor_verb, "Is this machine fit to measure, and up to which rate?", _doctor_options),
)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
