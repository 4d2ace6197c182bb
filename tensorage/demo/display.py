"""Showing the demo go on: a live table on a terminal, a line when something is new elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from .table import line, table
from .verdict import Judgement, Row


class Display:
    """Says what is going on. A context manager.

    Args:
        quiet: keep stdout free for a script; what is said goes to stderr then.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._out: TextIO = sys.stderr if quiet else sys.stdout
        self._console = Console(file=self._out)
        self._live: Live | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line, with the seconds since the start."""
        stamped = f"{time.monotonic() - self._began:5.1f} s  {text}"
        self._console.print(Text(stamped), soft_wrap=True)

    def show(self, rows: Sequence[Row], *, block: int, judgement: Judgement, epoch_ended: bool) -> None:
        """The table as it stands; off a terminal a line, once an epoch."""
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
            self._live.update(table(rows, block=block, judgement=judgement), refresh=True)
        elif epoch_ended:
            self.say(line(rows, block=block, judgement=judgement))

    def end(self, rows: Sequence[Row], *, block: int, judgement: Judgement) -> None:
        """The final table, for good, what the validators have against the cheats, and what all came to."""
        final = table(rows, block=block, judgement=judgement)
        if self._live is not None:
            self._live.update(final, refresh=True)
            self._live.stop()
            self._live = None
        else:
            Console(file=self._out, width=max(120, self._console.width)).print(final)
        for row in rows:
            for validator, reason in row.reasons.items():
                self.say(f"{validator} on {row.name}: {reason}")
        if judgement.ok:
            paid = [row.emission for row in rows if row.kind == "honest"]
            shares = " : ".join(f"{emission / min(paid):.2f}" for emission in paid)
            self.say(f"emission of the honest miners: {shares}; of the cheats: nothing")
