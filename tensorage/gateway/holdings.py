"""Shards in files.sqlite once they are stored: checks, losses, repairs, retrievals.

Rules. A shard that failed a check is counted as there until it is marked as lost, but not as healthy. A
stripe is looked at when something happened to one of its shards, not because time went by. What replaces a
shard was written down before its ticket left, and takes its place only with the miner's receipt.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from .. import seal
from ..errors import RequestError
from ..hashchain import Sign
from ..ticket import Retrieval, SignedTicket, Stored
from . import rows
from .rows import FileRow, ShardRow, StripeRow, Wanted
from .uploads import UploadRows, add_shard, set_removing, shard_of, stripe_of

DAY = 86400
#: Records of retrievals are taken for so many days, and their bytes count half after as many.
RETRIEVAL_DAYS = 7

_SHARD = rows.columns(ShardRow, "shards")
_FILE = rows.columns(FileRow, "files")


class HoldingRows(UploadRows):
    """What miners hold."""

    def shards_of_miner(self, hotkey: str) -> list[ShardRow]:
        """Everything that a miner (SS58) has or may have of ours: all but what is gone."""
        return self._shards("shards.hotkey = ? AND shards.state <> 'gone' ORDER BY serial", hotkey)

    def due_for_check(self, limit: int, before: int) -> list[ShardRow]:
        """Stored shards of complete files to be checked: first those asked for, then the longest unchecked.

        Args:
            before: only those whose last check was earlier, in seconds since 1970.
        """
        due = self._shards(
            "shards.due = 1 AND shards.state = 'stored' AND files.state = 'stored' LIMIT ?", limit
        )
        known = {shard.ticket for shard in due}
        others = self._shards(
            "shards.state = 'stored' AND files.state = 'stored'"
            " AND (shards.checked IS NULL OR shards.checked < ?)"
            " ORDER BY shards.checked LIMIT ?",
            before,
            limit,
        )
        return [*due, *(shard for shard in others if shard.ticket not in known)][:limit]

    def checked(self, ticket: bytes, ok: bool, reason: str, now: int) -> None:
        """Note how a check of a shard went. One that was lost and is found is stored again.

        Args:
            reason: what was wrong; empty when nothing was.
        """

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE shards SET health = ?, checked = ?, reason = ?, due = 0,"
                " failures = CASE WHEN ? THEN 0 ELSE failures + 1 END,"
                " state = CASE WHEN ? AND state = 'lost' THEN 'stored' ELSE state END"
                " WHERE ticket = ? AND state IN ('stored', 'lost')",
                ("ok" if ok else "failed", now, reason[:200], ok, ok, ticket),
            )
            if not ok:
                _sicken(db, ticket)

        self._write(work)

    def report(self, ticket: bytes) -> bool:
        """Have a stored shard checked soon; False when there is none."""
        return self._write(
            lambda db: (
                db.execute(
                    "UPDATE shards SET due = 1 WHERE ticket = ? AND state = 'stored'", (ticket,)
                ).rowcount
                == 1
            )
        )

    def mark_lost(self, ticket: bytes, reason: str, now: int | None = None) -> None:
        """A shard is not at its miner any more."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE shards SET state = 'lost', health = 'failed', reason = ?, due = 0,"
                " checked = coalesce(?, checked) WHERE ticket = ? AND state = 'stored'",
                (reason[:200], now, ticket),
            )
            _sicken(db, ticket)

        self._write(work)

    # Repair

    def stripes_to_repair(self, limit: int = 100) -> list[StripeRow]:
        """Stripes of complete files that are below their threshold or miss a shard, the worst first.

        A stripe stays among them until each of its shards is stored and healthy; whether there is a spare
        miner for what is merely missing is for the caller to find out.
        """

        def work(db: sqlite3.Connection) -> list[StripeRow]:
            found = []
            for row in db.execute(
                f"SELECT {_FILE}, stripes.number AS stripe FROM stripes"  # noqa: S608
                " JOIN files ON files.id = stripes.file WHERE stripes.sick = 1 AND files.state = 'stored'"
            ).fetchall():
                stripe = stripe_of(db, rows.read(FileRow, row), row["stripe"])
                if stripe.healthy < stripe.threshold or stripe.missing:
                    found.append(stripe)
                elif stripe.healthy == stripe.file.shards:
                    db.execute(
                        "UPDATE stripes SET sick = 0 WHERE file = ? AND number = ?",
                        (stripe.file.id, stripe.number),
                    )
            found.sort(key=lambda stripe: stripe.healthy - stripe.file.data_shards)
            return found[:limit]

        return self._write(work)

    def stripes_of_miner(self, hotkey: str, limit: int = 100) -> list[StripeRow]:
        """Stripes of complete files with a stored shard at a miner, such as one that leaves."""

        def work(db: sqlite3.Connection) -> list[StripeRow]:
            found = db.execute(
                f"SELECT DISTINCT {_FILE}, shards.stripe AS stripe FROM shards"  # noqa: S608
                " JOIN files ON files.id = shards.file WHERE shards.hotkey = ?"
                " AND shards.state = 'stored' AND files.state = 'stored' LIMIT ?",
                (hotkey, limit),
            ).fetchall()
            return [stripe_of(db, rows.read(FileRow, row), row["stripe"]) for row in found]

        return self._read(work)

    def issue_repair(
        self, id: bytes, stripe: int, leaves: int, wanted: Wanted, coldkey: str, sign: Sign, now: int
    ) -> SignedTicket:
        """A ticket for a shard that is to take another one's place; no quota is asked.

        One that was issued for the same and has no receipt yet is given again.

        Args:
            coldkey: of the new miner, SS58.
            sign: signs with the validator's hotkey.

        Raises:
            RequestError: "unknown"; the file is no complete one.
        """
        serial = self.next_serials(1, now)

        def work(db: sqlite3.Connection) -> SignedTicket:
            row = db.execute(
                f"SELECT {_FILE} FROM files WHERE id = ? AND state = 'stored'",  # noqa: S608
                (id,),
            ).fetchone()
            if row is None:
                raise RequestError("unknown", f"there is no complete file {id.hex()}")
            open_ones = db.execute(
                f"SELECT {_SHARD} FROM shards WHERE file = ? AND stripe = ? AND number = ?"  # noqa: S608
                " AND state = 'issued'",
                (id, stripe, wanted.number),
            ).fetchall()
            for old in [rows.read(ShardRow, found) for found in open_ones]:
                if (old.hotkey, old.root) == (wanted.hotkey, wanted.root):
                    return old.decoded()
                set_removing(db, old.ticket, now)
            signed = self._signed(rows.read(FileRow, row), wanted, leaves, serial, sign)
            add_shard(db, id, stripe, wanted.number, coldkey, signed, now)
            return signed

        return self._write(work)

    def replace_shard(
        self, id: bytes, stripe: int, number: int, signed: SignedTicket, stored: Stored, now: int
    ) -> None:
        """A new miner has a shard: it takes the place of those that had its number, whose miners are told.

        Args:
            signed: from `issue_repair`.
            stored: the new miner's receipt; the caller has checked it.

        Raises:
            RequestError: "conflict"; the ticket is not open any more. The new miner will be told.
        """

        def work(db: sqlite3.Connection) -> bool:
            name = signed.ticket.hash
            changed = db.execute(
                "UPDATE shards SET state = 'stored', stored_ms = ?, receipt = ?, health = 'unchecked'"
                " WHERE ticket = ? AND file = ? AND stripe = ? AND number = ? AND state = 'issued'",
                (stored.unix_ms, stored.signature, name, id, stripe, number),
            )
            if not changed.rowcount:
                known = shard_of(db, name)
                return known is not None and known.state == "stored"
            for row in db.execute(
                "SELECT ticket FROM shards WHERE file = ? AND stripe = ? AND number = ? AND ticket <> ?",
                (id, stripe, number, name),
            ).fetchall():
                set_removing(db, row["ticket"], now)
            db.execute("UPDATE stripes SET sick = 1 WHERE file = ? AND number = ?", (id, stripe))
            return True

        if not self._write(work):
            raise RequestError("conflict", f"ticket {signed.ticket.serial} is not open any more")

    # Retrievals

    def retrieval_cursor(self, hotkey: str) -> int:
        """Where the next records of a miner start."""
        row = self._read(
            lambda db: db.execute("SELECT next FROM cursors WHERE hotkey = ?", (hotkey,)).fetchone()
        )
        return int(row["next"]) if row else 0

    def add_retrieved(self, hotkey: str, records: Sequence[Retrieval], following: int, now: int) -> int:
        """Count what a miner gave to clients; the bytes that were not counted before.

        Args:
            records: of our tickets at this miner; their signatures were checked. Others are passed over, as
                are those that are older than seven days or from the future.
            following: where the next records of this miner start.
        """

        def work(db: sqlite3.Connection) -> int:
            total = 0
            for record in records:
                day = record.nonce_ns // 1_000_000_000 // DAY
                if not now // DAY - RETRIEVAL_DAYS <= day <= (now + 120) // DAY:
                    continue
                known = shard_of(db, record.ticket_hash)
                if known is None or known.hotkey != hotkey:
                    continue
                new = db.execute("INSERT OR IGNORE INTO counted VALUES (?, ?)", (record.hash, day))
                if new.rowcount:
                    size = record.count * seal.LEAF_SIZE
                    total += size
                    db.execute(
                        "INSERT INTO retrieved VALUES (?, ?, ?)"
                        " ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
                        (record.ticket_hash, day, size),
                    )
            db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (hotkey, min(following, 2**63 - 1)))
            return total

        return self._write(work)

    def served_bytes(self, hotkey: str, now: int) -> float:
        """What a miner gave to clients, in bytes that fade: half after seven days.

        Of each ticket no more counts than its shard's size, so that fetching one shard again and again is
        worth no more than fetching it once.
        """
        today = now // DAY

        def work(db: sqlite3.Connection) -> float:
            by_ticket: dict[bytes, tuple[int, float]] = {}
            for row in db.execute(
                "SELECT shards.ticket, shards.leaves, day, bytes FROM shards JOIN retrieved"
                " ON retrieved.ticket = shards.ticket WHERE shards.hotkey = ? AND shards.state = 'stored'",
                (hotkey,),
            ):
                faded = row["bytes"] * 0.5 ** (max(0, today - row["day"]) / RETRIEVAL_DAYS)
                _, so_far = by_ticket.get(row["ticket"], (0, 0.0))
                by_ticket[row["ticket"]] = (row["leaves"] * seal.LEAF_SIZE, so_far + faded)
            return sum(min(size, faded) for size, faded in by_ticket.values())

        return self._read(work)

    def served(self, now: int) -> dict[str, float]:
        """`served_bytes` of every miner that gave any."""
        hotkeys = self._read(lambda db: [row["hotkey"] for row in db.execute("SELECT hotkey FROM cursors")])
        return {hotkey: found for hotkey in hotkeys if (found := self.served_bytes(hotkey, now)) > 0}

    def _shards(self, where: str, *values: object) -> list[ShardRow]:
        statement = f"SELECT {_SHARD} FROM shards JOIN files ON files.id = shards.file WHERE {where}"  # noqa: S608
        return self._read(lambda db: [rows.read(ShardRow, row) for row in db.execute(statement, values)])


def _sicken(db: sqlite3.Connection, ticket: bytes) -> None:
    db.execute(
        "UPDATE stripes SET sick = 1 WHERE (file, number) IN (SELECT file, stripe FROM shards"
        " WHERE ticket = ?)",
        (ticket,),
    )
