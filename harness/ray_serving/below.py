"""Below a prefix: an ASGI application that others' applications stand beside, asked for its own paths.

In: an application that knows paths from the root. Out: the same, for whoever says in `root_path` what it stands below.
"""

from typing import Any


class Below:
    """Takes the prefix off the path; ASGI leaves it on."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI 3 has it."""
        if root := scope.get("root_path"):
            scope = {**scope, "path": scope["path"].removeprefix(root) or "/"}
        await self._app(scope, receive, send)
