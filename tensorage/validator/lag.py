"""How long the validator itself stood still: what must not be billed to a miner.

The event loop is asked to wake up every 50 ms; what it comes late by is counted. A machine that is
overloaded, suspended or swapping shows here at once.
"""

from __future__ import annotations

import asyncio

INTERVAL = 0.05  # seconds
_TOLERANCE = 0.02


class LagMeter:
    """Counts the seconds by which the event loop was late. `run` is a task of its own."""

    def __init__(self) -> None:
        self._total = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(INTERVAL)
            late = loop.time() - before - INTERVAL
            if late > _TOLERANCE:
                self._total += late

    def mark(self) -> float:
        """A point in time, for `since`."""
        return self._total

    async def since(self, mark: float) -> float:
        """Seconds stood still since a mark; lets the meter catch up first."""
        await asyncio.sleep(2 * INTERVAL)
        return self._total - mark
