"""Files in files.sqlite: made, looked up, put into the trash, taken out of it, dropped.

Rules. What may be asked again answers the same: a client that was killed anywhere asks again and goes on. One
that asks for another's file is answered as if there were none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from ..chain.address import ss58
from ..errors import RequestError
from ..ticket import SignedTicket
from . import rows
from .rows import FileRow, ShardRow, StripeRow
from .schema import Database

TRASH_SECONDS = 7 * 86400
#: Files of an account that are not complete.
MOST_UPLOADS = 256

FILE = rows.columns(FileRow)
SHARD = rows.columns(ShardRow)


class FileRows(Database):
    """The files, and the shards that they have."""

    def create_file(
        self,
        account: int,
        access: bytes,
        data_shards: int,
        parity_shards: int,
        expires: int,
        now: int,
        most: int = 256,
    ) -> FileRow:
        """A new file; the same again for the same access key.

        Args:
            most: shards of a stripe that the network can bear now.

        Raises:
            RequestError: "conflict"; the file is another's, was made in another way, is too wide, or too many
                are open.
        """
        id = rows.file_id(access)

        def work(db: sqlite3.Connection) -> FileRow:
            known = find_file(db, id)
            if known is not None:
                asked = (account, access, data_shards, parity_shards)
                if (known.account, known.access, known.data_shards, known.parity_shards) != asked:
                    raise RequestError("conflict", f"file {id.hex()} was made in another way")
                if known.state == "gone":
                    raise RequestError("conflict", f"file {id.hex()} is gone; begin with a new key")
                return known
            if data_shards + parity_shards > most:
                raise RequestError(
                    "conflict",
                    f"{data_shards} + {parity_shards} shards need miners of as many owners,"
                    f" of which {most} have room",
                )
            open_files = db.execute(
                "SELECT count(*) FROM files WHERE account = ? AND state = 'uploading'", (account,)
            ).fetchone()[0]
            if open_files >= MOST_UPLOADS:
                raise RequestError(
                    "conflict", f"{open_files} uploads are not complete; complete or remove some of them"
                )
            db.execute(
                "INSERT INTO files (id, account, access, data_shards, parity_shards, created, progressed,"
                " expires, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'uploading')",
                (id, account, access, data_shards, parity_shards, now, now, expires),
            )
            made = find_file(db, id)
            assert made is not None
            return made

        return self._write(work)

    def file(self, id: bytes) -> FileRow | None:
        """A file by its id; None when there is none, or it is gone."""
        found = self._read(lambda db: find_file(db, id))
        return None if found is None or found.state == "gone" else found

    def file_of_access(self, access: bytes) -> FileRow | None:
        """The file whose access key has that public key."""
        found = self.file(rows.file_id(access))
        return found if found is not None and found.access == access else None

    def files(self, account: int, start: int, limit: int) -> tuple[list[FileRow], int | None]:
        """An account's files from number `start` on, and where the next page starts, None after the last."""
        found = self._read(
            lambda db: [
                rows.read(FileRow, row)
                for row in db.execute(
                    f"SELECT {FILE} FROM files WHERE account = ? AND seq >= ? AND state <> 'gone'"  # noqa: S608
                    " ORDER BY seq LIMIT ?",
                    (account, min(start, 2**63 - 1), limit + 1),
                )
            ]
        )
        return found[:limit], found[limit].seq if len(found) > limit else None

    def stripes(self, file: FileRow, start: int, limit: int) -> tuple[list[StripeRow], int | None]:
        """Up to `limit` stripes from number `start` on, and where the next page starts, if there is one."""

        def work(db: sqlite3.Connection) -> tuple[list[StripeRow], int | None]:
            numbers = db.execute(
                "SELECT number FROM stripes WHERE file = ? AND number >= ? ORDER BY number LIMIT ?",
                (file.id, min(start, 2**63 - 1), limit + 1),
            ).fetchall()
            found = [stripe_of(db, file, row["number"]) for row in numbers[:limit]]
            return found, numbers[limit]["number"] if len(numbers) > limit else None

        return self._read(work)

    def stripe(self, id: bytes, number: int) -> StripeRow | None:
        """One stripe of a file."""

        def work(db: sqlite3.Connection) -> StripeRow | None:
            file = find_file(db, id)
            known = leaves_of(db, id, number) is not None
            return stripe_of(db, file, number) if file is not None and known else None

        return self._read(work)

    def shard(self, ticket: bytes) -> ShardRow | None:
        """The shard of a ticket, by the ticket's hash."""
        return self._read(lambda db: shard_of(db, ticket))

    # Trash

    def remove_file(self, id: bytes, account: int, now: int) -> FileRow:
        """Put a file into the trash for seven days; one that is not complete goes at once.

        Raises:
            RequestError: "unknown".
        """

        def work(db: sqlite3.Connection) -> FileRow:
            file = own_file(db, id, account)
            if file.state == "uploading":
                drop_file(db, id, now)
            elif file.state == "stored":
                until = min(now + TRASH_SECONDS, file.expires)
                db.execute("UPDATE files SET state = 'trash', until = ? WHERE id = ?", (until, id))
                remove_all(db, id, now, "issued")
                db.execute(
                    "UPDATE shards SET tell_at = 0, tells = 0 WHERE file = ? AND state = 'stored'", (id,)
                )
            found = find_file(db, id)
            assert found is not None
            return found

        return self._write(work)

    def restore_file(self, id: bytes, account: int, now: int) -> FileRow:
        """Take a file out of the trash.

        Raises:
            RequestError: "unknown".
        """

        def work(db: sqlite3.Connection) -> FileRow:
            file = own_file(db, id, account)
            if file.state == "trash":
                if file.until is not None and file.until <= now:
                    raise RequestError("unknown", f"file {id.hex()} was in the trash for too long")
                db.execute("UPDATE files SET state = 'stored', until = NULL WHERE id = ?", (id,))
                db.execute(
                    "UPDATE shards SET tell_at = 0, tells = 0 WHERE file = ? AND state = 'stored'", (id,)
                )
                db.execute("UPDATE stripes SET sick = 1 WHERE file = ?", (id,))
            return own_file(db, id, account)

        return self._write(work)


