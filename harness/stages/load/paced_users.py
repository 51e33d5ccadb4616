"""Paced users: Locust as its own documentation has it, in the child that `stages.load.locust_users` starts.

In: from the environment, what to ask and how often. Out: what Locust makes of it. Nothing imports this file.
"""

import functools
import json
import os
import ssl
from itertools import cycle
from pathlib import Path
from typing import Any

import locust

from harness.stages.load.locust_users import PACE, Pace

_pace = Pace(**json.loads(os.environ[PACE]))
_bodies = cycle(json.loads(Path(_pace.bodies).read_text(encoding="utf-8")))


class PacedUser(locust.FastHttpUser):
    """Sends at a steady rate for as long as the answers come in time: it waits for each."""

    wait_time = locust.constant_throughput(_pace.user_rps)
    network_timeout = connection_timeout = _pace.timeout_s
    insecure = False
    ssl_context_factory = functools.partial(ssl.create_default_context, cafile=_pace.ca_file)

    @locust.task
    def ask(self) -> Any:
        """Send the next body."""
        return self.client.request(_pace.method, _pace.path, data=next(_bodies).encode(), headers=dict(_pace.headers))
