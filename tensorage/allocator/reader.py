"""Reading sealed leaves for a challenge: one read of at most 64 KiB a hop, and nothing unchecked leaves.

The path of a leaf has four parts:

    4 hashes   recomputed from the 16 leaves that are read with it (64 KiB, aligned)
    6 hashes   from the chunk's 64 stored nodes at height 4: one row by its key
    8 hashes   from the sector's chunk roots (none for a sector of one chunk): cached
    the rest   from the entries of the commitment: cached

Where a commitment has a slot, the first leaves and their nodes are those of the shard, from its own file;
what is left of the chunk is the filler in the sector's file. The node over the 16 leaves must be the stored
one, the chunk's root the sector's, and the sector's root the one committed to. Where one is not, the file is
opened anew and read once more (another process may just have replaced it); then the sector is quarantined
and DamagedSectorError is raised, or the shard is given up and DamagedShardError is raised. Filler that was
punched out under a commitment that has gone meanwhile is no damage.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from .. import commitment as commitments
from .. import merkle, seal
from ..challenge import Opening
from ..commitment import Commitment, SignedCommitment
from ..encoding import HASH_SIZE
from ..errors import StorageError
from . import shard_rows, slots
from .errors import DamagedSectorError, DamagedShardError, SupersededError
from .shard_files import WrongBytesError, read_groups
from .slots import Slot
from .store import COMMITMENTS_ANSWERED, LEAVES_PER_GROUP, NODES_SIZE, Sector, Store, split

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


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard that is in a slot."""

    ticket: bytes
    path: Path
    directory: Path
    nodes: bytes

    def group(self, number: int) -> tuple[bytes, list[bytes]]:
        """16 leaves of it and their hashes, compared with its nodes.

        Raises:
            DamagedShardError: its file is not what was stored.
            StorageError: its disk cannot be read.
        """
        try:
            return read_groups(self.path, self.nodes, number, 1)
        except WrongBytesError as error:
            if not self.directory.is_dir():
                raise StorageError(f"disk {self.directory} is not there", remedy="Mount it") from error
            raise DamagedShardError(self.ticket, self.path, str(error)) from error
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Version:
    """A sector as a commitment has it: the tree over its chunks, and its slots by chunk."""

    tree: Tree
    slots: Mapping[int, Slot]


def _superseded(index: int) -> SupersededError:
    return SupersededError(
        f"sector {index} has changed since", remedy="Ask for a leaf under one of the newest two commitments"
    )


class Reader:
    """Opens leaves under the newest two commitments of a database. For any number of threads.

    It opens the database for itself, so it never waits for a transaction of the store that is given.
    """

    def __init__(self, store: Store) -> None:
        self._store = Store(store.path, store.identity)
        self._profile = store.identity.sectors
        self._files: _Recent[int, _File] = _Recent(OPEN_FILES)
        self._sectors: _Recent[tuple[int, bytes], _Version] = _Recent(CACHED_SECTORS)
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
            DamagedShardError: the file of the shard there is not what was stored; it is given up.
            StorageError: the database, or the disk as a whole, cannot be read, or no commitment that is
                answered has the sector with that root.
        """
        sector = self._store.sector(index)
        if sector is None:
            raise StorageError(f"sector {index} is no longer kept", remedy="A commitment without it follows")
        try:
            return self._leaf(sector, root, leaf_number)
        except (DamagedSectorError, DamagedShardError):
            self._files.drop(index)
            self._sectors.drop((index, root))
        if not sector.directory.is_dir():
            raise StorageError(f"disk {sector.directory} is not there", remedy="Mount it")
        try:
            return self._leaf(sector, root, leaf_number)
        except DamagedSectorError as damaged:
            self._files.drop(index)
            if self._has_hole(index, leaf_number):
                raise _superseded(index) from damaged
            self._store.quarantine(index, damaged.why)
            raise
        except DamagedShardError as damaged:
            ticket, why, now = damaged.ticket_hash, damaged.why, int(time.time())
            self._store.write(lambda db: slots.end(db, [ticket], "damaged", why, now))
            raise

    def _leaf(self, sector: Sector, root: bytes, number: int) -> tuple[bytes, list[bytes]]:
        path, index = sector.path, sector.index
        chunk, within = divmod(number, seal.LEAVES_PER_CHUNK)
        group, place = divmod(within, LEAVES_PER_GROUP)
        version = self._sectors.get((index, root), lambda: self._version(path, index, root))
        slot = version.slots.get(chunk)
        shard = None if slot is None else self._shard(index, slot)
        nodes = self._nodes(path, index, chunk)
        if shard is not None:
            nodes[: len(shard.nodes) // HASH_SIZE] = split(shard.nodes)
        middle = merkle.levels(nodes)
        if middle[-1][0] != version.tree[0][chunk]:
            raise DamagedSectorError(index, path, f"has a damaged row for chunk {chunk}")
        if shard is not None and group < len(shard.nodes) // HASH_SIZE:
            data, hashes = shard.group(group)
            bottom = merkle.levels(hashes)
        else:
            first = number - place
            data = self._read(path, index, first * seal.LEAF_SIZE)
            bottom = merkle.levels(merkle.leaf_hashes(data, seal.LEAF_SIZE))
            if bottom[-1][0] != nodes[group]:
                raise DamagedSectorError(
                    index, path, f"has wrong bytes in leaves {first} to {first + LEAVES_PER_GROUP - 1}"
                )
        leaf = data[place * seal.LEAF_SIZE : (place + 1) * seal.LEAF_SIZE]
        above = merkle.path_in(middle, group) + merkle.path_in(version.tree, chunk)
        return leaf, merkle.path_in(bottom, place) + above

    def _version(self, path: Path, index: int, root: bytes) -> _Version:
        found = self._store.version(index, root)
        if found is None:
            raise _superseded(index)
        tree = merkle.levels(split(found.chunk_roots))
        if len(tree[0]) != self._profile.chunks or tree[-1][0] != root:
            raise DamagedSectorError(index, path, "has chunk roots that are not those of its root")
        return _Version(tree, found.slots)

    def _shard(self, index: int, slot: Slot) -> _Shard:
        row = self._store.read(lambda db: shard_rows.find(db, slot.ticket))
        if row is None or row.nodes is None:
            raise _superseded(index)
        return _Shard(slot.ticket, row.path, row.directory, row.nodes)

    def _has_hole(self, index: int, number: int) -> bool:
        """Whether a leaf of a sector's file is punched out, or soon will be."""
        chunk, within = divmod(number, seal.LEAVES_PER_CHUNK)
        holes = self._store.read(lambda db: slots.holes_of(db, index))
        return any(hole.chunk == chunk and within < hole.leaves for hole in holes)

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
