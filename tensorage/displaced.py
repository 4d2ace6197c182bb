"""Displaced filler: what a sealed sector must be where clients' shards took the place of filler.

    slot   one chunk of one sector that was given to one ticket
    root   of such a chunk: the root of the ticket's shard, then the siblings that the sealed chunk has on the
           way up (`tensorage.shard.chunk_root`)

So whoever seals a sector again knows what every chunk of it must be, filler or not, without a byte of a
shard: from the nodes over 16 leaves each, the smallest shard, of the chunks in question. A chunk that is
neither its filler nor what a ticket makes of it was not sealed.

The tickets that an audit went by, as they are kept with its receipt, for whoever repeats it:

    slots  for each displaced chunk of the sector, in ascending order: u32 chunk || signed ticket
    key    H(tag("tensorage/audit-slots/v1") || commitment_hash || u64 sector)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from . import merkle, seal, shard
from .commitment import Commitment
from .encoding import HASH_SIZE, fixed, sha256, tag, u32, u64
from .errors import ProofError
from .hashchain import Verify
from .ticket import TICKET_SIZE, SignedTicket, Ticket

#: Most slots of one commitment: 512 GiB of the largest shards. Each is some 700 bytes on the wire.
MOST_SLOTS = 1 << 17

#: Height in a chunk's tree of the nodes over a smallest shard, and how many of them a chunk has.
_HEIGHT = shard.LEAST_LEAVES.bit_length() - 1
_NODES = seal.LEAVES_PER_CHUNK // shard.LEAST_LEAVES
_CHUNK_BYTES = 4


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sector as sealing makes it.

    Attributes:
        roots: of its chunks.
        nodes: of the chunks that were asked for, by number: 64 nodes over 16 leaves each.
    """

    roots: tuple[bytes, ...]
    nodes: Mapping[int, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of the chunks of a sector that are not filler.

    Attributes:
        held: those that are what their ticket makes of them.
        false: those that are neither.
    """

    held: tuple[int, ...]
    false: tuple[int, ...]


def seal_again(sealer: seal.Sealer, sector_id: bytes, named: Collection[int] = ()) -> Sealed:
    """Seal a sector, and keep the nodes of the chunks that are named."""
    roots, nodes = [], {}
    for number, chunk in enumerate(sealer.chunks(sector_id)):
        level = merkle.level(merkle.leaf_hashes(chunk, seal.LEAF_SIZE), _HEIGHT)
        roots.append(merkle.root(level))
        if number in named:
            nodes[number] = tuple(level)
    return Sealed(tuple(roots), nodes)


def siblings(nodes: Sequence[bytes], leaves: int) -> list[bytes]:
    """What stands beside the first `leaves` leaves of a chunk on the way up to its root.

    Args:
        nodes: of the chunk, over 16 leaves each, in order.

    Raises:
        ProofError: no size of a shard.
        ValueError: not 64 nodes.
    """
    shard.check_leaves(leaves)
    if len(nodes) != _NODES:
        raise ValueError(f"{len(nodes)} nodes where a chunk has {_NODES}")
    levels = merkle.levels(nodes)
    return [level[1] for level in levels[leaves.bit_length() - 1 - _HEIGHT : -1]]


def root_with(ticket: Ticket, nodes: Sequence[bytes]) -> bytes:
    """The root of a sealed chunk whose front the ticket's shard has taken."""
    return shard.chunk_root(ticket.shard_root, ticket.leaves, siblings(nodes, ticket.leaves))


def compare(roots: Sequence[bytes], sealed: Sealed, tickets: Mapping[int, Ticket]) -> Finding:
    """Compare the chunk roots of a sector with the sealed ones.

    Args:
        tickets: of the chunks that were displaced, by number; their nodes must be in `sealed`.
    """
    held: list[int] = []
    false: list[int] = []
    for number, (found, filler) in enumerate(zip(roots, sealed.roots, strict=True)):
        if found == filler:
            continue
        ticket = tickets.get(number)
        right = ticket is not None and found == root_with(ticket, sealed.nodes[number])
        (held if right else false).append(number)
    return Finding(tuple(held), tuple(false))


def is_for(signed: SignedTicket, commitment: Commitment, verify: Verify) -> bool:
    """Whether somebody signed this ticket for the miner of a commitment, on its subnet.

    Whether that somebody was a validator, and in time, is for those to judge who know the chain.
    """
    ticket = signed.ticket
    if (ticket.genesis, ticket.netuid, ticket.miner) != (
        commitment.genesis,
        commitment.netuid,
        commitment.miner,
    ):
        return False
    try:
        signed.check(verify)
    except ProofError:
        return False
    return True


# Kept with a receipt


def slots_key(commitment_hash: bytes, sector: int) -> bytes:
    """Under what the tickets are kept that an audit of a sector went by."""
    return sha256(
        tag("tensorage/audit-slots/v1") + fixed(commitment_hash, HASH_SIZE, "commitment hash") + u64(sector)
    )


def encode_slots(tickets: Mapping[int, SignedTicket]) -> bytes:
    """The tickets of a sector, by chunk, as bytes."""
    return b"".join(u32(chunk) + signed.encode() for chunk, signed in sorted(tickets.items()))


def decode_slots(data: bytes) -> dict[int, SignedTicket]:
    """The tickets that such bytes hold; their signatures are unchecked.

    Raises:
        ProofError: they hold none, or not in strictly ascending order of chunks.
    """
    step = _CHUNK_BYTES + TICKET_SIZE
    if len(data) % step:
        raise ProofError(f"{len(data)} bytes are no whole number of slots of {step}")
    tickets: dict[int, SignedTicket] = {}
    last = -1
    for at in range(0, len(data), step):
        chunk = int.from_bytes(data[at : at + _CHUNK_BYTES], "big")
        if chunk <= last:
            raise ProofError(f"the slot of chunk {chunk} stands after that of {last}")
        tickets[chunk] = SignedTicket.decode(data[at + _CHUNK_BYTES : at + step])
        last = chunk
    return tickets
