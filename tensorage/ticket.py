"""Tickets: a validator's signed leave for one client to store one shard on one miner, and what comes back.

    ticket     H(tag("tensorage/ticket/v1") || genesis || u16 netuid || validator || client || miner
                 || shard_root || u32 leaves || u64 expires || u64 serial)         signed by the validator
    stored     H(tag("tensorage/stored/v1") || ticket_hash || u64 unix_ms)         signed by the miner
    retrieval  H(tag("tensorage/retrieval/v1") || ticket_hash || u32 first || u32 count || u64 nonce_ns
                 || client's signature of the request)                             signed by the miner

Validators and miners sign with their hotkeys (sr25519), a client with the access key of its file (Ed25519),
which is another for every file, so that tickets do not tell whose they are. A ticket names the bytes by their
root: whoever has the bytes may bring them, and nobody can bring others. After `expires` (seconds since 1970)
a miner may give the space back. A serial is never used twice by a validator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from struct import Struct

from . import keyauth, seal, shard
from .encoding import HASH_SIZE, KEY_SIZE, SIGNATURE_SIZE, fixed, from_hex, sha256, tag, u16, u32, u64
from .errors import ProofError
from .hashchain import Sign, Verify

_FORMAT = b"\1"
# Format, the fields of a ticket in their order, and the signature.
_LAYOUT = Struct(">c 32s H 32s 32s 32s 32s I Q Q 64s")
#: Bytes of an encoded signed ticket.
TICKET_SIZE = _LAYOUT.size


@dataclass(frozen=True)
class Ticket:
    """Leave to store one shard; see the module for the fields."""

    genesis: bytes
    netuid: int
    validator: bytes
    client: bytes
    miner: bytes
    shard_root: bytes
    leaves: int
    expires: int
    serial: int

    @cached_property
    def hash(self) -> bytes:
        """The 32 bytes that the validator signs, and the ticket's name everywhere."""
        return sha256(tag("tensorage/ticket/v1") + self._fields())

    @property
    def size(self) -> int:
        """Bytes of the shard."""
        return self.leaves * seal.LEAF_SIZE

    def _fields(self) -> bytes:
        return (
            fixed(self.genesis, HASH_SIZE, "genesis hash")
            + u16(self.netuid)
            + fixed(self.validator, KEY_SIZE, "validator's key")
            + fixed(self.client, KEY_SIZE, "client's key")
            + fixed(self.miner, KEY_SIZE, "miner's key")
            + fixed(self.shard_root, HASH_SIZE, "shard root")
            + u32(self.leaves)
            + u64(self.expires)
            + u64(self.serial)
        )


@dataclass(frozen=True)
class SignedTicket:
    """A ticket and the validator's 64-byte signature over its hash."""

    ticket: Ticket
    signature: bytes

    def check(self, verify: Verify) -> None:
        """Check the signature and the shard's size.

        Raises:
            ProofError: one of them is wrong.
        """
        shard.check_leaves(self.ticket.leaves)
        if not verify(self.ticket.validator, self.ticket.hash, self.signature):
            raise ProofError(
                f"ticket {self.ticket.serial} is not signed by the validator {self.ticket.validator.hex()}"
            )

    def encode(self) -> bytes:
        """The ticket as `TICKET_SIZE` bytes."""
        return _FORMAT + self.ticket._fields() + fixed(self.signature, SIGNATURE_SIZE, "signature")

    @classmethod
    def decode(cls, data: bytes) -> SignedTicket:
        """The ticket that `data` holds; its signature is unchecked.

        Raises:
            ProofError: it holds none.
        """
        if len(data) != TICKET_SIZE or data[:1] != _FORMAT:
            raise ProofError(f"{len(data)} bytes that are no ticket of {TICKET_SIZE}")
        _, *values, signature = _LAYOUT.unpack(data)
        return cls(Ticket(*values), signature)

    @classmethod
    def from_hex(cls, text: str) -> SignedTicket:
        """The ticket that lower-case hex stands for; ProofError when it is none."""
        try:
            return cls.decode(from_hex(text, TICKET_SIZE, "a ticket"))
        except ValueError as error:
            raise ProofError(str(error)) from error


@dataclass(frozen=True)
class Stored:
    """A miner's word that it keeps the shard of a ticket, since `unix_ms`; `signature` is its hotkey's."""

    ticket_hash: bytes
    unix_ms: int
    signature: bytes

    @property
    def hash(self) -> bytes:
        """The 32 bytes that the miner signs."""
        return stored_hash(self.ticket_hash, self.unix_ms)

    def check(self, miner: bytes, verify: Verify) -> None:
        """Raises ProofError when it is not signed by the miner with that public key."""
        if not verify(miner, self.hash, self.signature):
            raise ProofError(f"the receipt for ticket {self.ticket_hash.hex()} is not signed by its miner")


def stored_hash(ticket_hash: bytes, unix_ms: int) -> bytes:
    """What a miner signs when it has stored the shard of a ticket."""
    return sha256(tag("tensorage/stored/v1") + fixed(ticket_hash, HASH_SIZE, "ticket hash") + u64(unix_ms))


def stored(ticket_hash: bytes, unix_ms: int, sign: Sign) -> Stored:
    """A miner's receipt for a shard."""
    return Stored(ticket_hash, unix_ms, sign(stored_hash(ticket_hash, unix_ms)))


@dataclass(frozen=True)
class Retrieval:
    """One piece of a shard that a client asked for and got.

    Attributes:
        first, count: the leaves.
        nonce_ns: of the client's request, nanoseconds since 1970.
        client_signature: of that request (`keyauth`), 64 bytes.
        miner_signature: of this record, 64 bytes.
    """

    ticket_hash: bytes
    first: int
    count: int
    nonce_ns: int
    client_signature: bytes
    miner_signature: bytes

    @property
    def hash(self) -> bytes:
        """The 32 bytes that the miner signs."""
        return sha256(
            tag("tensorage/retrieval/v1")
            + fixed(self.ticket_hash, HASH_SIZE, "ticket hash")
            + u32(self.first)
            + u32(self.count)
            + u64(self.nonce_ns)
            + fixed(self.client_signature, SIGNATURE_SIZE, "client's signature")
        )

    def check(self, ticket: Ticket, verify: Verify) -> None:
        """Check that the ticket's client asked for this piece, and that its miner says it gave it.

        Raises:
            ProofError: one of them did not, or there is no such piece.
        """
        if ticket.hash != self.ticket_hash:
            raise ProofError(f"a retrieval of ticket {self.ticket_hash.hex()}, not of {ticket.hash.hex()}")
        shard.check_piece(ticket.leaves, self.first, self.count)
        path = piece_path(self.ticket_hash, self.first, self.count)
        asked = keyauth.request_hash("GET", path, ticket.miner, self.nonce_ns, b"")
        if not keyauth.verify(ticket.client, asked, self.client_signature):
            raise ProofError(f"the retrieval of {path} is not signed by the client")
        if not verify(ticket.miner, self.hash, self.miner_signature):
            raise ProofError(f"the retrieval of {path} is not signed by the miner")


def piece_path(ticket_hash: bytes, first: int, count: int) -> str:
    """The request target for a piece of a shard, exactly as it is signed and sent."""
    return f"/v1/shards/{ticket_hash.hex()}?leaf={first}&count={count}"


def fields_of(ticket: Ticket) -> Mapping[str, str | int]:
    """The fields as people and JSON read them: bytes in hex."""
    names = [field.name for field in fields(Ticket)]
    values = {name: getattr(ticket, name) for name in names}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}
