"""How the ciphertext of a file is cut into stripes, and where each byte of it is.

    stripe  K data shards of 2^j leaves each (64 KiB to 4 MiB, `shard.SHARD_LEAVES`), one behind the other:
            data shard i holds bytes i * shard size to (i + 1) * shard size of the stripe
    file    full stripes, then smaller ones for the rest, the largest first, then zero bytes up to the end of
            the last
    full    shards of the most leaves with which the data of a stripe has at most 40 MiB: 1,024 for K up to
            10, 512 up to 20 and so on, so that whoever codes a stripe needs no more memory for large K

So a small range lies in one shard, and a reader who wants everything reads K shards side by side.

The rest is less than a full stripe: u smallest stripes (K shards of 64 KiB), u from 1 to 64 or fewer, and
each bit of u that is set is a stripe. As every stripe costs N uploads, u is raised to the number with the
fewest such bits that leaves the padding under 1 % of the file; where none does, it is less than one smallest
stripe.

A full stripe is known to be one before the size of the file is, so that whoever reads from a pipe cuts the
same stripes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .. import seal
from ..errors import ProofError
from ..shard import LEAST_LEAVES, MOST_LEAVES

#: Bytes that the data shards of a stripe may have together, where they are not the smallest ones.
_MOST_DATA = 40 << 20
_SMALLEST_SHARD = LEAST_LEAVES * seal.LEAF_SIZE
#: Padding may take one part in this many of a file.
_PADDING_PART = 100


@dataclass(frozen=True)
class Stripe:
    """One stripe of a file.

    Attributes:
        number: from 0.
        offset: of its first byte in the ciphertext.
        leaves: of each of its shards.
        data_shards: K.
    """

    number: int
    offset: int
    leaves: int
    data_shards: int

    @property
    def shard_size(self) -> int:
        """Bytes of each shard."""
        return self.leaves * seal.LEAF_SIZE

    @property
    def size(self) -> int:
        """Bytes of the data shards together, padding included."""
        return self.shard_size * self.data_shards


@dataclass(frozen=True)
class Extent:
    """Bytes of a file that lie in one data shard: `length` bytes from `offset` on in shard `number`."""

    stripe: Stripe
    number: int
    offset: int
    length: int


def full_leaves(data_shards: int) -> int:
    """Leaves of each shard of a full stripe."""
    leaves = MOST_LEAVES
    while leaves > LEAST_LEAVES and data_shards * leaves * seal.LEAF_SIZE > _MOST_DATA:
        leaves //= 2
    return leaves


def full_stripe(data_shards: int) -> int:
    """Bytes of the data of a full stripe."""
    return data_shards * full_leaves(data_shards) * seal.LEAF_SIZE


def rest_units(rest: int, size: int, data_shards: int) -> int:
    """How many smallest stripes the rest of a file takes; the ones among its bits are its stripes."""
    smallest = data_shards * _SMALLEST_SHARD
    least = -(-rest // smallest)
    most = full_leaves(data_shards) // LEAST_LEAVES
    allowed = [u for u in range(least, most + 1) if (u * smallest - rest) * _PADDING_PART < size]
    return min(allowed, key=lambda u: (u.bit_count(), u), default=least)


def stripes(size: int, data_shards: int) -> list[Stripe]:
    """The stripes of a ciphertext of `size` bytes; none for none.

    Raises:
        ProofError: a negative size, or no data shards.
    """
    if size < 0 or data_shards < 1:
        raise ProofError(f"{size} bytes in stripes of {data_shards} data shards")
    each, leaves = full_stripe(data_shards), full_leaves(data_shards)
    full, rest = divmod(size, each)
    cut = [Stripe(n, n * each, leaves, data_shards) for n in range(full)]
    return cut + _rest(rest, size, data_shards)


def _rest(rest: int, size: int, data_shards: int) -> list[Stripe]:
    """The stripes behind the full ones."""
    units = rest_units(rest, size, data_shards)
    offset = size - rest
    number = offset // full_stripe(data_shards)
    cut: list[Stripe] = []
    for power in reversed(range(units.bit_length())):
        if units >> power & 1:
            cut.append(Stripe(number, offset, LEAST_LEAVES << power, data_shards))
            number, offset = number + 1, offset + cut[-1].size
    return cut


def where(stripes: list[Stripe], offset: int, length: int) -> Iterator[Extent]:
    """Where `length` bytes of the ciphertext from `offset` on lie, in order.

    Args:
        stripes: of the whole file, as `stripes` gives them.

    Raises:
        ValueError: the range is not within the stripes.
    """
    end = offset + length
    if offset < 0 or length < 0 or end > (stripes[-1].offset + stripes[-1].size if stripes else 0):
        raise ValueError(f"bytes {offset} to {end} are not within the stripes")
    return _where(stripes, offset, end)


def _where(stripes: list[Stripe], offset: int, end: int) -> Iterator[Extent]:
    at = offset
    # Only the stripes of the rest are smaller than the first one may be.
    number = min(offset // full_stripe(stripes[0].data_shards), len(stripes) - 1) if stripes else 0
    while at < end:
        stripe = stripes[number]
        if at >= stripe.offset + stripe.size:
            number += 1
            continue
        shard, start = divmod(at - stripe.offset, stripe.shard_size)
        taken = min(stripe.shard_size - start, end - at)
        yield Extent(stripe, shard, start, taken)
        at += taken
