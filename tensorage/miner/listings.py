"""What a miner says about clients' shards as a whole: room, slots, how sectors changed, retrievals.

Room and slots are there for everyone who is registered, so that anybody can check a miner. A validator gets
the retrievals of its own tickets only: who reads how much is between a client and its gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..allocator.shards import ShardStore
from ..errors import RequestError
from ..transport.axon import Access, Axon, Call
from ..transport.file_messages import (
    RETRIEVALS_PAGE,
    SLOTS_PAGE,
    ChangedChunk,
    RetrievalMessage,
    RetrievalsPage,
    SlotMessage,
    SlotsPage,
    StorageMessage,
    Transition,
)

_MOST = (1 << 63) - 1

T = TypeVar("T")


class Listings:
    """Those routes of one miner.

    Args:
        shards: used from one thread of its own.
    """

    def __init__(self, shards: ShardStore) -> None:
        self._shards = shards
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard-listings")

    def attach(self, axon: Axon) -> None:
        """Serve them on `axon`."""
        registered, validator = Access.REGISTERED, Access.VALIDATOR
        axon.route("GET", "/v1/storage", self._storage, access=registered)
        axon.route("GET", "/v1/slots", self._slots, access=registered)
        axon.route("GET", "/v1/sectors/{index}/transition", self._transition, access=registered)
        axon.route("GET", "/v1/retrievals", self._retrievals, access=validator)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _storage(self, call: Call) -> StorageMessage:
        caller, shards = call.neuron.public_key, self._shards

        def read() -> StorageMessage:
            return StorageMessage(
                leaving=shards.leaving(),
                quota=shards.quota(caller),
                used=shards.used(caller),
                free_bytes=shards.free_bytes(),
            )

        return await self._in_thread(read)

    async def _slots(self, call: Call) -> SlotsPage:
        start = call.number("from", 0, high=_MOST - SLOTS_PAGE)
        limit = call.number("limit", SLOTS_PAGE, low=1, high=SLOTS_PAGE)

        def read() -> SlotsPage:
            rows = self._shards.slots(start=start, limit=limit + 1)
            slots = [SlotMessage(sector=sector, chunk=chunk, ticket=ticket) for sector, chunk, ticket in rows]
            return SlotsPage(slots=slots[:limit], next=_next(rows, start, limit))

        return await self._in_thread(read)

    async def _transition(self, call: Call) -> Transition:
        index = call.number("index", high=_MOST)
        before = call.number("before", low=1, high=_MOST)
        found = await self._in_thread(lambda: self._shards.transition(index, before))
        if found is None:
            raise RequestError("unknown", f"it is not known how sector {index} was under commitment {before}")
        return Transition(
            before=found.before,
            after=found.after,
            changed=[
                ChangedChunk(chunk=change.chunk, node=change.node, siblings=list(change.siblings))
                for change in found.changed
            ],
        )

    async def _retrievals(self, call: Call) -> RetrievalsPage:
        caller = call.neuron.public_key
        start = call.number("from", 0, high=_MOST)
        limit = call.number("limit", RETRIEVALS_PAGE, low=1, high=RETRIEVALS_PAGE)

        def read() -> RetrievalsPage:
            rows = self._shards.retrievals(caller, start, limit + 1)
            return RetrievalsPage(
                retrievals=[RetrievalMessage.of(number, record) for number, record in rows[:limit]],
                next=rows[limit][0] if len(rows) > limit else None,
            )

        return await self._in_thread(read)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _next(rows: Sequence[object], start: int, limit: int) -> int | None:
    """The number of the first entry of the next page, where there is one."""
    return start + limit if len(rows) > limit else None
