"""The roofline of the load generator, kept beside the runs for those that do not measure it themselves.

In: a results folder, and a host. Out: `read_roofline` and `keep_roofline`, of one file, `roofline.json`. The last one
that was measured is kept, for one host and one kind of load.
"""

from pathlib import Path

from harness.errors import IntegrityError
from harness.records.run import Host, Roofline
from harness.store.files import write_atomically
from harness.store.runs import ROOFLINE_NAME

SENDING = ("locust", "gevent", "geventhttpclient", "uvloop")
"""Libraries that have a part in the rate: those of the generator, and of the server that computes nothing."""


def read_roofline(results: Path, host: Host) -> Roofline | None:
    """The roofline of `host`; None where none was measured, or on another host.

    Raises IntegrityError on a file that cannot be read: taken for none, it would make a run less strict in silence.
    """
    path = results / ROOFLINE_NAME
    try:
        found = Roofline.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"The roofline of the load generator in {path} cannot be read ({_first_line(error)}). Remove the file, and "
            "let `harness doctor` measure it anew where it is wanted."
        ) from error
    return found if _sends(found.host) == _sends(host) else None


def keep_roofline(results: Path, roofline: Roofline) -> Path:
    """Put it in the place of the one that was there, whatever that was; the file. For the holder of the lock."""
    path = results / ROOFLINE_NAME
    write_atomically(path, f"{roofline.model_dump_json(indent=2)}\n".encode())
    return path


def _sends(host: Host) -> tuple[object, ...]:
    """What the rate depends on. Neither memory nor a library that fits models is."""
    versions = [host.versions.get(name) for name in SENDING]
    return (host.machine, host.cpu, host.cores, host.generator_cores, host.target_cores, host.python, versions)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
