"""Book: what a buyer keeps, in HOME/buyer.sqlite.

    heads       the newest verified version of each dataset, and the statement that proves it
    places      who the owner was when a seller's address was first used
    tokens      what lets this buyer in, by the address that gave it: it is shown to no other
    evidence    statements with which an owner contradicted itself
    receipts    what was bought
    payments    the journal of payments (`payments.journal`)

The directory is 0700 and the file 0600: whoever reads it has the tokens. What was written is on disk when a
method returns (WAL, synchronous=FULL). One thread uses a Book; several processes may have one file open.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import sqlite
from ...errors import StorageError, UsageError
from ..files import Disk, make_directories
from ..memory import Remembered
from ..payments.journal import MIGRATION, Journal

BOOK_NAME = "buyer.sqlite"
_BUSY_SECONDS = 30.0

_FIRST = """
CREATE TABLE heads (
    root_owner  TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    owner       TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    entry_hash  BLOB    NOT NULL CHECK (length(entry_hash) = 32),
    seen        INTEGER NOT NULL,
    statement   TEXT    NOT NULL,      -- JSON of that version as it stands in the log
    PRIMARY KEY (root_owner, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE keys (
    id          TEXT    NOT NULL,
    key         TEXT    NOT NULL,      -- any key that the log has had
    root_owner  TEXT    NOT NULL,
    PRIMARY KEY (id, key, root_owner)
) STRICT, WITHOUT ROWID;
CREATE TABLE places (
    base        TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    root_owner  TEXT    NOT NULL,
    since       INTEGER NOT NULL,
    PRIMARY KEY (base, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
    base        TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    token       TEXT    NOT NULL,
    version     INTEGER,               -- up to which it lets in, where that is known
    source      TEXT    NOT NULL CHECK (source IN ('paid', 'join')),
    created     INTEGER NOT NULL,
    PRIMARY KEY (base, id, token)
) STRICT, WITHOUT ROWID;
CREATE TABLE evidence (
    id          TEXT    NOT NULL,
    first       TEXT    NOT NULL,
    second      TEXT    NOT NULL,
    seen        INTEGER NOT NULL,
    PRIMARY KEY (id, first, second)
) STRICT, WITHOUT ROWID;
CREATE TABLE receipts (
    number      INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    file_hash   BLOB    NOT NULL,
    path        TEXT    NOT NULL,
    created     INTEGER NOT NULL,
    document    TEXT    NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Memory:
    """What is remembered of a dataset, and the JSON of the version that it is about."""

    remembered: Remembered
    statement: dict[str, Any]


@dataclass(frozen=True)
class Token:
    """What lets a buyer in at one address; `version` is the highest, None where that is not known."""

    token: str = field(repr=False)
    version: int | None
    source: str
    created: int


class Book:
    """The book in `home`. A context manager.

    Raises:
        UsageError: the directory or the file cannot be used, or is somebody else's.
        StorageError: from any method, when it cannot be read or written.
    """

    def __init__(self, home: Path) -> None:
        self.path = _directory(home) / BOOK_NAME
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"{self.path} cannot be opened: {error}", remedy="Make it writable for this user"
            ) from error
        try:
            self.path.chmod(0o600)
            sqlite.prepare(self._db, self.path, [_FIRST, MIGRATION])
        except (OSError, sqlite3.Error) as error:
            self._db.close()
            raise UsageError(
                f"{self.path} cannot be used: {error}", remedy="Make room, or restore it from a copy"
            ) from error
        except BaseException:
            self._db.close()
            raise
        self.journal = Journal(self._db)

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Owners and their logs

    def memories(self, id: str, keys: Collection[str]) -> list[Memory]:
        """What is remembered of dataset `id` under any of these keys."""
        rows = self._all(
            "SELECT h.root_owner, h.id, h.owner, h.seq, h.entry_hash, h.seen, h.statement, k.key "
            "FROM heads h "
            "JOIN keys k ON k.id = h.id AND k.root_owner = h.root_owner WHERE h.id = ?",
            (id,),
        )
        found = {row[0]: Memory(Remembered(*row[:6]), json.loads(row[6])) for row in rows if row[7] in keys}
        return list(found.values())

    def remember(self, memory: Memory, keys: Collection[str]) -> bool:
        """Remember a newer head; False, and nothing changes, where another process remembers a newer one, or
        another at the same number: then the log is to be checked again."""
        new = memory.remembered
        try:
            with sqlite.transaction(self._db):
                row = self._db.execute(
                    "SELECT seq, entry_hash FROM heads WHERE root_owner = ? AND id = ?",
                    (new.root_owner, new.id),
                ).fetchone()
                if row is not None and (row[0] > new.seq or (row[0] == new.seq and row[1] != new.entry_hash)):
                    return False
                self._db.execute(
                    "INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        new.root_owner,
                        new.id,
                        new.owner,
                        new.seq,
                        new.entry_hash,
                        new.seen,
                        json.dumps(memory.statement),
                    ),
                )
                self._db.executemany(
                    "INSERT OR IGNORE INTO keys VALUES (?, ?, ?)",
                    [(new.id, key, new.root_owner) for key in keys],
                )
        except sqlite3.Error as error:
            raise self._broken(error) from error
        return True

    def owner_at(self, base: str, id: str) -> str | None:
        """The first key of the owner that was trusted for this address and dataset."""
        rows = self._all("SELECT root_owner FROM places WHERE base = ? AND id = ?", (base, id))
        return rows[0][0] if rows else None

    def owners_of(self, id: str) -> list[str]:
        """The owners of whom a dataset of that name is known."""
        return [row[0] for row in self._all("SELECT root_owner FROM heads WHERE id = ?", (id,))]

    def trust(self, base: str, id: str, root_owner: str, now: int) -> None:
        """Trust this owner for this address and dataset from now on."""
        self._do(
            "INSERT INTO places VALUES (?, ?, ?, ?) ON CONFLICT (base, id) DO UPDATE SET "
            "root_owner = excluded.root_owner, since = excluded.since "
            "WHERE root_owner <> excluded.root_owner",
            (base, id, root_owner, now),
        )

    def accuse(self, id: str, first: dict[str, Any], second: dict[str, Any], now: int) -> None:
        """Keep two statements that contradict each other."""
        self._do(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?)",
            (id, json.dumps(first), json.dumps(second), now),
        )

    def evidence(self, id: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Pairs of statements with which the owner of a dataset contradicted itself."""
        rows = self._all("SELECT first, second FROM evidence WHERE id = ?", (id,))
        return [(json.loads(first), json.loads(second)) for first, second in rows]

    # Tokens

    def keep_token(self, base: str, id: str, token: Token) -> None:
        """Keep a token; it is on disk when this returns."""
        self._do(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET version = excluded.version",
            (base, id, token.token, token.version, token.source, token.created),
        )

    def tokens(self, base: str, id: str) -> list[Token]:
        """Tokens that this address gave for a dataset, the one that reaches furthest first."""
        return [
            Token(*row)
            for row in self._all(
                "SELECT token, version, source, created FROM tokens WHERE base = ? AND id = ? "
                "ORDER BY version IS NULL, version DESC, created DESC",
                (base, id),
            )
        ]

    def bases(self, id: str) -> list[str]:
        """Addresses that gave tokens for a dataset of that name."""
        return [
            row[0] for row in self._all("SELECT DISTINCT base FROM tokens WHERE id = ? ORDER BY base", (id,))
        ]

    # Receipts

    def keep_receipt(self, document: dict[str, Any], path: Path, now: int) -> None:
        """Keep a receipt of a file that is at `path`."""
        entry = document["entry"]
        self._do(
            "INSERT INTO receipts (id, seq, file_hash, path, created, document) VALUES (?, ?, ?, ?, ?, ?)",
            (
                document["id"],
                entry["seq"],
                bytes.fromhex(entry["fileHash"]),
                str(path),
                now,
                json.dumps(document),
            ),
        )

    def receipts(self, *, id: str | None = None, file_hash: bytes | None = None) -> list[dict[str, Any]]:
        """Receipts, newest first: all, of a dataset, or of a file."""
        rows = self._all(
            "SELECT document FROM receipts WHERE (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR file_hash = ?2) "
            "ORDER BY number DESC",
            (id, file_hash),
        )
        return [json.loads(row[0]) for row in rows]

    def _all(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _do(self, query: str, values: tuple[Any, ...]) -> None:
        try:
            with sqlite.transaction(self._db):
                self._db.execute(query, values)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> StorageError:
        return StorageError(
            f"{self.path} cannot be used: {error}", remedy="Check the space and the health of its disk"
        )


def _directory(home: Path) -> Path:
    path = home.expanduser().absolute()
    remedy = "Name a writable directory of your own with --home"
    try:
        make_directories(Disk(), path)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise UsageError(f"{path} belongs to another user", remedy=remedy)
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise UsageError(f"{path} cannot be used: {error.strerror}", remedy=remedy) from error
    return path
