"""Quiet while challenges are timed: other work of the same process stands aside.

Whoever times others takes `timed`; it begins when what runs beside has come to an end, or after `PATIENCE`.
Whoever works beside takes `aside` for each step, which should be short; none begins while others are timed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

#: Seconds that `timed` waits for steps that are under way. A peer may draw one out; nobody waits for that.
PATIENCE = 2.0


class Quiet:
    """One for a process, between its event loop's tasks."""

    def __init__(self) -> None:
        self._timed = 0
        self._steps = 0
        self._open = asyncio.Event()
        self._open.set()
        self._still = asyncio.Event()
        self._still.set()

    @asynccontextmanager
    async def timed(self) -> AsyncIterator[None]:
        """Nothing new begins beside until the block ends."""
        self._timed += 1
        self._open.clear()
        try:
            with anyio.move_on_after(PATIENCE):
                await self._still.wait()
            yield
        finally:
            self._timed -= 1
            if not self._timed:
                self._open.set()

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """One step of work, once nobody is timed."""
        while not self._open.is_set():
            await self._open.wait()
        self._steps += 1
        self._still.clear()
        try:
            yield
        finally:
            self._steps -= 1
            if not self._steps:
                self._still.set()
