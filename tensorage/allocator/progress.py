"""How work is shown: bars at a terminal, a plain line now and then elsewhere.

A bar for all of it and one for each worker, with bytes, MB/s and the time that is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import (
    Progress as Bars,
)

from .sealing import Progress

LINE_SECONDS = 10.0


class Tally:
    """Adds up what workers report: `done` of `total` bytes, and finished sectors.

    What a worker had done of a sector that it did not finish counts no more once somebody else has begun it,
    and a sector that is reported as done twice counts once.
    """

    def __init__(self, sectors: int, sector_size: int) -> None:
        self.sectors = sectors
        self.total = sectors * sector_size
        self._size = sector_size
        self._partial: dict[int, int] = {}
        self._whole: set[int] = set()

    @property
    def finished(self) -> int:
        return len(self._whole)

    @property
    def done(self) -> int:
        return self.finished * self._size + sum(self._partial.values())

    def add(self, progress: Progress) -> None:
        """Count a report."""
        if progress.done >= self._size:
            self._whole.add(progress.job.index)
            self._partial.pop(progress.job.index, None)
        elif progress.job.index not in self._whole:
            self._partial[progress.job.index] = progress.done


class Display:
    """Shows one run of workers; `observe` takes their reports. A context manager.

    Args:
        verb: what is done, as `sealing`.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        verb: str,
        sectors: int,
        sector_size: int,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verb = verb
        self._size = sector_size
        self._console = console
        self._clock = clock
        self._tally = Tally(sectors, sector_size)
        self._began = self._told = clock()
        self._bars: Bars | None = None
        self._tasks: dict[int, TaskID] = {}
        self._sectors: dict[int, int] = {}  # worker -> sector that its bar is about
        if console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._all = self._bars.add_task(verb, total=self._tally.total)

    def __enter__(self) -> Display:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        elif self._tally.finished:
            self._line()

    def observe(self, progress: Progress) -> None:
        """Show a worker's report."""
        self._tally.add(progress)
        if self._bars is None:
            if self._clock() - self._told >= LINE_SECONDS:
                self._told = self._clock()
                self._line()
            return
        task = self._tasks.get(progress.worker)
        label = f"  worker {progress.worker + 1}: sector {progress.job.index}"
        if task is None:
            task = self._tasks[progress.worker] = self._bars.add_task(label, total=self._size)
        elif self._sectors[progress.worker] != progress.job.index:
            self._bars.reset(task)  # speed and time left are of one sector
        self._sectors[progress.worker] = progress.job.index
        self._bars.update(task, description=label, completed=progress.done)
        self._bars.update(self._all, completed=self._tally.done)

    def _line(self) -> None:
        tally = self._tally
        seconds = max(self._clock() - self._began, 1e-9)
        speed = tally.done / seconds
        left = (tally.total - tally.done) / speed if speed else 0.0
        self._console.print(
            f"{self._verb}: {tally.finished} of {tally.sectors} sectors, {tally.done / 2**20:.0f} of "
            f"{tally.total / 2**20:.0f} MiB, {speed / 1e6:.0f} MB/s, {left:.0f} s left",
            highlight=False,
            soft_wrap=True,
        )
