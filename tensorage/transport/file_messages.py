"""The JSON messages with which clients' files are stored, kept and fetched, from miners and gateways.

Like those of `messages`: strict, every number, text and list bounded, bytes as lower-case hex, and `parse`
the one way in. Hotkeys are SS58 addresses that have been checked, addresses are IP literals in their
shortest spelling.

A field `ticket` that is a `Hash` names a ticket by its hash; one that is a `TicketBytes` is the whole signed
ticket (`SignedTicket.encode`), whose signature is for the receiver to check.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .. import shard
from ..chain.types import Endpoint
from ..challenge import MAX_HOPS
from ..encoding import HASH_SIZE
from ..ticket import Retrieval, SignedTicket, Stored
from . import fields
from .fields import (
    U16,
    ChunkNumber,
    DataShards,
    FileId,
    Ip,
    Leaves,
    ParityShards,
    Port,
    Roots,
    Ss58,
    Text,
    TicketBytes,
)
from .messages import U8, U32, U64, Hash, Message, Signature

#: Most slots, retrievals, stripes or files of one page.
SLOTS_PAGE = 1024
RETRIEVALS_PAGE = 512
STRIPES_PAGE = 32
FILES_PAGE = 512
#: Most shards of a stripe, chunks of a sector, and bytes of a file's number.
MOST_SHARDS = fields.MOST_SHARDS
MOST_CHUNKS = fields.MOST_CHUNKS
FILE_ID_SIZE = fields.FILE_ID_SIZE
_MOST_SIBLINGS = shard.MOST_LEAVES.bit_length() - shard.LEAST_LEAVES.bit_length()

Health = Literal["ok", "failed", "unchecked"]


def _numbered(numbers: Iterable[int]) -> None:
    """Check that shards of a stripe are named once each."""
    seen = list(numbers)
    if len(set(seen)) != len(seen):
        raise ValueError("a number of a shard stands twice")


class _Coded(Message):
    """Base of what names a code: `data_shards` of all shards bring the file back."""

    data_shards: DataShards
    parity_shards: ParityShards

    @model_validator(mode="after")
    def _code(self) -> _Coded:
        if self.data_shards + self.parity_shards > MOST_SHARDS:
            raise ValueError(f"at most {MOST_SHARDS} shards make a stripe")
        return self


# A miner's


class StoredMessage(Message):
    """Answer of `PUT /v1/shards/{ticket}`: the miner's receipt; `ticket` is the hash."""

    ticket: Hash
    unix_ms: U64
    signature: Signature

    @classmethod
    def of(cls, stored: Stored) -> StoredMessage:
        """The message that carries a receipt."""
        return cls(ticket=stored.ticket_hash, unix_ms=stored.unix_ms, signature=stored.signature)

    def stored(self) -> Stored:
        """The receipt; its signature is unchecked."""
        return Stored(self.ticket, self.unix_ms, self.signature)


class ShardChallenge(Message):
    """Body of `POST /v1/shards/{ticket}/challenge`; see `shard.nonce`."""

    salt: Hash
    hops: Annotated[int, Field(ge=1, le=MAX_HOPS)]


class ShardState(Message):
    """Answer to removing or restoring a shard: `until` (unix s) ends the trash, or the ticket."""

    ticket: Hash
    state: Literal["stored", "committed", "trash"]
    until: U64 | None


class StorageMessage(Message):
    """Answer of `GET /v1/storage`: what the caller may store, and stores, in chunks; `free_bytes` of disk."""

    leaving: bool
    quota: U64
    used: U64
    free_bytes: U64


class SlotMessage(Message):
    """A displaced slot: chunk `chunk` of sector `sector`, and the whole ticket it was displaced for."""

    sector: U64
    chunk: ChunkNumber
    ticket: TicketBytes

    def signed(self) -> SignedTicket:
        """The ticket; its signature is unchecked."""
        return SignedTicket.decode(self.ticket)


class SlotsPage(Message):
    """Answer of `GET /v1/slots`: slots of the newest commitment, in ascending (sector, chunk).

    `next` is the `from` of the next page, null after the last one.
    """

    slots: Annotated[list[SlotMessage], Field(max_length=SLOTS_PAGE)]
    next: U64 | None = None

    @model_validator(mode="after")
    def _ascending(self) -> SlotsPage:
        places = [(slot.sector, slot.chunk) for slot in self.slots]
        if any(a >= b for a, b in pairwise(places)):
            raise ValueError("slots must ascend")
        return self


