"""Rebuilding: the bytes of some shards of a stripe, beneath their outer layer, from any K others.

Rules. What a miner gives is believed piece by piece, against the root in its ticket; a miner that gives other
bytes has lost the shard. A stripe is rebuilt in columns, as many leaves of each shard at a time as `MEMORY`
holds of K, so that memory does not grow with K. A shard that was rebuilt must lead to the root that the shard
with its number had before, if there was one: else the client's shards were never of one stripe, and what is
made of them would be of no use.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from .. import seal, shard
from ..chain.address import public_key
from ..coding import erasure, spread
from ..errors import ProofError, TensorageError
from ..transport.dendrite import PeerError
from ..validator.together import together
from .care import Care, says
from .health import report_wrong
from .rows import FileRow, ShardRow, StripeRow

#: Bytes of pieces that are held at a time.
MEMORY = 16 << 20
PIECE_SECONDS = 20.0


class RebuildError(TensorageError):
    """A stripe cannot be rebuilt, now or for ever."""


@dataclass
class Sources:
    """Who has shards of a stripe, best first; those that fail are left out from then on."""

    left: list[ShardRow]
    failed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, stripe: StripeRow) -> Sources:
        """The healthy ones first, in an order that spreads the load."""
        stored = [row for row in stripe.shards if row.state == "stored"]
        random.shuffle(stored)
        stored.sort(key=lambda row: (row.health == "failed", row.failures))
        return cls(stored)

    def fails(self, row: ShardRow, reason: str) -> None:
        """Leave one out."""
        self.left.remove(row)
        self.failed.append(f"{row.number}: {reason}")


async def rebuild(care: Care, stripe: StripeRow, numbers: Collection[int]) -> dict[int, bytearray]:
    """The shards with these numbers, without their outer layer.

    Raises:
        RebuildError: less than K shards are to be had, or they are not of one stripe.
    """
    k = stripe.file.data_shards
    sources = Sources.of(stripe)
    found = {number: bytearray(stripe.leaves * seal.LEAF_SIZE) for number in numbers}
    count = column_leaves(stripe.leaves, k)
    for first in range(0, stripe.leaves, count):
        async with care.quiet.aside():
            pieces = await _pieces(care, stripe, sources, k, first, count)
            blocks = await care.compute(_decode, k, stripe.file.shards, pieces, sorted(numbers))
        at = first * seal.LEAF_SIZE
        for number, block in blocks.items():
            found[number][at : at + len(block)] = block
    for number, inner in found.items():
        await care.compute(_check_known, stripe, number, inner)
    return found


async def copy(care: Care, stripe: StripeRow, row: ShardRow) -> bytearray | None:
    """A shard without its outer layer from the miner that has it; None when it does not give it."""
    sources = Sources([row])
    found = bytearray(row.size)
    count = column_leaves(row.leaves, 1)
    for first in range(0, row.leaves, count):
        async with care.quiet.aside():
            piece = await _piece(care, stripe.file, sources, row, first, count)
        if piece is None:
            return None
        found[first * seal.LEAF_SIZE : first * seal.LEAF_SIZE + len(piece)] = piece
    return found


def column_leaves(leaves: int, k: int) -> int:
    """Leaves of each of K shards that are held at a time: a power of two."""
    count = leaves
    while count > 1 and count * seal.LEAF_SIZE * k > MEMORY:
        count //= 2
    return count


async def _pieces(
    care: Care, stripe: StripeRow, sources: Sources, k: int, first: int, count: int
) -> dict[int, bytes]:
    """The same leaves of K different shards, by number."""
    pieces: dict[int, bytes] = {}
    while len(pieces) < k:
        chosen: dict[int, ShardRow] = {}
        for row in sources.left:
            if len(pieces) + len(chosen) < k and row.number not in pieces:
                chosen.setdefault(row.number, row)
        if len(pieces) + len(chosen) < k:
            reasons = "; ".join(sources.failed) or "no others are stored"
            raise RebuildError(
                f"stripe {stripe.number} of file {stripe.file.id.hex()} needs {k} shards,"
                f" {len(pieces) + len(chosen)} are to be had ({reasons})"
            )
        jobs = {
            number: partial(_piece, care, stripe.file, sources, row, first, count)
            for number, row in chosen.items()
        }
        got = await together(jobs, k)
        pieces.update((number, piece) for number, piece in got.items() if piece is not None)
    return pieces


async def _piece(
    care: Care, file: FileRow, sources: Sources, row: ShardRow, first: int, count: int
) -> bytes | None:
    """Some leaves of a shard without their outer layer; None when they are not to be had."""
    neuron = care.neuron(row.hotkey)
    if neuron is None:
        sources.fails(row, "its miner is not on the subnet any more")
        return None
    try:
        answer = await care.calls.piece(neuron, row.decoded(), first, count, deadline=PIECE_SECONDS)
        return await care.compute(_opened, file, row, first, count, answer)
    except PeerError as error:
        sources.fails(row, says(error))
    except ProofError as error:
        sources.fails(row, error.message)
        await report_wrong(care, row, error.message)
    return None


def _opened(file: FileRow, row: ShardRow, first: int, count: int, answer: bytes) -> bytes:
    data = shard.read_piece(row.root, row.leaves, first, count, answer)
    return layered(file, row.stripe, row.number, row.hotkey, data, first * seal.LEAF_SIZE)


def layered(
    file: FileRow,
    stripe: int,
    number: int,
    hotkey: str,
    data: bytes | bytearray | memoryview,
    offset: int = 0,
) -> bytes:
    """Bytes of a shard with its outer layer put on, or taken off.

    Args:
        hotkey: of its miner, SS58.
    """
    assert file.spread is not None  # of a complete file
    return spread.apply(file.spread, file.id, stripe, number, public_key(hotkey), data, offset)


def _decode(k: int, n: int, pieces: Mapping[int, bytes], numbers: Sequence[int]) -> dict[int, erasure.Block]:
    data = erasure.decode(k, n, pieces)
    parity = [number for number in numbers if number >= k]
    made = dict(zip(parity, erasure.encode(data, n, parity), strict=True))
    return {number: data[number] if number < k else made[number] for number in numbers}


def _check_known(stripe: StripeRow, number: int, inner: bytearray) -> None:
    for row in stripe.shards:
        if row.number == number:
            known = layered(stripe.file, stripe.number, number, row.hotkey, inner)
            if shard.shard_root(known) != row.root:
                raise RebuildError(
                    f"shard {number} of stripe {stripe.number} of file {stripe.file.id.hex()} comes out"
                    " differently: its client's shards are not of one stripe"
                )
