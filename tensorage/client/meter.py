"""How a transfer is shown: a bar at a terminal, and nothing elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Meter:
    """Shows how far one file is. A context manager.

    Args:
        verb: what is done, as `putting photos`.
        total: bytes in all; None when nobody knows.
        quiet: show nothing.
        counted: what is done are things, not bytes.
    """

    def __init__(
        self, verb: str, total: int | None, console: Console, *, quiet: bool = False, counted: bool = False
    ) -> None:
        amounts = (
            (MofNCompleteColumn(),) if counted else (DownloadColumn(binary_units=True), TransferSpeedColumn())
        )
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *amounts,
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bars.add_task(verb, total=total)
        self.done = 0.0

    def __enter__(self) -> Meter:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def add(self, size: float) -> None:
        """So many bytes more are done."""
        self.done += size
        self._bars.update(self._task, advance=size)
