"""Making room for shards in sectors, and giving it back: holes, filler sealed into them, files that go.

settle     punches out the filler that no answered commitment has, and removes the files of shards that none
           has any more
refill     what worker processes have to seal into the holes of ended slots
missing    finds shards whose files are gone
verify     reads shards and compares them with their nodes

A hole is punched through a descriptor that was opened before the row was marked, in a sector whose file was
the same then: a sector that is sealed again meanwhile gets another file, which no hole goes into.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from .. import seal
from ..encoding import HASH_SIZE
from . import locks, shard_rows, slots
from .errors import DamagedShardError
from .files import punch
from .layout import SHARDS
from .sealing import Job
from .shard_files import WrongBytesError, read_groups
from .shard_rows import ShardFile
from .slots import LEAVES_PER_GROUP, Hole
from .store import Store

_DATABASE_ROOM = 64 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settled:
    """What was given back to the disks.

    Attributes:
        punched: slots whose filler is gone now.
        removed: files of shards that are gone.
    """

    punched: int
    removed: int


def settle(store: Store) -> Settled:
    """Give back the space of what no commitment needs that is answered.

    Raises:
        OSError: a file cannot be used.
        StorageError: the database cannot.
    """
    punched = 0
    with locks.holing(store.path.parent):
        due = store.read(lambda db: slots.to_punch(db, _newest(db)))
        for index in sorted({hole.sector for hole in due}):
            punched += _punch(store, index)
    removed = 0
    for file in store.write(shard_rows.unneeded):
        path = file.path
        removed += path.exists()
        path.unlink(missing_ok=True)
    return Settled(punched, removed)


def _newest(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(max(seq), 0) FROM commitments").fetchone()[0])


def _punch(store: Store, index: int) -> int:
    """Punch the holes that are due in one sector; how many."""
    sector = store.sector(index)
    if sector is None or not sector.path.is_file():
        return 0  # whoever recovers sees it
    path = sector.path
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:

        def begin(db: sqlite3.Connection) -> list[Hole]:
            if not path.is_file() or not os.path.samestat(path.stat(), os.fstat(fd)):
                return []
            due = [hole for hole in slots.to_punch(db, _newest(db)) if hole.sector == index]
            slots.mark(db, due, (0, 1), 1)
            return due

        holes = store.write(begin)
        if not all(punch(fd, *hole.range) for hole in holes):
            store.write(lambda db: slots.mark(db, holes, (1,), 0))
            log.warning("filesystem has no holes, so filler stays file=%s", path)
            return 0
        os.fsync(fd)
    finally:
        os.close(fd)
    store.write(lambda db: slots.mark(db, holes, (1,), 2))
    return len(holes)


def refill(store: Store, directories: Collection[Path]) -> dict[Job, list[Hole]]:
    """The jobs that seal filler into the holes of ended slots on those disks, and the holes of each.

    No more than there is space for: the files of the shards go two commitments later, so where space is short
    the holes are filled some at a time.
    """
    with locks.holing(store.path.parent):  # so that none of them is about to be punched
        holes = store.read(slots.to_fill)
    room: dict[int, int] = {}
    jobs = {}
    for index, found in groupby(holes, lambda hole: hole.sector):
        sector = store.sector(index)
        if sector is None or sector.directory not in directories or not sector.directory.is_dir():
            continue
        group, device = list(found), sector.directory.stat().st_dev
        room.setdefault(device, _room(sector.directory))
        fits = []
        for hole in group:
            if hole.range[1] <= room[device]:
                room[device] -= hole.range[1]
                fits.append(hole)
        if len(fits) < len(group):
            log.warning("filler waits for space sector=%d holes=%d", index, len(group) - len(fits))
        if fits:
            jobs[Job(index, sector.path, seal=True, ranges=tuple(hole.range for hole in fits))] = fits
    return jobs


def _room(directory: Path) -> int:
    """Bytes that may be filled on a disk, with some left for the database."""
    status = os.statvfs(directory)
    return int(status.f_bavail * status.f_frsize) - _DATABASE_ROOM


def differs(store: Store, index: int, nodes: bytes) -> bool:
    """Whether a sector that was read is not what was sealed, its holes left out of account."""
    stored = bytearray(b"".join(store.nodes(index)))
    found = bytearray(nodes)
    per_chunk = len(found) // store.identity.sectors.chunks
    for hole in store.read(lambda db: slots.holes_of(db, index)):
        first = hole.chunk * per_chunk
        length = hole.leaves // LEAVES_PER_GROUP * HASH_SIZE
        for each in (stored, found):
            each[first : first + length] = bytes(length)
    return stored != found


@dataclass(frozen=True, slots=True)
class LostShard:
    """A shard that was found damaged, and what is wrong with its file."""

    ticket: bytes
    path: Path
    why: str


def missing(store: Store, directories: Collection[Path]) -> list[LostShard]:
    """Find live shards on those disks whose files are gone or have another size; they are given up."""
    found = []
    for file in _live(store, directories):
        try:
            size = file.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            found.append(LostShard(file.ticket, file.path, "is gone"))
            continue
        if size != (whole := file.leaves * seal.LEAF_SIZE):
            found.append(LostShard(file.ticket, file.path, f"has {size} bytes, not {whole}"))
    return _give_up(store, found)


def verify(store: Store, directories: Collection[Path], stopped: Callable[[], bool]) -> list[LostShard]:
    """Read all live shards on those disks; those that are not what was stored are given up.

    Raises:
        OSError: a disk cannot be read.
    """
    found = []
    for file in _live(store, directories):
        if stopped():
            break
        nodes = store.read(lambda db, ticket=file.ticket: shard_rows.nodes(db, ticket))  # type: ignore[misc]
        if nodes is None:
            continue  # it has ended since
        try:
            read_groups(file.path, nodes, 0, file.leaves // LEAVES_PER_GROUP)
        except WrongBytesError as error:
            found.append(LostShard(file.ticket, file.path, str(error)))
    return _give_up(store, found)


def _live(store: Store, directories: Collection[Path]) -> list[ShardFile]:
    there = {str(directory) for directory in directories if (directory / SHARDS).is_dir()}
    files = store.read(lambda db: shard_rows.files(db, live=True))
    return [file for file in files if file.directory in there]


def _give_up(store: Store, found: Sequence[LostShard]) -> list[LostShard]:
    """End the slots of shards that were found damaged; those that were live until now."""
    now = int(time.time())

    def end(db: sqlite3.Connection) -> list[LostShard]:
        return [lost for lost in found if slots.end(db, [lost.ticket], "damaged", lost.why, now)]

    ended = store.write(end) if found else []
    for lost in ended:
        log.warning("%s", DamagedShardError(lost.ticket, lost.path, lost.why))
    return ended
