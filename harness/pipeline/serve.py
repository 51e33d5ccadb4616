"""Candidates of a run, served for whoever asks.

In: bundles, the names of a target and a runtime, and how they are served. Out: an endpoint, as long as the block lasts;
what is to be said of it; and the wait for the server's own end. What the server logs is told as it comes.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from harness.clock import Clock
from harness.errors import UnansweredError, UsageError
from harness.plugins import bare_targets, clustered_targets, names, plugin
from harness.ports import Servable, Target
from harness.process import refuse_gone
from harness.records.candidate import Candidate, Endpoint
from harness.records.server import SERVER, ServerSettings
from harness.records.words import Scalar
from harness.serving.page import call
from harness.stages.export import refuse_another_minor
from harness.store.bundle import artifact_path, read_bundle, read_example
from harness.sweeper import swept

_LOOK_EVERY_S = 0.5

_COLUMNS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers."""

    endpoint: Endpoint
    tell_news: Callable[[], None]
    """Tell what its log has that was not told yet."""
    candidates: Mapping[str, Candidate]
    """By the names that they have there."""
    examples: Mapping[str, bytes | None]
    """A request that each answers, in JSON."""


@contextlib.contextmanager
def served(
    bundles: Sequence[str],
    target: str,
    runtime: str,
    processes: int,
    parameters: Mapping[str, Scalar],
    settings: ServerSettings,
    tell: Callable[[str], None],
    ray_address: str | None = None,
) -> Iterator[Served]:
    """Serve bundles (`FOLDER` or `NAME=FOLDER`), their digests verified first; `tell` is given each line of the log.

    Raises UsageError where one is no bundle, two have the same name, or a setting cannot be kept, IntegrityError where
    one is damaged or was written by another version, NotConvertibleError where it has no such runtime,
    InfrastructureError where the server does not become ready, and UnansweredError when it has ended, where it had not
    answered everyone.
    """
    settings.token()
    settings.check_log()
    if target in bare_targets():
        serving = [name for name in names("targets") if name not in bare_targets()]
        raise UsageError(f"The target {target} serves no candidate: have --target {' or '.join(serving)}.")
    made: Target = plugin("targets", target, parameters)
    if ray_address is not None and target not in clustered_targets():
        raise UsageError(
            f"The target {target} serves on this machine, and --ray-address names a cluster: leave it out, or have "
            f"--target {' or '.join(sorted(clustered_targets()))}."
        )
    folders, candidates = _named(bundles)
    plugin("runtimes", runtime)  # or its library is not installed, which the server would find out
    for name, candidate in candidates.items():
        artifact_path(folders[name], candidate, runtime)
        refuse_another_minor(folders[name], candidate, runtime)
    examples = {name: read_example(folder) for name, folder in folders.items()}
    (first, folder), *others = folders.items()
    with swept("harness-serve-") as logs, contextlib.ExitStack() as after:
        servable = Servable(
            entry=SERVER,
            bundle=folder,
            runtime=runtime,
            model=first,
            replicas=processes,
            cores=(),
            log=logs / "server.log",
            beside=dict(others),
            settings=settings,
            ray_address=ray_address,
        )
        try:
            with made.serve(servable) as endpoint:
                tell_news = _teller(servable.log, tell)
                after.callback(tell_news, is_whole=True)  # what it says when it ends, too
                yield Served(endpoint, tell_news, candidates, examples)
        except UnansweredError as error:
            raise UnansweredError(
                f"{error} It had {settings.drain_s:g} s; a longer --waiting gives it more."
            ) from error


def described(served: Served, token_env: str | None) -> Iterator[str]:
    """What a user wants to know of a server: its models, what they take and answer, and how to ask them."""
    url = served.endpoint.url
    for name, candidate in served.candidates.items():
        signature = candidate.signature
        columns = [f"{column.name} ({column.kind})" for column in signature.columns[:_COLUMNS_SHOWN]]
        more = len(signature.columns) - len(columns)
        yield f"{name}: {signature.task}, from {', '.join(columns)}{f' and {more} more' if more > 0 else ''}."
        if signature.classes:
            yield f"  It answers a label and probabilities of {', '.join(signature.classes)}."
        else:
            yield "  It answers one number per row."
        line = call(name, served.examples[name], url, token_env)
        if line is not None:
            yield f"  Ask it: {line}"
    of_one = ", of one replica at a time" if len(served.endpoint.replicas) > 1 else ""
    yield f"For people: {url}/  For Prometheus: {url}/metrics{of_one}"


def wait_for_its_end(served: Served, clock: Clock) -> NoReturn:
    """Wait until the server ends, which it does not do by itself: raises InfrastructureError then.

    Meanwhile its log is told, which lies where nobody finds it: an answer of status 500 refers to it.
    """
    endpoint = served.endpoint
    while True:
        served.tell_news()
        refuse_gone(endpoint.url, endpoint.processes, what=f"The server of {endpoint.model}", log=None)
        clock.sleep(_LOOK_EVERY_S)


def _teller(log: Path, tell: Callable[[str], None]) -> Callable[..., None]:
    """Tells the lines that a log has gained since it was called last; a part of one where the log `is_whole`."""
    told_bytes = 0

    def tell_news(is_whole: bool = False) -> None:
        nonlocal told_bytes
        if not log.exists():  # nobody has written a line
            return
        with log.open("rb") as file:
            file.seek(told_bytes)
            for line in file:
                if not line.endswith(b"\n") and not is_whole:
                    break  # the rest of it comes
                tell(line.decode(errors="replace").rstrip())
                told_bytes += len(line)

    return tell_news


def _named(bundles: Sequence[str]) -> tuple[dict[str, Path], dict[str, Candidate]]:
    """Folders and candidates by name: the user's, or that of the candidate."""
    folders: dict[str, Path] = {}
    candidates: dict[str, Candidate] = {}
    for given in bundles:
        name, equals, path = given.partition("=")
        folder = Path(path if equals else given)
        candidate = read_bundle(folder)
        name = name if equals else candidate.id
        if name in folders:
            raise UsageError(f"Two bundles are to be served as {name}: give one of them a name by NAME=FOLDER.")
        if not name or "/" in name or not name.isprintable() or quote(name) != name:
            raise UsageError(f"{name!r} cannot be a name in an address: use letters, digits, '-', '_' and '.'.")
        folders[name], candidates[name] = folder.resolve(), candidate
    return folders, candidates