class ChangedChunk(Message):
    """How a chunk came by its new root: `node`, of its first leaves before, and its siblings upwards."""

    chunk: ChunkNumber
    node: Hash
    siblings: Annotated[list[Hash], Field(max_length=_MOST_SIBLINGS)]


class Transition(Message):
    """Answer of `GET /v1/sectors/{index}/transition`: chunk roots `before` and `after`, and what changed."""

    before: Roots
    after: Roots
    changed: Annotated[list[ChangedChunk], Field(max_length=MOST_CHUNKS)]

    @model_validator(mode="after")
    def _whole(self) -> Transition:
        if len(self.before) % HASH_SIZE or len(self.before) != len(self.after):
            raise ValueError("before and after must be as many whole roots")
        chunks = [changed.chunk for changed in self.changed]
        if any(a >= b for a, b in pairwise(chunks)):
            raise ValueError("changed chunks must ascend")
        if chunks and chunks[-1] * HASH_SIZE >= len(self.before):
            raise ValueError(f"the sector has no chunk {chunks[-1]}")
        return self


class RetrievalMessage(Message):
    """A piece that a client asked for and got; see `ticket.Retrieval`. `id` ascends with time."""

    id: U64
    ticket: Hash
    leaf: U32
    count: U32
    nonce: U64
    client_signature: Signature
    miner_signature: Signature

    @classmethod
    def of(cls, number: int, retrieval: Retrieval) -> RetrievalMessage:
        """The message that carries a record."""
        return cls(
            id=number,
            ticket=retrieval.ticket_hash,
            leaf=retrieval.first,
            count=retrieval.count,
            nonce=retrieval.nonce_ns,
            client_signature=retrieval.client_signature,
            miner_signature=retrieval.miner_signature,
        )

    def retrieval(self) -> Retrieval:
        """The record; its signatures are unchecked."""
        return Retrieval(
            self.ticket, self.leaf, self.count, self.nonce, self.client_signature, self.miner_signature
        )


class RetrievalsPage(Message):
    """Answer of `GET /v1/retrievals`: the caller's own tickets', by ascending id; `next` as for slots."""

    retrievals: Annotated[list[RetrievalMessage], Field(max_length=RETRIEVALS_PAGE)]
    next: U64 | None = None


# A gateway's


class GatewayInfo(_Coded):
    """Answer of `GET /v1/gateway`: whose it is, and what the network can bear now.

    Attributes:
        coldkeys, networks: how many distinct ones shards can lie on.
        note: what to tell the user; empty when there is nothing to tell.
    """

    hotkey: Ss58
    genesis: Hash
    netuid: U16
    spec_version: U32
    coldkeys: U32
    networks: U32
    max_expiry_seconds: U64
    note: Annotated[str, Field(max_length=500)]


class AccountMessage(Message):
    """Answer of `GET /v1/account`: bytes of shards that it may store, and stores."""

    name: Text
    quota: U64
    used: U64


class CreateFile(_Coded):
    """Body of `POST /v1/files`: `access` is the file's public key, `expires` in seconds since 1970."""

    access: Hash
    expires: U64


FileStateName = Literal["uploading", "stored", "trash"]


class FileCreated(_Coded):
    """Answer of `POST /v1/files`: with the code that is to be used."""

    id: FileId
    state: FileStateName


class PlacementRequest(Message):
    """Body of `POST .../placement`: shards of `leaves`, not on the hotkeys `avoid`."""

    leaves: Leaves
    avoid: Annotated[list[Ss58], Field(default_factory=list, max_length=MOST_SHARDS)]


class Place(Message):
    """Where shard `number` of a stripe is to be brought."""

    number: U8
    hotkey: Ss58
    ip: Ip
    port: Port

    @property
    def endpoint(self) -> Endpoint:
        """Where it serves: with `hotkey`, whom a dendrite asks."""
        return Endpoint(self.ip, self.port)


class PlacementMessage(Message):
    """Answer of `POST .../placement`: the shards that are not stored yet, and are reserved a place."""

    places: Annotated[list[Place], Field(max_length=MOST_SHARDS)]

    @model_validator(mode="after")
    def _distinct(self) -> PlacementMessage:
        _numbered(place.number for place in self.places)
        return self


