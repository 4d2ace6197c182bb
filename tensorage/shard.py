"""Shards: what a client stores on one miner, a tree of 4,096-byte leaves that takes the place of filler.

    shard  2^k leaves, 64 KiB to 4 MiB (k = 4 to 10), the first leaves of one chunk of a sector
    root   RFC 6962 over its leaves, hashed as filler's are

A shard displaces as many leaves as it has, from the front of a chunk; what is left of the chunk is the filler
that was sealed there, so that a small shard does not earn a miner the rest of a chunk for nothing. As the
size is a power of two and stands at the front, the chunk's root follows from the shard's root and the
siblings on the way up (`chunk_root`), and what changed is seen without a byte of filler.

A shard is read in pieces: aligned runs of 2^j leaves with the path from their node to the root, so that each
piece is believed for itself. It is challenged like a sector: a walk in which each leaf decides the next.

    nonce = H(tag("tensorage/shard-challenge/v1") || salt || asker || miner || ticket_hash)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import challenge as challenges
from . import merkle, seal
from .challenge import WrongAnswerError, leaf_index, next_state, response_hash
from .encoding import HASH_SIZE, KEY_SIZE, SIGNATURE_SIZE, fixed, sha256, tag
from .errors import ProofError
from .hashchain import Sign, Verify

LEAST_LEAVES = 16
MOST_LEAVES = seal.LEAVES_PER_CHUNK
#: What a shard may have: 64 KiB, 128 KiB, ... 4 MiB.
SHARD_LEAVES = tuple(1 << power for power in range(4, 11))
SALT_SIZE = 32


def check_leaves(leaves: int) -> None:
    """Check that a shard may have so many leaves.

    Raises:
        ProofError: it may not.
    """
    if leaves not in SHARD_LEAVES:
        raise ProofError(
            f"a shard of {leaves} leaves; it must be a power of two from {LEAST_LEAVES} to {MOST_LEAVES}"
        )


def shard_root(data: bytes | memoryview) -> bytes:
    """The root over the leaves of a whole shard.

    Raises:
        ProofError: it has not the size of a shard.
    """
    leaves, rest = divmod(len(data), seal.LEAF_SIZE)
    if rest:
        raise ProofError(f"a shard of {len(data)} bytes is no whole number of leaves")
    check_leaves(leaves)
    return merkle.root(merkle.leaf_hashes(data, seal.LEAF_SIZE))


def chunk_root(node: bytes, leaves: int, siblings: Sequence[bytes]) -> bytes:
    """The root of a chunk whose first `leaves` leaves have the root `node`.

    Args:
        siblings: from the node up, 10 - log2(leaves) hashes; none for a shard that fills its chunk.

    Raises:
        ProofError: another number of siblings than that, or no size of a shard.
    """
    check_leaves(leaves)
    return merkle.root_from_path(node, 0, MOST_LEAVES // leaves, siblings)


# Pieces


def check_piece(leaves: int, first: int, count: int) -> None:
    """Check that `count` leaves from `first` on are an aligned run in a shard of `leaves`.

    Raises:
        ProofError: they are not.
    """
    if count < 1 or count & (count - 1) or first < 0 or first % count or first + count > leaves:
        raise ProofError(
            f"{count} leaves from {first} on are no piece of {leaves}: the number must be a power of two, "
            "and the first a multiple of it"
        )


def piece_hashes(leaves: int, count: int) -> int:
    """How many hashes stand before the bytes of a piece."""
    return merkle.path_length(0, leaves // count)


def piece_size(leaves: int, count: int) -> int:
    """Bytes of an answer with a piece of `count` leaves."""
    return piece_hashes(leaves, count) * HASH_SIZE + count * seal.LEAF_SIZE


def read_piece(root: bytes, leaves: int, first: int, count: int, answer: bytes) -> memoryview:
    """The bytes of a piece out of an answer: the path from its node to the root, then its leaves.

    Raises:
        ProofError: it is no piece, or its bytes are not those of the shard with that root.
    """
    check_piece(leaves, first, count)
    if len(answer) != piece_size(leaves, count):
        raise ProofError(f"a piece of {len(answer)} bytes where {piece_size(leaves, count)} were due")
    hashes = piece_hashes(leaves, count)
    data = memoryview(answer)[hashes * HASH_SIZE :]
    node = merkle.root(merkle.leaf_hashes(data, seal.LEAF_SIZE))
    path = [answer[at : at + HASH_SIZE] for at in range(0, hashes * HASH_SIZE, HASH_SIZE)]
    if merkle.root_from_path(node, first // count, leaves // count, path) != root:
        raise ProofError(f"leaves {first} to {first + count - 1} are not those of the shard {root.hex()}")
    return data


# Challenges


def nonce(salt: bytes, asker: bytes, miner: bytes, ticket_hash: bytes) -> bytes:
    """The 32 bytes that a walk through a shard starts from.

    Args:
        salt: 32 unforeseen bytes.
        asker: public key of whoever asks, of either kind of signature.
    """
    return sha256(
        tag("tensorage/shard-challenge/v1")
        + fixed(salt, SALT_SIZE, "salt")
        + fixed(asker, KEY_SIZE, "asker's key")
        + fixed(miner, KEY_SIZE, "miner's key")
        + fixed(ticket_hash, HASH_SIZE, "ticket hash")
    )


def answer_size(leaves: int, hops: int) -> int:
    """Bytes of the answer to a challenge of `hops` hops."""
    return hops * (seal.LEAF_SIZE + HASH_SIZE * merkle.path_length(0, leaves)) + SIGNATURE_SIZE


def answer(
    nonce: bytes, hops: int, leaves: int, read: Callable[[int], tuple[bytes, list[bytes]]], sign: Sign
) -> bytes:
    """Walk and answer: each leaf, its path to the shard's root, at last the miner's signature.

    Args:
        read: gives a leaf of the shard and its path, leaf to root.
        sign: signs with the miner's hotkey.
    """
    state, parts = nonce, []
    for _ in range(hops):
        leaf, path = read(leaf_index(state, leaves))
        parts += [leaf, *path]
        state = next_state(state, leaf)
    return b"".join([*parts, sign(response_hash(nonce, state))])


def verify_answer(
    nonce: bytes, hops: int, root: bytes, leaves: int, miner: bytes, answer: bytes, verify: Verify
) -> challenges.Walk:
    """Check an answer against the root of the shard.

    Raises:
        WrongAnswerError: another length, a leaf that is not the shard's at its place, or no signature of the
            miner's.
    """
    if len(answer) != answer_size(leaves, hops):
        raise WrongAnswerError(f"an answer of {len(answer)} bytes, not {answer_size(leaves, hops)}", 0)
    step = (len(answer) - SIGNATURE_SIZE) // hops
    state, indices = nonce, []
    for hop in range(hops):
        part = answer[hop * step : (hop + 1) * step]
        leaf, index = part[: seal.LEAF_SIZE], leaf_index(state, leaves)
        path = [part[at : at + HASH_SIZE] for at in range(seal.LEAF_SIZE, step, HASH_SIZE)]
        if merkle.root_from_path(merkle.leaf_hash(leaf), index, leaves, path) != root:
            raise WrongAnswerError(f"hop {hop}: leaf {index} is not that of shard {root.hex()}", hop)
        indices.append(index)
        state = next_state(state, leaf)
    if not verify(miner, response_hash(nonce, state), answer[-SIGNATURE_SIZE:]):
        raise WrongAnswerError("the answer is not signed by the miner's hotkey", hops)
    return challenges.Walk(tuple(indices), state)
