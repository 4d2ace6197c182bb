"""Slots: which chunks have a client's shard in the place of filler, under which commitment. Rows only.

A slot is a chunk whose first leaves are those of a shard, which lies in a file of its own; the filler stays
in the sector's file until no commitment that is answered has it. Nothing that an answered commitment has is
ever overwritten:

    taken      a slot; no commitment has it yet                                     since NULL
    committed  commitments from `since` on have the shard, those before the filler
    holed      no commitment that is answered has the filler, so it is punched out   hole 1, then 2
    ended      the shard is no longer wanted; commitments go on to have it           ended 1
    whole      the filler is sealed into the hole again and flushed                  hole 0
    left       commitments from `until` on have the filler, those before the shard
    past       no commitment that is answered has the shard: its file goes

`hole` is 1 before the first byte is punched out and 0 only after the last is back, so whenever it stops,
what the row calls whole is whole. Every function takes a connection inside a transaction of the caller's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .. import merkle, seal, shard
from ..encoding import HASH_SIZE
from ..seal import Profile

#: Height of the nodes that are kept: a node covers 16 leaves, 64 KiB, which is what one read fetches.
GROUP_HEIGHT = 4
LEAVES_PER_GROUP = 1 << GROUP_HEIGHT
COMMITMENTS_ANSWERED = 2
#: How many commitments back it is known what a sector was.
COMMITMENTS_KNOWN = 128
LIVE = "('stored', 'committed', 'trash')"

#: What a commitment made now has: an ended slot leaves once its filler is whole.
_STANDS = "NOT (ended = 1 AND hole = 0)"


@dataclass(frozen=True, slots=True)
class Slot:
    """A chunk that a shard takes the front of.

    Attributes:
        root: of the chunk with the shard in it.
    """

    sector: int
    chunk: int
    ticket: bytes
    leaves: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Pending:
    """What commitments have still to do for slots.

    Attributes:
        taken: slots that no commitment has yet.
        leaving: slots whose filler is back, and that the next commitment leaves out.
        lingering: slots whose filler, or shard, only the commitment before the newest still has: it goes
            with the next commitment, and its space with it.
    """

    taken: int
    leaving: int
    lingering: int

    @property
    def changes(self) -> bool:
        """Whether the next commitment says something else than the newest."""
        return bool(self.taken or self.leaving)


def split(hashes: bytes) -> list[bytes]:
    """Concatenated hashes one by one."""
    return [hashes[start : start + HASH_SIZE] for start in range(0, len(hashes), HASH_SIZE)]


# Which chunks


def free_chunk(db: sqlite3.Connection, profile: Profile, disk: int) -> tuple[int, int] | None:
    """A (sector, chunk) without a slot in a sealed sector on that disk; None when there is none.

    A sector that has slots comes before one that has none, so that slots lie together: every sector whose
    root changes costs each validator a look, and every one that gets filler back costs a seal.
    """
    begun = "EXISTS (SELECT 1 FROM composed WHERE composed.sector = sectors.sector)"
    for which in (begun, f"NOT {begun}"):
        query = (
            f"SELECT sector FROM sectors WHERE state = 'sealed' AND disk = ? AND {which} "  # noqa: S608
            "AND (SELECT count(*) FROM slots WHERE slots.sector = sectors.sector) < ? "
            "ORDER BY sector DESC LIMIT 1"
        )
        row = db.execute(query, (disk, profile.chunks)).fetchone()
        if row is not None:
            taken = {chunk for (chunk,) in db.execute("SELECT chunk FROM slots WHERE sector = ?", row)}
            return row[0], next(chunk for chunk in range(profile.chunks) if chunk not in taken)
    return None


def take(
    db: sqlite3.Connection, profile: Profile, place: tuple[int, int], ticket: bytes, leaves: int, root: bytes
) -> None:
    """Give a chunk to the shard of a ticket, whose root is `root`.

    Raises:
        KeyError: the chunk has no stored nodes.
    """
    sector, chunk = place
    row = db.execute("SELECT nodes FROM chunks WHERE id = ?", (sector * profile.chunks + chunk,)).fetchone()
    if row is None:
        raise KeyError(f"chunk {chunk} of sector {sector} has no nodes")
    composed = shard.chunk_root(root, leaves, siblings(row[0], leaves))
    db.execute(
        "INSERT INTO slots (sector, chunk, ticket, leaves, root) VALUES (?, ?, ?, ?, ?)",
        (sector, chunk, ticket, leaves, composed),
    )
    _touch(db, sector)


def _filler(nodes: bytes) -> list[list[bytes]]:
    """The tree of a chunk of filler above its stored nodes."""
    return merkle.levels(split(nodes))


def siblings(nodes: bytes, leaves: int) -> list[bytes]:
    """The siblings on the way from the first `leaves` leaves of a chunk of filler up to its root."""
    first = leaves.bit_length() - 1 - GROUP_HEIGHT
    return [level[1] for level in _filler(nodes)[first:-1]]


def first_node(nodes: bytes, leaves: int) -> bytes:
    """The root of the first `leaves` leaves of a chunk of filler."""
    return _filler(nodes)[leaves.bit_length() - 1 - GROUP_HEIGHT][0]


# What sectors are with their slots


def slots_at(db: sqlite3.Connection, sector: int, seq: int) -> list[Slot]:
    """The slots of a sector under a commitment that is answered, in ascending chunk."""
    query = (
        "SELECT sector, chunk, ticket, leaves, root FROM slots "
        "WHERE sector = ? AND since <= ? AND (until IS NULL OR until > ?) ORDER BY chunk"
    )
    return [Slot(*row) for row in db.execute(query, (sector, seq, seq))]


def chunk_roots_at(db: sqlite3.Connection, sector: int, seq: int) -> bytes | None:
    """The roots of a sector's chunks under a commitment; None when the sector was never sealed.

    For up to `COMMITMENTS_KNOWN` commitments back.
    """
    query = (
        "SELECT chunk, root FROM slots WHERE sector = :sector AND since <= :seq "
        "AND (until IS NULL OR until > :seq) UNION ALL "
        "SELECT chunk, root FROM past_slots WHERE sector = :sector AND since <= :seq AND until > :seq"
    )
    return _overlaid(db, sector, db.execute(query, {"sector": sector, "seq": seq}).fetchall())


def _overlaid(db: sqlite3.Connection, sector: int, found: Iterable[tuple[int, bytes]]) -> bytes | None:
    row = db.execute("SELECT chunk_roots FROM sectors WHERE sector = ?", (sector,)).fetchone()
    if row is None or row[0] is None:
        return None
    roots = bytearray(row[0])
    for chunk, root in found:
        roots[chunk * HASH_SIZE : (chunk + 1) * HASH_SIZE] = root
    return bytes(roots)


def _touch(db: sqlite3.Connection, sector: int) -> None:
    """Note that a sector's root changes."""
    db.execute(
        "INSERT INTO composed VALUES (?, NULL) ON CONFLICT (sector) DO UPDATE SET root = NULL", (sector,)
    )


