"""FileStore: all of files.sqlite in one class, and what comes to an end by itself.

    store = FileStore(path, Issuer(genesis, netuid, validator_key))

One connection behind a lock: any thread may call it, each method is one transaction, and none is for the
event loop, since it waits for the disk. Removal goes in steps, so that a miner that is away is told later:

    stored -> removing (a replaced shard, a file that is gone) -> gone, once its miner said so or it expired
    stored, in a file in the trash: told to be removed, and to be restored when the file is
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from . import rows
from .files import FileRows, drop_file
from .holdings import HoldingRows
from .people import AccountRows
from .rows import Errand
from .schema import Issuer
from .serving import DAY, ServingRows, forget_serving
from .uploads import STALLED_SECONDS

#: The longest wait before a miner is told again; rows of what is gone are kept for so long.
LONGEST_WAIT = DAY
GONE_SECONDS = 8 * DAY
_FIRST_WAIT = 30

_ERRAND = rows.columns(Errand, "shards")


class Lookup(AccountRows, FileRows):
    """Accounts and files over a connection of its own, which waits for nothing that others do."""


class FileStore(AccountRows, HoldingRows, ServingRows):
    """The database of a gateway.

    Args:
        path: the file; made when it is missing.
        issuer: whose tickets are issued.

    Raises:
        UsageError: the file cannot be opened, is damaged, of a later version, or another validator's.
        StorageError: from any method, when it cannot be read or written.
    """

    def __init__(self, path: Path, issuer: Issuer) -> None:
        super().__init__(path, issuer)
        self.issuer = issuer

    # What miners are told

    def removals(self, now: int, limit: int = 1000) -> list[Errand]:
        """Tickets whose miners must still be told to remove them, as far as it is time to."""
        return self._read(
            lambda db: [
                rows.read(Errand, row)
                for row in db.execute(
                    f"SELECT {_ERRAND} FROM shards WHERE state = 'removing' AND tell_at <= :now"  # noqa: S608
                    f" UNION ALL SELECT {_ERRAND} FROM files JOIN shards ON shards.file = files.id"
                    " WHERE files.state = 'trash' AND shards.state = 'stored' AND shards.trashed = 0"
                    " AND shards.tell_at <= :now LIMIT :limit",
                    {"now": now, "limit": limit},
                )
            ]
        )

    def restores(self, now: int, limit: int = 1000) -> list[Errand]:
        """Tickets whose miners must still be told to take them out of the trash."""
        return self._read(
            lambda db: [
                rows.read(Errand, row)
                for row in db.execute(
                    f"SELECT {_ERRAND} FROM shards JOIN files ON files.id = shards.file"  # noqa: S608
                    " WHERE shards.trashed = 1 AND shards.state = 'stored' AND files.state = 'stored'"
                    " AND shards.tell_at <= ? LIMIT ?",
                    (now, limit),
                )
            ]
        )

    def removed(self, ticket: bytes, now: int) -> None:
        """A miner has put the shard of a ticket into its trash, or never had it and never will."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE shards SET state = 'gone', tell_at = ? WHERE ticket = ? AND state = 'removing'",
                (now, ticket),
            )
            db.execute("UPDATE shards SET trashed = 1 WHERE ticket = ? AND state = 'stored'", (ticket,))

        self._write(work)

    def restored(self, ticket: bytes) -> None:
        """A miner has taken the shard of a ticket out of its trash."""
        self._write(
            lambda db: db.execute("UPDATE shards SET trashed = 0, due = 1 WHERE ticket = ?", (ticket,))
        )

    def told_in_vain(self, tickets: Iterable[bytes], now: int) -> None:
        """Miners could not be told; later, then: the wait doubles up to a day."""
        self._write(
            lambda db: db.executemany(
                "UPDATE shards SET tells = tells + 1,"
                " tell_at = ? + min(?, ? << min(tells, 12)) WHERE ticket = ?",
                [(now, LONGEST_WAIT, _FIRST_WAIT, ticket) for ticket in tickets],
            )
        )

    # Ends

    def expire(self, now: int) -> int:
        """End what has come to its end; how many files that was.

        Uploads that stalled, tickets without a receipt for a day, trash that is over, tickets and files that
        expired (their miners know without being told), and rows of what has long been gone.
        """

        def work(db: sqlite3.Connection) -> int:
            over = db.execute(
                "SELECT id FROM files WHERE (state = 'uploading' AND progressed <= ?)"
                " OR (state = 'trash' AND until <= ?) OR (expires <= ? AND state <> 'gone')",
                (now - STALLED_SECONDS, now, now),
            ).fetchall()
            for row in over:
                drop_file(db, row["id"], now)
            db.execute(
                "UPDATE shards SET state = 'removing', tell_at = ?, tells = 0"
                " WHERE state = 'issued' AND issued <= ?",
                (now, now - STALLED_SECONDS),
            )
            db.execute(
                "UPDATE shards SET state = 'gone', tell_at = ? WHERE state = 'removing' AND expires <= ?",
                (now, now),
            )
            db.execute("DELETE FROM shards WHERE state = 'gone' AND tell_at <= ?", (now - GONE_SECONDS,))
            db.execute(
                "DELETE FROM files WHERE state = 'gone'"
                " AND NOT EXISTS (SELECT 1 FROM shards WHERE shards.file = files.id)"
            )
            db.execute("DELETE FROM given_up WHERE day < ?", (now // DAY,))
            forget_serving(db, now)
            return len(over)

        return self._write(work)

    def outstanding(self) -> dict[str, int]:
        """Places and tickets of each miner (SS58) without a receipt: slots that it does not count yet."""
        return self._read(
            lambda db: {
                row["hotkey"]: row["count"]
                for row in db.execute("SELECT hotkey, count(*) AS count FROM places GROUP BY hotkey")
            }
        )
