"""The chained challenge: read N sealed leaves, each at a place that the last one decides.

    nonce = H(tag("tensorage/challenge/v1") || block_hash || u16 netuid || validator || miner
              || commitment_hash || u32 round)
    s_0 = nonce;  i_j = (first 16 bytes of s_j) mod N;  s_{j+1} = H(s_j || leaf(i_j))

The answer is, for each hop: u64 sector index, the leaf, its path to the sector root, the entry's path to
the capacity root; then the hotkey's signature over H(tag("tensorage/response/v1") || nonce || s_hops).

It carries no position, root or length: the verifier derives every one, so there is nothing in an answer
that it has to believe. Reads cannot be done in parallel, or before the one before them is done. A nonce
should not be known before it is asked: block hashes are public, so validators make `round` unforeseeable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from . import commitment as commitments
from . import merkle, seal
from .commitment import Commitment
from .encoding import HASH_SIZE, KEY_SIZE, SIGNATURE_SIZE, fixed, sha256, tag, u16, u32, u64
from .errors import ProofError
from .hashchain import Sign, Verify

HOPS = 32
DEADLINE = 4.0  # seconds
MAX_HOPS = 1024


@dataclass(frozen=True)
class Challenge:
    """The ingredients of a nonce; both sides and any third party compute it from them."""

    block_hash: bytes
    netuid: int
    validator: bytes
    miner: bytes
    commitment_hash: bytes
    round: int

    @cached_property
    def nonce(self) -> bytes:
        """The 32 bytes that the walk starts from."""
        return sha256(
            tag("tensorage/challenge/v1")
            + fixed(self.block_hash, HASH_SIZE, "block hash")
            + u16(self.netuid)
            + fixed(self.validator, KEY_SIZE, "validator key")
            + fixed(self.miner, KEY_SIZE, "miner key")
            + fixed(self.commitment_hash, HASH_SIZE, "commitment hash")
            + u32(self.round)
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """One leaf with what proves its place: what the miner reads for one hop."""

    sector_index: int
    leaf: bytes
    leaf_path: list[bytes]
    entry_path: list[bytes]

    def encode(self) -> bytes:
        """The bytes of one hop."""
        return u64(self.sector_index) + self.leaf + b"".join(self.leaf_path) + b"".join(self.entry_path)


@dataclass(frozen=True, slots=True)
class Walk:
    """A verified walk: the leaves it went to, numbered through the entries, and the state it ended in."""

    leaf_indices: tuple[int, ...]
    final_state: bytes


class WrongAnswerError(ProofError):
    """An answer that does not verify. `verified` is how many hops did, before the one that does not."""

    def __init__(self, message: str, verified: int) -> None:
        super().__init__(message)
        self.verified = verified


def leaf_index(state: bytes, leaves: int) -> int:
    """Where the walk goes from `state`, among `leaves` leaves."""
    return int.from_bytes(state[:16], "big") % leaves


def next_state(state: bytes, leaf: bytes) -> bytes:
    """The state after reading `leaf` in `state`."""
    return sha256(state + leaf)


def response_hash(nonce: bytes, final_state: bytes) -> bytes:
    """The 32 bytes that the miner signs at the end of a walk."""
    return sha256(tag("tensorage/response/v1") + nonce + final_state)


def hop_sizes(commitment: Commitment, entry: int) -> tuple[int, int]:
    """How many hashes the leaf's path and the path of entry number `entry` have."""
    leaf_path = merkle.path_length(0, seal.profile(commitment.profile).leaves)
    return leaf_path, merkle.path_length(entry, commitment.sector_count)


def max_answer_size(commitment: Commitment, hops: int) -> int:
    """The most bytes that a right answer can have: what a client needs to read, and not one more."""
    if commitment.leaves == 0:
        return SIGNATURE_SIZE
    leaf_path, entry_path = hop_sizes(commitment, 0)  # entry 0 has the longest path
    return hops * (8 + seal.LEAF_SIZE + HASH_SIZE * (leaf_path + entry_path)) + SIGNATURE_SIZE


def answer(
    nonce: bytes, hops: int, commitment: Commitment, read: Callable[[int, int], Opening], sign: Sign
) -> bytes:
    """Walk and answer, as an honest miner does.

    Args:
        read: gives the opening of (entry number, leaf number in its sector).
        sign: signs with the miner's hotkey.
    """
    state = nonce
    parts = []
    for _ in range(hops):
        opening = read(*divmod(leaf_index(state, commitment.leaves), seal.profile(commitment.profile).leaves))
        parts.append(opening.encode())
        state = next_state(state, opening.leaf)
    parts.append(sign(response_hash(nonce, state)))
    return b"".join(parts)


def verify_answer(nonce: bytes, hops: int, commitment: Commitment, answer: bytes, verify: Verify) -> Walk:
    """Check an answer against the commitment alone.

    Raises:
        WrongAnswerError: it is short, long or empty, a leaf is not the committed one at the place the walk
            demands, or the signature is not the miner's.
    """
    if commitment.leaves == 0:
        raise WrongAnswerError("the commitment holds no sector, so there is nothing to prove", 0)
    per_sector = seal.profile(commitment.profile).leaves
    reader = _Reader(answer)
    state = nonce
    indices: list[int] = []
    for hop in range(hops):
        index = leaf_index(state, commitment.leaves)
        entry, leaf_number = divmod(index, per_sector)
        leaf_path_length, entry_path_length = hop_sizes(commitment, entry)
        try:
            sector_index = int.from_bytes(reader.take(8), "big")
            leaf = reader.take(seal.LEAF_SIZE)
            leaf_path = [reader.take(HASH_SIZE) for _ in range(leaf_path_length)]
            entry_path = [reader.take(HASH_SIZE) for _ in range(entry_path_length)]
        except ProofError as error:
            raise WrongAnswerError(f"hop {hop}: {error.message}", hop) from error
        sector_root = merkle.root_from_path(merkle.leaf_hash(leaf), leaf_number, per_sector, leaf_path)
        entry_hash = commitments.capacity_leaf(sector_index, sector_root)
        root = merkle.root_from_path(entry_hash, entry, commitment.sector_count, entry_path)
        if root != commitment.capacity_root:
            raise WrongAnswerError(
                f"hop {hop}: leaf {leaf_number} of entry {entry} (sector {sector_index}) "
                "is not the one committed to",
                hop,
            )
        indices.append(index)
        state = next_state(state, leaf)
    try:
        signature = reader.take(SIGNATURE_SIZE)
        reader.end()
    except ProofError as error:
        raise WrongAnswerError(error.message, hops) from error
    if not verify(commitment.miner, response_hash(nonce, state), signature):
        raise WrongAnswerError("the answer is not signed by the miner's hotkey", hops)
    return Walk(tuple(indices), state)


class _Reader:
    """Takes fields off the front of bytes, never past their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise ProofError(f"the answer ends at byte {len(self._data)}, inside a field of {size}")
        self._at += size
        return self._data[self._at - size : self._at]

    def end(self) -> None:
        if self._at != len(self._data):
            raise ProofError(f"the answer has {len(self._data) - self._at} bytes too many")
