"""Shards in files.sqlite once they are stored: checks, losses, repairs.

Rules. A shard that failed a check is counted as there until it is marked as lost, but not as healthy. A
stripe is looked at when something happened to one of its shards, not because time went by. What replaces a
shard was written down before its ticket left, and takes its place only with the miner's receipt.
"""

from __future__ import annotations

import sqlite3

from ..errors import RequestError
from ..hashchain import Sign
from ..ticket import SignedTicket, Stored
from . import rows
from .files import add_shard, set_removing, shard_of, stripe_of
from .rows import FileRow, ShardRow, StripeRow, Wanted
from .uploads import UploadRows

_SHARD = rows.columns(ShardRow, "shards")
_FILE = rows.columns(FileRow, "files")


class HoldingRows(UploadRows):
    """What miners hold."""

    def shards_of_miner(self, hotkey: str) -> list[ShardRow]:
        """Everything that a miner (SS58) has or may have of ours: all but what is gone."""
        return self._shards("shards.hotkey = ? AND shards.state <> 'gone' ORDER BY serial", hotkey)

    def due_for_check(self, limit: int, before: int, again: int = 0) -> list[ShardRow]:
        """Shards of complete files to be checked.

        Those that a check was asked for, those that were not answered for (which may be lost by now), and
        stored ones, the longest unchecked first. Half and a quarter of `limit` are for the first two, so that
        nobody keeps the others from their turn, and all of it when there are no others.

        Args:
            before: only those whose last check was earlier, in seconds since 1970.
            again: the same of those that were not answered for.
        """
        asked = self._shards(
            "files.state = 'stored' AND shards.due = 1 AND shards.state = 'stored' LIMIT ?", limit
        )
        failing = self._shards(
            "files.state = 'stored' AND shards.failures > 0 AND shards.state IN ('stored', 'lost')"
            " AND shards.checked < ? ORDER BY shards.checked LIMIT ?",
            again,
            limit,
        )
        others = self._shards(
            "files.state = 'stored' AND shards.state = 'stored' AND shards.failures = 0"
            " AND (shards.checked IS NULL OR shards.checked < ?) ORDER BY shards.checked LIMIT ?",
            before,
            limit,
        )
        turns = [*asked[: -(-limit // 2)], *failing[: -(-limit // 4)], *others, *asked, *failing]
        return list({shard.ticket: shard for shard in turns}.values())[:limit]

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

    def unanswered(self, ticket: bytes, reason: str, now: int) -> int:
        """Note that a shard was not answered for; how often that was in a row.

        It is taken as failed from the second time on: once may be the network, or a miner that starts anew.
        """

        def work(db: sqlite3.Connection) -> int:
            db.execute(
                "UPDATE shards SET health = CASE WHEN failures > 0 THEN 'failed' ELSE health END,"
                " checked = ?, reason = ?, due = 0, failures = failures + 1"
                " WHERE ticket = ? AND state IN ('stored', 'lost')",
                (now, reason[:200], ticket),
            )
            found = shard_of(db, ticket)
            if found is not None and found.failures == 2:
                _sicken(db, ticket)
            return found.failures if found is not None else 0

        return self._write(work)

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

    def give_up(self, ticket: bytes, now: int) -> None:
        """A ticket without a receipt is not going to be used; its miner is to be told."""

        def work(db: sqlite3.Connection) -> None:
            known = shard_of(db, ticket)
            if known is not None and known.state == "issued":
                set_removing(db, ticket, now)

        self._write(work)

    def let_go(self, ticket: bytes, now: int) -> None:
        """A stored shard goes without another one in its place; its miner is to be told."""

        def work(db: sqlite3.Connection) -> None:
            known = shard_of(db, ticket)
            if known is not None and known.state == "stored":
                set_removing(db, ticket, now)
                _sicken(db, ticket)

        self._write(work)

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

    def _shards(self, where: str, *values: object) -> list[ShardRow]:
        statement = f"SELECT {_SHARD} FROM shards JOIN files ON files.id = shards.file WHERE {where}"  # noqa: S608
        return self._read(lambda db: [rows.read(ShardRow, row) for row in db.execute(statement, values)])


def _sicken(db: sqlite3.Connection, ticket: bytes) -> None:
    db.execute(
        "UPDATE stripes SET sick = 1 WHERE (file, number) IN (SELECT file, stripe FROM shards"
        " WHERE ticket = ?)",
        (ticket,),
    )
