"""What to fetch in which order: pieces of shards that make up a range of the ciphertext.

Whole shards of a stripe are fetched side by side. The first shard comes in pieces that grow, so that its
first bytes are there after few round trips, however slowly a connection starts; so do the ends of a range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .. import seal
from ..coding import layout
from ..coding.layout import Extent, Stripe
from ..shard import LEAST_LEAVES

#: Leaves of the first piece: as many as a segment has, but for its tag.
FIRST_LEAVES = 64


@dataclass(frozen=True, slots=True)
class Unit:
    """Columns of some data shards of a stripe: `count` leaves from `first` on of each of `numbers`."""

    stripe: Stripe
    numbers: tuple[int, ...]
    first: int
    count: int

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return len(self.numbers) * self.count * seal.LEAF_SIZE

    @property
    def offset(self) -> int:
        """Where it begins in the ciphertext."""
        return self.stripe.offset + self.numbers[0] * self.stripe.shard_size + self.first * seal.LEAF_SIZE


def units(stripes: list[Stripe], offset: int, length: int) -> Iterator[Unit]:
    """Units that hold `length` bytes of the ciphertext from `offset` on, in order and without gaps.

    Args:
        stripes: of the whole file.
    """
    whole: list[Extent] = []
    for extent in layout.where(stripes, offset, length):
        stripe = extent.stripe
        if whole and whole[0].stripe is not stripe:
            yield _together(whole)
            whole = []
        begins = stripe.offset + extent.number * stripe.shard_size + extent.offset == offset
        if extent.offset == 0 and 2 * extent.length > stripe.shard_size and not begins:
            whole.append(extent)
            continue
        if whole:
            yield _together(whole)
            whole = []
        yield from _pieces(extent)
    if whole:
        yield _together(whole)


def _together(extents: list[Extent]) -> Unit:
    stripe = extents[0].stripe
    return Unit(stripe, tuple(extent.number for extent in extents), 0, stripe.leaves)


def _pieces(extent: Extent) -> Iterator[Unit]:
    """Aligned pieces, each a power of two of leaves, no smaller than the smallest shard."""
    at = extent.offset // seal.LEAF_SIZE // LEAST_LEAVES * LEAST_LEAVES
    end = -(-(extent.offset + extent.length) // (seal.LEAF_SIZE * LEAST_LEAVES)) * LEAST_LEAVES
    steps = [LEAST_LEAVES, FIRST_LEAVES]  # the segment, and its tag, which is in the next leaf
    while at < end:
        most = steps.pop() if steps else extent.stripe.leaves
        count = min(at & -at or extent.stripe.leaves, most, 1 << ((end - at).bit_length() - 1))
        yield Unit(extent.stripe, (extent.number,), at, count)
        at += count
