"""What miners served, in files.sqlite: leaves that clients read, our own fetches, shards found to be wrong.

Rules. Of each shard and day it is kept *which* leaves a client read, as a set of bits: whatever is reported
twice changes nothing, so that it needs no memory of what was reported, and a page of records may be taken
again after a kill. Everything fades within days, and is deleted after `KEPT_DAYS`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from .. import seal
from ..validator import scoring
from . import rows
from .rows import ShardRow
from .schema import Database

DAY = 86400
KEPT_DAYS = 7


@dataclass(frozen=True, slots=True)
class Read:
    """A piece that a client read: `count` leaves from `first` on of the shard of `ticket`, on `day`."""

    ticket: bytes
    day: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Mark:
    """The last record of a miner that was taken: its number and the nonce in it."""

    id: int
    nonce_ns: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """A piece that we fetched as a client does: when, seconds since 1970, and what came of it.

    `nonce_ns` is that of our request, by which a miner's record of it is told from those of clients.
    """

    hotkey: str
    ticket: bytes
    first: int
    count: int
    at: int
    nonce_ns: int
    elapsed_ms: int
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What the score needs of a miner; see `scoring.after_serving`."""

    served_bytes: float = 0.0
    fetch_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Wrong:
    """A shard whose miner answered with bytes that are not the shard's, until it is in the ledger."""

    ticket: bytes
    hotkey: str
    at: int
    reason: str