def own_file(db: sqlite3.Connection, id: bytes, account: int) -> FileRow:
    """A file of that account.

    Raises:
        RequestError: "unknown"; there is none, or it is another's, which is told alike.
    """
    found = find_file(db, id)
    if found is None or found.account != account or found.state == "gone":
        raise RequestError("unknown", f"there is no file {id.hex()}")
    return found


def stripe_of(db: sqlite3.Connection, file: FileRow, number: int) -> StripeRow:
    """A stripe with its stored and lost shards."""
    found = db.execute(
        f"SELECT {SHARD} FROM shards WHERE file = ? AND stripe = ? AND state IN ('stored', 'lost')"  # noqa: S608
        " ORDER BY number, serial",
        (file.id, number),
    )
    return StripeRow(
        file, number, leaves_of(db, file.id, number) or 0, tuple(rows.read(ShardRow, row) for row in found)
    )


def shard_of(db: sqlite3.Connection, ticket: bytes) -> ShardRow | None:
    """The shard of a ticket."""
    row = db.execute(f"SELECT {SHARD} FROM shards WHERE ticket = ?", (ticket,)).fetchone()  # noqa: S608
    return rows.read(ShardRow, row) if row else None


def live_shards(db: sqlite3.Connection, id: bytes, stripe: int) -> list[ShardRow]:
    """What is issued or stored of a stripe."""
    found = db.execute(
        f"SELECT {SHARD} FROM shards WHERE file = ? AND stripe = ?"  # noqa: S608
        " AND state IN ('issued', 'stored') ORDER BY number, serial",
        (id, stripe),
    )
    return [rows.read(ShardRow, row) for row in found]


def add_shard(
    db: sqlite3.Connection,
    id: bytes,
    stripe: int,
    number: int,
    coldkey: str,
    signed: SignedTicket,
    now: int,
) -> None:
    """Write a ticket down as issued."""
    ticket = signed.ticket
    values: Mapping[str, object] = {
        "ticket": ticket.hash,
        "file": id,
        "stripe": stripe,
        "number": number,
        "hotkey": ss58(ticket.miner),
        "coldkey": coldkey,
        "root": ticket.shard_root,
        "leaves": ticket.leaves,
        "serial": ticket.serial,
        "signed": signed.encode(),
        "issued": now,
        "expires": ticket.expires,
        "state": "issued",
    }
    marks = ", ".join(f":{name}" for name in values)
    db.execute(f"INSERT INTO shards ({', '.join(values)}) VALUES ({marks})", values)  # noqa: S608


def set_removing(db: sqlite3.Connection, ticket: bytes, now: int) -> None:
    """Give a ticket up: its miner is to be told."""
    db.execute(
        "UPDATE shards SET state = 'removing', tell_at = ?, tells = 0"
        " WHERE ticket = ? AND state IN ('issued', 'stored', 'lost')",
        (now, ticket),
    )


def drop_file(db: sqlite3.Connection, id: bytes, now: int) -> None:
    """A file is gone; its miners are to be told, unless they said already that they have it in the trash."""
    db.execute("UPDATE shards SET state = 'gone', tell_at = ? WHERE file = ? AND trashed = 1", (now, id))
    remove_all(db, id, now, "issued", "stored", "lost")
    db.execute("UPDATE files SET state = 'gone', until = NULL WHERE id = ?", (id,))  # last: see `given_up`
    db.execute("DELETE FROM places WHERE file = ?", (id,))


def remove_all(db: sqlite3.Connection, id: bytes, now: int, *states: str) -> None:
    for state in states:
        db.execute(
            "UPDATE shards SET state = 'removing', tell_at = ?, tells = 0 WHERE file = ? AND state = ?",
            (now, id, state),
        )


def find_file(db: sqlite3.Connection, id: bytes) -> FileRow | None:
    row = db.execute(f"SELECT {FILE} FROM files WHERE id = ?", (id,)).fetchone()  # noqa: S608
    return rows.read(FileRow, row) if row else None


def leaves_of(db: sqlite3.Connection, id: bytes, stripe: int) -> int | None:
    row = db.execute("SELECT leaves FROM stripes WHERE file = ? AND number = ?", (id, stripe)).fetchone()
    return int(row["leaves"]) if row else None
