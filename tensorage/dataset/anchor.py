"""Heads anchored on chain: a witness to every buyer at once of which versions exist.

An owner puts one hash on chain, the RFC 6962 root over the heads of all its datasets sorted by id,

    leaf = u8 length || id || u64 seq || entry hash

as "tsds1:" and 64 hex digits. A buyer asks the seller for the path from its dataset's head to that root. A
log that ends before the anchored version was cut; one that goes on after it is anchored up to there, no
further.

A path proves that a head is in the tree, not that no other head of the same dataset is: an owner who writes
two into one tree is found out when two buyers compare their paths, which contradict each other under one
root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .. import merkle
from ..encoding import HASH_SIZE, fixed, u8, u64
from ..errors import ProofError
from .errors import HeadError
from .log import Log

PREFIX = "tsds1:"
_PAYLOAD = re.compile(r"tsds1:([0-9a-f]{64})", re.ASCII)

#: The newest version and its hash, by dataset id.
Heads = Mapping[str, tuple[int, bytes]]


@dataclass(frozen=True)
class AnchorProof:
    """That version `seq` with `entry_hash` is leaf `index` of the `size` leaves under an anchored root."""

    seq: int
    entry_hash: bytes
    index: int
    size: int
    path: tuple[bytes, ...]


def leaf(id: str, seq: int, entry_hash: bytes) -> bytes:
    """The bytes of a leaf, before RFC 6962 hashes them."""
    raw = id.encode("ascii")
    return u8(len(raw)) + raw + u64(seq) + fixed(entry_hash, HASH_SIZE, "entry hash")


def _leaf_hashes(heads: Heads) -> list[bytes]:
    if not heads:
        raise ValueError("there is no head to anchor")
    return [merkle.leaf_hash(leaf(id, *heads[id])) for id in sorted(heads)]


def anchor_root(heads: Heads) -> bytes:
    """The hash to put on chain; ValueError when there is no head."""
    return merkle.root(_leaf_hashes(heads))


def prove(heads: Heads, id: str) -> AnchorProof:
    """The path from one dataset's head to the root over all of them; KeyError when it has none."""
    seq, entry_hash = heads[id]
    hashes = _leaf_hashes(heads)
    index = sorted(heads).index(id)
    return AnchorProof(seq, entry_hash, index, len(hashes), tuple(merkle.path(hashes, index)))


def payload(root: bytes) -> str:
    """What is written on chain for a root: 70 ASCII characters."""
    return PREFIX + fixed(root, HASH_SIZE, "anchor root").hex()


def root_in(text: str | None) -> bytes | None:
    """The root in what a chain says an owner wrote; None when it is something else, or nothing."""
    found = _PAYLOAD.fullmatch(text or "")
    return bytes.fromhex(found[1]) if found else None


def check_anchor(log: Log, proof: AnchorProof | None, root: bytes | None) -> int:
    """Check a log that holds against the root that its owner has on chain; returns the anchored version.

    Args:
        proof: the seller's; None when it has none.
        root: what the owner has on chain; None when that is nothing.

    Raises:
        HeadError: not_anchored, anchor_mismatch or cut_tail.
    """
    if root is None:
        raise HeadError("not_anchored", f"{log.owner} has anchored no datasets on chain")
    if proof is None:
        raise HeadError("not_anchored", f"the seller shows no path from {log.id} to the root on chain")
    try:
        leaf_hash = merkle.leaf_hash(leaf(log.id, proof.seq, proof.entry_hash))
        reached = merkle.root_from_path(leaf_hash, proof.index, proof.size, proof.path)
    except (ProofError, ValueError, IndexError, OverflowError) as error:
        raise HeadError(
            "anchor_mismatch", f"the path from {log.id} to the chain is wrong: {error}"
        ) from error
    if reached != root:
        raise HeadError(
            "anchor_mismatch", f"the path from {log.id} leads to {reached.hex()}, on chain is {root.hex()}"
        )
    if proof.seq > len(log.entries):
        raise HeadError(
            "cut_tail",
            f"the log of {log.id} ends at version {len(log.entries)}, on chain is version {proof.seq}",
            remedy="Versions were cut off it; ask another source for the whole log",
        )
    if proof.seq < 1 or log.entries[proof.seq - 1].entry.hash != proof.entry_hash:
        raise HeadError(
            "anchor_mismatch", f"on chain is another version {proof.seq} of {log.id} than in the log"
        )
    return proof.seq
