"""How candidates are served, whichever they are, and wherever.

In: nothing. Out: `ServerSettings`, which a target hands on to its serving processes, and where these begin.
"""

import os
from pathlib import Path

from pydantic import Field

from harness.errors import UsageError
from harness.records.frozen import Frozen
from harness.units import Unit, format_bound

SERVER = "harness.server"
"""The module of a serving process; targets are told its name, for they stand below it."""

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder in which processes of one port count together; prometheus-client's own, read
when that is imported."""

COUNTED_TOGETHER = "HARNESS_COUNTED_TOGETHER"
"""The environment variable that says so, set beside it: whoever starts us may have the other one for something else."""

BATCH_LIMIT, BATCH_WAIT_LIMIT_S, WAITING_LIMIT_S = 1024, 1.0, 60.0
"""How far what a user may set goes."""

WAITING_S = 0.5

_COMPUTE_S = 15.0
"""For what is computed at its turn, and for requests of which one part is there, to come whole."""


class ServerSettings(Frozen):
    """What a serving process is told beside its candidates and its runtime."""

    batch_requests: int = Field(
        default=1, ge=1, le=BATCH_LIMIT, description="Most requests that are computed together; 1: each by itself."
    )
    batch_wait_s: float = Field(
        default=0.0,
        ge=0.0,
        le=BATCH_WAIT_LIMIT_S,
        description="How long a request may wait for others to be computed with, where others are likely to come in "
        "that time. At 0 only those are that wait for their turn anyhow.",
    )
    waiting_s: float = Field(
        default=WAITING_S,
        ge=0.0,
        le=WAITING_LIMIT_S,
        description="For how long a request may have to wait for its turn, as far as that can be foreseen; one that "
        "would wait longer is refused at once.",
    )
    token_env: str | None = Field(
        default=None, description="The environment variable with the bearer token that clients must send."
    )
    access_log: str | None = Field(default=None, description="A file that gets a JSON line per request.")

    def token(self) -> str | None:
        """The token itself, where one is wanted. Raises UsageError where there is none that a client could send."""
        if self.token_env is None:
            return None
        token = os.environ.get(self.token_env)
        if not token:
            raise UsageError(f"The environment variable {self.token_env} holds no token: set it, or serve without.")
        if not (token.isascii() and token.isprintable() and token == token.strip()):
            raise UsageError(
                f"The token in the environment variable {self.token_env} cannot be sent in a header: it may have "
                "letters, digits and signs of ASCII, and no line end or space around them."
            )
        return token

    def check_log(self) -> None:
        """Raises UsageError where the access log cannot be written."""
        if self.access_log is not None:
            try:
                with Path(self.access_log).open("a"):
                    pass
            except OSError as error:
                told = f"The access log {self.access_log} cannot be written: {error.strerror}. Name another file."
                raise UsageError(told) from error

    @property
    def words(self) -> str:
        """What of it is not as usual, in a few words: `batch 8 within 2 ms, waiting 2 s`; empty where all is."""
        told = []
        if self.batch_requests != _USUAL["batch_requests"].default:
            within = f" within {format_bound(self.batch_wait_s, Unit.SECONDS)}" if self.batch_wait_s else ""
            told.append(f"batch {self.batch_requests}{within}")
        if self.waiting_s != _USUAL["waiting_s"].default:
            told.append(f"waiting {format_bound(self.waiting_s, Unit.SECONDS)}")
        return ", ".join(told)

    @property
    def drain_s(self) -> float:
        """How long a serving process that is told to end has, at most, to answer those that it has let in."""
        return self.waiting_s + _COMPUTE_S


_USUAL = ServerSettings.model_fields
