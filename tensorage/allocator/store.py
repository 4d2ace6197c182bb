"""The miner's rows: sectors and their trees, the signed chain of commitments, the validators' quotas.

One `Store` is one SQLite connection behind a lock: any thread may call it, and each method is one
transaction. Processes share the file, and a process may open it several times: readers of one connection do
not wait for a transaction of another, which is why the `Reader` that answers challenges has its own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

from .. import merkle, sqlite
from ..commitment import Commitment, Entry, SignedCommitment, first_commitment, next_commitment
from ..encoding import HASH_SIZE
from ..hashchain import Sign
from . import locks, schema, slots
from .layout import Identity, sector_path
from .slots import COMMITMENTS_ANSWERED, GROUP_HEIGHT, LEAVES_PER_GROUP, Pending, Slot, split

State = Literal["planned", "sealed", "quarantined"]

__all__ = ["COMMITMENTS_ANSWERED", "GROUP_HEIGHT", "LEAVES_PER_GROUP", "split"]  # of slots.py

GROUPS_PER_CHUNK = 64
NODES_SIZE = GROUPS_PER_CHUNK * HASH_SIZE  # bytes a chunk

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sector:
    """A sector's row.

    Attributes:
        directory: the data directory on its disk.
        root: the sector root, None while it has never been sealed.
        reason: why it is quarantined.
    """

    index: int
    directory: Path
    state: State
    root: bytes | None
    reason: str

    @property
    def path(self) -> Path:
        return sector_path(self.directory, self.index)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many sectors are in each state."""

    planned: int = 0
    sealed: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """A sector as a commitment has it.

    Attributes:
        chunk_roots: 32 bytes a chunk.
        slots: by their chunk; the other chunks are filler.
    """

    chunk_roots: bytes
    slots: Mapping[int, Slot]


