"""On which disk a shard goes: where there is the most room, and a chunk of filler that can give way.

A shard lies on the disk of the sector that it has its slot in, so that what goes and what comes take from the
same disk. How many chunks a disk has to give is counted now and then, and kept up to date in between; the
transaction that gives a chunk has the last word.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

from .store import Store
from .uploads import full

#: What uploads leave free of a disk: this share of it, and no more than these bytes.
RESERVE_SHARE = 0.01
RESERVE_MOST = 1 << 30

_COUNT_SECONDS = 10.0
_SAME_ROOM = 1 << 26  # disks whose room differs by less have as much


class Space:
    """The room on the disks of one data directory. For any number of threads.

    Args:
        reserve: bytes that uploads leave free on each disk; `RESERVE_SHARE` of it by default.
    """

    def __init__(self, store: Store, reserve: int | None) -> None:
        self._store = store
        self._reserve = reserve
        self._lock = threading.Lock()
        self._coming: Counter[int] = Counter()  # uploads under way, by disk
        self._free: dict[int, int] = {}  # chunks that a disk has to give, by disk
        self._counted = -_COUNT_SECONDS

    def take(self, size: int) -> tuple[int, Path]:
        """Row and data directory of the disk that an upload of `size` bytes goes to; `end` ends the upload.

        Raises:
            RequestError: "full".
            StorageError: the database cannot be read.
        """
        with self._lock:
            if time.monotonic() - self._counted >= _COUNT_SECONDS or max(self._free.values(), default=0) < 1:
                self._free = self._store.read(self._count)
                self._counted = time.monotonic()
            places = self._store.read(
                lambda db: {
                    disk: Path(where) for disk, where in db.execute("SELECT disk, directory FROM disks")
                }
            )
            giving = [disk for disk, free in self._free.items() if free > 0 and disk in places]
            if not giving:
                raise full("there is no chunk left to give")
            room = {disk: self.room(places[disk]) for disk in giving}
            disk = max(giving, key=lambda each: (room[each] // _SAME_ROOM, self._free[each]))
            if room[disk] < size:
                raise full("our disks are full")
            self._free[disk] -= 1
            self._coming[disk] += 1
            return disk, places[disk]

    def end(self, disk: int, *, landed: bool) -> None:
        """An upload is over; `landed` where it has taken a chunk."""
        with self._lock:
            self._coming[disk] -= 1
            if not landed and disk in self._free:
                self._free[disk] += 1

    def _count(self, db: sqlite3.Connection) -> dict[int, int]:
        sealed = dict(
            db.execute("SELECT disk, count(*) FROM sectors WHERE state = 'sealed' GROUP BY disk").fetchall()
        )
        taken = dict(
            db.execute(
                "SELECT disk, count(*) FROM slots JOIN sectors USING (sector) "
                "WHERE state = 'sealed' GROUP BY disk"
            ).fetchall()
        )
        chunks = self._store.identity.sectors.chunks
        return {
            disk: count * chunks - taken.get(disk, 0) - self._coming[disk] for disk, count in sealed.items()
        }

    def room(self, directory: Path) -> int:
        """Bytes that uploads may still take on a disk; below 0 when it is not there."""
        try:
            status = os.statvfs(directory)
        except FileNotFoundError:
            return -1
        reserve = self._reserve
        if reserve is None:
            reserve = min(int(status.f_blocks * status.f_frsize * RESERVE_SHARE), RESERVE_MOST)
        return status.f_bavail * status.f_frsize - reserve

    def free_bytes(self) -> int:
        """Bytes that uploads may still take on all disks."""
        rooms: dict[int, int] = {}
        for directory in self._store.disks().values():
            if directory.is_dir():
                rooms[directory.stat().st_dev] = max(self.room(directory), 0)
        return sum(rooms.values())