class ServingRows(Database):
    """Reads, fetches and wrong shards."""

    def mark(self, hotkey: str) -> Mark | None:
        """The last record of a miner that was taken, None before the first."""
        row = self._read(
            lambda db: db.execute("SELECT id, nonce_ns FROM marks WHERE hotkey = ?", (hotkey,)).fetchone()
        )
        return rows.read(Mark, row) if row else None

    def has_read(self, read: Read) -> bool:
        """Whether all of these leaves were read on that day already."""
        bits = _bits(read.first, read.count)
        return self._read(lambda db: _leaves(db, read.ticket, read.day) & bits == bits)

    def add_reads(self, hotkey: str, reads: Sequence[Read], mark: Mark) -> None:
        """Take what a miner has shown, up to and with the record `mark`."""

        def work(db: sqlite3.Connection) -> None:
            for read in reads:
                bits = _leaves(db, read.ticket, read.day) | _bits(read.first, read.count)
                data = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
                db.execute(
                    "INSERT OR REPLACE INTO reads (ticket, day, leaves)"
                    " SELECT ticket, ?, ? FROM shards WHERE ticket = ?",
                    (read.day, data, read.ticket),
                )
            db.execute(
                "INSERT OR REPLACE INTO marks (hotkey, id, nonce_ns) VALUES (?, ?, ?)",
                (hotkey, mark.id, mark.nonce_ns),
            )

        self._write(work)

    def add_fetch(self, fetch: Fetch) -> None:
        """Note a fetch of ours."""
        self._write(
            lambda db: db.execute(
                "INSERT INTO fetches (hotkey, ticket, first, count, at, nonce_ns, elapsed_ms, passed, reason)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    fetch.hotkey,
                    fetch.ticket,
                    fetch.first,
                    fetch.count,
                    fetch.at,
                    fetch.nonce_ns,
                    fetch.elapsed_ms,
                    int(fetch.passed),
                    fetch.reason,
                ),
            )
        )

    def fetches(self, hotkey: str) -> list[Fetch]:
        """Our fetches from a miner, oldest first."""
        found = self._read(
            lambda db: db.execute(
                f"SELECT {rows.columns(Fetch)} FROM fetches WHERE hotkey = ? ORDER BY id",  # noqa: S608
                (hotkey,),
            ).fetchall()
        )
        return [rows.read(Fetch, row) for row in found]

    def holders(self) -> list[str]:
        """Hotkeys (SS58) of miners with stored shards of complete files."""
        found = self._read(
            lambda db: db.execute(
                "SELECT DISTINCT hotkey FROM shards JOIN files ON files.id = shards.file"
                " WHERE shards.state = 'stored' AND files.state = 'stored'"
            ).fetchall()
        )
        return [row["hotkey"] for row in found]

    def any_shard(self, hotkey: str, share: float) -> ShardRow | None:
        """One of the stored shards of complete files that a miner has.

        Args:
            share: which, from 0 for the first up to, but without, 1.
        """
        where = (
            "FROM shards JOIN files ON files.id = shards.file"
            " WHERE shards.hotkey = ? AND shards.state = 'stored' AND files.state = 'stored'"
        )

        def work(db: sqlite3.Connection) -> ShardRow | None:
            count = db.execute(f"SELECT count(*) {where}", (hotkey,)).fetchone()[0]
            row = db.execute(
                f"SELECT {rows.columns(ShardRow, 'shards')} {where} LIMIT 1 OFFSET ?",
                (hotkey, int(share * count)),
            ).fetchone()
            return rows.read(ShardRow, row) if row else None

        return self._read(work)

    def tallies(self, now: int) -> dict[str, Tally]:
        """What each miner has served lately, by hotkey."""
        today = now / DAY

        def work(db: sqlite3.Connection) -> dict[str, Tally]:
            served: dict[str, float] = {}
            reads = db.execute(
                "SELECT reads.ticket, hotkey, shards.leaves AS size, day, reads.leaves AS bits"
                " FROM reads JOIN shards USING (ticket) WHERE state = 'stored' ORDER BY reads.ticket"
            )
            for _, of_shard in groupby(reads, key=lambda row: row["ticket"]):
                days = list(of_shard)
                # A day's reads are as old as its noon.
                counts = [
                    (today - row["day"] - 0.5, int.from_bytes(row["bits"], "big").bit_count()) for row in days
                ]
                size = days[0]["size"] * seal.LEAF_SIZE
                hotkey = days[0]["hotkey"]
                served[hotkey] = served.get(hotkey, 0.0) + scoring.served(counts, size)
            rates: dict[str, float] = {}
            fetches = db.execute("SELECT hotkey, at, passed FROM fetches ORDER BY hotkey")
            for hotkey, of_miner in groupby(fetches, key=lambda row: row["hotkey"]):
                rates[hotkey] = scoring.fetch_rate(
                    (today - row["at"] / DAY, bool(row["passed"])) for row in of_miner
                )
            return {
                hotkey: Tally(served.get(hotkey, 0.0), rates.get(hotkey, 0.0)) for hotkey in {*served, *rates}
            }

        return self._read(work)

    def add_wrong(self, wrong: Wrong) -> None:
        """Note a wrong shard; the same again changes nothing."""
        self._write(
            lambda db: db.execute(
                "INSERT OR IGNORE INTO wrongs (ticket, hotkey, at, reason) VALUES (?, ?, ?, ?)",
                (wrong.ticket, wrong.hotkey, wrong.at, wrong.reason),
            )
        )

    def wrongs(self) -> list[Wrong]:
        """Wrong shards that are not in the ledger yet, oldest first."""
        found = self._read(
            lambda db: db.execute(
                f"SELECT {rows.columns(Wrong)} FROM wrongs ORDER BY at, ticket"  # noqa: S608
            ).fetchall()
        )
        return [rows.read(Wrong, row) for row in found]

    def settled(self, tickets: Iterable[bytes]) -> None:
        """These wrong shards are in the ledger."""
        self._write(
            lambda db: db.executemany(
                "DELETE FROM wrongs WHERE ticket = ?", [(ticket,) for ticket in tickets]
            )
        )


def forget_serving(db: sqlite3.Connection, now: int) -> None:
    """Delete what counts no more."""
    db.execute("DELETE FROM reads WHERE day < ?", (now // DAY - KEPT_DAYS,))
    db.execute("DELETE FROM fetches WHERE at < ?", (now - KEPT_DAYS * DAY,))


def _bits(first: int, count: int) -> int:
    return ((1 << count) - 1) << first


def _leaves(db: sqlite3.Connection, ticket: bytes, day: int) -> int:
    row = db.execute("SELECT leaves FROM reads WHERE ticket = ? AND day = ?", (ticket, day)).fetchone()
    return int.from_bytes(row["leaves"], "big") if row else 0
