"""How candidates are served, whichever they are, and wherever.

In: nothing. Out: `ServerSettings`, which a target hands on to its serving processes, and where these begin.
"""

from pydantic import Field

from harness.records.frozen import Frozen

SERVER = "harness.server"
"""The module of a serving process; targets are told its name, for they stand below it."""

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder in which processes of one port count together; prometheus-client's own, read
when that is imported."""


class ServerSettings(Frozen):
    """What a serving process is told beside its candidates and its runtime."""

    batch_requests: int = Field(
        default=1, ge=1, le=1024, description="Most requests that are computed together; 1: each by itself."
    )
    batch_wait_s: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="How long a request may wait for others to be computed with, where others are likely to come in "
        "that time. At 0 only those are that wait for their turn anyhow.",
    )
    waiting_s: float = Field(
        default=0.5,
        ge=0.0,
        le=60.0,
        description="For how long a request may have to wait for its turn, as far as that can be foreseen; one that "
        "would wait longer is refused at once.",
    )
    token_env: str | None = Field(
        default=None, description="The environment variable with the bearer token that clients must send."
    )
    access_log: str | None = Field(default=None, description="A file that gets a JSON line per request.")
