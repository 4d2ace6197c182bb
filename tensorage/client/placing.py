"""One stripe onto miners: places, roots, tickets, uploads, receipts, until it is whole.

A miner that fails is not asked for this stripe again, and its shard gets another place as long as the gateway
has one. A miner that takes much longer than the others counts as one that fails, so that one that hangs does
not hold up a file. What miners have signed for is in the catalog before the gateway is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from ..chain.auth import public_key, verify
from ..coding.keys import FileKeys
from ..coding.layout import Stripe
from ..encoding import HASH_SIZE
from ..errors import ProofError, TensorageError
from ..ticket import SignedTicket, Stored, Ticket
from ..transport.dendrite import Late, Malformed, Peer, PeerError, Refused, Unreachable
from ..transport.file_calls import MinerCalls
from ..transport.file_messages import Place, ShardWanted
from .catalog import Catalog, FileRow, ShardRow
from .coder import Coder
from .gateway import DEADLINE, Gateway, GatewayError

#: Seconds that an upload may take at most, and once most others of its stripe are done: the least, and how
#: many times what they took.
LONGEST = 300.0
LEAST = 10.0
TIMES = 5.0
#: Seconds for which a miner that was away so often in a row is not asked in other stripes either. The gateway
#: gives up its places there for good, so once is not enough.
SHUN = 60.0
_STRIKES = 2
#: A stripe's receipts are handed in whenever this part of them has come together.
_SETTLED = 3
#: How often a miner that is busy is asked again for one shard.
_TRIES = 8


class TooFewMiners(TensorageError):
    """Fewer shards of a stripe could be stored than the file needs."""


@dataclass(frozen=True, slots=True)
class Job:
    """A stripe to store.

    Attributes:
        views: its shards by number; parity shards are right once `coded` has ended.
        release: told of each shard that needs its buffer no more.
    """

    stripe: Stripe
    views: Sequence[memoryview]
    coded: Awaitable[None]
    release: Callable[[int], None]


class Placer:
    """Stores the stripes of one file.

    Args:
        least: shards of a stripe without which it is not stored.
        progress: told of each shard that is stored.
    """

    def __init__(
        self,
        row: FileRow,
        keys: FileKeys,
        gateway: Gateway,
        miners: MinerCalls,
        catalog: Catalog,
        coder: Coder,
        *,
        least: int,
        progress: Callable[[Stripe], None],
    ) -> None:
        self._row = row
        self._keys = keys
        self._gateway = gateway
        self._miners = miners
        self._catalog = catalog
        self._coder = coder
        self._least = least
        self._progress = progress
        self._strikes: dict[str, int] = {}
        self._shunned: dict[str, float] = {}
        self.short: dict[int, int] = {}  # stripe -> shards, where there are fewer than N
        self.failures: dict[str, str] = {}  # hotkey -> what went wrong there last

    async def store(self, job: Job) -> None:
        """Store one stripe.

        Raises:
            TooFewMiners: there are not enough places.
            GatewayError: the gateway is away, or refuses.
        """
        number = job.stripe.number
        kept: set[int] = set()
        before = await asyncio.to_thread(self._catalog.shards, self._row.id, number)
        if before:
            await job.coded  # buffers that are let go are not to be written to any more
        lost = {row.number for row in await self._settle(job, before, kept)}
        await asyncio.to_thread(self._catalog.lose, self._row.id, number, lost)
        layers: dict[int, bytes] = {}
        avoid: set[str] = set()
        while len(kept) < len(job.views):
            now = time.monotonic()
            shunned = {hotkey for hotkey, until in self._shunned.items() if until > now}
            places = await self._places(job.stripe, avoid | shunned)
            places = [place for place in places if place.number < len(job.views) and place.number not in kept]
            if not places and shunned - avoid:  # rather one that failed elsewhere than none
                places = await self._places(job.stripe, avoid)
                places = [
                    place for place in places if place.number < len(job.views) and place.number not in kept
                ]
            if not places:
                break
            avoid |= await self._round(job, places, layers, kept)
        if len(kept) < max(self._least, 1):
            raise self._too_few(job.stripe, len(kept))
        if len(kept) < len(job.views):
            self.short[number] = len(kept)
        await asyncio.to_thread(self._catalog.keep, self._row.id, [], whole=number)
        for left in set(range(len(job.views))) - kept:
            job.release(left)

    def _too_few(self, stripe: Stripe, stored: int) -> TooFewMiners:
        why = "; ".join(f"{hotkey[:8]}...: {reason}" for hotkey, reason in list(self.failures.items())[:3])
        return TooFewMiners(
            f"only {stored} of {self._row.data_shards + self._row.parity_shards} shards of stripe "
            f"{stripe.number} found a miner, {self._least} are needed" + (f" ({why})" if why else ""),
            remedy="Put the same again later: it goes on from here",
        )

    async def _settle(self, job: Job, rows: Sequence[ShardRow], kept: set[int]) -> list[ShardRow]:
        """Give receipts to the gateway, and let go of the shards that it has then; the rows of the others."""
        if not rows:
            return []
        number = job.stripe.number
        try:
            have = await self._hand_in(number, rows)
        except GatewayError as error:
            if not isinstance(error.__cause__, Refused) or error.__cause__.status != 400:
                raise
            have = set()
            if len(rows) > 1:  # one of them is wrong, and no reason to lose the others
                for row in rows:
                    await self._settle(job, [row], kept)
        for done in have - kept:
            kept.add(done)
            job.release(done)
            self._progress(job.stripe)
        return [row for row in rows if row.number not in kept]

    async def _hand_in(self, number: int, rows: Sequence[ShardRow]) -> set[int]:
        receipts = [
            Stored(SignedTicket.decode(row.ticket).ticket.hash, row.unix_ms, row.signature) for row in rows
        ]
        calls, peer = self._gateway.calls, self._gateway.peer
        told = await self._gateway.ask(
            lambda: calls.stored(peer, self._row.id, number, receipts, deadline=DEADLINE)
        )
        return {row.number for row in rows} & set(told.stored)

    async def _places(self, stripe: Stripe, avoid: Iterable[str]) -> list[Place]:
        calls, peer = self._gateway.calls, self._gateway.peer
        shunned = sorted(avoid)[:256]
        message = await self._gateway.ask(
            lambda: calls.placement(
                peer, self._row.id, stripe.number, stripe.leaves, shunned, deadline=DEADLINE
            )
        )
        return message.places

    async def _round(
        self, job: Job, places: Sequence[Place], layers: dict[int, bytes], kept: set[int]
    ) -> set[str]:
        """Bring shards to their places; the miners that failed."""
        await job.coded
        roots = await asyncio.gather(*(self._prepare(job, place, layers) for place in places))
        wanted = [
            ShardWanted(number=place.number, miner=place.hotkey, root=root)
            for place, root in zip(places, roots, strict=True)
        ]
        calls, peer, stripe = self._gateway.calls, self._gateway.peer, job.stripe
        tickets = await self._gateway.ask(
            lambda: calls.tickets(peer, self._row.id, stripe.number, stripe.leaves, wanted, deadline=DEADLINE)
        )
        for want, signed in zip(wanted, tickets, strict=True):
            self._check(stripe, want, signed)
        uploads = {
            asyncio.create_task(self._bring(job, place, signed)): place
            for place, signed in zip(places, tickets, strict=True)
        }
        return await self._gather(job, uploads, kept)

    async def _prepare(self, job: Job, place: Place, layers: dict[int, bytes]) -> bytes:
        """Put the layer for its miner on a shard; its root then."""
        miner = public_key(place.hotkey)
        before = layers.get(place.number)
        change = [miner] if before is None else [before, miner] if before != miner else []
        layers[place.number] = miner
        return await self._coder.spread(job.views[place.number], job.stripe.number, place.number, change)

    def _check(self, stripe: Stripe, wanted: ShardWanted, signed: SignedTicket) -> None:
        """Check that a ticket is for this file, place and time; its signature is for the miner to check."""
        row = self._row
        due = Ticket(
            genesis=row.genesis,
            netuid=row.netuid,
            validator=self._gateway.public_key,
            client=self._keys.access.public_key,
            miner=public_key(wanted.miner),
            shard_root=wanted.root,
            leaves=stripe.leaves,
            expires=row.expires,
            serial=signed.ticket.serial,
        )
        if signed.ticket != due:
            raise GatewayError(f"the gateway gave a ticket for shard {wanted.number} that is for another")

    async def _bring(self, job: Job, place: Place, signed: SignedTicket) -> ShardRow:
        """Upload one shard; what the miner has signed."""
        peer = Peer(place.hotkey, place.endpoint)
        stored = await self._put(peer, signed, job.views[place.number])
        assert len(stored.ticket_hash) == HASH_SIZE
        try:
            stored.check(signed.ticket.miner, verify)
        except ProofError as error:
            raise Malformed(str(error)) from error
        self._strikes.pop(place.hotkey, None)
        return ShardRow(
            stripe=job.stripe.number,
            number=place.number,
            ticket=signed.encode(),
            hotkey=place.hotkey,
            ip=place.ip,
            port=place.port,
            unix_ms=stored.unix_ms,
            signature=stored.signature,
        )

    async def _put(self, peer: Peer, signed: SignedTicket, view: memoryview) -> Stored:
        pause = 0.25
        for left in reversed(range(_TRIES)):
            try:
                return await self._miners.put_shard(peer, signed, view, deadline=LONGEST)
            except Refused as error:
                if error.kind != "rate_limited" or not left:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)
        raise AssertionError("the last attempt returns or raises")

    async def _gather(
        self, job: Job, uploads: dict[asyncio.Task[ShardRow], Place], kept: set[int]
    ) -> set[str]:
        began = time.monotonic()
        fresh: list[ShardRow] = []
        failed: set[str] = set()
        pending = set(uploads)
        end = began + LONGEST
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=max(end - time.monotonic(), 0.0), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    for task in pending:
                        self._failed(uploads[task], Late("takes far longer than others"), failed)
                    break
                for task in done:
                    try:
                        fresh.append(task.result())
                    except PeerError as error:
                        self._failed(uploads[task], error, failed)
                if 2 * len(pending) <= len(uploads) and len(failed) < len(uploads) - len(pending):
                    taken = time.monotonic() - began
                    end = min(end, began + max(LEAST, TIMES * taken))
                if _SETTLED * len(fresh) >= len(uploads):
                    await self._keep(job, uploads, fresh, kept, failed)
                    fresh = []
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        await self._keep(job, uploads, fresh, kept, failed)
        return failed

    async def _keep(
        self,
        job: Job,
        uploads: dict[asyncio.Task[ShardRow], Place],
        fresh: Sequence[ShardRow],
        kept: set[int],
        failed: set[str],
    ) -> None:
        """Write down what miners have signed for, then tell the gateway."""
        await asyncio.to_thread(self._catalog.keep, self._row.id, fresh)
        refused = {row.number for row in await self._settle(job, fresh, kept)}
        await asyncio.to_thread(self._catalog.lose, self._row.id, job.stripe.number, refused)
        for place in uploads.values():
            if place.number in refused:
                self._failed(place, Malformed("its receipt is not taken; its clock may be wrong"), failed)

    def _failed(self, place: Place, error: PeerError, failed: set[str]) -> None:
        failed.add(place.hotkey)
        if isinstance(error, (Unreachable, Late)):
            self._strikes[place.hotkey] = self._strikes.get(place.hotkey, 0) + 1
            if self._strikes[place.hotkey] >= _STRIKES:
                self._shunned[place.hotkey] = time.monotonic() + SHUN
        self.failures[place.hotkey] = error.message
