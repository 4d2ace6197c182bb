"""Keeping clients' shards in order: what expires, what is given back, what is forgotten.

Every few seconds, after each commitment, and as soon as a shard turns out damaged. Steps are short and each
is one transaction or one hole; sealing filler into a hole again is the filler's work (`fill`), which pauses
for challenges.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from ..allocator.shards import ShardStore
from ..service.clock import EvenClock
from ..service.duty import repeat
from .fill import Filler
from .metrics import ShardMetrics

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds
PRUNE_SECONDS = 600


class Slots:
    """That duty of one miner. For one event loop."""

    def __init__(self, shards: ShardStore, filler: Filler, metrics: ShardMetrics) -> None:
        self._shards = shards
        self._filler = filler
        self._metrics = metrics
        self._again = asyncio.Event()
        self._clock = EvenClock("shards")
        self._pruned = 0
        self._said_leaving = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slots")

    def see_to(self) -> None:
        """Do it now. On the event loop."""
        self._again.set()

    async def run(self) -> None:
        """Do it for ever."""
        await repeat("keeping clients' shards", self._step, again=self._again)

    async def _step(self) -> float:
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._thread, self._work, int(time.time())):
            self._filler.wake()
        return EVERY

    def _work(self, now: int) -> bool:
        """One step; whether there is filler to be sealed again."""
        if self._clock.is_even():
            self._expire(now)
        self._filler.settle()
        live, leaving = self._shards.live(), self._shards.leaving()
        self._metrics.kept(live)
        if leaving is not self._said_leaving:
            self._said_leaving = leaving
            log.info("leaving=%s shards=%d", leaving, live)
        return self._filler.has_holes()

    def _expire(self, now: int) -> None:
        moved, ended = self._shards.expire(now)
        if moved or ended:
            log.info("shards expired to_trash=%d ended=%d", moved, ended)
        if now >= self._pruned + PRUNE_SECONDS:
            self._shards.prune(now)
            self._pruned = now

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)
