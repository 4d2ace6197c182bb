"""Tables of datasets.sqlite, and how the file is opened.

STRICT tables, WAL with synchronous=FULL: what was acknowledged survives a power cut. Hashes are 32 bytes,
times are seconds since 1970. The server and commands beside it have the file open at the same time, so every
write is one short transaction that takes the lock of the database at once, and reads never wait for a write.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from .. import sqlite
from ..errors import StorageError, UsageError

STORE_NAME = "datasets.sqlite"
BUSY_SECONDS = 15.0

T = TypeVar("T")

#: Scripts that lead from one version to the next. Never change one that was released: add another.
MIGRATIONS = (
    """
    CREATE TABLE datasets (
        id         TEXT PRIMARY KEY,
        root_owner TEXT    NOT NULL,       -- who signed version 1
        owner      TEXT    NOT NULL,       -- who signs the next one
        created    INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE manifests (
        hash     BLOB PRIMARY KEY CHECK (length(hash) = 32),
        document BLOB NOT NULL             -- the canonical JSON that it is the hash of
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE journal (                 -- what a seq was, or is about to be, signed for: kept for ever
        owner         TEXT    NOT NULL,
        id            TEXT    NOT NULL,
        seq           INTEGER NOT NULL,
        digest        BLOB    NOT NULL CHECK (length(digest) = 32),
        prev_hash     BLOB    NOT NULL,
        manifest_hash BLOB    NOT NULL,
        file_hash     BLOB    NOT NULL,
        size          INTEGER NOT NULL,
        chunk_root    BLOB    NOT NULL,
        time          INTEGER NOT NULL,
        name          TEXT    NOT NULL,    -- of the artifact in its bundle
        PRIMARY KEY (owner, id, seq)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE entries (
        id            TEXT    NOT NULL REFERENCES datasets,
        seq           INTEGER NOT NULL,
        owner         TEXT    NOT NULL,
        prev_hash     BLOB    NOT NULL CHECK (length(prev_hash) = 32),
        manifest_hash BLOB    NOT NULL REFERENCES manifests,
        file_hash     BLOB    NOT NULL CHECK (length(file_hash) = 32),
        size          INTEGER NOT NULL,
        chunk_root    BLOB    NOT NULL CHECK (length(chunk_root) = 32),
        time          INTEGER NOT NULL,
        signature     BLOB    NOT NULL,
        name          TEXT    NOT NULL,
        PRIMARY KEY (id, seq)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE rotation_journal (        -- as the journal: one key hands a dataset on once
        old        TEXT    NOT NULL,
        id         TEXT    NOT NULL,
        digest     BLOB    NOT NULL CHECK (length(digest) = 32),
        new        TEXT    NOT NULL,
        after      INTEGER NOT NULL,
        entry_hash BLOB    NOT NULL,
        time       INTEGER NOT NULL,
        PRIMARY KEY (old, id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE rotations (
        id            TEXT    NOT NULL REFERENCES datasets,
        number        INTEGER NOT NULL,    -- from 1, in their order
        old           TEXT    NOT NULL,
        new           TEXT    NOT NULL,
        after         INTEGER NOT NULL,
        entry_hash    BLOB    NOT NULL,
        time          INTEGER NOT NULL,
        signature     BLOB    NOT NULL,    -- by the old key
        new_signature BLOB    NOT NULL,
        PRIMARY KEY (id, number),
        UNIQUE (id, old)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE heads (                   -- the newest statement about each dataset
        id         TEXT PRIMARY KEY REFERENCES datasets,
        owner      TEXT    NOT NULL,
        seq        INTEGER NOT NULL,
        entry_hash BLOB    NOT NULL,
        issued     INTEGER NOT NULL,
        expires    INTEGER NOT NULL,
        signature  BLOB    NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE anchors (                 -- what an owner's key has put, or is about to put, on chain
        owner     TEXT    NOT NULL,
        root      BLOB    NOT NULL CHECK (length(root) = 32),
        heads     TEXT    NOT NULL,        -- JSON: id -> [seq, entry hash]
        begun     INTEGER NOT NULL,
        published INTEGER,                 -- NULL until the chain has it
        PRIMARY KEY (owner, root)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE members (
        number      INTEGER PRIMARY KEY,
        hash        BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),  -- of the token; the token is not kept
        id          TEXT    NOT NULL REFERENCES datasets,
        label       TEXT    NOT NULL,
        max_version INTEGER NOT NULL CHECK (max_version >= 1),
        created     INTEGER NOT NULL,
        expires     INTEGER,               -- NULL: never
        revoked     INTEGER,               -- since when, NULL while it is good
        paid        TEXT,                  -- smallest units, decimal
        requests    INTEGER NOT NULL DEFAULT 0,
        sent        INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX members_by_id ON members (id);

    CREATE TABLE downloads (
        number  INTEGER PRIMARY KEY,
        member  INTEGER NOT NULL REFERENCES members,
        version INTEGER NOT NULL,
        start   INTEGER NOT NULL,          -- first byte
        stop    INTEGER NOT NULL,          -- the byte after the last
        time    INTEGER NOT NULL           -- when it ended
    ) STRICT;
    CREATE INDEX downloads_by_member ON downloads (member, number);

    CREATE TABLE offers (
        id          TEXT PRIMARY KEY REFERENCES datasets,
        network     TEXT NOT NULL,
        asset       TEXT NOT NULL,
        price       TEXT NOT NULL,         -- decimal, whole units of the asset
        unit        TEXT NOT NULL CHECK (unit IN ('flat', 'mb')),
        pay_to      TEXT NOT NULL,
        facilitator TEXT                   -- URL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE payments (
        payment_id  BLOB PRIMARY KEY,
        id          TEXT    NOT NULL REFERENCES datasets,
        version     INTEGER NOT NULL,
        network     TEXT    NOT NULL,
        asset       TEXT    NOT NULL,
        amount      TEXT    NOT NULL,      -- smallest units, decimal
        pay_to      TEXT    NOT NULL,
        payer       TEXT,
        reference   BLOB,                  -- what it carries on chain: who may claim its token
        state       TEXT    NOT NULL CHECK (state IN ('begun', 'minted')),
        transaction_id TEXT,
        member      INTEGER REFERENCES members,
        begun       INTEGER NOT NULL,
        minted      INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX payments_by_id ON payments (id);
    """,
    """
    CREATE TABLE subnet_links (            -- where the artifacts of versions are in the storage subnet
        id        TEXT    NOT NULL,
        seq       INTEGER NOT NULL,
        file_hash BLOB    NOT NULL CHECK (length(file_hash) = 32),
        file_id   BLOB    NOT NULL CHECK (length(file_id) = 16),   -- in the subnet
        link      BLOB    NOT NULL,        -- a link file: whoever has it can read the artifact
        stored    INTEGER NOT NULL,
        expires   INTEGER NOT NULL,
        PRIMARY KEY (id, seq),
        FOREIGN KEY (id, seq) REFERENCES entries
    ) STRICT, WITHOUT ROWID;
    """,
)
VERSION = len(MIGRATIONS)


_DAMAGED = "Restore it from a copy; it holds your datasets' logs"


class Database:
    """datasets.sqlite: one connection that writes and one that reads, each behind a lock. A context manager.

    Raises:
        UsageError: the file cannot be opened, is damaged or of a later version.
        StorageError: from any method, when it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.RLock()
        self._reading = threading.RLock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self._writer = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"{path} cannot be opened: {error}", remedy="Make it writable for this user"
            ) from error
        try:
            sqlite.prepare(self._writer, path, MIGRATIONS)
            self._reader = self._connect()
        except sqlite3.Error as error:
            self._writer.close()
            remedy = "Make room there" if "disk is full" in str(error) else _DAMAGED
            if "locked" in str(error):
                remedy = "Another process is at it; try again"
            raise UsageError(f"{path} cannot be used: {error}", remedy=remedy) from error
        except BaseException:
            self._writer.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        """Close the database; safe to call twice."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` finds; all of its queries see one state of the database."""
        with self._reading:
            try:
                self._reader.execute("BEGIN")
                try:
                    return work(self._reader)
                finally:
                    self._reader.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise self._broken(error) from error

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction; it is on disk when this returns."""
        with self._writing:
            try:
                with sqlite.transaction(self._writer):
                    return work(self._writer)
            except sqlite3.Error as error:
                raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> StorageError:
        return StorageError(
            f"{self.path} cannot be used: {error}", remedy="Check the space and the health of its disk"
        )
