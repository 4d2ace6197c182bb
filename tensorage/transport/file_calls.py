"""What is asked of miners and gateways for clients' files: a method a route, answers typed and bounded.

Each takes whom to ask first, and fails as every call of a dendrite does, with a PeerError. Signatures, roots
and paths in an answer are for the caller to check; its size and its shape, and that it is about what was
asked for, are checked here. Where many pages make an answer, `deadline` is for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .. import shard
from ..encoding import HASH_SIZE
from ..errors import ProofError
from ..ticket import SignedTicket, Stored, piece_path
from .dendrite import Addressed, Dendrite, Malformed, answered
from .file_messages import (
    FILES_PAGE,
    MOST_SHARDS,
    RETRIEVALS_PAGE,
    SLOTS_PAGE,
    STRIPES_PAGE,
    Accepted,
    AccountMessage,
    CompleteFile,
    CreateFile,
    FileCreated,
    FileMessage,
    FilesPage,
    FileState,
    GatewayInfo,
    PlacementMessage,
    PlacementRequest,
    ReportMessage,
    RetrievalsPage,
    ShardChallenge,
    ShardState,
    ShardWanted,
    SlotMessage,
    SlotsPage,
    StorageMessage,
    StoredBatch,
    StoredMessage,
    StoredNumbers,
    TicketsMessage,
    TicketsRequest,
    Transition,
)

if TYPE_CHECKING:
    from ..chain.wallet import Hotkey
    from ..keyauth import SigningKey

#: The header of an upload that carries the signed ticket in hex.
TICKET_HEADER = "x-tensorage-ticket"
#: Seconds that a whole shard may take, up or down: 4 MiB at half a megabit a second.
SHARD_SECONDS = 60.0

# The most bytes of JSON that one entry of a listing takes.
_SLOT_BYTES = 640
_RETRIEVAL_BYTES = 640
_CHANGED_BYTES = 640
_FILE_BYTES = 160
_PLACE_BYTES = 256
_SHARD_BYTES = 896
_TICKET_BYTES = 512


class MinerCalls:
    """Asks miners.

    Args:
        dendrite: how they are asked.
        key: signs, instead of the dendrite's own: of a client, the access key of the file.
    """

    def __init__(self, dendrite: Dendrite, key: Hotkey | SigningKey | None = None) -> None:
        self._dendrite = dendrite
        self._key = key

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
        response = await self._dendrite.request(
            peer, method, f"/v1/shards/{ticket_hash.hex()}{action}", deadline=deadline, key=self._key
        )
        state = answered(ShardState, response)
        if state.ticket != ticket_hash:
            raise Malformed(f"the state of ticket {state.ticket.hex()}, not of {ticket_hash.hex()}")
        return state

    async def storage(self, peer: Addressed, *, deadline: float | None = None) -> StorageMessage:
        """What we may store there, and whether the miner is leaving."""
        response = await self._dendrite.request(peer, "GET", "/v1/storage", deadline=deadline, key=self._key)
        return answered(StorageMessage, response)

    async def slots(self, peer: Addressed, most: int, *, deadline: float | None = None) -> list[SlotMessage]:
        """All slots of the newest commitment, in ascending (sector, chunk).

        Args:
            most: how many the miner can have; one that names more is Malformed.
        """
        slots: list[SlotMessage] = []
        following: int | None = 0
        while following is not None:
            response = await self._dendrite.request(
                peer,
                "GET",
                "/v1/slots",
                query={"from": following, "limit": SLOTS_PAGE},
                max_bytes=1024 + SLOTS_PAGE * _SLOT_BYTES,
                deadline=deadline,
                key=self._key,
            )
            page = answered(SlotsPage, response)
            if slots and page.slots and _place(page.slots[0]) <= _place(slots[-1]):
                raise Malformed(f"slot {_place(page.slots[0])} stands after {_place(slots[-1])}")
            slots += page.slots
            if len(slots) > most:
                raise Malformed(f"over {most} slots")
            following = _following(page.next, following, len(page.slots))
        return slots

    async def transition(
        self, peer: Addressed, index: int, before_seq: int, chunks: int, *, deadline: float | None = None
    ) -> Transition:
        """How sector `index`, of `chunks` chunks, came from commitment `before_seq` to the newest one."""
        response = await self._dendrite.request(
            peer,
            "GET",
            f"/v1/sectors/{index}/transition",
            query={"before": before_seq},
            max_bytes=1024 + 4 * HASH_SIZE * chunks + chunks * _CHANGED_BYTES,
            deadline=deadline,
            key=self._key,
        )
        transition = answered(Transition, response)
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
        response = await self._dendrite.request(
            peer,
            "GET",
            "/v1/retrievals",
            query={"from": start, "limit": limit},
            max_bytes=1024 + limit * _RETRIEVAL_BYTES,
            deadline=deadline,
            key=self._key,
        )
        page = answered(RetrievalsPage, response)
        numbers = [record.id for record in page.retrievals]
        if len(numbers) > limit or any(number < start for number in numbers):
            raise Malformed(f"asked for {limit} retrievals from {start} on, got others")
        _following(page.next, start, len(numbers))
        return page


class GatewayCalls:
    """Asks a validator's gateway.

    Args:
        dendrite: how it is asked.
        key: signs, instead of the dendrite's own: of an account, or the access key of a file.
    """

    def __init__(self, dendrite: Dendrite, key: Hotkey | SigningKey | None = None) -> None:
        self._dendrite = dendrite
        self._key = key

    async def info(self, peer: Addressed, *, deadline: float | None = None) -> GatewayInfo:
        """Whose gateway it is; not signed, so `peer` may have any hotkey."""
        response = await self._dendrite.request(peer, "GET", "/v1/gateway", deadline=deadline, signed=False)
        return answered(GatewayInfo, response)

    async def account(self, peer: Addressed, *, deadline: float | None = None) -> AccountMessage:
        """Our account."""
        response = await self._dendrite.request(peer, "GET", "/v1/account", deadline=deadline, key=self._key)
        return answered(AccountMessage, response)

    async def create_file(
        self, peer: Addressed, request: CreateFile, *, deadline: float | None = None
    ) -> FileCreated:
        """Begin a file, or find it as it was begun."""
        response = await self._dendrite.request(
            peer, "POST", "/v1/files", body=request, deadline=deadline, key=self._key
        )
        return answered(FileCreated, response)

    async def placement(
        self,
        peer: Addressed,
        file_id: bytes,
        stripe: int,
        leaves: int,
        avoid: Iterable[str] = (),
        *,
        deadline: float | None = None,
    ) -> PlacementMessage:
        """Where the shards of a stripe that are not stored yet are to be brought.

        Args:
            avoid: SS58 hotkeys that failed.
        """
        response = await self._dendrite.request(
            peer,
            "POST",
            _stripe(file_id, stripe, "placement"),
            body=PlacementRequest(leaves=leaves, avoid=list(avoid)),
            max_bytes=1024 + MOST_SHARDS * _PLACE_BYTES,
            deadline=deadline,
            key=self._key,
        )
        return answered(PlacementMessage, response)

    async def tickets(
        self,
        peer: Addressed,
        file_id: bytes,
        stripe: int,
        leaves: int,
        shards: Sequence[ShardWanted],
        *,
        deadline: float | None = None,
    ) -> list[SignedTicket]:
        """A ticket for each of `shards`, in their order; signatures are not checked here."""
        response = await self._dendrite.request(
            peer,
            "POST",
            _stripe(file_id, stripe, "tickets"),
            body=TicketsRequest(leaves=leaves, shards=list(shards)),
            max_bytes=1024 + MOST_SHARDS * _TICKET_BYTES,
            deadline=deadline,
            key=self._key,
        )
        message = answered(TicketsMessage, response)
        try:
            tickets = message.signed()
        except ProofError as error:
            raise Malformed(f"the answer holds no ticket: {error}") from error
        asked = [(leaves, wanted.root) for wanted in shards]
        if [(signed.ticket.leaves, signed.ticket.shard_root) for signed in tickets] != asked:
            raise Malformed(f"{len(tickets)} tickets, which are not those that were asked for")
        return tickets

    async def stored(
        self,
        peer: Addressed,
        file_id: bytes,
        stripe: int,
        receipts: Iterable[Stored],
        *,
        deadline: float | None = None,
    ) -> StoredNumbers:
        """Hand in miners' receipts; which shards of the stripe are stored by now."""
        response = await self._dendrite.request(
            peer,
            "POST",
            _stripe(file_id, stripe, "stored"),
            body=StoredBatch(receipts=[StoredMessage.of(receipt) for receipt in receipts]),
            deadline=deadline,
            key=self._key,
        )
        return answered(StoredNumbers, response)

    async def complete(
        self, peer: Addressed, file_id: bytes, request: CompleteFile, *, deadline: float | None = None
    ) -> FileState:
        """Say that all stripes are stored."""
        return await self._state(peer, "POST", file_id, "/complete", deadline, request)

    async def file(
        self,
        peer: Addressed,
        file_id: bytes,
        start: int = 0,
        limit: int = STRIPES_PAGE,
        *,
        deadline: float | None = None,
    ) -> FileMessage:
        """A file, with a page of its stripes from number `start` on."""
        response = await self._dendrite.request(
            peer,
            "GET",
            f"/v1/files/{file_id.hex()}",
            query={"from": start, "limit": limit},
            max_bytes=1024 + limit * MOST_SHARDS * _SHARD_BYTES,
            deadline=deadline,
            key=self._key,
        )
        message = answered(FileMessage, response)
        if message.id != file_id:
            raise Malformed(f"file {message.id.hex()}, not {file_id.hex()}")
        numbers = [stripe.number for stripe in message.stripes]
        if len(numbers) > limit or any(number < start for number in numbers):
            raise Malformed(f"asked for {limit} stripes from {start} on, got others")
        _following(message.next, start, len(numbers))
        return message

    async def files(
        self, peer: Addressed, start: int = 0, limit: int = FILES_PAGE, *, deadline: float | None = None
    ) -> FilesPage:
        """One page of the account's files."""
        response = await self._dendrite.request(
            peer,
            "GET",
            "/v1/files",
            query={"from": start, "limit": limit},
            max_bytes=1024 + limit * _FILE_BYTES,
            deadline=deadline,
            key=self._key,
        )
        page = answered(FilesPage, response)
        if len(page.files) > limit:
            raise Malformed(f"asked for {limit} files, got {len(page.files)}")
        _following(page.next, start, len(page.files))
        return page

    async def remove(self, peer: Addressed, file_id: bytes, *, deadline: float | None = None) -> FileState:
        """Put a file into the trash."""
        return await self._state(peer, "DELETE", file_id, "", deadline)

    async def restore(self, peer: Addressed, file_id: bytes, *, deadline: float | None = None) -> FileState:
        """Take a file out of the trash."""
        return await self._state(peer, "POST", file_id, "/restore", deadline)

    async def report(
        self,
        peer: Addressed,
        file_id: bytes,
        ticket_hash: bytes,
        reason: str,
        *,
        deadline: float | None = None,
    ) -> None:
        """Tell of a shard that was not to be had, or was wrong; the validator sees for itself."""
        response = await self._dendrite.request(
            peer,
            "POST",
            f"/v1/files/{file_id.hex()}/report",
            body=ReportMessage(ticket=ticket_hash, reason=reason[:200]),
            deadline=deadline,
            key=self._key,
        )
        answered(Accepted, response)

    async def _state(
        self,
        peer: Addressed,
        method: str,
        file_id: bytes,
        action: str,
        deadline: float | None,
        body: CompleteFile | None = None,
    ) -> FileState:
        response = await self._dendrite.request(
            peer,
            method,
            f"/v1/files/{file_id.hex()}{action}",
            body=body or b"",
            deadline=deadline,
            key=self._key,
        )
        state = answered(FileState, response)
        if state.id != file_id:
            raise Malformed(f"the state of file {state.id.hex()}, not of {file_id.hex()}")
        return state


def _stripe(file_id: bytes, stripe: int, what: str) -> str:
    return f"/v1/files/{file_id.hex()}/stripes/{stripe}/{what}"


def _place(slot: SlotMessage) -> tuple[int, int]:
    return slot.sector, slot.chunk


def _following(following: int | None, start: int, count: int) -> int | None:
    """The next page's start, which must be ahead: no peer has us ask for ever."""
    if following is not None and (following <= start or not count):
        raise Malformed(f"page {following} comes after page {start}, which has {count} entries")
    return following
