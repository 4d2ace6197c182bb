"""Telling miners which shards are to go, or to come back; and ending what has come to its end.

A miner that cannot be told is told later, at intervals that double up to a day, until its ticket expires. One
that says it has not the shard of a ticket that it gave no receipt for is told again too: whoever has the
ticket could still bring it the shard.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby

from ..chain.types import Metagraph, Neuron
from ..transport.dendrite import PeerError, Refused
from ..transport.file_calls import MinerCalls
from .rows import Errand
from .store import FileStore

log = logging.getLogger(__name__)

SWEEP_SECONDS = 15.0
END_SECONDS = 60.0
_DEADLINE = 10.0
_AT_ONCE = 8
_BATCH = 1000
#: A miner that failed so often in one go is left until later.
_FAILURES = 3


class Sweep:
    """Runs errands to miners.

    Args:
        metagraph: the newest, without I/O; raises StaleChainError when it is too old.
        clock: seconds since 1970.
        believed: whether things may end by that clock now.
    """

    def __init__(
        self,
        store: FileStore,
        calls: MinerCalls,
        metagraph: Callable[[], Metagraph],
        *,
        clock: Callable[[], float] = time.time,
        believed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._calls = calls
        self._metagraph = metagraph
        self._clock = clock
        self._believed = believed

    async def run(self) -> float:
        """Run what is due; the seconds until the next time.

        Raises:
            StaleChainError: nobody knows where miners are. StorageError: the database is away.
        """
        turns = asyncio.Semaphore(_AT_ONCE)
        now = int(self._clock())
        removals = await asyncio.to_thread(self._store.removals, now, _BATCH)
        restores = await asyncio.to_thread(self._store.restores, now, _BATCH)
        await asyncio.gather(
            *(self._tell(hotkey, some, turns, self._remove) for hotkey, some in _by_miner(removals)),
            *(self._tell(hotkey, some, turns, self._restore) for hotkey, some in _by_miner(restores)),
        )
        return 0.0 if max(len(removals), len(restores)) >= _BATCH else SWEEP_SECONDS

    async def end(self) -> float:
        """End what has come to its end; the seconds until the next time.

        Raises:
            StorageError: the database is away.
        """
        if not self._believed():
            return END_SECONDS
        ended = await asyncio.to_thread(self._store.expire, int(self._clock()))
        if ended:
            log.info("files ended count=%d", ended)
        return END_SECONDS

    async def _tell(
        self,
        hotkey: str,
        errands: Sequence[Errand],
        turns: asyncio.Semaphore,
        how: Callable[[Neuron, Errand], Awaitable[bool]],
    ) -> None:
        async with turns:
            neuron = self._metagraph().by_hotkey(hotkey)
            vain: list[bytes] = []
            failures = 0
            for errand in errands:
                if neuron is None or neuron.endpoint is None or failures >= _FAILURES:
                    vain.append(errand.ticket)
                    continue
                try:
                    told = await how(neuron, errand)
                except PeerError as error:
                    log.debug("not told hotkey=%s error=%r", hotkey, str(error))
                    told = False
                    failures += 1
                if not told:
                    vain.append(errand.ticket)
            if vain:
                await asyncio.to_thread(self._store.told_in_vain, vain, int(self._clock()))

    async def _remove(self, neuron: Neuron, errand: Errand) -> bool:
        try:
            await self._calls.remove(neuron, errand.ticket, deadline=_DEADLINE)
        except Refused as error:
            if error.status not in (404, 409):
                raise
            if error.status == 404 and errand.stored_ms is None:
                return False
        await asyncio.to_thread(self._store.removed, errand.ticket, int(self._clock()))
        return True

    async def _restore(self, neuron: Neuron, errand: Errand) -> bool:
        try:
            await self._calls.restore(neuron, errand.ticket, deadline=_DEADLINE)
        except Refused as error:
            if error.status not in (404, 409):
                raise
            reason = f"not restored: {error.message}"
            await asyncio.to_thread(self._store.mark_lost, errand.ticket, reason)
        else:
            await asyncio.to_thread(self._store.restored, errand.ticket)
        return True


def _by_miner(errands: Sequence[Errand]) -> list[tuple[str, list[Errand]]]:
    ordered = sorted(errands, key=lambda errand: errand.hotkey)
    return [(hotkey, list(some)) for hotkey, some in groupby(ordered, key=lambda errand: errand.hotkey)]