class Store:
    """The database of one identity. A context manager.

    Raises:
        UsageError: the file cannot be opened, is damaged, of a later version, or another identity's.
        StorageError: from any method, when the database cannot be read or written.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self._lock = threading.RLock()
        self._use = locks.share(path.parent)
        try:
            self._db = schema.connect(path)
            try:
                schema.claim(self._db, path, identity)
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            os.close(self._use)
            raise

    def close(self) -> None:
        """Close the database; safe to call twice."""
        with self._lock:
            self._db.close()
            if self._use >= 0:
                os.close(self._use)
                self._use = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`, which reads, with the connection."""
        with self._lock, schema.storage_errors(self.path):
            return work(self._db)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction."""
        with self._lock, schema.storage_errors(self.path), sqlite.transaction(self._db):
            return work(self._db)

    # Disks

    def disks(self) -> dict[str, Path]:
        """The disks that sectors were placed on: their ids and where their data directories were last."""
        return self.read(
            lambda db: {id: Path(place) for id, place in db.execute("SELECT id, directory FROM disks")}
        )

    def record_disks(self, directories: Mapping[str, Path]) -> None:
        """Note where disks are now: the data directory of each disk id."""
        self.write(
            lambda db: db.executemany(
                "INSERT INTO disks (id, directory) VALUES (?, ?) "
                "ON CONFLICT (id) DO UPDATE SET directory = excluded.directory "
                "WHERE directory <> excluded.directory",
                [(id, str(directory)) for id, directory in directories.items()],
            )
        )

    # Sectors

    def sectors(self, state: State | None = None) -> list[Sector]:
        """All sectors, or those in one state, in ascending index."""
        query = (
            "SELECT sector, directory, state, root, reason FROM sectors JOIN disks USING (disk) "
            "WHERE :state IS NULL OR state = :state ORDER BY sector"
        )
        return self.read(lambda db: [_sector(row) for row in db.execute(query, {"state": state})])

    def sector(self, index: int) -> Sector | None:
        """One sector."""
        query = (
            "SELECT sector, directory, state, root, reason FROM sectors JOIN disks USING (disk) "
            "WHERE sector = ?"
        )
        row = self.read(lambda db: db.execute(query, (index,)).fetchone())
        return _sector(row) if row else None

    def counts(self) -> Counts:
        """How many sectors are in each state."""
        return self.read(
            lambda db: Counts(**dict(db.execute("SELECT state, count(*) FROM sectors GROUP BY state")))
        )

    def plan(self, places: Iterable[tuple[int, str]]) -> None:
        """Replace what is planned by `places`: (sector index, disk id). Sealed and quarantined rows stay."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM sectors WHERE state = 'planned'")
            db.executemany(
                "INSERT INTO sectors (sector, disk, state) "
                "SELECT ?, disk, 'planned' FROM disks WHERE id = ? ON CONFLICT (sector) DO NOTHING",
                places,
            )

        self.write(work)

    def record_sealed(self, index: int, nodes: bytes) -> bytes:
        """Note that a sector of the plan is on disk, whole and flushed; returns its root.

        Args:
            nodes: of each chunk in order its 64 nodes at height 4, 2 KiB.

        Raises:
            KeyError: the sector is not in the plan.
            ValueError: `nodes` has not the length of a sector's.
        """
        chunks = self.identity.sectors.chunks
        if len(nodes) != chunks * NODES_SIZE:
            raise ValueError(f"{len(nodes)} bytes of nodes for a sector of {chunks} chunks")
        parts = [nodes[start : start + NODES_SIZE] for start in range(0, len(nodes), NODES_SIZE)]
        roots = [chunk_root(part) for part in parts]
        root = merkle.root(roots)

        def work(db: sqlite3.Connection) -> None:
            changed = db.execute(
                "UPDATE sectors SET state = 'sealed', reason = '', root = ?, chunk_roots = ? "
                "WHERE sector = ?",
                (root, b"".join(roots), index),
            )
            if changed.rowcount != 1:
                raise KeyError(f"sector {index} is not in the plan")
            db.executemany(
                "INSERT INTO chunks VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET nodes = excluded.nodes",
                [(index * chunks + chunk, part) for chunk, part in enumerate(parts)],
            )
            slots.resealed(db, index)

        self.write(work)
        return root

    def quarantine(self, index: int, reason: str) -> bool:
        """Stop trusting a sealed sector; False when it was not sealed."""
        return self.write(
            lambda db: (
                db.execute(
                    "UPDATE sectors SET state = 'quarantined', reason = ? "
                    "WHERE sector = ? AND state = 'sealed'",
                    (reason, index),
                ).rowcount
                == 1
            )
        )

    def forget(self, indices: Iterable[int]) -> list[int]:
        """Drop sectors and their trees; returns which were dropped. Their files go afterwards, never before.

        A sector with slots stays.
        """
        chunks = self.identity.sectors.chunks

        def work(db: sqlite3.Connection) -> list[int]:
            kept = slots.sectors_with_slots(db)
            dropped = [index for index in indices if index not in kept]
            for index in dropped:
                db.execute("DELETE FROM composed WHERE sector = ?", (index,))
                db.execute("DELETE FROM sectors WHERE sector = ?", (index,))
                db.execute(
                    "DELETE FROM chunks WHERE id BETWEEN ? AND ?", (index * chunks, (index + 1) * chunks - 1)
                )
            return dropped

        return self.write(work)

    def entries(self) -> list[Entry]:
        """(index, root) of the sealed sectors in ascending index: what a commitment now would say.

        The roots are those with the slots.
        """
        if self.read(slots.stale):
            self.write(slots.refresh)
        return self.read(_entries)

    def chunk_roots(self, index: int) -> bytes | None:
        """The roots of a sector's chunks of filler, 32 bytes each; None when it was never sealed."""
        row = self.read(
            lambda db: db.execute("SELECT chunk_roots FROM sectors WHERE sector = ?", (index,)).fetchone()
        )
        return row[0] if row else None

    def chunk_nodes(self, index: int, chunk: int) -> bytes | None:
        """The 64 stored nodes at height 4 of one chunk, 2 KiB; None when there is no row."""
        key = index * self.identity.sectors.chunks + chunk
        row = self.read(lambda db: db.execute("SELECT nodes FROM chunks WHERE id = ?", (key,)).fetchone())
        return row[0] if row else None

    def nodes(self, index: int) -> list[bytes]:
        """The stored nodes of a sector's chunks in order, 2 KiB a chunk; fewer when rows are missing."""
        chunks = self.identity.sectors.chunks
        query = "SELECT nodes FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id"
        bounds = (index * chunks, (index + 1) * chunks - 1)
        return self.read(lambda db: [row[0] for row in db.execute(query, bounds)])

    # Commitments

    def commit(self, sign: Sign, block_number: int) -> SignedCommitment | None:
        """Append a signed commitment to what there is now; None when nothing is, or nothing has changed.

        Its block is never before that of the commitment it follows. Slots that linger (`Pending`) are reason
        enough for one that says the same as the last: they go when the one before the last does.

        Args:
            sign: signs with the miner's hotkey.
            block_number: the newest block known.
        """

        def work(db: sqlite3.Connection) -> SignedCommitment | None:
            slots.refresh(db)
            entries = _entries(db)
            newest = _commitment(db, self.identity)
            if not entries:
                return None
            who = self.identity
            if newest is None:
                new = first_commitment(
                    who.genesis, who.netuid, who.hotkey, who.profile, entries, block_number
                )
            else:
                last = newest.commitment
                new = next_commitment(last, entries, max(block_number, last.block_number))
                new = replace(new, profile=who.profile)
                same = (new.capacity_root, new.profile) == (last.capacity_root, last.profile)
                if same and slots.pending(db, last.seq) == Pending(0, 0, 0):
                    return None
            signed = SignedCommitment(new, sign(new.hash))
            db.execute(
                "INSERT INTO commitments VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new.seq,
                    new.hash,
                    new.prev_hash,
                    new.profile,
                    new.sector_count,
                    new.capacity_root,
                    new.block_number,
                    signed.signature,
                ),
            )
            db.executemany(
                "INSERT INTO committed VALUES (?, ?, ?)", [(new.seq, index, root) for index, root in entries]
            )
            db.execute("DELETE FROM committed WHERE seq <= ?", (new.seq - COMMITMENTS_ANSWERED,))
            slots.commit(db, new.seq)
            return signed

        return self.write(work)

    def commitment(self, seq: int | None = None) -> SignedCommitment | None:
        """The newest commitment, or the one with that number; None when there is none."""
        return self.read(lambda db: _commitment(db, self.identity, seq=seq))

    def commitment_by_hash(self, hash: bytes) -> SignedCommitment | None:
        """The commitment with that hash."""
        return self.read(lambda db: _commitment(db, self.identity, hash=hash))

    def listing(self, seq: int, *, start: int = 0, limit: int | None = None) -> list[Entry]:
        """Entries of one of the newest two commitments, in ascending index; of an older one, none.

        Args:
            start: number of the first entry wanted.
            limit: how many at most.
        """
        query = "SELECT sector, root FROM committed WHERE seq = ? ORDER BY sector LIMIT ? OFFSET ?"
        most = -1 if limit is None else limit
        return self.read(lambda db: db.execute(query, (seq, most, start)).fetchall())

    def pending(self) -> Pending:
        """What commitments have still to do for slots."""

        def work(db: sqlite3.Connection) -> Pending:
            newest = _commitment(db, self.identity)
            return slots.pending(db, newest.commitment.seq if newest else 0)

        return self.read(work)

    # Slots

    def committed_chunk_roots(self, index: int, seq: int | None = None) -> bytes | None:
        """The roots of a sector's chunks under a commitment, 32 bytes each: a shard's where it has a slot.

        Args:
            seq: the newest by default; the last `slots.COMMITMENTS_KNOWN` are known.

        Returns:
            None when the sector was never sealed, or the commitment is none, or too old.
        """

        def work(db: sqlite3.Connection) -> bytes | None:
            newest = _commitment(db, self.identity)
            last = newest.commitment.seq if newest else 0
            asked = last if seq is None else seq
            if not max(0, last - slots.COMMITMENTS_KNOWN) < asked <= last:
                return None if seq is not None else slots.chunk_roots_at(db, index, 0)
            return slots.chunk_roots_at(db, index, asked)

        return self.read(work)

    def version(self, index: int, root: bytes) -> Version | None:
        """What a sector with that root is, under a commitment that is answered; None where none has it."""

        def work(db: sqlite3.Connection) -> Version | None:
            row = db.execute(
                "SELECT seq FROM committed WHERE sector = ? AND root = ? ORDER BY seq DESC LIMIT 1",
                (index, root),
            ).fetchone()
            if row is None:
                return None
            roots = slots.chunk_roots_at(db, index, row[0]) or b""
            return Version(roots, {slot.chunk: slot for slot in slots.slots_at(db, index, row[0])})

        return self.read(work)

    # Quotas

    def set_partition(self, quotas: Mapping[str, int]) -> None:
        """Replace the validators' quotas (SS58 -> chunks) at once. Sealed bytes are not touched."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM quotas")
            db.executemany("INSERT INTO quotas VALUES (?, ?)", quotas.items())

        self.write(work)

    def partition(self) -> dict[str, int]:
        """The validators' quotas: SS58 -> chunks."""
        return self.read(
            lambda db: dict(db.execute("SELECT validator, chunks FROM quotas ORDER BY validator"))
        )


