"""The gateway of a validator, put together: database, directory of miners, routes, errands, care of files.

    gateway = await Gateway.open(book, hotkey, metagraph=chain.metagraph_now, ...)
    gateway.attach(axon)
    await until(stop, {**duties, **gateway.duties()})
    await gateway.close()

It has a dendrite of its own, so that nothing that it asks takes a challenge's turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

from ..chain.auth import verify
from ..chain.types import BlockRef, Metagraph
from ..chain.wallet import Hotkey
from ..service.clock import EvenClock
from ..service.duty import repeat
from ..service.quiet import Quiet
from ..transport.axon import Axon
from ..transport.dendrite import Dendrite
from ..transport.file_calls import MinerCalls
from ..validator import scoring, standing
from ..validator.book import Book
from ..validator.parameters import Parameters
from .care import Care, CareSettings
from .caretaker import Caretaker
from .desk import Desk
from .directory import Directory, Standings
from .schema import FILES_NAME, Issuer
from .store import FileStore, Lookup
from .sweep import Sweep


class Gateway:
    """A gateway; `open` makes one.

    Attributes:
        store: everything that is kept.
        directory: miners with room.
        caretaker: audits, repairs and measures what is stored.
    """

    def __init__(
        self,
        store: FileStore,
        lookup: Lookup,
        dendrite: Dendrite,
        book: Book,
        hotkey: Hotkey,
        *,
        metagraph: Callable[[], Metagraph],
        parameters: Parameters,
        quiet: Quiet,
        worker: Executor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self._lookup = lookup
        self._dendrite = dendrite
        self._book = book
        self._errands = asyncio.Event()
        calls = MinerCalls(dendrite)
        self.directory = Directory(
            calls,
            hotkey.ss58,
            metagraph=metagraph,
            standings=self._standings,
            outstanding=lambda: asyncio.to_thread(store.outstanding),
        )
        self._desk = Desk(
            store, lookup, self.directory, hotkey.sign, verify, removed=self._errands.set, clock=clock
        )
        self._sweep = Sweep(store, calls, metagraph, clock=clock, believed=EvenClock("files", clock).is_even)
        self.caretaker = Caretaker(
            Care(
                store=store,
                dendrite=dendrite,
                public_key=hotkey.public_key,
                sign=hotkey.sign,
                verify=verify,
                metagraph=metagraph,
                market=self.directory,
                worker=worker,
                quiet=quiet,
                settings=CareSettings(round_seconds=parameters.round_seconds),
                clock=clock,
            ),
            allow_private=parameters.private,
        )

    @classmethod
    async def open(
        cls,
        book: Book,
        hotkey: Hotkey,
        *,
        metagraph: Callable[[], Metagraph],
        parameters: Parameters,
        quiet: Quiet,
        worker: Executor,
    ) -> Gateway:
        """The gateway whose database is beside the ledger of `book`.

        Args:
            hotkey: signs tickets and requests to miners.
            metagraph: the newest, without I/O; raises StaleChainError when it is too old.
            quiet: gone through by what may wait while challenges are timed.
            worker: where bytes are hashed, checked and coded.

        Raises:
            UsageError: the database cannot be opened, is damaged, or another validator's.
        """
        issuer = Issuer(book.identity.genesis, book.identity.netuid, book.identity.hotkey)
        path = book.ledger.path.parent / FILES_NAME
        store = await asyncio.to_thread(FileStore, path, issuer)
        lookup = await asyncio.to_thread(Lookup, path, issuer)
        dendrite = Dendrite(hotkey, allow_private=parameters.private)
        return cls(
            store,
            lookup,
            dendrite,
            book,
            hotkey,
            metagraph=metagraph,
            parameters=parameters,
            quiet=quiet,
            worker=worker,
        )

    def attach(self, axon: Axon) -> None:
        """Serve clients there."""
        self._desk.attach(axon)

    def duties(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs for ever, by name."""
        return {
            "asking miners for room": repeat("asking miners for room", self.directory.refresh),
            "errands to miners": repeat("errands to miners", self._sweep.run, again=self._errands),
            "ending files": repeat("ending files", self._sweep.end),
            **self.caretaker.duties(),
        }

    async def settle(self, block: BlockRef, now: int) -> None:
        """Bring what was found of miners into their standing; only between rounds.

        Args:
            block: of the last round, `now` its number.

        Raises:
            StorageError: a database cannot be read or written.
        """
        await self.caretaker.settle(self._book, block, now)

    async def close(self) -> None:
        """Finish what is being written, and close everything; after the axon."""
        await asyncio.to_thread(self._desk.close)
        await self._dendrite.aclose()
        await asyncio.to_thread(self._lookup.close)
        await asyncio.to_thread(self.store.close)

    async def _standings(self) -> Standings:
        book = self._book
        now = await book.run(book.ledger.last_round)
        miners = list(book.miners.values())
        return Standings(
            standing.scores(miners, now),
            frozenset(
                miner.hotkey for miner in miners if miner.failing or scoring.quarantined(miner.standing, now)
            ),
        )
