"""Users of Locust's: it runs a locustfile unchanged, and every request of it is recorded.

In: a locustfile, or what users that Locust comes with should ask; the address they are pointed at; steps of so many
users. Out: a `Recording` per step, with the columns of any other load; and before that `refuse_unusable`. Such users
wait for their answers, and between them as they please, so this is closed load without a fixed number in flight: a
request is due when it is sent. What is open when a step ends Locust tells nobody of.
"""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from harness.clock import SystemClock
from harness.errors import InfrastructureError, UsageError
from harness.process import child, end_of_log
from harness.records.candidate import Endpoint
from harness.records.load import EXCHANGE_COLUMNS, JSON_POST, Beat, GeneratorHealth, Head, Step, WorkerHealth
from harness.records.scenario import LoadPlan
from harness.stages.load.crew import START_S
from harness.stages.load.generator import MARGIN_S, Recording

RECORDER = Path(__file__).with_name("recorder.py")
PACED_USERS = Path(__file__).with_name("paced_users.py")

SPOOL = "HARNESS_RECORDER_SPOOL"
"""Environment variable that names the file for the exchanges."""

PACE = "HARNESS_PACED_USERS"
"""Environment variable that has a `Pace`, in JSON."""

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """What the users that Locust comes with do."""

    user_rps: float
    method: str
    path: str
    headers: Sequence[tuple[str, str]]
    bodies: str
    """The file that has them, as a list in JSON."""
    timeout_s: float
    ca_file: str | None


class LocustUsers:
    """Drives steps of users, each with a Locust of its own.

    Steps with a pace are walked by users that Locust comes with, who send `bodies` in turn, those without by the
    users of `locustfile`.
    """

    def __init__(
        self,
        locustfile: Path | None,
        endpoint: Endpoint,
        plan: LoadPlan,
        cores: tuple[int, ...],
        folder: Path,
        bodies: Sequence[bytes] = (),
        head: Head = JSON_POST,
    ) -> None:
        self._locustfile = locustfile
        self._endpoint = endpoint
        self._plan = plan
        self._cores = cores
        self._folder = folder
        self._bodies = bodies
        self._head = head

    def drive(self, step: Step, watch: Callable[[Beat], object] | None = None) -> Recording:
        """Run one step: as many users as its `in_flight`, all started at once; nobody is told meanwhile how it goes.

        Raises InfrastructureError where Locust does not come to the end of it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "locust.log"
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=f"step-{step.number}-") as scratch:
            spool = Path(scratch) / "spool.npz"
            environment = {SPOOL: str(spool), **self._paced(step, Path(scratch) / "bodies.json")}
            locustfile = self._locustfile if step.pace_rps is None else PACED_USERS
            command = [
                sys.executable, "-m", "locust", "--headless", "--locustfile", f"{RECORDER},{locustfile}",
                "--host", self._endpoint.url, "--users", str(step.in_flight), "--spawn-rate", str(step.in_flight),
                "--run-time", str(math.ceil(step.duration_s)), "--stop-timeout", f"{self._plan.timeout_s:g}",
                "--only-summary", "--exit-code-on-error", "0",
            ]  # fmt: skip
            with child(command, log=log, cores=self._cores, environment=environment) as process:
                status = _ended(process, START_S + step.duration_s + self._plan.timeout_s + MARGIN_S)
            if status != 0 or not spool.is_file():
                how = "did not end in time" if status is None else f"ended with status {status}"
                raise InfrastructureError(
                    f"Locust {how} in step {step.number} ({step.label}) of {locustfile}.{end_of_log(log)}"
                )
            with np.load(spool) as file:
                # Locust ends at whole seconds.
                within = file["due_ns"] < step.duration_s * 1e9
                columns = {name: file[name][within] for name in EXCHANGE_COLUMNS}
                requests = tuple(str(request) for request in file["requests"])
                locust_p99_s = float(file["locust_p99_ms"]) / 1e3
                health = WorkerHealth(
                    cpu_share=float(file["cpu_share"]),
                    started_late_s=0.0,
                    gc_s=0.0,
                    clock_moved_s=float(file["clock_moved_s"]),
                    timer="event loop",
                )
        return Recording(
            columns=columns,
            planned=len(columns["due_ns"]),
            plan_sha256="",
            requests=requests if step.pace_rps is None else (),
            health=GeneratorHealth(workers=(health,), locust_p99_s=None if math.isnan(locust_p99_s) else locust_p99_s),
        )

    def _paced(self, step: Step, bodies: Path) -> dict[str, str]:
        """What users with a pace find in their environment; their bodies are in a file."""
        if step.pace_rps is None:
            return {}
        bodies.write_text(json.dumps([body.decode() for body in self._bodies]), encoding="utf-8")
        pace = Pace(
            user_rps=step.pace_rps / (step.in_flight or 1),
            method=self._head.method,
            path=urlsplit(self._endpoint.url).path.rstrip("/") + self._endpoint.infer_path,
            headers=self._head.headers,
            bodies=str(bodies),
            timeout_s=self._plan.timeout_s,
            ca_file=self._head.ca_file,
        )
        return {PACE: json.dumps(asdict(pace))}


def refuse_unusable(locustfile: Path) -> None:
    """Raises UsageError on a locustfile that cannot be loaded, or does not say who its users are."""
    if not locustfile.is_file():
        raise UsageError(f"There is no locustfile {locustfile}: looked for it in {locustfile.parent.resolve()}.")
    command = [sys.executable, "-m", "harness.stages.load.recorder", str(locustfile)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    except subprocess.TimeoutExpired:
        raise UsageError(f"Loading the locustfile {locustfile} takes longer than {START_S:g} s.") from None
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-6:])
        raise UsageError(f"The locustfile {locustfile} cannot be loaded:\n{tail}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if not found["users"]:
        raise UsageError(f"The locustfile {locustfile} defines no class of users: derive one from HttpUser.")
    if found["shapes"]:
        raise UsageError(
            f"The locustfile {locustfile} has a load shape of its own ({', '.join(found['shapes'])}), and how many "
            "users there are is said here: take it out."
        )


def _ended(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    """Its exit status; None where it takes longer than that."""
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + limit_s
    while clock.monotonic_s() < deadline_s:
        status = process.poll()
        if status is not None:
            return status
        clock.sleep(_POLL_S)
    return None
