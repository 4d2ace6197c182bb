"""Chunks of an artifact: pieces of 1 MiB whose hashes make one signed root, so each is checked on arrival.

The leaf of a chunk is H(0x00 || bytes) and the chunk root is the RFC 6962 root over all leaves; the last
chunk may be short, and a file of no bytes has no chunks and the root of no leaves, H of nothing. The list
of leaves (32 bytes each) is served beside the file and believed once its root is the signed one.

A file is hashed twice, as a whole and by chunks. `Hasher` does both in one pass, each in a thread of its own
(hashlib lets go of the interpreter lock), while the caller reads on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from .. import merkle
from ..encoding import HASH_SIZE
from ..errors import ProofError

CHUNK_SIZE = 1 << 20
#: Bytes that are hashed before it is worth starting threads.
_THREADS_FROM = 4 * CHUNK_SIZE
#: How many updates may wait to be hashed; bounds memory to as many of the caller's blocks.
_AHEAD = 8


@dataclass(frozen=True)
class Digest:
    """What a file hashes to: SHA-256 of the whole, its size in bytes, and the leaf of each chunk."""

    sha256: bytes
    size: int
    leaves: tuple[bytes, ...]

    @cached_property
    def chunk_root(self) -> bytes:
        """The RFC 6962 root over the leaves, 32 bytes."""
        return merkle.root(self.leaves)


class Hasher:
    """Hashes a file as a whole and by chunks. `update` in order, then `finish` once; one thread calls."""

    def __init__(self) -> None:
        self._whole = sha256()
        self._size = 0
        self._leaf = sha256(b"\0")
        self._room = CHUNK_SIZE  # bytes that still fit into the chunk being hashed
        self._leaves: list[bytes] = []
        self._threads: tuple[ThreadPoolExecutor, ThreadPoolExecutor] | None = None
        self._pending: deque[tuple[Future[None], Future[None]]] = deque()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. Blocks of 1 MiB or more are fastest; what is not `bytes` is copied."""
        if not data:
            return
        block = bytes(data)  # no copy when it is bytes already
        self._size += len(block)
        if self._threads is None:
            if self._size < _THREADS_FROM:
                self._whole.update(block)
                self._hash_chunks(block)
                return
            self._threads = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        whole, chunks = self._threads
        self._pending.append(
            (whole.submit(self._whole.update, block), chunks.submit(self._hash_chunks, block))
        )
        if len(self._pending) > _AHEAD:
            self._wait()

    def finish(self) -> Digest:
        """The digest of everything that was taken."""
        while self._pending:
            self._wait()
        self.close()
        if self._room < CHUNK_SIZE:
            self._leaves.append(self._leaf.digest())
            self._room = CHUNK_SIZE
        return Digest(self._whole.digest(), self._size, tuple(self._leaves))

    def close(self) -> None:
        """End the threads; `finish` does, and so must who gives up before."""
        if self._threads:
            for executor in self._threads:
                executor.shutdown(cancel_futures=True)
            self._threads = None

    def _wait(self) -> None:
        for done in self._pending.popleft():
            done.result()

    def _hash_chunks(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            piece = view[: self._room]
            self._leaf.update(piece)
            self._room -= len(piece)
            view = view[len(piece) :]
            if not self._room:
                self._leaves.append(self._leaf.digest())
                self._leaf = sha256(b"\0")
                self._room = CHUNK_SIZE


def hash_stream(read: Callable[[int], bytes], *, limit: int | None = None) -> Digest:
    """The digest of all that `read(size)` returns until it returns nothing.

    Raises:
        ProofError: more than `limit` bytes came.
    """
    hasher = Hasher()
    size = 0
    try:
        while block := read(CHUNK_SIZE):
            size += len(block)
            if limit is not None and size > limit:
                raise ProofError(f"the file has more than {limit} bytes")
            hasher.update(block)
        return hasher.finish()
    finally:
        hasher.close()


def chunk_count(size: int) -> int:
    """How many chunks a file of `size` bytes has."""
    return -(-size // CHUNK_SIZE)


def chunk_span(index: int, size: int) -> tuple[int, int]:
    """Where chunk `index` of a file of `size` bytes begins and ends, in bytes.

    Raises:
        IndexError: the file has no such chunk.
    """
    if not 0 <= index < chunk_count(size):
        raise IndexError(f"chunk {index} of a file of {chunk_count(size)} chunks")
    return index * CHUNK_SIZE, min((index + 1) * CHUNK_SIZE, size)


def split_leaves(raw: bytes) -> tuple[bytes, ...]:
    """The leaves in a chunk list as it is served: 32 bytes each, one after the other.

    Raises:
        ProofError: no whole number of leaves.
    """
    if len(raw) % HASH_SIZE:
        raise ProofError(f"a chunk list of {len(raw)} bytes is no whole number of leaves of {HASH_SIZE}")
    return tuple(raw[at : at + HASH_SIZE] for at in range(0, len(raw), HASH_SIZE))


def check_leaves(leaves: Sequence[bytes], size: int, chunk_root: bytes) -> None:
    """Check that these are the leaves of a file of `size` bytes whose signed root is `chunk_root`.

    Raises:
        ProofError: they are not.
    """
    if len(leaves) != chunk_count(size):
        raise ProofError(f"{len(leaves)} leaves for a file of {size} bytes, which has {chunk_count(size)}")
    if any(len(leaf) != HASH_SIZE for leaf in leaves):
        raise ProofError(f"a leaf is not {HASH_SIZE} bytes long")
    if (root := merkle.root(leaves)) != chunk_root:
        raise ProofError(f"the chunk list has the root {root.hex()}, the owner signed {chunk_root.hex()}")


def verify_chunk(leaves: Sequence[bytes], index: int, data: bytes | memoryview) -> None:
    """Check the bytes of chunk `index` against checked leaves.

    Raises:
        ProofError: other bytes, or no such chunk.
    """
    if not 0 <= index < len(leaves):
        raise ProofError(f"there is no chunk {index} among {len(leaves)}")
    if merkle.leaf_hash(data) != leaves[index]:
        raise ProofError(f"chunk {index} ({len(data)} bytes) is not the one that the owner signed")
