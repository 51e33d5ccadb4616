"""The report of a recorded run: read, reduced, told, written.

In: a run folder. Out: its `report/`, made anew as a whole, and the document. Needs none of Ray, Locust, Optuna, FLAML.
"""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.analysis.document import document, read_steps
from harness.analysis.findings import Findings, findings
from harness.errors import UsageError
from harness.plugins import installed, plugin
from harness.ports import Exporter
from harness.records.finding import Document
from harness.store.database import Database
from harness.store.files import write_atomically
from harness.store.runs import RunFolder, disk_failures


def read_findings(folder: RunFolder) -> Findings:
    """Everything that a run's records support."""
    with Database.read(folder.database) as database:
        ledger = database.ledger()
    return findings(ledger, read_steps(folder, ledger))


def write_report(folder: RunFolder, formats: Sequence[str] = ()) -> Document:
    """Write the report in some formats (none named: all), replacing what was there."""
    exporters: list[Exporter] = [plugin("exporters", name) for name in formats or installed("exporters")]
    with disk_failures(then="make the report again"), _in_the_making(folder) as made:
        told = document(read_findings(folder))
        for exporter in exporters:
            for path, data in exporter.export(told).items():
                write_atomically(made / path, data)
        made.chmod(0o755)
        if formats:  # the others stay
            for file in sorted(path for path in made.rglob("*") if path.is_file()):
                write_atomically(folder.report / file.relative_to(made), file.read_bytes())
        else:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder.report)
            made.rename(folder.report)
    return told


@contextlib.contextmanager
def _in_the_making(folder: RunFolder) -> Iterator[Path]:
    """A new folder beside the report, gone afterwards. Raises UsageError where the run's folder cannot be written."""
    try:
        made = Path(tempfile.mkdtemp(prefix=".report-", dir=folder.path))
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise UsageError(
            f"The report cannot be written into {folder.path}: {error.strerror}. Copy that folder to where you can "
            "write, and name its place with --results; `harness gate` and `harness verify` work where it is."
        ) from None
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
