"""Blocks of a stripe from whichever miners have them.

The data shards are asked for directly. Where one does not come, comes wrong, or takes much longer than others
do, as many more shards are asked for as it takes to decode from any K; whatever comes first is used. Each
piece is checked against the root in its ticket, so that a wrong one is known, by shard and miner, and told to
the gateway. A miner that failed is asked last for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from .. import seal
from ..chain.address import ss58
from ..coding.layout import Stripe
from ..coding.manifest import ShardAt
from ..errors import ProofError, TensorageError
from ..transport.dendrite import PeerError, Refused
from ..transport.file_calls import MinerCalls
from .coder import Coder
from .gateway import DEADLINE, Gateway, GatewayError
from .places import Places, peer_of

log = logging.getLogger(__name__)

#: Seconds for one piece, and the least after which another shard is asked for beside it.
LONGEST = 120.0
LEAST = 1.0
#: How many times longer than usual a piece may take before that.
TIMES = 4.0
#: Seconds per MiB that are usual as long as nothing has come.
_USUAL = 2.0
#: Seconds for which a miner that failed is asked last.
ILL = 30.0
#: Seconds to wait before everything is tried once more, in turn.
_PAUSES = (0.5, 1.0, 2.0, 4.0)


class UnavailableError(TensorageError):
    """Fewer shards of a stripe than it takes are to be had now."""


class Fetcher:
    """Fetches from the miners of one file.

    Args:
        gateway: told of wrong shards, with the file's access key; None where nobody is to be told.
    """

    def __init__(self, places: Places, miners: MinerCalls, coder: Coder, gateway: Gateway | None) -> None:
        self.places = places
        self._miners = miners
        self._coder = coder
        self._gateway = gateway
        self._ill: dict[str, float] = {}
        self._pace = _USUAL / (1 << 20)  # seconds a byte, lately
        self._wrong: set[bytes] = set()  # ticket hashes
        self._reports: set[asyncio.Task[None]] = set()
        self.wrong: list[tuple[int, int, str, str]] = []  # stripe, shard, hotkey, reason

    async def blocks(
        self, stripe: Stripe, wanted: Sequence[int], first: int, count: int
    ) -> dict[int, memoryview]:
        """`count` leaves from `first` on of each of the data shards `wanted`, without their layers.

        Raises:
            UnavailableError: too few shards are to be had.
        """
        manifest = self.places.manifest
        for pause in (*_PAUSES, None):
            race = _Race(self, stripe, wanted, first, count)
            try:
                got = await race.run()
            except UnavailableError:
                if pause is None:
                    raise
                await self._ask_gateway(stripe.number)
                await asyncio.sleep(pause)
                continue
            if set(wanted) <= set(got):
                return {number: got[number] for number in wanted}
            return await self._coder.decode(manifest.data_shards, manifest.shards, got, wanted)
        raise AssertionError("the last attempt returns or raises")

    async def _ask_gateway(self, stripe: int) -> None:
        try:
            await self.places.refresh(stripe)
        except GatewayError as error:
            log.debug("places are not known better stripe=%d reason=%r", stripe, str(error))

    def candidates(self, stripe: int) -> dict[int, ShardAt]:
        """Shards that may be asked for, the likeliest first: all but those that were wrong."""
        now = time.monotonic()
        found = [
            (max(0.0, self._ill.get(shard.hotkey, 0.0) - now), number, shard)
            for number, shard in self.places.of(stripe).items()
            if shard.signed.ticket.hash not in self._wrong
        ]
        return {number: shard for _, number, shard in sorted(found, key=lambda entry: entry[:2])}

    def is_ill(self, shard: ShardAt) -> bool:
        """Whether its miner failed lately."""
        return self._ill.get(shard.hotkey, 0.0) > time.monotonic()

    def patience(self, size: int) -> float:
        """Seconds after which a piece of `size` bytes is late."""
        return max(LEAST, TIMES * self._pace * size)

    async def piece(self, stripe: Stripe, shard: ShardAt, first: int, count: int) -> memoryview:
        """One block from one miner.

        Raises:
            PeerError: it does not give it.
            ProofError: it is wrong.
        """
        ticket = shard.signed.ticket
        began = time.monotonic()
        try:
            answer = await self._answer(shard, first, count)
            block = await self._coder.open(
                ticket.shard_root,
                ticket.leaves,
                first,
                count,
                answer,
                (stripe.number, shard.number, ticket.miner),
            )
        except ProofError as error:
            self._wrong.add(ticket.hash)
            self.wrong.append((stripe.number, shard.number, ss58(ticket.miner), error.message))
            self._failed(stripe, shard, f"wrong bytes: {error}")
            raise
        except PeerError as error:
            self._failed(stripe, shard, str(error))
            raise
        self._ill.pop(shard.hotkey, None)
        self._pace += ((time.monotonic() - began) / len(block) - self._pace) / 8
        return block

    async def _answer(self, shard: ShardAt, first: int, count: int) -> bytes:
        pause = 0.1
        while True:
            try:
                return await self._miners.piece(peer_of(shard), shard.signed, first, count, deadline=LONGEST)
            except Refused as error:
                if error.kind != "rate_limited" or pause > 2.0:
                    raise
            await asyncio.sleep(pause)
            pause *= 2

    def slow(self, shard: ShardAt) -> None:
        """Note that a miner keeps us waiting."""
        self._ill[shard.hotkey] = time.monotonic() + ILL

    def _failed(self, stripe: Stripe, shard: ShardAt, reason: str) -> None:
        self._ill[shard.hotkey] = time.monotonic() + ILL
        task = asyncio.create_task(self._report(stripe.number, shard, reason))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _report(self, stripe: int, shard: ShardAt, reason: str) -> None:
        await self._ask_gateway(stripe)
        if self._gateway is None or len(self._reports) > 64:
            return
        calls, peer = self._gateway.calls, self._gateway.peer
        id, ticket = self.places.manifest.id, shard.signed.ticket.hash
        try:
            await self._gateway.ask(
                lambda: calls.report(peer, id, ticket, reason, deadline=DEADLINE), patience=0.0
            )
        except GatewayError as error:
            log.debug("not reported ticket=%s reason=%r", ticket.hex(), str(error))

    async def finish(self) -> None:
        """Give reports a moment to be sent."""
        if self._reports:
            await asyncio.wait(self._reports, timeout=3.0)
        for task in self._reports:
            task.cancel()
        await asyncio.gather(*self._reports, return_exceptions=True)


class _Race:
    """One attempt at the same columns of some shards of a stripe."""

    def __init__(
        self, fetcher: Fetcher, stripe: Stripe, wanted: Sequence[int], first: int, count: int
    ) -> None:
        self._fetcher = fetcher
        self._stripe = stripe
        self._wanted = wanted
        self._range = (first, count)
        self._k = stripe.data_shards
        self._open = fetcher.candidates(stripe.number)
        self._got: dict[int, memoryview] = {}
        self._running: dict[asyncio.Task[memoryview], ShardAt] = {}
        self._late: set[int] = set()
        self._why: list[str] = []

    async def run(self) -> dict[int, memoryview]:
        """The wanted blocks, or any K.

        Raises:
            UnavailableError: neither is to be had.
        """
        late_at = time.monotonic() + self._fetcher.patience(self._range[1] * seal.LEAF_SIZE)
        for number in self._wanted:
            if number in self._open and not self._fetcher.is_ill(self._open[number]):
                self._start(number)
        try:
            while not self._done():
                self._start_more()
                if not self._running:
                    raise self._unavailable()
                waiting = any(shard.number not in self._late for shard in self._running.values())
                done, _ = await asyncio.wait(
                    self._running,
                    timeout=max(0.0, late_at - time.monotonic()) if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    self._end(task)
                if not done:
                    for shard in self._running.values():
                        self._late.add(shard.number)
                        self._fetcher.slow(shard)
                    late_at = time.monotonic() + self._fetcher.patience(self._range[1] * seal.LEAF_SIZE)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
        return self._got

    def _done(self) -> bool:
        return len(self._got) >= self._k or all(number in self._got for number in self._wanted)

    def _start(self, number: int) -> None:
        shard = self._open.pop(number)
        self._running[asyncio.create_task(self._fetcher.piece(self._stripe, shard, *self._range))] = shard

    def _start_more(self) -> None:
        """Have as many shards under way as it takes: all that are wanted, or any K."""
        hopeful = {shard.number for shard in self._running.values()} - self._late
        if all(number in self._got or number in hopeful for number in self._wanted):
            return
        missing = self._k - len(self._got) - len(hopeful)
        for number in list(self._open)[: max(0, missing)]:
            self._start(number)

    def _end(self, task: asyncio.Task[memoryview]) -> None:
        shard = self._running.pop(task)
        try:
            self._got[shard.number] = task.result()
        except (PeerError, ProofError) as error:
            self._why.append(f"shard {shard.number} at {shard.hotkey[:8]}...: {error.message}")

    def _unavailable(self) -> UnavailableError:
        why = f" ({'; '.join(self._why[-3:])})" if self._why else ""
        return UnavailableError(
            f"only {len(self._got)} shards of stripe {self._stripe.number} are to be had now, "
            f"{self._k} are needed{why}",
            remedy="Try again later: what is missing may come back, or be repaired",
        )
