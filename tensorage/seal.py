"""Sealing: a sector is the memory matrix that Argon2d leaves behind.

    id     = H(tag("tensorage/sector/v1") || genesis || u16 netuid || miner || u8 profile || u64 index)
    sector = the matrix of Argon2d (RFC 9106) with password id, salt "tensorage-sector", one lane, memory of
             the sector's size, 24 passes and tag length 32; blocks in order, words little-endian

A sector belongs to one hotkey on one subnet of one chain: nobody else's copy serves. Each block needs the
one before it, one that the data choose, and its own former value, so filling cannot be shared out among
cores, and whoever dropped blocks needs most of a whole fill to get one back. What that proves, and what it
does not, is in docs/proof.md.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from . import merkle
from .encoding import KEY_SIZE, ZERO_HASH, fixed, sha256, tag, u8, u16, u64

LEAF_SIZE = 4096
LEAVES_PER_CHUNK = 1024
CHUNK_SIZE = LEAF_SIZE * LEAVES_PER_CHUNK
CHUNK_HEIGHT = 10  # a chunk root is the node of the sector's tree at this height
PASSES = 24
SALT = b"tensorage-sector"

_BLOCK_SIZE = 1024  # of Argon2
_BLOCKS_PER_CHUNK = CHUNK_SIZE // _BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class Profile:
    """A size of sector. Profile 1 is for real networks; profile 0 is sealed too fast to prove anything."""

    number: int
    chunks: int

    @property
    def leaves(self) -> int:
        """Leaves in a sector (n of the protocol)."""
        return self.chunks * LEAVES_PER_CHUNK

    @property
    def size(self) -> int:
        """Bytes in a sector."""
        return self.chunks * CHUNK_SIZE


DEV = Profile(number=0, chunks=1)
MAIN = Profile(number=1, chunks=256)
PROFILES = {profile.number: profile for profile in (DEV, MAIN)}


def profile(number: int) -> Profile:
    """The profile with that number; ValueError when there is none."""
    if number not in PROFILES:
        raise ValueError(f"there is no sector profile {number}; there are {sorted(PROFILES)}")
    return PROFILES[number]


def sector_id(genesis: bytes, netuid: int, miner: bytes, profile: Profile, index: int) -> bytes:
    """The 32-byte id of a sector: the password of its seal.

    Args:
        genesis: hash of block 0 of the chain, 32 bytes.
        miner: public key of the miner's hotkey, 32 bytes.
        index: the sector's number, unsigned 64 bits.
    """
    return sha256(
        tag("tensorage/sector/v1")
        + fixed(genesis, len(ZERO_HASH), "genesis hash")
        + u16(netuid)
        + fixed(miner, KEY_SIZE, "miner key")
        + u8(profile.number)
        + u64(index)
    )


class Sealer:
    """Memory for one sector at a time, used again for each sector that it seals.

    It asks for huge pages: the fill reads all over the matrix, and with pages of 4 KiB it would wait for
    the processor's page tables as long as for memory.
    """

    def __init__(self, profile: Profile) -> None:
        from . import argon2d  # noqa: PLC0415 - who only checks or serves need not load a compiler

        self.profile = profile
        self._kernel = argon2d
        self._memory = mmap.mmap(-1, profile.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._matrix = np.frombuffer(self._memory, dtype=np.uint64).reshape(-1, argon2d.WORDS)

    def chunks(self, sector_id: bytes) -> Iterator[memoryview]:
        """Seal, yielding each chunk (4 MiB) as soon as it is final, in order.

        The first comes after all passes but the last; it is used best at once, while the processor's caches
        hold it. A view is valid until the next sector is begun.
        """
        for _ in self.steps(sector_id):
            pass
        yield from self.last_pass()

    def steps(self, sector_id: bytes) -> Iterator[None]:
        """Do all passes but the last, yielding after each."""
        self._kernel.start(self._matrix, sector_id, SALT, PASSES)
        for number in range(PASSES - 1):
            self._kernel.fill(self._matrix, number, 0, len(self._matrix))
            yield

    def last_pass(self) -> Iterator[memoryview]:
        """Do the last pass, after `steps`; yields as `chunks` does."""
        for chunk in range(self.profile.chunks):
            first = chunk * _BLOCKS_PER_CHUNK
            stop = first + _BLOCKS_PER_CHUNK
            self._kernel.fill(self._matrix, PASSES - 1, first, stop)
            yield memoryview(self._memory)[first * _BLOCK_SIZE : stop * _BLOCK_SIZE]

    def seal(self, sector_id: bytes) -> memoryview:
        """The whole sealed sector; the view is valid until the next sector is begun."""
        for _ in self.chunks(sector_id):
            pass
        return memoryview(self._memory)


def chunk_roots(sealer: Sealer, sector_id: bytes) -> list[bytes]:
    """Seal a sector and return the roots of its chunks: what a seal audit compares."""
    return [merkle.root(merkle.leaf_hashes(chunk, LEAF_SIZE)) for chunk in sealer.chunks(sector_id)]
