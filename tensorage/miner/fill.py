"""Sealing what is missing in the background, and giving way to challenges.

Every `--seconds_per_reallocate`, and as soon as a sector turns out damaged: recover, plan, seal, with the
allocator's own steps and under its lock, so that an `allocate` beside it does no harm. While a challenge is
answered the workers stand still. A damaged sector does not wait for the end of a long fill: the workers leave
what they have begun, and start again with what was damaged.

Filler that clients' shards have given back is sealed into its place first, and at least once an hour: a
sector with a slot whose ticket is long over earns nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..allocator import slots
from ..allocator.errors import BusyError
from ..allocator.layout import Identity
from ..allocator.partition import quotas
from ..allocator.plan import Headroom, Target
from ..allocator.sealing import Control
from ..allocator.store import Store
from ..allocator.upkeep import DataDirectory
from ..chain.types import Metagraph
from ..service.duty import repeat

log = logging.getLogger(__name__)

#: Seconds that a fill goes on while there is filler to give back.
GIVE_BACK_SECONDS = 3600.0


class Filler:
    """Keeps one data directory filled. Open it with `open`, which blocks on the disk.

    Args:
        target, headroom: how much to keep, and how much to leave free.
        workers: processes at most; None for the processor's threads.
        every: seconds between plans.
    """

    def __init__(
        self, data: DataDirectory, *, target: Target, headroom: Headroom, workers: int | None, every: float
    ) -> None:
        self._data = data
        self._target = target
        self._headroom = headroom
        self._workers = workers
        self._every = every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="filling")
        self._again = asyncio.Event()
        # Guards what pausing, damage and closing change while the thread fills.
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._paused = False
        self._in_hand: frozenset[int] = frozenset()  # sectors that are sealed next, or were to be
        self._closed = False
        self._began = 0.0
        #: Held while the plan is being changed: who looks at what is planned takes it too.
        self.planning = threading.Lock()

    @classmethod
    def open(
        cls,
        roots: Sequence[Path],
        identity: Identity,
        *,
        target: Target,
        headroom: Headroom,
        workers: int | None,
        every: float,
    ) -> Filler:
        """Open the data directory and plan once; a fill by another process is left alone.

        Raises:
            UsageError: the directory or the database cannot be used, or there is no room for one sector.
        """
        data = DataDirectory(roots, identity)
        filler = cls(data, target=target, headroom=headroom, workers=workers, every=every)
        try:
            with data.filling():
                filler._plan()
        except BusyError as error:
            log.info("another process fills, and is left to it reason=%r", error.message)
        except BaseException:
            data.close()
            raise
        return filler

    @property
    def store(self) -> Store:
        """The database of the directory."""
        return self._data.store

    async def run(self) -> None:
        """Fill for ever."""
        await repeat("filling", self._step, again=self._again)

    def pause(self) -> None:
        """Take the processor from the workers at once."""
        with self._lock:
            if not self._paused:
                self._paused = True
                if self._control is not None:
                    self._control.pause()

    def resume(self) -> None:
        """Let the workers go on."""
        with self._lock:
            if self._paused:
                self._paused = False
                if self._control is not None:
                    self._control.resume()

    def see_to(self, index: int) -> bool:
        """See to a sector that was found damaged; False when that is being done. On the event loop."""
        with self._lock:
            if index in self._in_hand:
                return False
            self._in_hand |= {index}
            if self._control is not None:
                self._control.stop()
        self._again.set()
        return True

    def wake(self) -> None:
        """Plan and fill now, since filler has been given back. On the event loop."""
        with self._lock:
            if self._control is not None and time.monotonic() - self._began > GIVE_BACK_SECONDS:
                self._control.stop()
        self._again.set()

    def settle(self) -> None:
        """Give space back that no commitment needs. Blocks on the disk, for a moment.

        Raises:
            StorageError: a file or the database cannot be used.
        """
        self._data.settle()

    def has_holes(self) -> bool:
        """Whether filler has been given back and is not sealed again. Blocks on the disk."""
        return bool(self.store.read(slots.to_fill))

    def partition(self, metagraph: Metagraph) -> None:
        """Share the sealed chunks out among the validators by stake. Blocks on the disk.

        Raises:
            StorageError: the database cannot be written.
        """
        stakes = {neuron.hotkey: neuron.total_stake for neuron in metagraph.validators}
        chunks = self.store.counts().sealed * self.store.identity.sectors.chunks
        shares = quotas(stakes, chunks)
        if shares != self.store.partition():
            self.store.set_partition(shares)
            log.info("space shared out validators=%d chunks=%d", len(shares), chunks)

    def stop(self) -> None:
        """End the workers, for good."""
        with self._lock:
            self._closed = True
            if self._control is not None:
                self._control.stop()

    async def close(self) -> None:
        """End the workers, wait for the thread, close the database."""
        self.stop()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
        self._data.close()

    async def _step(self) -> float:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._fill)
        return self._every

    def _fill(self) -> None:
        """Plan and seal until nothing is missing, or it is time to end."""
        while True:
            control = self._begin()
            if control is None:
                return
            try:
                with self._data.filling():
                    self._plan()
                    missing = frozenset(sector.index for sector in self._data.unsealed())
                    with self._lock:
                        self._in_hand |= missing
                    if missing:
                        log.info("filling sectors=%d", len(missing))
                    whole = self._data.give_back(self._workers, control)
                    whole = whole and self._data.fill(self._workers, control)
                    if missing and whole:
                        counts = self.store.counts()
                        log.info("filled sectors=%d", counts.sealed)
            finally:
                with self._lock:
                    self._control = None
            if whole:
                with self._lock:
                    self._in_hand = frozenset()
                return

    def _begin(self) -> Control | None:
        """A control for one run of the workers; None when it is time to end."""
        with self._lock:
            if self._closed:
                return None
            self._control = Control()
            self._began = time.monotonic()
            if self._paused:
                self._control.pause()
            return self._control

    def _plan(self) -> None:
        with self.planning:
            found = self._data.recover()
            for sector in found.lost:
                log.warning(
                    "sector file is gone, and is made anew sector=%d file=%s", sector.index, sector.path
                )
            for shard in found.shards:
                log.warning("shard damaged ticket=%s why=%r", shard.ticket.hex(), shard.why)
            plan = self._data.plan(self._target, self._headroom)
            self._data.apply(plan)
            # A share of the space follows what others write; only the operator, at a start, asks for less.
            self._target = replace(self._target, only_grow=True)
        if plan.remove:
            log.info("dropped sectors=%d", len(plan.remove))
