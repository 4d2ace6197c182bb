"""The metagraph of one subnet, fetched on a timer and good for a while.

Rules. A snapshot is taken at a finalized block, so that no reorganisation takes a permit back; on a chain
that finalizes nothing, at the head. It ages from the moment its block was new: a node that answers for ever
with the same block grows as old as one that is silent. Past `stale_after` it is not served to anybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from ..errors import ChainError, StaleChainError, UsageError
from . import convert
from .connection import Connection
from .types import Metagraph

FINALITY_LAG = 64  # blocks; a chain that lags further behind is taken to finalize nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A metagraph, when it was fetched, and when its block was new (seconds of the clock)."""

    metagraph: Metagraph
    fetched_at: float
    advanced_at: float


class Snapshots:
    """The newest metagraph of the subnet that `connection` is about.

    Args:
        stale_after: seconds for which a snapshot may be acted on.
        clock: seconds, monotonic.
    """

    def __init__(self, connection: Connection, *, stale_after: float, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._netuid = connection.settings.netuid
        self._label = connection.settings.label
        self._stale_after = stale_after
        self._clock = clock
        self._last: _Snapshot | None = None
        self._refreshing = asyncio.Lock()

    async def get(self, max_age: float) -> Metagraph:
        """A snapshot fetched at most `max_age` seconds ago or, while the chain is away, the last one.

        Raises:
            StaleChainError: the last one may not be acted on any more, or there is none.
            UsageError: there is no such subnet.
        """
        if (fresh := self._younger_than(max_age)) is not None:
            return fresh
        async with self._refreshing:
            if (fresh := self._younger_than(max_age)) is not None:
                return fresh
            try:
                await self._fetch()
                return self.now()
            except StaleChainError:
                raise
            except ChainError as error:
                try:
                    return self.now()
                except StaleChainError as stale:
                    raise StaleChainError(
                        f"{stale.message}: {error.message}", remedy=error.remedy or stale.remedy
                    ) from error

    def now(self) -> Metagraph:
        """The last snapshot, without asking the chain.

        Raises:
            StaleChainError: there is none, or none that may be acted on.
        """
        if self._last is None:
            raise StaleChainError("the metagraph has not been read yet")
        age = self._clock() - self._last.advanced_at
        if age > self._stale_after:
            raise StaleChainError(
                f"the metagraph is {age:.0f} s old, {self._stale_after:.0f} s are allowed",
                remedy=f"Wait until chain {self._label} answers and makes blocks",
            )
        return self._last.metagraph

    async def with_hotkey(self, hotkey: str) -> Metagraph:
        """A snapshot taken now; at the head if the hotkey is not in the finalized one, being new perhaps.

        Raises:
            ChainError: the chain is away.
            UsageError: there is no such subnet.
        """
        async with self._refreshing:
            graph = await self._fetch()
            return graph if graph.by_hotkey(hotkey) else await self._fetch(at_head=True)

    async def keep_fresh(self, interval: float) -> None:
        """Fetches a snapshot every `interval` seconds until cancelled, through any outage."""
        while True:
            try:
                await self.get(interval / 2)
            except ChainError as error:
                log.debug("no fresh metagraph error=%r", error.message)
            await anyio.sleep(interval)

    def _younger_than(self, max_age: float) -> Metagraph | None:
        """The last snapshot, if it need not be fetched again."""
        last, now = self._last, self._clock()
        if last is None or now - last.fetched_at > max_age or now - last.advanced_at > self._stale_after:
            return None
        return last.metagraph

    async def _fetch(self, *, at_head: bool = False) -> Metagraph:
        height = await self._connection.head()
        if not at_head:
            finalized = await self._connection.finalized()
            if height - finalized <= FINALITY_LAG:
                # Not below a snapshot that was taken at the head: a neuron must not vanish from it again.
                seen = self._last.metagraph.block.number if self._last else 0
                height = min(height, max(finalized, seen))
        block = await self._connection.block(height)
        graph = await self._connection.read(
            "the metagraph",
            lambda client: client.subnets.metagraph(self._netuid, block=height, commitments=False),
        )
        if graph is None:
            message = f"there is no subnet {self._netuid} on {self._label}"
            if self._last is not None:
                raise ChainError(message)
            raise UsageError(message, remedy="Name another one with --netuid")
        now = self._clock()
        stood_still = self._last is not None and height <= self._last.metagraph.block.number
        advanced_at = self._last.advanced_at if self._last is not None and stood_still else now
        self._last = _Snapshot(convert.metagraph(graph, block), now, advanced_at)
        return self._last.metagraph
