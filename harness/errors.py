"""What can go wrong, and the exit status each kind of failure ends the program with.

In: nothing. Out: `ExitCode`, the published exit statuses, one exception per kind of failure, and `DISK_ERRORS`. The
text of an exception is one paragraph for the user: what is wrong, where, and what to do about it. Anything else that
escapes is a bug in the harness (status 1).
"""

import difflib
import errno
from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG})
"""What an OSError says in `errno` where a disk is full or fails."""


class ExitCode(IntEnum):
    """The exit statuses of every command; the numbers are a promise to CI jobs."""

    GOOD = 0
    BUG = 1
    USAGE = 2
    GATE_FAILED = 3
    NOT_TRUSTWORTHY = 4
    INFRASTRUCTURE = 5
    LOCKED = 6
    INTEGRITY = 7
    INTERRUPTED = 130


class HarnessError(Exception):
    """A failure that the user can act on; its text is the whole message."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG


class UsageError(HarnessError):
    """The command line, the scenario or the data cannot be used as given."""

    exit_code = ExitCode.USAGE


class NotTrustworthyError(HarnessError):
    """A number was asked for that the measurements cannot stand behind."""

    exit_code = ExitCode.NOT_TRUSTWORTHY


class InfrastructureError(HarnessError):
    """Ray, a server, the generator, the disk or the network failed."""

    exit_code = ExitCode.INFRASTRUCTURE


class UnansweredError(InfrastructureError):
    """A server that was told to end had not answered everyone whom it had let in when its time for that was over."""


class LockedError(HarnessError):
    """Another run is writing into the same results folder."""

    exit_code = ExitCode.LOCKED


class IntegrityError(HarnessError):
    """A stored file is not what it was when it was written."""

    exit_code = ExitCode.INTEGRITY


class NotConvertibleError(HarnessError):
    """A candidate has no form in the asked runtime; the text says why. Inside a run a result, not a failure."""

    exit_code = ExitCode.USAGE


def one_line(told: BaseException | str, limit: int = 300) -> str:
    """An error or a user's own name on one line, cut to `limit` characters; either may go over many."""
    return " ".join(str(told).split())[:limit]


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a message on a name that is not `known`: a question with the nearest one that is, or `otherwise`."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else otherwise
