"""Commitments: a miner's signed statement of what it keeps, fixed before any challenge is known.

    capacity root = RFC 6962 root over entries in ascending sector index, leaf H(0x00 || u64 index || root)
    hash = H(tag("tensorage/commitment/v1") || genesis || u16 netuid || miner || u64 seq || prev_hash
             || u8 profile || u64 sector_count || capacity_root || u64 block_number)

A commitment is a record of the miner's signed hash chain (`tensorage.hashchain`). Ascending means strictly:
an index that stood twice would be one sector paid twice, so whoever gives credit checks the listing against
the root (`check_listing`) and not only the paths that a challenge happens to open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from . import merkle, seal
from .encoding import HASH_SIZE, KEY_SIZE, ZERO_HASH, fixed, sha256, tag, u8, u16, u64
from .errors import ProofError
from .hashchain import ChainLinkError, EquivocationError, Verify, check_link, check_signature

#: A sector index and the root of that sector.
Entry = tuple[int, bytes]

#: No sector has this index: in a receipt it says that no sector was audited.
RESERVED_INDEX = 2**64 - 1


def capacity_leaf(index: int, sector_root: bytes) -> bytes:
    """The hash of one entry, 32 bytes."""
    return merkle.leaf_hash(u64(index) + fixed(sector_root, HASH_SIZE, "sector root"))


def capacity_root(entries: Sequence[Entry]) -> bytes:
    """The root over entries.

    Raises:
        ValueError: the indices are not strictly ascending.
    """
    for (before, _), (after, _) in pairwise(entries):
        if before >= after:
            raise ValueError(f"sector index {after} stands after {before}; indices must strictly ascend")
    return merkle.root([capacity_leaf(index, root) for index, root in entries])


@dataclass(frozen=True)
class Commitment:
    """One record: `miner` keeps `sector_count` sectors of `profile` with the roots under `capacity_root`."""

    genesis: bytes
    netuid: int
    miner: bytes
    seq: int
    prev_hash: bytes
    profile: int
    sector_count: int
    capacity_root: bytes
    block_number: int

    @cached_property
    def hash(self) -> bytes:
        """The 32 bytes that the hotkey signs."""
        return sha256(
            tag("tensorage/commitment/v1")
            + fixed(self.genesis, HASH_SIZE, "genesis hash")
            + u16(self.netuid)
            + fixed(self.miner, KEY_SIZE, "miner key")
            + u64(self.seq)
            + fixed(self.prev_hash, HASH_SIZE, "prev_hash")
            + u8(self.profile)
            + u64(self.sector_count)
            + fixed(self.capacity_root, HASH_SIZE, "capacity root")
            + u64(self.block_number)
        )

    @property
    def leaves(self) -> int:
        """N of the challenge: leaves in all sectors."""
        return self.sector_count * seal.profile(self.profile).leaves

    @property
    def size(self) -> int:
        """Bytes committed."""
        return self.sector_count * seal.profile(self.profile).size


@dataclass(frozen=True)
class SignedCommitment:
    """A commitment and the hotkey's 64-byte signature over its hash."""

    commitment: Commitment
    signature: bytes

    def check(self, verify: Verify) -> None:
        """Check the signature and that the fields make sense.

        Raises:
            ProofError: they do not.
        """
        c = self.commitment
        if c.seq < 1:
            raise ProofError(f"commitment has seq {c.seq}; the first is 1")
        if (c.seq == 1) != (c.prev_hash == ZERO_HASH):
            raise ProofError(f"commitment {c.seq} has prev_hash {c.prev_hash.hex()}")
        if c.profile not in seal.PROFILES:
            raise ProofError(f"commitment {c.seq} has the unknown profile {c.profile}")
        check_signature(c, c.miner, self.signature, verify)


def first_commitment(
    genesis: bytes, netuid: int, miner: bytes, profile: int, entries: Sequence[Entry], block_number: int
) -> Commitment:
    """The commitment that begins a miner's chain."""
    root = capacity_root(entries)
    return Commitment(genesis, netuid, miner, 1, ZERO_HASH, profile, len(entries), root, block_number)


def next_commitment(previous: Commitment, entries: Sequence[Entry], block_number: int) -> Commitment:
    """The commitment to `entries` that follows `previous`."""
    p = previous
    root = capacity_root(entries)
    return Commitment(
        p.genesis, p.netuid, p.miner, p.seq + 1, p.hash, p.profile, len(entries), root, block_number
    )


def check_successor(known: Commitment, new: Commitment) -> None:
    """Check that `new` may take the place of `known`, the newest commitment seen from its miner.

    It may be the same, or follow at once. One that skips numbers is not refused for good: the caller asks the
    miner for those between and checks them in order.

    Raises:
        EquivocationError: the same seq with another hash; both are evidence.
        ChainLinkError: a lower seq, a broken link, an earlier block, or numbers skipped.
    """
    if new.hash == known.hash:
        return
    if new.seq == known.seq:
        raise EquivocationError(known, new)
    if new.seq < known.seq:
        raise ChainLinkError(f"commitment {new.seq} is older than {known.seq}, which is known")
    check_link(known, new)
    if new.block_number < known.block_number:
        raise ChainLinkError(
            f"commitment {new.seq} is of block {new.block_number}, before {known.block_number} of the last"
        )


def check_listing(commitment: Commitment, entries: Sequence[Entry]) -> None:
    """Check the full listing of a commitment: count, strictly ascending indices, and the root.

    Raises:
        ProofError: the listing is not what was committed to, or an index stands twice or is reserved.
    """
    if len(entries) != commitment.sector_count:
        raise ProofError(f"listing has {len(entries)} sectors, the commitment says {commitment.sector_count}")
    if entries and entries[-1][0] == RESERVED_INDEX:
        raise ProofError(f"listing of commitment {commitment.seq}: sector index {RESERVED_INDEX} is reserved")
    try:
        root = capacity_root(entries)
    except (ValueError, OverflowError) as error:
        raise ProofError(f"listing of commitment {commitment.seq}: {error}") from error
    if root != commitment.capacity_root:
        raise ProofError(
            f"listing has the root {root.hex()}, the commitment {commitment.capacity_root.hex()}"
        )


def sector_root(chunk_roots: Sequence[bytes]) -> bytes:
    """The root of a sector from the roots of all its chunks (a power of two of them)."""
    return merkle.root(chunk_roots)