class ShardWanted(Message):
    """A shard that a ticket is asked for: its number, its place's hotkey, the root of its bytes."""

    number: U8
    miner: Ss58
    root: Hash


class TicketsRequest(Message):
    """Body of `POST .../tickets`."""

    leaves: Leaves
    shards: Annotated[list[ShardWanted], Field(min_length=1, max_length=MOST_SHARDS)]

    @model_validator(mode="after")
    def _distinct(self) -> TicketsRequest:
        _numbered(wanted.number for wanted in self.shards)
        return self


class TicketsMessage(Message):
    """Answer of `POST .../tickets`: whole tickets, in the order of the shards that were asked for."""

    tickets: Annotated[list[TicketBytes], Field(max_length=MOST_SHARDS)]

    @classmethod
    def of(cls, tickets: Sequence[SignedTicket]) -> TicketsMessage:
        """The message that carries tickets."""
        return cls(tickets=[ticket.encode() for ticket in tickets])

    def signed(self) -> list[SignedTicket]:
        """The tickets; their signatures are unchecked."""
        return [SignedTicket.decode(ticket) for ticket in self.tickets]


class StoredBatch(Message):
    """Body of `POST .../stored`: what miners answered."""

    receipts: Annotated[list[StoredMessage], Field(min_length=1, max_length=MOST_SHARDS)]


class StoredNumbers(Message):
    """Answer of `POST .../stored`: the numbers of all shards of the stripe that are stored."""

    stored: Annotated[list[U8], Field(max_length=MOST_SHARDS)]


class CompleteFile(Message):
    """Body of `POST .../complete`.

    Attributes:
        size: bytes of ciphertext.
        stripes: how many there are.
        spread: the key of the outer layer, with which the validator repairs what it cannot read.
        reader: the seed of the access key, with which it fetches.
    """

    size: U64
    stripes: U32
    spread: Hash
    reader: Hash


class FileState(Message):
    """A file by its number; `until` (unix s) ends it, or its trash."""

    id: FileId
    state: FileStateName
    until: U64 | None


class FilesPage(Message):
    """Answer of `GET /v1/files`: the account's files; `next` as for slots."""

    files: Annotated[list[FileState], Field(max_length=FILES_PAGE)]
    next: U64 | None = None


class ShardPlace(Message):
    """A shard of a file, where it lies and how it is.

    Attributes:
        ip, port: null while its miner serves nowhere.
        checked: when its health was last seen to, unix s.
    """

    number: U8
    ticket: TicketBytes
    hotkey: Ss58
    ip: Ip | None
    port: Port | None
    health: Health
    checked: U64 | None

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it is served: with `hotkey`, whom a dendrite asks."""
        return None if self.ip is None or self.port is None else Endpoint(self.ip, self.port)

    def signed(self) -> SignedTicket:
        """The ticket; its signature is unchecked."""
        return SignedTicket.decode(self.ticket)


class StripeMessage(Message):
    """A stripe: shards of `leaves` leaves."""

    number: U32
    leaves: Leaves
    shards: Annotated[list[ShardPlace], Field(max_length=MOST_SHARDS)]

    @model_validator(mode="after")
    def _distinct(self) -> StripeMessage:
        _numbered(place.number for place in self.shards)
        return self


class FileMessage(_Coded):
    """Answer of `GET /v1/files/{id}`: the file, and a page of its stripes in ascending number.

    Attributes:
        expires: unix s.
        size: bytes of ciphertext; 0 while uploading.
        stripe_count: in all; 0 while uploading.
        next: the `from` of the next page, null after the last one.
    """

    id: FileId
    state: FileStateName
    expires: U64
    size: U64
    stripe_count: U32
    stripes: Annotated[list[StripeMessage], Field(max_length=STRIPES_PAGE)]
    next: U64 | None = None

    @model_validator(mode="after")
    def _ascending(self) -> FileMessage:
        numbers = [stripe.number for stripe in self.stripes]
        if any(a >= b for a, b in pairwise(numbers)):
            raise ValueError("stripes must ascend")
        return self


class ReportMessage(Message):
    """Body of `POST .../report`: the shard of a ticket (by hash) that was not to be had, or was wrong."""

    ticket: Hash
    reason: Text


class Accepted(Message):
    """Answer of `POST .../report`: it is going to be looked into."""

    accepted: Literal[True] = True
