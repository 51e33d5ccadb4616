"""The one setting that every record which crosses a border shares: frozen, closed, finite.

In: nothing. Out: `Frozen`, the model that scenario, run, candidate and finding records derive from.
"""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A record that cannot change, knows all its keys, and holds no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