def stale(db: sqlite3.Connection) -> bool:
    """Whether roots have to be made anew before the entries are right."""
    query = (
        "SELECT 1 FROM composed JOIN sectors USING (sector) "
        "WHERE composed.root IS NULL AND state = 'sealed' LIMIT 1"
    )
    return db.execute(query).fetchone() is not None


def refresh(db: sqlite3.Connection) -> None:
    """Make anew the roots of the sectors whose slots have changed."""
    query = (
        "SELECT sector FROM composed JOIN sectors USING (sector) "
        "WHERE composed.root IS NULL AND state = 'sealed'"
    )
    for (sector,) in db.execute(query).fetchall():
        standing = db.execute(
            f"SELECT chunk, root FROM slots WHERE sector = ? AND {_STANDS}",  # noqa: S608 - a constant
            (sector,),
        ).fetchall()
        if not standing:
            db.execute("DELETE FROM composed WHERE sector = ?", (sector,))
            continue
        roots = _overlaid(db, sector, standing)
        assert roots is not None  # a sealed row has them
        db.execute("UPDATE composed SET root = ? WHERE sector = ?", (merkle.root(split(roots)), sector))


def resealed(db: sqlite3.Connection, sector: int) -> None:
    """Note that a sector's whole file was sealed again: it has no holes."""
    db.execute("UPDATE slots SET hole = 0 WHERE sector = ?", (sector,))
    _touch(db, sector)


# Commitments


def commit(db: sqlite3.Connection, seq: int) -> None:
    """Note that commitment `seq` is made to what there is now."""
    new = "slots WHERE since IS NULL AND sector IN (SELECT sector FROM committed WHERE seq = :seq)"
    tickets = f"SELECT ticket FROM {new}"  # noqa: S608 - a constant
    changes = (
        f"UPDATE shards SET state = 'committed' WHERE state = 'stored' AND ticket IN ({tickets})",  # noqa: S608
        f"UPDATE slots SET since = :seq WHERE ticket IN ({tickets})",  # noqa: S608
    )
    for change in changes:
        db.execute(change, {"seq": seq})
    db.execute(
        "UPDATE slots SET until = ? WHERE ended = 1 AND hole = 0 AND until IS NULL AND since < ?", (seq, seq)
    )
    oldest = seq - COMMITMENTS_ANSWERED + 1
    db.execute(
        "INSERT OR REPLACE INTO past_slots SELECT sector, chunk, since, until, root FROM slots "
        "WHERE ended = 1 AND until <= ?",
        (oldest,),
    )
    db.execute("DELETE FROM slots WHERE ended = 1 AND until <= ?", (oldest,))
    db.execute("DELETE FROM past_slots WHERE until <= ?", (seq - COMMITMENTS_KNOWN,))


