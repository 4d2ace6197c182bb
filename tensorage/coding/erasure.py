"""K of N: any K of a stripe's N shards give its bytes.

zfec's code: a systematic Reed-Solomon code over GF(2^8), whose generator is a Vandermonde matrix brought to
the form that starts with the identity (L. Rizzo, "Effective Erasure Codes for Reliable Computer Communication
Protocols", CCR 27(2), 1997). Shards 0 to K-1 are the data as it is, K to N-1 are parity. Each byte of a shard
depends on the bytes at the same place of the K data shards and on no others, so that any range of columns is
coded by itself.

The code makes up for shards that are missing, not for shards that are wrong: give it only bytes that were
checked against the root of their shard. The work releases the GIL: threads may share it by columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol, TypeAlias

import zfec

from ..errors import ProofError

#: Shards that a stripe may have.
MOST_SHARDS = 256

Block: TypeAlias = "bytes | bytearray | memoryview"


class _Encoder(Protocol):
    def encode(self, blocks: Sequence[Block], numbers: Sequence[int]) -> list[bytes]: ...


class _Decoder(Protocol):
    def decode(self, blocks: Sequence[Block], numbers: Sequence[int]) -> list[Block]: ...


def check_code(k: int, n: int) -> None:
    """Check that there is a code with k data shards of n.

    Raises:
        ProofError: there is none.
    """
    if not 1 <= k <= n <= MOST_SHARDS:
        raise ProofError(f"{k} data shards of {n}; there may be 1 to {MOST_SHARDS}, and at least one is data")


@lru_cache(maxsize=16)
def _encoder(k: int, n: int) -> _Encoder:
    check_code(k, n)
    encoder: _Encoder = zfec.Encoder(k, n)
    return encoder


@lru_cache(maxsize=16)
def _decoder(k: int, n: int) -> _Decoder:
    check_code(k, n)
    decoder: _Decoder = zfec.Decoder(k, n)
    return decoder


def encode(data: Sequence[Block], n: int, numbers: Sequence[int] | None = None) -> list[bytes]:
    """Parity shards of a stripe.

    Args:
        data: the K data shards, or the same columns of each; all of one size.
        n: shards of the stripe, data and parity.
        numbers: which parity shards, from K to n - 1; all of them by default.

    Raises:
        ProofError: there is no such code.
        ValueError: blocks of several sizes, or a number that is no parity shard's.
    """
    k = len(data)
    encoder = _encoder(k, n)
    wanted = tuple(range(k, n) if numbers is None else numbers)
    if any(not k <= number < n for number in wanted):
        raise ValueError(f"parity shards {list(wanted)} of a stripe with {k} of {n}")
    _one_size(data)
    return encoder.encode(tuple(data), wanted) if wanted else []


def decode(k: int, n: int, blocks: Mapping[int, Block]) -> list[Block]:
    """The K data shards of a stripe, or some columns of them, out of any K shards' same columns.

    Data shards that are among `blocks` are given back as they are, not copied.

    Args:
        blocks: by the number of the shard; of more than K, data shards are used first.

    Raises:
        ProofError: less than K blocks, a number that is no shard's, or blocks of several sizes.
    """
    decoder = _decoder(k, n)
    if len(blocks) < k:
        raise ProofError(f"{len(blocks)} shards of a stripe that takes {k}")
    numbers = tuple(sorted(blocks))
    if numbers[0] < 0 or numbers[-1] >= n:
        raise ProofError(f"shards {list(numbers)} of a stripe that has {n}")
    numbers = numbers[:k]
    chosen = tuple(blocks[number] for number in numbers)
    try:
        _one_size(chosen)
    except ValueError as error:
        raise ProofError(str(error)) from error
    if numbers[-1] == k - 1:
        return list(chosen)
    return decoder.decode(chosen, numbers)


def _one_size(blocks: Sequence[Block]) -> None:
    sizes = {len(block) for block in blocks}
    if len(sizes) != 1:
        raise ValueError(f"the shards of a stripe have one size, not {sorted(sizes)}")
