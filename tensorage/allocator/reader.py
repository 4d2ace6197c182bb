"""Reading sealed leaves for a challenge: one read of at most 64 KiB a hop, and nothing unchecked leaves.

The path of a leaf has four parts:

    4 hashes   recomputed from the 16 leaves that are read with it (64 KiB, aligned)
    6 hashes   from the chunk's 64 stored nodes at height 4: one row by its key
    8 hashes   from the sector's chunk roots (none for a sector of one chunk): cached
    the rest   from the entries of the commitment: cached

The node over the 16 leaves must be the stored one, the chunk's root the sector's, and the sector's root the
one committed to. Where one is not, the file is opened anew and read once more (another process may just have
replaced it); then the sector is quarantined and DamagedSectorError is raised.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from .. import commitment as commitments
from .. import merkle, seal
from ..challenge import Opening
from ..commitment import Commitment, SignedCommitment
from ..errors import StorageError
from .errors import DamagedSectorError
from .store import COMMITMENTS_ANSWERED, LEAVES_PER_GROUP, NODES_SIZE, Store, split

GROUP_SIZE = LEAVES_PER_GROUP * seal.LEAF_SIZE
OPEN_FILES = 128
_DAMAGE = (errno.ENOENT, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ESPIPE)
CACHED_SECTORS = 256  # trees of chunk roots, some 40 KB each

Tree = list[list[bytes]]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Recent(Generic[K, V]):
    """The values made last, for several threads. A value made twice at once does no harm."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value

    def drop(self, key: K) -> None:
        with self._lock:
            self._values.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._values.clear()


class _File:
    """An open sector file. It closes with its last user, so that none reads through a number used again."""

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe there must not block
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead: 64 KiB are 64 KiB

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Reader:
    """Opens leaves under the newest two commitments of a database. For any number of threads.

    It opens the database for itself, so it never waits for a transaction of the store that is given.
    """

    def __init__(self, store: Store) -> None:
        self._store = Store(store.path, store.identity)
        self._profile = store.identity.sectors
        self._files: _Recent[int, _File] = _Recent(OPEN_FILES)
        self._sectors: _Recent[tuple[int, bytes], Tree] = _Recent(CACHED_SECTORS)
        self._commitments: _Recent[bytes, CommittedReader | None] = _Recent(COMMITMENTS_ANSWERED)

    def close(self) -> None:
        """Close the database and the files; safe to call twice."""
        self._files.clear()
        self._store.close()

    def committed(self, commitment_hash: bytes) -> CommittedReader | None:
        """The reader for one of the newest two commitments; None when the hash is of neither.

        Raises:
            StorageError: the database cannot be read.
        """
        newest = self._store.commitment()
        signed = self._store.commitment_by_hash(commitment_hash)
        if newest is None or signed is None:
            return None
        if signed.commitment.seq <= newest.commitment.seq - COMMITMENTS_ANSWERED:
            return None
        return self._commitments.get(commitment_hash, lambda: self._load(signed))

    def _load(self, signed: SignedCommitment) -> CommittedReader | None:
        entries = self._store.listing(signed.commitment.seq)
        if len(entries) != signed.commitment.sector_count:  # a newer commitment came in between
            return None
        return CommittedReader(self, signed, entries)

    def leaf(self, index: int, root: bytes, leaf_number: int) -> tuple[bytes, list[bytes]]:
        """A leaf of the sector with that index and root, and its path to the root.

        Raises:
            DamagedSectorError: the file or its tree is not what was sealed; the sector is quarantined.
            StorageError: the database, or the disk as a whole, cannot be read.
        """
        sector = self._store.sector(index)
        if sector is None:
            raise StorageError(f"sector {index} is no longer kept", remedy="A commitment without it follows")
        try:
            return self._leaf(sector.path, index, root, leaf_number)
        except DamagedSectorError:
            self._files.drop(index)
            self._sectors.drop((index, root))
        if not sector.directory.is_dir():
            raise StorageError(f"disk {sector.directory} is not there", remedy="Mount it")
        try:
            return self._leaf(sector.path, index, root, leaf_number)
        except DamagedSectorError as damaged:
            self._files.drop(index)
            self._store.quarantine(index, damaged.why)
            raise

    def _leaf(self, path: Path, index: int, root: bytes, number: int) -> tuple[bytes, list[bytes]]:
        chunk, within = divmod(number, seal.LEAVES_PER_CHUNK)
        group, place = divmod(within, LEAVES_PER_GROUP)
        top = self._sectors.get((index, root), lambda: self._chunk_tree(path, index, root))
        nodes = self._nodes(path, index, chunk)
        middle = merkle.levels(nodes)
        if middle[-1][0] != top[0][chunk]:
            raise DamagedSectorError(index, path, f"has a damaged row for chunk {chunk}")
        first = number - place
        data = self._read(path, index, first * seal.LEAF_SIZE)
        bottom = merkle.levels(merkle.leaf_hashes(data, seal.LEAF_SIZE))
        if bottom[-1][0] != nodes[group]:
            raise DamagedSectorError(
                index, path, f"has wrong bytes in leaves {first} to {first + LEAVES_PER_GROUP - 1}"
            )
        leaf = data[place * seal.LEAF_SIZE : (place + 1) * seal.LEAF_SIZE]
        siblings = merkle.path_in(bottom, place) + merkle.path_in(middle, group) + merkle.path_in(top, chunk)
        return leaf, siblings

    def _chunk_tree(self, path: Path, index: int, root: bytes) -> Tree:
        tree = merkle.levels(split(self._store.chunk_roots(index) or b""))
        if len(tree[0]) != self._profile.chunks or tree[-1][0] != root:
            raise DamagedSectorError(index, path, "has chunk roots that are not those of its root")
        return tree

    def _nodes(self, path: Path, index: int, chunk: int) -> list[bytes]:
        nodes = self._store.chunk_nodes(index, chunk)
        if nodes is None or len(nodes) != NODES_SIZE:
            raise DamagedSectorError(index, path, f"has no row for chunk {chunk}")
        return split(nodes)

    def _read(self, path: Path, index: int, offset: int) -> bytes:
        try:
            file = self._files.get(index, lambda: _File(path))
            data = os.pread(file.fd, GROUP_SIZE, offset)
        except OSError as error:
            if error.errno in _DAMAGE:
                raise DamagedSectorError(index, path, f"cannot be read: {error.strerror}") from error
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        if len(data) != GROUP_SIZE:
            raise DamagedSectorError(index, path, f"ends before byte {offset + GROUP_SIZE}")
        return data


class CommittedReader:
    """Opens leaves under one commitment: `opening` is the `read` of `tensorage.challenge.answer`."""

    def __init__(self, reader: Reader, signed: SignedCommitment, entries: list[commitments.Entry]) -> None:
        self.signed = signed
        self.entries = entries
        self._reader = reader
        self._tree = merkle.levels([commitments.capacity_leaf(index, root) for index, root in entries])

    @property
    def commitment(self) -> Commitment:
        return self.signed.commitment

    def opening(self, entry: int, leaf_number: int) -> Opening:
        """A leaf of the entry with that number, with its paths to the sector root and the capacity root.

        Raises:
            DamagedSectorError: the sector is not what was sealed; it is quarantined.
            StorageError: the disk or the database cannot be read.
            IndexError: no such entry.
        """
        index, root = self.entries[entry]
        leaf, leaf_path = self._reader.leaf(index, root, leaf_number)
        return Opening(index, leaf, leaf_path, merkle.path_in(self._tree, entry))
