"""Worker processes for seal audits, or any `concurrent.futures.Executor` in their place (a Dask cluster).

Processes are spawned, not forked: a fork would copy the event loop and SQLite's connections. They are ended
when the service ends, in the middle of a seal if need be.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Collection
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from multiprocessing.process import BaseProcess

from ..displaced import Sealed
from ..errors import TensorageError
from .sealing import begin_worker, sealed_sector


class SealingError(TensorageError):
    """This machine could not seal a sector."""


class SealPool:
    """Seals sectors somewhere else. Close it when done.

    Args:
        workers: processes at most, each with the memory of one sector while it seals.
        executor: used instead of processes of our own, and not closed here.
    """

    def __init__(self, workers: int, executor: Executor | None = None) -> None:
        self.workers = workers
        self._given = executor
        self._own: ProcessPoolExecutor | None = None
        self._processes: set[BaseProcess] = set()

    async def sealed(
        self,
        genesis: bytes,
        netuid: int,
        miner: bytes,
        profile: int,
        sector: int,
        named: Collection[int] = (),
    ) -> tuple[Sealed, float]:
        """The chunks that a sector must have, and the seconds of a core that it took.

        Args:
            named: chunks that were displaced, of which the inner nodes are wanted too.

        Raises:
            SealingError: out of memory, or the worker was killed.
        """
        before = set(multiprocessing.active_children())
        executor = self._executor()
        try:
            future = executor.submit(sealed_sector, genesis, netuid, miner, profile, sector, frozenset(named))
            self._processes |= set(multiprocessing.active_children()) - before
            sealed, seconds = await asyncio.wrap_future(future)
        except (BrokenExecutor, MemoryError, OSError) as error:
            if isinstance(error, BrokenExecutor) and self._own is executor:
                self._own = None  # it never works again; the next audit starts another
            raise SealingError(
                f"a sector could not be sealed for an audit: {error or type(error).__name__}",
                remedy="Leave 1 GiB of memory free for each of --workers, or give fewer",
            ) from error
        return sealed, seconds

    def close(self) -> None:
        """End the processes; the pool may be used again and starts new ones then."""
        if self._own is not None:
            self._own.shutdown(wait=False, cancel_futures=True)
            self._own = None
        for process in self._processes:
            process.terminate()
        self._processes.clear()

    def _executor(self) -> Executor:
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = ProcessPoolExecutor(
                self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker
            )
        return self._own
