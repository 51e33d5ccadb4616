"""Environments: interpreters beside ours, for libraries whose pins conflict with ours.

In: the name of one. Out: its interpreter, and whether it is installed. Each is a virtual environment in the folder
`environments` of our own one, made by the make target of its name, with the Python, the Ray and the pydantic that we
have: what crosses between the two is pickled.
"""

import sys
from pathlib import Path

_INSTALLED = ".setup"
"""The file that its make target writes last: an installation that broke off is none."""


def interpreter(name: str) -> Path:
    """The interpreter of an environment, whether it is there or not."""
    return _folder(name) / "bin" / "python"


def is_installed(name: str) -> bool:
    """Whether an environment can be used here."""
    return (_folder(name) / _INSTALLED).exists() and interpreter(name).exists()


def how_to_install(name: str) -> str:
    """What a message says of an environment that is missing."""
    return f"an environment of its own (`make {name}`)"


def _folder(name: str) -> Path:
    return Path(sys.prefix) / "environments" / name
