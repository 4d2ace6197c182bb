"""Tables of files.sqlite, and how the file is opened.

STRICT tables, WAL with synchronous=FULL: what a client was told survives a power cut. `PRAGMA user_version`
counts the migrations that were applied; a file of a later version is refused. Keys, hashes and roots are 32
bytes, times are seconds since 1970 unless their name says ms. A file belongs to one validator on one subnet
of one chain. Unlike the ledger it is opened by several processes: the validator, and commands beside it.

`accounts.used` is counted by triggers, in leaves, so that a quota is checked without adding up shards, and
so is `given_up`: what a client gave back of an upload or out of the trash.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from .. import sqlite
from ..chain.address import ss58
from ..errors import StorageError, UsageError

FILES_NAME = "files.sqlite"
BUSY_SECONDS = 15.0

T = TypeVar("T")

#: Scripts that lead from one version to the next. Never change one that was released: add another.
MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE serials (                    -- one row: the last serial of a ticket
        one  INTEGER PRIMARY KEY CHECK (one = 1),
        last INTEGER NOT NULL
    ) STRICT;
    INSERT INTO serials VALUES (1, 0);

    CREATE TABLE accounts (
        id         INTEGER PRIMARY KEY,
        name       TEXT    NOT NULL,
        kind       TEXT    NOT NULL CHECK (kind IN ('key', 'hotkey')),
        public_key BLOB    NOT NULL CHECK (length(public_key) = 32),
        quota      INTEGER NOT NULL CHECK (quota >= 0),  -- bytes
        used       INTEGER NOT NULL DEFAULT 0,           -- leaves
        drawn      INTEGER NOT NULL DEFAULT 0,           -- miners that were drawn for shards
        brought    INTEGER NOT NULL DEFAULT 0,           -- shards that came to them
        created    INTEGER NOT NULL,
        revoked    INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX accounts_by_name ON accounts (name) WHERE revoked IS NULL;
    CREATE UNIQUE INDEX accounts_by_key ON accounts (kind, public_key) WHERE revoked IS NULL;

    CREATE TABLE files (
        seq           INTEGER PRIMARY KEY,
        id            BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
        account       INTEGER NOT NULL REFERENCES accounts,
        access        BLOB    NOT NULL CHECK (length(access) = 32),
        spread        BLOB,                   -- from here to stripe_count NULL until it is complete
        reader        BLOB,
        size          INTEGER,                -- bytes of ciphertext
        stripe_count  INTEGER,
        data_shards   INTEGER NOT NULL CHECK (data_shards > 0),
        parity_shards INTEGER NOT NULL CHECK (parity_shards >= 0),
        created       INTEGER NOT NULL,
        progressed    INTEGER NOT NULL,
        expires       INTEGER NOT NULL,
        state         TEXT    NOT NULL CHECK (state IN ('uploading', 'stored', 'trash', 'gone')),
        until         INTEGER                 -- when the trash is emptied
    ) STRICT;
    CREATE INDEX files_of ON files (account, seq);
    CREATE INDEX files_by_state ON files (state);
    CREATE INDEX files_by_end ON files (expires);

    CREATE TABLE stripes (
        file   BLOB    NOT NULL REFERENCES files (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        leaves INTEGER NOT NULL,
        sick   INTEGER NOT NULL DEFAULT 0,    -- 1 when its health must be looked at
        PRIMARY KEY (file, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX stripes_sick ON stripes (sick) WHERE sick = 1;

    CREATE TABLE places (                     -- kept for shards that have not come yet
        file    BLOB    NOT NULL,
        stripe  INTEGER NOT NULL,
        number  INTEGER NOT NULL,
        hotkey  TEXT    NOT NULL,             -- SS58
        coldkey TEXT    NOT NULL,
        PRIMARY KEY (file, stripe, number),
        FOREIGN KEY (file, stripe) REFERENCES stripes ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE replaced (                   -- miners that a stripe was led away from, by its client
        file   BLOB    NOT NULL,
        stripe INTEGER NOT NULL,
        hotkey TEXT    NOT NULL,
        PRIMARY KEY (file, stripe, hotkey),
        FOREIGN KEY (file, stripe) REFERENCES stripes ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE shards (
        ticket    BLOB    PRIMARY KEY CHECK (length(ticket) = 32),  -- its hash
        file      BLOB    NOT NULL,
        stripe    INTEGER NOT NULL,
        number    INTEGER NOT NULL,
        hotkey    TEXT    NOT NULL,           -- SS58 of the miner
        coldkey   TEXT    NOT NULL,           -- when it was issued
        root      BLOB    NOT NULL CHECK (length(root) = 32),
        leaves    INTEGER NOT NULL,
        serial    INTEGER NOT NULL UNIQUE,
        signed    BLOB    NOT NULL,           -- the ticket as ticket.SignedTicket encodes it
        issued    INTEGER NOT NULL,
        expires   INTEGER NOT NULL,
        state     TEXT    NOT NULL CHECK (state IN ('issued', 'stored', 'lost', 'removing', 'gone')),
        stored_ms INTEGER,                    -- the miner's receipt
        receipt   BLOB,
        health    TEXT    NOT NULL DEFAULT 'unchecked' CHECK (health IN ('unchecked', 'ok', 'failed')),
        checked   INTEGER,
        failures  INTEGER NOT NULL DEFAULT 0, -- in a row
        reason    TEXT    NOT NULL DEFAULT '',
        due       INTEGER NOT NULL DEFAULT 0, -- 1 when a check was asked for
        trashed   INTEGER NOT NULL DEFAULT 0, -- 1 while the miner has it in its trash
        tell_at   INTEGER NOT NULL DEFAULT 0, -- when the miner is told next; when it went
        tells     INTEGER NOT NULL DEFAULT 0,
        FOREIGN KEY (file, stripe) REFERENCES stripes ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX shards_of_stripe ON shards (file, stripe, number);
    CREATE INDEX shards_of_miner ON shards (hotkey, state);
    CREATE INDEX shards_by_check ON shards (checked) WHERE state = 'stored';
    CREATE INDEX shards_due ON shards (due) WHERE due = 1;
    CREATE INDEX shards_failing ON shards (checked) WHERE failures > 0;
    CREATE INDEX shards_issued ON shards (issued) WHERE state = 'issued';
    CREATE INDEX shards_removing ON shards (tell_at) WHERE state = 'removing';
    CREATE INDEX shards_trashed ON shards (trashed) WHERE trashed = 1;
    CREATE INDEX shards_gone ON shards (tell_at) WHERE state = 'gone';

    CREATE TRIGGER shard_comes AFTER INSERT ON shards WHEN new.state IN ('issued', 'stored') BEGIN
        UPDATE accounts SET used = used + new.leaves
        WHERE id = (SELECT account FROM files WHERE id = new.file);
    END;
    CREATE TRIGGER shard_stops AFTER UPDATE OF state ON shards
    WHEN old.state IN ('issued', 'stored') AND new.state NOT IN ('issued', 'stored') BEGIN
        UPDATE accounts SET used = used - old.leaves
        WHERE id = (SELECT account FROM files WHERE id = old.file);
    END;
    CREATE TRIGGER shard_returns AFTER UPDATE OF state ON shards
    WHEN old.state NOT IN ('issued', 'stored') AND new.state IN ('issued', 'stored') BEGIN
        UPDATE accounts SET used = used + new.leaves
        WHERE id = (SELECT account FROM files WHERE id = new.file);
    END;

    CREATE TABLE reads (                      -- what clients read, as miners could prove
        ticket BLOB    NOT NULL REFERENCES shards ON DELETE CASCADE,
        day    INTEGER NOT NULL,              -- days since 1970, of the client's request
        leaves BLOB    NOT NULL,              -- an integer with a bit for each leaf, big-endian
        PRIMARY KEY (ticket, day)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX reads_by_day ON reads (day);
    CREATE TABLE marks (                      -- the last record of a miner that was taken
        hotkey   TEXT PRIMARY KEY,
        id       INTEGER NOT NULL,
        nonce_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE fetches (                    -- what we fetched as clients do
        id         INTEGER PRIMARY KEY,
        hotkey     TEXT    NOT NULL,
        ticket     BLOB    NOT NULL,
        first      INTEGER NOT NULL,          -- leaf
        count      INTEGER NOT NULL,
        at         INTEGER NOT NULL,
        nonce_ns   INTEGER NOT NULL,          -- of our request
        elapsed_ms INTEGER NOT NULL,
        passed     INTEGER NOT NULL,
        reason     TEXT    NOT NULL
    ) STRICT;
    CREATE INDEX fetches_of ON fetches (hotkey, id);
    CREATE INDEX fetches_by_time ON fetches (at);
    CREATE TABLE wrongs (                     -- shards answered for wrongly that the ledger has not heard of
        ticket BLOB PRIMARY KEY,
        hotkey TEXT    NOT NULL,
        at     INTEGER NOT NULL,
        reason TEXT    NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE given_up (                   -- tickets that accounts gave back, and that run on
        account INTEGER NOT NULL REFERENCES accounts,
        day     INTEGER NOT NULL,             -- of their end, days since 1970
        leaves  INTEGER NOT NULL,
        PRIMARY KEY (account, day)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER ticket_given_up AFTER UPDATE OF state ON shards
    WHEN old.state IN ('issued', 'stored') AND new.state IN ('removing', 'gone')
        AND (SELECT state FROM files WHERE id = new.file) IN ('uploading', 'trash')
    BEGIN
        INSERT INTO given_up
        SELECT account, new.expires / 86400, new.leaves FROM files WHERE id = new.file
        ON CONFLICT (account, day) DO UPDATE SET leaves = leaves + excluded.leaves;
    END;
    """,
)
VERSION = len(MIGRATIONS)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tickets these are: chain (genesis hash), subnet, validator's public key."""

    genesis: bytes
    netuid: int
    validator: bytes

    @property
    def hotkey(self) -> str:
        """The validator's SS58 address."""
        return ss58(self.validator)


