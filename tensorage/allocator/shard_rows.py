"""The rows of shards: what a miner has promised to keep, and until when.

    stored     the file is flushed and the receipt signed
    committed  a commitment has it in its slot
    trash      removed or expired; kept, committed and challenged, and can be restored
    ended      given up; the row stays until the ticket expires, so that the ticket is not taken again
    damaged    its file was lost; likewise

Every function takes a connection inside a transaction of the caller's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..encoding import u64
from ..ticket import SignedTicket, Stored, Ticket
from . import slots
from .layout import shard_path
from .slots import LIVE

State = Literal["stored", "committed", "trash", "ended", "damaged"]

_MOST = (1 << 63) - 1  # what SQLite holds
_COLUMNS = "ticket, signed, state, changed, reason, stored_ms, receipt, nodes, directory"


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard's row.

    Attributes:
        changed: when it came into its state, seconds since 1970.
        reason: why it is damaged.
        stored: the receipt.
        nodes: at height 4; None when its file is not needed any more.
        directory: the data directory on its disk.
    """

    signed: SignedTicket
    state: State
    changed: int
    reason: str
    stored: Stored
    nodes: bytes | None
    directory: Path

    @property
    def ticket(self) -> Ticket:
        return self.signed.ticket

    @property
    def live(self) -> bool:
        """Whether it is kept: stored, committed or in the trash."""
        return self.state in ("stored", "committed", "trash")

    @property
    def path(self) -> Path:
        return shard_path(self.directory, self.stored.ticket_hash)


def _row(values: tuple[object, ...]) -> ShardRow:
    ticket, signed, state, changed, reason, stored_ms, receipt, nodes, directory = values
    return ShardRow(
        SignedTicket.decode(signed),  # type: ignore[arg-type]  # the columns' types
        state,  # type: ignore[arg-type]
        changed,  # type: ignore[arg-type]
        reason,  # type: ignore[arg-type]
        Stored(ticket, stored_ms, receipt),  # type: ignore[arg-type]
        nodes,  # type: ignore[arg-type]
        Path(str(directory)),
    )


def find(db: sqlite3.Connection, ticket_hash: bytes) -> ShardRow | None:
    """The row of a ticket."""
    query = f"SELECT {_COLUMNS} FROM shards JOIN disks USING (disk) WHERE ticket = ?"  # noqa: S608 - constants
    row = db.execute(query, (ticket_hash,)).fetchone()
    return _row(row) if row else None


def nodes(db: sqlite3.Connection, ticket_hash: bytes) -> bytes | None:
    """The nodes of a shard at height 4; None when its file is not needed any more."""
    row = db.execute("SELECT nodes FROM shards WHERE ticket = ?", (ticket_hash,)).fetchone()
    return row[0] if row else None


@dataclass(frozen=True, slots=True)
class ShardFile:
    """Where a shard's file is, and how large: of many shards, this and no more is held in memory."""

    ticket: bytes
    leaves: int
    directory: str

    @property
    def path(self) -> Path:
        return shard_path(Path(self.directory), self.ticket)


def files(db: sqlite3.Connection, *, live: bool) -> list[ShardFile]:
    """The files that are needed, or no more than those of shards that are kept."""
    condition = f"state IN {LIVE}" if live else "nodes IS NOT NULL"
    query = f"SELECT ticket, leaves, directory FROM shards JOIN disks USING (disk) WHERE {condition}"  # noqa: S608
    return [ShardFile(*row) for row in db.execute(query)]


def serial_taken(db: sqlite3.Connection, ticket: Ticket) -> bool:
    """Whether the validator's serial has been used."""
    query = "SELECT 1 FROM shards WHERE validator = ? AND serial = ?"
    return db.execute(query, (ticket.validator, u64(ticket.serial))).fetchone() is not None


