"""What is asked of miners for clients' files: a method for each route, answers typed and bounded.

Each takes whom to ask first, and fails as every call of a dendrite does, with a PeerError. Signatures, roots
and paths in an answer are for the caller to check; its size and its shape, and that it is about what was
asked for, are checked here. Where many pages make an answer, `deadline` is for each.
"""

from __future__ import annotations

from .. import shard
from ..encoding import HASH_SIZE
from ..ticket import SignedTicket, Stored, piece_path
from .calls import Calls, next_page
from .dendrite import Addressed, Malformed, answered
from .file_messages import (
    RETRIEVALS_PAGE,
    SLOTS_PAGE,
    RetrievalsPage,
    ShardChallenge,
    ShardState,
    SlotMessage,
    SlotsPage,
    StorageMessage,
    StoredMessage,
    Transition,
)

#: The header of an upload that carries the signed ticket in hex.
TICKET_HEADER = "x-tensorage-ticket"
#: Seconds that a whole shard may take, up or down: 4 MiB at half a megabit a second.
SHARD_SECONDS = 60.0

# The most bytes of JSON that one entry of a listing takes.
_SLOT_BYTES = 640
_RETRIEVAL_BYTES = 640
_CHANGED_BYTES = 640


class MinerCalls(Calls):
    """Asks miners, for a client with the access key of its file."""

    async def put_shard(
        self,
        peer: Addressed,
        ticket: SignedTicket,
        data: bytes | memoryview,
        *,
        deadline: float = SHARD_SECONDS,
    ) -> Stored:
        """Bring a shard; the miner's receipt for it, whose signature is not checked here.

        Args:
            data: the whole shard, with the root that the ticket names.
        """
        name = ticket.ticket.hash
        response = await self._dendrite.request(
            peer,
            "PUT",
            f"/v1/shards/{name.hex()}",
            headers={TICKET_HEADER: ticket.encode().hex()},
            body=data,
            deadline=deadline,
            signed=False,
        )
        stored = answered(StoredMessage, response).stored()
        if stored.ticket_hash != name:
            raise Malformed(f"a receipt for ticket {stored.ticket_hash.hex()}, not for {name.hex()}")
        return stored

    async def piece(
        self,
        peer: Addressed,
        ticket: SignedTicket,
        first: int,
        count: int,
        *,
        deadline: float = SHARD_SECONDS,
    ) -> bytes:
        """The raw answer with `count` leaves of a shard from `first` on, for `shard.read_piece`."""
        leaves = ticket.ticket.leaves
        shard.check_piece(leaves, first, count)
        size = shard.piece_size(leaves, count)
        path = piece_path(ticket.ticket.hash, first, count)
        response = await self._dendrite.request(
            peer, "GET", path, max_bytes=size, deadline=deadline, key=self._key
        )
        if len(response.body) != size:
            raise Malformed(f"a piece of {len(response.body)} bytes where {size} were due")
        return response.body

    async def challenge(
        self,
        peer: Addressed,
        ticket_hash: bytes,
        salt: bytes,
        hops: int,
        leaves: int,
        *,
        deadline: float | None = None,
    ) -> tuple[bytes, float]:
        """The raw answer to a challenge, for `shard.verify_answer`, and its seconds (`Response.elapsed`)."""
        response = await self._dendrite.request(
            peer,
            "POST",
            f"/v1/shards/{ticket_hash.hex()}/challenge",
            body=ShardChallenge(salt=salt, hops=hops),
            max_bytes=shard.answer_size(leaves, hops),
            deadline=deadline,
            key=self._key,
        )
        return response.body, response.elapsed

    async def remove(
        self, peer: Addressed, ticket_hash: bytes, *, deadline: float | None = None
    ) -> ShardState:
        """Put a shard into the miner's trash; nothing more when it is there."""
        return await self._state(peer, "DELETE", ticket_hash, "", deadline)

    async def restore(
        self, peer: Addressed, ticket_hash: bytes, *, deadline: float | None = None
    ) -> ShardState:
        """Take a shard out of the trash; nothing more when it is not there."""
        return await self._state(peer, "POST", ticket_hash, "/restore", deadline)

    async def _state(
        self, peer: Addressed, method: str, ticket_hash: bytes, action: str, deadline: float | None
    ) -> ShardState:
        state = await self.ask(
            ShardState,
            peer,
            method,
            f"/v1/shards/{ticket_hash.hex()}{action}",
            deadline,
        )
        if state.ticket != ticket_hash:
            raise Malformed(f"the state of ticket {state.ticket.hex()}, not of {ticket_hash.hex()}")
        return state

    async def storage(self, peer: Addressed, *, deadline: float | None = None) -> StorageMessage:
        """What we may store there, and whether the miner is leaving."""
        return await self.ask(StorageMessage, peer, "GET", "/v1/storage", deadline)

    async def slots(self, peer: Addressed, most: int, *, deadline: float | None = None) -> list[SlotMessage]:
        """All slots of the newest commitment, in ascending (sector, chunk).

        Args:
            most: how many the miner can have; one that names more is Malformed.
        """
        slots: list[SlotMessage] = []
        following: int | None = 0
        while following is not None:
            page = await self.ask(
                SlotsPage,
                peer,
                "GET",
                "/v1/slots",
                deadline,
                query={"from": following, "limit": SLOTS_PAGE},
                max_bytes=1024 + SLOTS_PAGE * _SLOT_BYTES,
            )
            if slots and page.slots and _place(page.slots[0]) <= _place(slots[-1]):
                raise Malformed(f"slot {_place(page.slots[0])} stands after {_place(slots[-1])}")
            slots += page.slots
            if len(slots) > most:
                raise Malformed(f"over {most} slots")
            following = next_page(page.next, following, len(page.slots))
        return slots

    async def transition(
        self, peer: Addressed, index: int, before_seq: int, chunks: int, *, deadline: float | None = None
    ) -> Transition:
        """How sector `index`, of `chunks` chunks, came from commitment `before_seq` to the newest one."""
        transition = await self.ask(
            Transition,
            peer,
            "GET",
            f"/v1/sectors/{index}/transition",
            deadline,
            query={"before": before_seq},
            max_bytes=1024 + 4 * HASH_SIZE * chunks + chunks * _CHANGED_BYTES,
        )
        if len(transition.before) != chunks * HASH_SIZE:
            raise Malformed(f"{len(transition.before) // HASH_SIZE} chunk roots instead of {chunks}")
        return transition

    async def retrievals(
        self,
        peer: Addressed,
        start: int,
        limit: int = RETRIEVALS_PAGE,
        *,
        deadline: float | None = None,
    ) -> RetrievalsPage:
        """One page of the retrievals of our tickets, from number `start` on."""
        page = await self.ask(
            RetrievalsPage,
            peer,
            "GET",
            "/v1/retrievals",
            deadline,
            query={"from": start, "limit": limit},
            max_bytes=1024 + limit * _RETRIEVAL_BYTES,
        )
        numbers = [record.id for record in page.retrievals]
        if len(numbers) > limit or any(number < start for number in numbers):
            raise Malformed(f"asked for {limit} retrievals from {start} on, got others")
        next_page(page.next, start, len(numbers))
        return page


def _place(slot: SlotMessage) -> tuple[int, int]:
    return slot.sector, slot.chunk
