"""Clients' shards on a miner: taking them in, giving pieces of them, letting them go.

    shards = ShardStore(store)                       # one process: the one that holds serve.lock
    taken = shards.admit(signed, now)                # Stored: it is here already, and this is its receipt
    if isinstance(taken, Upload):
        with taken:                                  # leaving it unfinished leaves nothing behind
            taken.write(block)                       # any size, in order; hashes and writes
            receipt = taken.finish(sign, unix_ms)    # Stored: flushed, in its slot, in one transaction

    ShardStore(store, *, trash_seconds=7 days, reserve=None)
      .admit(signed: SignedTicket, now: int) -> Upload | Stored
      .record(ticket_hash: bytes) -> ShardRow | None         .ticket .state .stored .live .changed
      .until(row: ShardRow) -> int | None                    when a shard in the trash ends
      .read(ticket_hash, first: int, count: int) -> bytes    the raw answer of `shard.read_piece`
      .leaf(ticket_hash, number: int) -> (leaf, path)        the `read` of `shard.answer`
      .remove(ticket_hash, now) -> ShardRow                  .restore(ticket_hash, now) -> ShardRow
      .expire(now) -> (moved to the trash, ended)            .prune(now)
      .slots(seq=None, start=0, limit=None) -> [(sector, chunk, signed ticket's bytes)]
      .transition(index, before_seq) -> Transition | None
      .usage() -> {validator's SS58: slots}                  .quota(validator) .used(validator) -> int
      .free_bytes() -> int                                   .live() -> int
      .leaving() -> bool                                     .set_leaving(bool)
      .add_retrievals([(retrieval, validator), ...], now)    in one transaction
      .retrievals(validator, start, limit) -> [(id, Retrieval)]
      .close()

Everything blocks on the disk, and may be called from any thread; `Upload` is for one thread at a time.
Whoever calls `admit` has checked the signature, the permit, the miner and the chain. Times are seconds since
1970, validators public keys, unless it says otherwise.

Files are flushed side by side. Names in directories and rows are flushed for all uploads that end at about
the same time at once; a receipt is given out after both.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .. import seal
from ..chain.address import ss58
from ..errors import RequestError, StorageError, TensorageError
from ..ticket import Retrieval, SignedTicket, Stored, Ticket
from . import leaving, retrievals, shard_rows, slots
from .errors import DamagedShardError
from .files import sync_directory
from .layout import SHARDS, parse_shard_path, shard_path
from .shard_files import ShardWriter, WrongBytesError, read_groups, read_piece
from .shard_rows import ShardRow
from .space import Space
from .store import Store
from .together import Together
from .transition import Transition, transition
from .uploads import Upload, disk_errors, full

__all__ = ["ShardRow", "ShardStore", "Transition", "Upload"]

TRASH_SECONDS = 7 * 86_400
_MOST_ROWS = (1 << 31) - 1

T = TypeVar("T")


class ShardStore:
    """The shards in one data directory.

    Args:
        store: its database, which is opened anew here.
        trash_seconds: how long a shard that was removed or has expired is kept.
        reserve: bytes that uploads leave free on each disk; `space.RESERVE_SHARE` of it by default.
    """

    def __init__(
        self, store: Store, *, trash_seconds: int = TRASH_SECONDS, reserve: int | None = None
    ) -> None:
        self.identity = store.identity
        self.trash_seconds = trash_seconds
        self._writing = Store(store.path, store.identity)
        try:
            self._reading = Store(store.path, store.identity)
        except BaseException:
            self._writing.close()
            raise
        self._space = Space(self._reading, reserve)
        self._lock = threading.Lock()
        self._coming: dict[bytes, Ticket] = {}  # uploads under way
        self._landing: Together[Upload] = Together(self._land)
        try:
            self._sweep()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the databases; safe to call twice. Uploads under way come to nothing."""
        self._writing.close()
        self._reading.close()

    def __enter__(self) -> ShardStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sweep(self) -> None:
        """Remove what uploads have left that did not end, and files that nobody needs."""
        needed: dict[Path, set[bytes]] = {place: set() for place in self._reading.disks().values()}
        for file in self._reading.read(lambda db: shard_rows.files(db, live=False)):
            needed[Path(file.directory)].add(file.ticket)
        for directory, tickets in needed.items():
            for path in (directory / SHARDS).glob("??/*"):
                parsed = parse_shard_path(path)
                if parsed is not None and not (parsed[1] and parsed[0] in tickets):
                    with disk_errors(path):
                        path.unlink()

    # Taking in

    def admit(self, signed: SignedTicket, now: int) -> Upload | Stored:
        """Whether the shard of a ticket is taken; the space for it is kept from now on.

        Raises:
            RequestError: "forbidden": it has expired, or is for another miner or chain; "conflict": it was
                used and is over, or its serial was used by another; "unready": the miner is leaving, or is
                receiving this shard; "full": the quota, the chunks or a disk.
            StorageError: the disk or the database cannot be used.
        """
        ticket_ = signed.ticket
        who = self.identity
        if (ticket_.genesis, ticket_.netuid, ticket_.miner) != (who.genesis, who.netuid, who.hotkey):
            raise RequestError("forbidden", "the ticket is for another miner, subnet or chain")
        with self._lock:
            known = self.record(ticket_.hash)
            if known is not None:
                return _receipt(known)
            if ticket_.expires <= now:
                raise RequestError("forbidden", f"the ticket expired at {ticket_.expires}")
            if ticket_.hash in self._coming:
                raise RequestError("unready", "this shard is being received")
            same = (ticket_.validator, ticket_.serial)
            if same in {(t.validator, t.serial) for t in self._coming.values()} or self._reading.read(
                lambda db: shard_rows.serial_taken(db, ticket_)
            ):
                raise RequestError("conflict", f"serial {ticket_.serial} was used for another ticket")
            if self.leaving():
                raise _leaving()
            validator = ticket_.validator
            coming = [t.hash for t in self._coming.values() if t.validator == validator]
            used = self._reading.read(lambda db: shard_rows.used(db, validator, coming))
            if used >= (quota := self.quota(validator)):
                raise full(f"the validator's quota here is {quota} chunks, and {used} are taken")
            self._coming[ticket_.hash] = ticket_
        try:
            return self._open(signed)
        except BaseException:
            self._forget(ticket_)
            raise

    def _open(self, signed: SignedTicket) -> Upload:
        ticket_ = signed.ticket
        disk, directory = self._space.take(ticket_.size)
        path = shard_path(directory, ticket_.hash)

        def over(landed: bool) -> None:
            self._space.end(disk, landed=landed)
            self._forget(ticket_)

        try:
            with disk_errors(path):
                writer = ShardWriter(path, ticket_.leaves)
        except BaseException:
            self._space.end(disk, landed=False)
            raise
        return Upload(signed, disk, writer, self._landing.do, over)

    def _forget(self, ticket_: Ticket) -> None:
        with self._lock:
            self._coming.pop(ticket_.hash, None)

    def _land(self, uploads: Sequence[Upload]) -> list[TensorageError | None]:
        """Flush the names of files, and write their rows and slots in one transaction."""
        for directory in {upload.path.parent for upload in uploads}:
            with disk_errors(directory):
                sync_directory(directory)
        now = int(time.time())
        return self._writing.write(lambda db: [self._place(db, upload, now) for upload in uploads])

    def _place(self, db: sqlite3.Connection, upload: Upload, now: int) -> TensorageError | None:
        if leaving.marked(db):  # said while it came in: none lands after the last was moved
            return _leaving()
        profile, ticket_ = self.identity.sectors, upload.signed.ticket
        place = slots.free_chunk(db, profile, upload.disk)
        if place is None:
            return full("there is no chunk left to give")
        assert upload.stored is not None
        db.execute("SAVEPOINT one")
        try:
            shard_rows.insert(db, upload.signed, upload.disk, now, upload.stored, upload.nodes)
            slots.take(db, profile, place, ticket_.hash, ticket_.leaves, ticket_.shard_root)
        except (sqlite3.IntegrityError, KeyError) as error:
            db.execute("ROLLBACK TO one")
            db.execute("RELEASE one")
            return StorageError(f"the shard of ticket {ticket_.hash.hex()} cannot be noted: {error}")
        db.execute("RELEASE one")
        return None

    # Giving

    def record(self, ticket_hash: bytes) -> ShardRow | None:
        """The row of a ticket's shard; None when it never came, or is long over."""
        return self._reading.read(lambda db: shard_rows.find(db, ticket_hash))

    def until(self, row: ShardRow) -> int | None:
        """When a shard that is in the trash is given up; None when it is not there."""
        return row.changed + self.trash_seconds if row.state == "trash" else None

    def read(self, ticket_hash: bytes, first: int, count: int) -> bytes:
        """A piece, as `shard.read_piece` reads it: the path to the root, then `count` leaves from `first` on.

        Raises:
            RequestError: "unknown": there is no such shard.
            ProofError: there is no such piece.
            DamagedShardError: its file is not what was stored; it is given up.
            StorageError: the disk cannot be read.
        """
        row = self._kept(ticket_hash)
        assert row.nodes is not None
        nodes = row.nodes
        return self._checked(row, lambda: read_piece(row.path, nodes, row.ticket.leaves, first, count))

    def leaf(self, ticket_hash: bytes, number: int) -> tuple[bytes, list[bytes]]:
        """One leaf and its path to the shard's root.

        Raises:
            RequestError, ProofError, DamagedShardError, StorageError: as `read`.
        """
        answer = self.read(ticket_hash, number, 1)
        return answer[-seal.LEAF_SIZE :], slots.split(answer[: -seal.LEAF_SIZE])

    def verify(self, ticket_hash: bytes) -> bool:
        """Read a whole shard; False when it is not kept.

        Raises:
            DamagedShardError, StorageError: as `read`.
        """
        row = self.record(ticket_hash)
        if row is None or not row.live or row.nodes is None:
            return False
        nodes = row.nodes
        self._checked(
            row, lambda: read_groups(row.path, nodes, 0, row.ticket.leaves // slots.LEAVES_PER_GROUP)
        )
        return True

    def _kept(self, ticket_hash: bytes) -> ShardRow:
        row = self.record(ticket_hash)
        if row is None or not row.live:
            raise RequestError("unknown", f"there is no shard of ticket {ticket_hash.hex()}")
        return row

    def _checked(self, row: ShardRow, work: Callable[[], T]) -> T:
        try:
            return work()
        except WrongBytesError as error:
            if not row.directory.is_dir():
                raise StorageError(f"disk {row.directory} is not there", remedy="Mount it") from error
            ticket_hash, why, now = row.stored.ticket_hash, str(error), int(time.time())
            self._writing.write(lambda db: slots.end(db, [ticket_hash], "damaged", why, now))
            raise DamagedShardError(ticket_hash, row.path, why) from error
        except OSError as error:
            raise StorageError(f"{row.path} cannot be read: {error.strerror}") from error

    # Letting go

    def remove(self, ticket_hash: bytes, now: int) -> ShardRow:
        """Put a shard into the trash, from which it can be restored; nothing happens to one that is there.

        Raises:
            RequestError: "unknown": it never came; "conflict": it is over.
        """
        return self._changed(ticket_hash, lambda db: shard_rows.remove(db, ticket_hash, now))

    def restore(self, ticket_hash: bytes, now: int) -> ShardRow:
        """Take a shard out of the trash; nothing happens to one that is not there.

        Raises:
            RequestError: "unknown": it never came; "conflict": it is over, or has expired.
        """

        def work(db: sqlite3.Connection) -> None:
            row = shard_rows.find(db, ticket_hash)
            if row is not None and row.state == "trash" and row.ticket.expires <= now:
                raise RequestError("conflict", f"the ticket expired at {row.ticket.expires}")
            shard_rows.restore(db, ticket_hash, now)

        return self._changed(ticket_hash, work)

    def _changed(self, ticket_hash: bytes, change: Callable[[sqlite3.Connection], None]) -> ShardRow:
        def work(db: sqlite3.Connection) -> ShardRow | None:
            change(db)
            return shard_rows.find(db, ticket_hash)

        row = self._writing.write(work)
        if row is None:
            raise RequestError("unknown", f"there is no shard of ticket {ticket_hash.hex()}")
        if not row.live:
            raise RequestError("conflict", f"the shard of ticket {ticket_hash.hex()} is over")
        return row

    def expire(self, now: int) -> tuple[int, int]:
        """Put what has expired into the trash, and end what has lain there for its time; how many of each.

        The space comes back later: `DataDirectory.give_back` and `settle`.
        """
        return self._writing.write(lambda db: shard_rows.expire(db, now, self.trash_seconds))

    def prune(self, now: int) -> None:
        """Forget retrievals that are old, and shards that are over and whose tickets have expired."""

        def work(db: sqlite3.Connection) -> None:
            retrievals.prune(db, now)
            shard_rows.forget(db, now)

        self._writing.write(work)

    # What there is

    def slots(
        self, seq: int | None = None, start: int = 0, limit: int | None = None
    ) -> list[tuple[int, int, bytes]]:
        """(sector, chunk, signed ticket) of the slots of one of the newest two commitments, in order.

        Args:
            seq: the newest by default.
            start: number of the first slot wanted.
        """
        newest = self._reading.commitment()
        if newest is None:
            return []
        asked = newest.commitment.seq if seq is None else seq
        return self._reading.read(
            lambda db: slots.listing(db, asked, start, _MOST_ROWS if limit is None else limit)
        )

    def transition(self, index: int, before_seq: int) -> Transition | None:
        """What has become of a sector since an older commitment; None when that is not known."""
        return transition(self._reading, index, before_seq)

    def usage(self) -> dict[str, int]:
        """Slots taken, those in the trash too, by the SS58 of the validator."""
        found = self._reading.read(shard_rows.usage)
        return {ss58(validator): count for validator, count in found.items()}

    def used(self, validator: bytes) -> int:
        """Slots that one validator's shards take."""
        return self._reading.read(lambda db: shard_rows.used(db, validator))

    def quota(self, validator: bytes) -> int:
        """Slots that one validator's shards may take."""
        query = "SELECT chunks FROM quotas WHERE validator = ?"
        row = self._reading.read(lambda db: db.execute(query, (ss58(validator),)).fetchone())
        return int(row[0]) if row else 0

    def free_bytes(self) -> int:
        """Bytes that uploads may still take on all disks."""
        return self._space.free_bytes()

    def live(self) -> int:
        """Shards that are neither in the trash nor over."""
        return self._reading.read(leaving.live)

    def leaving(self) -> bool:
        """Whether nothing new is taken because the miner leaves."""
        return self._reading.read(leaving.marked)

    def set_leaving(self, leaves: bool) -> None:
        """Take nothing new any more, or take it again; it outlasts a restart."""
        self._writing.write(lambda db: leaving.mark(db, leaves))

    # Retrievals

    def add_retrievals(self, records: Sequence[tuple[Retrieval, bytes]], now: int) -> None:
        """Keep retrievals, each with the public key of its ticket's validator."""
        self._writing.write(lambda db: retrievals.add(db, records, now))

    def retrievals(self, validator: bytes, start: int, limit: int) -> list[tuple[int, Retrieval]]:
        """(id, retrieval) of a validator's tickets, in ascending id from `start` on."""
        return self._reading.read(lambda db: retrievals.of(db, validator, start, limit))


def _leaving() -> RequestError:
    return RequestError("unready", "this miner is leaving and takes nothing new")


def _receipt(row: ShardRow) -> Stored:
    """The receipt of a shard that is here.

    Raises:
        RequestError: "conflict": it is in the trash, or over.
    """
    if row.state == "trash":
        raise RequestError("conflict", "the shard of this ticket was removed or has expired")
    if not row.live:
        raise RequestError("conflict", f"the shard of this ticket is over: {row.reason or row.state}")
    return row.stored