def insert(
    db: sqlite3.Connection, signed: SignedTicket, disk: int, now: int, stored: Stored, nodes: bytes
) -> None:
    """Note that a shard is on disk, whole and flushed.

    Raises:
        sqlite3.IntegrityError: its ticket or its serial is known.
    """
    ticket = signed.ticket
    db.execute(
        "INSERT INTO shards (ticket, signed, validator, serial, leaves, expires, disk, state, changed, "
        "stored_ms, receipt, nodes) VALUES (?, ?, ?, ?, ?, ?, ?, 'stored', ?, ?, ?, ?)",
        (
            ticket.hash,
            signed.encode(),
            ticket.validator,
            u64(ticket.serial),
            ticket.leaves,
            min(ticket.expires, _MOST),
            disk,
            now,
            stored.unix_ms,
            stored.signature,
            nodes,
        ),
    )


def used(db: sqlite3.Connection, validator: bytes, coming: Sequence[bytes] = ()) -> int:
    """Slots that a validator's shards take, those in the trash too.

    Args:
        coming: tickets of its shards that are being received, or have just been noted: each counts once.
    """
    live = f"SELECT count(*) FROM shards WHERE validator = ? AND state IN {LIVE}"  # noqa: S608 - a constant
    marks = ", ".join("?" * len(coming))
    noted = f"SELECT count(*) FROM shards WHERE ticket IN ({marks}) AND state IN {LIVE}"  # noqa: S608 - likewise
    query = f"SELECT ({live}) - ({noted})"  # one statement: of one moment
    return int(db.execute(query, (validator, *coming)).fetchone()[0]) + len(coming)


def usage(db: sqlite3.Connection) -> dict[bytes, int]:
    """Slots taken, by validator."""
    query = f"SELECT validator, count(*) FROM shards WHERE state IN {LIVE} GROUP BY validator"  # noqa: S608
    return dict(db.execute(query))


def remove(db: sqlite3.Connection, ticket_hash: bytes, now: int) -> None:
    """Put a shard into the trash, where it is kept."""
    db.execute(
        "UPDATE shards SET state = 'trash', changed = ? "
        "WHERE ticket = ? AND state IN ('stored', 'committed')",
        (now, ticket_hash),
    )


def restore(db: sqlite3.Connection, ticket_hash: bytes, now: int) -> None:
    """Take a shard out of the trash."""
    db.execute(
        "UPDATE shards SET changed = ?, state = CASE WHEN "
        "(SELECT since FROM slots WHERE slots.ticket = shards.ticket) IS NULL THEN 'stored' "
        "ELSE 'committed' END WHERE ticket = ? AND state = 'trash'",
        (now, ticket_hash),
    )


def expire(db: sqlite3.Connection, now: int, trash_seconds: int) -> tuple[int, int]:
    """Put what has expired into the trash, and end what has lain there for its time.

    Returns:
        How many of each.
    """
    moved = db.execute(
        "UPDATE shards SET state = 'trash', changed = expires "
        "WHERE state IN ('stored', 'committed') AND expires <= ?",
        (now,),
    ).rowcount
    over = db.execute(
        "SELECT ticket FROM shards WHERE state = 'trash' AND changed <= ?", (now - trash_seconds,)
    ).fetchall()
    return moved, len(slots.end(db, [row[0] for row in over], "ended", "", now))


def unneeded(db: sqlite3.Connection) -> list[ShardFile]:
    """The files that no commitment needs; from now on no row vouches for them."""
    condition = (
        "nodes IS NOT NULL AND state IN ('ended', 'damaged') AND ticket NOT IN (SELECT ticket FROM slots)"
    )
    query = f"SELECT ticket, leaves, directory FROM shards JOIN disks USING (disk) WHERE {condition}"  # noqa: S608
    found = [ShardFile(*row) for row in db.execute(query)]
    db.executemany("UPDATE shards SET nodes = NULL WHERE ticket = ?", [(file.ticket,) for file in found])
    return found


def forget(db: sqlite3.Connection, now: int) -> None:
    """Drop rows that nobody needs: given up, without a file, their tickets expired."""
    db.execute(
        "DELETE FROM shards WHERE state IN ('ended', 'damaged') AND expires < ? AND nodes IS NULL "
        "AND ticket NOT IN (SELECT ticket FROM slots)",
        (now,),
    )
