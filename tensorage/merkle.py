"""Merkle trees as RFC 6962 section 2.1 hashes them.

    leaf hash  H(0x00 || leaf)        node hash  H(0x01 || left || right)

A tree over n > 1 leaves splits at the largest power of two below n. The two prefixes keep a node from being
passed off as a leaf. A path lists the siblings from the leaf up to the root; its length and the side of
each sibling follow from (index, size) alone, so a proof carries neither.

Trees whose size is a power of two (a sector's) are also built level by level, which lets an inner level be
kept and the rest be recomputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from .encoding import HASH_SIZE
from .errors import ProofError

_LEAF = sha256(b"\0")


def leaf_hash(leaf: bytes | memoryview) -> bytes:
    """H(0x00 || leaf), 32 bytes; the leaf is hashed in place, not copied."""
    state = _LEAF.copy()
    state.update(leaf)
    return state.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """H(0x01 || left || right), 32 bytes."""
    return sha256(b"\1" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two that is smaller than `size` (RFC 6962's k); `size` is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def levels(leaf_hashes: Sequence[bytes]) -> list[list[bytes]]:
    """The levels of the tree, leaves first, root last; a last node without a sibling moves up unchanged."""
    level = list(leaf_hashes)
    tree = [level]
    while len(level) > 1:
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
        tree.append(level)
    return tree


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root over hashes of leaves (or, for sizes of a power of two, over the nodes of any one level).

    The root of no leaves is H of nothing, as in the RFC.
    """
    if not leaf_hashes:
        return sha256().digest()
    return levels(leaf_hashes)[-1][0]


def path(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index`: siblings, leaf to root (RFC 6962 section 2.1.1).

    Raises:
        IndexError: no such leaf.
    """
    return path_in(levels(leaf_hashes), index)


def path_in(levels: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """The audit path of leaf `index` in a tree that `levels` built: for whoever opens many leaves of it.

    Raises:
        IndexError: no such leaf.
    """
    if not 0 <= index < len(levels[0]):
        raise IndexError(f"leaf {index} of a tree of {len(levels[0])}")
    siblings = []
    for level in levels:
        if index ^ 1 < len(level):
            siblings.append(level[index ^ 1])
        index >>= 1
    return siblings


def path_length(index: int, size: int) -> int:
    """How many siblings the path of leaf `index` in a tree of `size` leaves has."""
    return len(_sides(index, size))


def _sides(index: int, size: int) -> list[bool]:
    """For each sibling on the path, leaf to root: whether it stands on the right."""
    if not 0 <= index < size:
        raise IndexError(f"leaf {index} of a tree of {size}")
    sides = []
    while size > 1:
        k = _split(size)
        sides.append(index < k)
        index, size = (index, k) if index < k else (index - k, size - k)
    sides.reverse()
    return sides


def root_from_path(leaf_hash: bytes, index: int, size: int, siblings: Sequence[bytes]) -> bytes:
    """The root that the path leads to.

    Raises:
        ProofError: the path has not exactly the length that (index, size) demands, or a sibling is no hash.
        IndexError: no such leaf.
    """
    sides = _sides(index, size)
    if len(siblings) != len(sides):
        raise ProofError(
            f"path of leaf {index} in a tree of {size} has {len(siblings)} hashes, not {len(sides)}"
        )
    node = leaf_hash
    for sibling, on_the_right in zip(siblings, sides, strict=True):
        if len(sibling) != HASH_SIZE:
            raise ProofError(f"a hash on the path has {len(sibling)} bytes, not {HASH_SIZE}")
        node = node_hash(node, sibling) if on_the_right else node_hash(sibling, node)
    return node


def leaf_hashes(data: bytes | memoryview, leaf_size: int) -> list[bytes]:
    """The leaf hashes of `data` cut into leaves of `leaf_size` bytes; its length must be a multiple."""
    view = memoryview(data).cast("B")
    if len(view) % leaf_size:
        raise ValueError(f"{len(view)} bytes are no whole number of leaves of {leaf_size}")
    return [leaf_hash(view[start : start + leaf_size]) for start in range(0, len(view), leaf_size)]


def level(nodes: Sequence[bytes], height: int) -> list[bytes]:
    """The nodes `height` levels above `nodes`, whose number must be a multiple of 2 ** height."""
    if len(nodes) % (1 << height):
        raise ValueError(f"{len(nodes)} nodes do not fill trees of height {height}")
    current = list(nodes)
    for _ in range(height):
        current = [node_hash(current[i], current[i + 1]) for i in range(0, len(current), 2)]
    return current
