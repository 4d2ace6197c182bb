"""Rows of files.sqlite as records. No SQL runs here."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from .. import seal
from ..encoding import sha256
from ..ticket import SignedTicket, Stored

FileState = Literal["uploading", "stored", "trash", "gone"]
ShardState = Literal["issued", "stored", "lost", "removing", "gone"]
Health = Literal["unchecked", "ok", "failed"]
Kind = Literal["key", "hotkey"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may store.

    Attributes:
        kind: what `public_key` (32 bytes) is: Ed25519 of an API key, or sr25519 of a hotkey.
        quota: bytes of shards; `used` of them are taken.
        revoked: since when, None while it is good.
    """

    id: int
    name: str
    kind: Kind
    public_key: bytes
    quota: int
    used: int
    created: int
    revoked: int | None


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file.

    Attributes:
        seq: its number in the order of creation.
        id: 16 bytes. `access`: the public key that its tickets are for.
        spread, reader: key of the outer layer, and seed of the access key; None until it is complete.
        size: bytes of ciphertext; `stripe_count` of stripes; None until it is complete.
        until: when the trash is emptied, None while it is not in it.
    """

    seq: int
    id: bytes
    account: int
    access: bytes
    spread: bytes | None
    reader: bytes | None
    size: int | None
    stripe_count: int | None
    data_shards: int
    parity_shards: int
    created: int
    progressed: int
    expires: int
    state: FileState
    until: int | None

    @property
    def shards(self) -> int:
        """Shards of each stripe: N."""
        return self.data_shards + self.parity_shards


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A ticket and what became of it.

    Attributes:
        ticket: its hash, 32 bytes; `signed`: the ticket as it is encoded.
        hotkey, coldkey: of the miner, SS58; the coldkey as it was when the ticket was made.
        state: issued, stored (there is a receipt), lost (found out not to be there), removing (the miner is
            still to be told), gone.
        stored_ms, receipt: the miner's receipt, None before there is one.
        checked: when it was last checked, None for never; `failures`: checks that failed in a row.
        trashed: whether the miner said that it has it in its trash.
    """

    ticket: bytes
    file: bytes
    stripe: int
    number: int
    hotkey: str
    coldkey: str
    root: bytes
    leaves: int
    serial: int
    signed: bytes
    issued: int
    expires: int
    state: ShardState
    stored_ms: int | None
    receipt: bytes | None
    health: Health
    checked: int | None
    failures: int
    reason: str
    due: bool
    trashed: bool
    tell_at: int
    tells: int

    @property
    def size(self) -> int:
        """Bytes of the shard."""
        return self.leaves * seal.LEAF_SIZE

    def decoded(self) -> SignedTicket:
        """The ticket."""
        return SignedTicket.decode(self.signed)

    def stored_receipt(self) -> Stored | None:
        """The miner's receipt."""
        if self.stored_ms is None or self.receipt is None:
            return None
        return Stored(self.ticket, self.stored_ms, self.receipt)


@dataclass(frozen=True, slots=True)
class StripeRow:
    """A stripe of a file, with the shards of it that are stored or lost, by number."""

    file: FileRow
    number: int
    leaves: int
    shards: tuple[ShardRow, ...]

    @property
    def healthy(self) -> int:
        """How many different shards are stored and did not fail their last check."""
        return len({s.number for s in self.shards if s.state == "stored" and s.health != "failed"})

    @property
    def threshold(self) -> int:
        """Below so many healthy shards it is repaired: K + ceil(M/2)."""
        return self.file.data_shards + (self.file.parity_shards + 1) // 2

    @property
    def missing(self) -> list[int]:
        """Numbers that no stored shard has."""
        there = {shard.number for shard in self.shards if shard.state == "stored"}
        return [number for number in range(self.file.shards) if number not in there]


@dataclass(frozen=True, slots=True)
class Place:
    """A miner that a shard's place is kept at."""

    number: int
    hotkey: str
    coldkey: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ticket that is asked for: the shard's number, its miner (SS58) and its root."""

    number: int
    hotkey: str
    root: bytes


@dataclass(frozen=True, slots=True)
class Errand:
    """Something that a miner must still be told about one shard.

    Attributes:
        stored_ms: of its receipt, None when it gave none: it may still get the shard.
        tells: how often it was told in vain.
    """

    ticket: bytes
    hotkey: str
    stored_ms: int | None
    tells: int


def file_id(access: bytes) -> bytes:
    """The 16 bytes that name a file, from the public key of its access key."""
    return sha256(access)[:16]


def read(record: type[R], row: sqlite3.Row) -> R:
    """The record of a row that has a column for each of its fields."""
    values: dict[str, Any] = {}
    for field in fields(record):  # type: ignore[arg-type]  # a dataclass
        value = row[field.name]
        values[field.name] = bool(value) if field.type == "bool" else value
    return record(**values)


def columns(record: type[Any], table: str = "") -> str:
    """The columns that `read` needs, as they stand in a SELECT."""
    prefix = f"{table}." if table else ""
    return ", ".join(prefix + field.name for field in fields(record))