class Database:
    """An open files.sqlite behind a lock: any thread may call it, and each method is one transaction.

    Args:
        issuer: whose file it is; None takes it as it is, for a command that has no chain to ask.

    Raises:
        UsageError: the file cannot be opened, is damaged, of a later version, or another validator's.
        StorageError: from any method, when it cannot be read or written.
    """

    def __init__(self, path: Path, issuer: Issuer | None = None) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._db = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {error.strerror}",
                remedy="Make the directory writable, or name another with --db_root_path",
            ) from error
        except sqlite3.Error as error:
            raise _unusable(path, error) from error
        try:
            self._prepare()
            if issuer is not None:
                self._claim(issuer)
        except sqlite3.Error as error:
            self._db.close()
            raise _unusable(path, error) from error
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._db.close()

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock, _storage_errors(self.path):
            return work(self._db)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock, _storage_errors(self.path), sqlite.transaction(self._db):
            return work(self._db)

    def _prepare(self) -> None:
        db = self._db
        db.row_factory = sqlite3.Row
        sqlite.prepare(db, self.path, MIGRATIONS)

    def _claim(self, issuer: Issuer) -> None:
        ours = {"genesis": issuer.genesis.hex(), "netuid": str(issuer.netuid), "validator": issuer.hotkey}
        with sqlite.transaction(self._db):
            self._db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", list(ours.items()))
            found = {row["key"]: row["value"] for row in self._db.execute("SELECT key, value FROM meta")}
        for key, value in ours.items():
            if found[key] != value:
                raise UsageError(
                    f"{self.path} is of {key} {found[key]}, not of {value}",
                    remedy="Name another --db_root_path; its files are lost to clients without it",
                )


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"{path} cannot be used: {error}", remedy="Check the space on its disk and its permissions"
        ) from error


def _unusable(path: Path, error: sqlite3.Error) -> UsageError:
    return UsageError(
        f"{path} cannot be opened as a database of files: {error}",
        remedy="Make it readable and writable, or restore it from a backup",
    )
