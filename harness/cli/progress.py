"""What a terminal shows while a run goes on; plain lines where there is no terminal.

In: `Progress` records. Out: on a terminal two lines that are redrawn (stage, cell k of n, time left; below them what is
going on); else a line whenever a cell begins or ends, and in between at most one every few seconds, so that a log stays
readable.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from harness.clock import Clock
from harness.records.run import Progress

_QUIET_S = 3.0


class _Display(Bar):
    """The bar, and below it what is going on: a line of figures would leave the bar no room, or have none itself."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from (Text(task.description) for task in self.tasks if task.description)


@contextlib.contextmanager
def watching(stream: TextIO, clock: Clock) -> Iterator[Callable[[Progress], None]]:
    """What shows the progress of a run on `stream`, as long as the block lasts."""
    if not stream.isatty():
        yield _plain(stream, clock)
        return
    columns = (
        TextColumn("{task.fields[place]}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with _Display(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("", total=1, place="", left="")

        def show(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.cells,
                completed=progress.cell - 1,
                place=f"{progress.stage} {progress.cell}/{progress.cells}",
                description=f"{progress.label}: {progress.message}",
                left=f"about {length(progress.left_s)} left",
            )

        yield show


def length(seconds: float) -> str:
    """A length of time as a person would say it: `45 s`, `3 min`, `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plain(stream: TextIO, clock: Clock) -> Callable[[Progress], None]:
    last_s = -_QUIET_S

    def show(progress: Progress) -> None:
        nonlocal last_s
        now_s = clock.monotonic_s()
        if progress.message.partition(":")[0] not in ("begun", "done", "failed") and now_s - last_s < _QUIET_S:
            return
        last_s = now_s
        place = f"[{progress.cell}/{progress.cells}] {progress.stage} {progress.label}"
        stream.write(f"{place}: {progress.message} (about {length(progress.left_s)} left)\n")
        stream.flush()

    return show