def pending(db: sqlite3.Connection, newest: int) -> Pending:
    """What the next commitments have to do; `newest` is the number of the last, 0 when there is none."""

    def count(condition: str) -> int:
        query = f"SELECT count(*) FROM slots WHERE {condition}"  # noqa: S608 - constants below
        return int(db.execute(query, {"newest": newest}).fetchone()[0])

    sealed = "sector IN (SELECT sector FROM sectors WHERE state = 'sealed')"
    lingering = count("since = :newest AND hole < 2 AND ended = 0") if newest > 1 else 0
    return Pending(
        taken=count(f"since IS NULL AND {sealed}"),
        leaving=count("ended = 1 AND hole = 0 AND until IS NULL"),
        lingering=lingering + count("ended = 1 AND until = :newest"),
    )


def listing(db: sqlite3.Connection, seq: int, start: int, limit: int) -> list[tuple[int, int, bytes]]:
    """(sector, chunk, signed ticket) of the slots that a commitment has, in ascending order."""
    query = (
        "SELECT sector, chunk, signed FROM slots JOIN shards USING (ticket) "
        "WHERE since <= :seq AND (until IS NULL OR until > :seq) "
        "AND sector IN (SELECT sector FROM committed WHERE seq = :seq) "
        "ORDER BY sector, chunk LIMIT :limit OFFSET :start"
    )
    return db.execute(query, {"seq": seq, "start": start, "limit": limit}).fetchall()


# Ends and holes


def end(db: sqlite3.Connection, tickets: Sequence[bytes], state: str, reason: str, now: int) -> list[bytes]:
    """End the live shards among `tickets`, and their slots; returns which those were.

    Args:
        state: what they are then, "ended" or "damaged".
    """
    ended = []
    for ticket in tickets:
        changed = db.execute(
            f"UPDATE shards SET state = ?, reason = ?, changed = ? WHERE ticket = ? AND state IN {LIVE}",  # noqa: S608
            (state, reason, now, ticket),
        )
        if changed.rowcount != 1:
            continue
        ended.append(ticket)
        row = db.execute("SELECT sector, since, hole FROM slots WHERE ticket = ?", (ticket,)).fetchone()
        if row is None:
            continue
        sector, since, hole = row
        if since is None:
            db.execute("DELETE FROM slots WHERE ticket = ?", (ticket,))
        else:
            db.execute("UPDATE slots SET ended = 1 WHERE ticket = ?", (ticket,))
        if not hole:
            _touch(db, sector)
    return ended


@dataclass(frozen=True, slots=True)
class Hole:
    """A slot's filler in its sector's file: the first `leaves` leaves of the chunk."""

    sector: int
    chunk: int
    leaves: int

    @property
    def range(self) -> tuple[int, int]:
        """Offset and length in the sector's file, in bytes."""
        return self.chunk * seal.CHUNK_SIZE, self.leaves * seal.LEAF_SIZE


def to_punch(db: sqlite3.Connection, newest: int) -> list[Hole]:
    """The slots whose filler no commitment that is answered has any more, and is still there."""
    oldest = max(1, newest - COMMITMENTS_ANSWERED + 1)
    query = (
        "SELECT sector, chunk, leaves FROM slots JOIN sectors USING (sector) "
        "WHERE hole < 2 AND ended = 0 AND since <= ? AND state = 'sealed' ORDER BY sector, chunk"
    )
    return [Hole(*row) for row in db.execute(query, (oldest,))]


def mark(db: sqlite3.Connection, holes: Iterable[Hole], before: Sequence[int], after: int) -> None:
    """Move slots that are not ended from one of the states `before` of their hole to `after`."""
    marks = ", ".join(str(int(state)) for state in before)
    db.executemany(
        f"UPDATE slots SET hole = ? WHERE sector = ? AND chunk = ? AND ended = 0 AND hole IN ({marks})",  # noqa: S608
        [(after, hole.sector, hole.chunk) for hole in holes],
    )


def to_fill(db: sqlite3.Connection) -> list[Hole]:
    """The holes of ended slots in sealed sectors, in ascending order."""
    query = (
        "SELECT sector, chunk, leaves FROM slots JOIN sectors USING (sector) "
        "WHERE ended = 1 AND hole > 0 AND state = 'sealed' ORDER BY sector, chunk"
    )
    return [Hole(*row) for row in db.execute(query)]


def filled(db: sqlite3.Connection, holes: Iterable[Hole]) -> None:
    """Note that the filler of ended slots is back on disk, flushed."""
    for hole in holes:
        db.execute(
            "UPDATE slots SET hole = 0 WHERE sector = ? AND chunk = ? AND ended = 1",
            (hole.sector, hole.chunk),
        )
        _touch(db, hole.sector)


def holes_of(db: sqlite3.Connection, sector: int) -> list[Hole]:
    """The places of a sector's file that hold nothing, or soon will."""
    query = "SELECT sector, chunk, leaves FROM slots WHERE sector = ? AND hole > 0"
    return [Hole(*row) for row in db.execute(query, (sector,))]


def sectors_with_slots(db: sqlite3.Connection) -> set[int]:
    """Sectors that have slots, ended ones too."""
    return {row[0] for row in db.execute("SELECT DISTINCT sector FROM slots")}