def chunk_root(nodes: bytes) -> bytes:
    """The root of a chunk from its 64 nodes at height 4."""
    return merkle.root(split(nodes))


def _sector(row: Sequence[object]) -> Sector:
    index, directory, state, root, reason = row
    return Sector(index, Path(str(directory)), state, root, reason)  # type: ignore[arg-type]  # CHECKed columns


def _entries(db: sqlite3.Connection) -> list[Entry]:
    query = (
        "SELECT sector, coalesce(composed.root, sectors.root) FROM sectors LEFT JOIN composed USING (sector) "
        "WHERE state = 'sealed' ORDER BY sector"
    )
    return db.execute(query).fetchall()


def _commitment(
    db: sqlite3.Connection, identity: Identity, *, seq: int | None = None, hash: bytes | None = None
) -> SignedCommitment | None:
    """The newest commitment of those asked for."""
    row = db.execute(
        "SELECT seq, prev_hash, profile, sector_count, capacity_root, block_number, signature "
        "FROM commitments WHERE (:seq IS NULL OR seq = :seq) AND (:hash IS NULL OR hash = :hash) "
        "ORDER BY seq DESC LIMIT 1",
        {"seq": seq, "hash": hash},
    ).fetchone()
    if row is None:
        return None
    seq, prev_hash, profile, sector_count, root, block_number, signature = row
    who = identity
    return SignedCommitment(
        Commitment(
            who.genesis,
            who.netuid,
            who.hotkey,
            seq,
            prev_hash,
            profile,
            sector_count,
            root,
            block_number,
        ),
        signature,
    )
