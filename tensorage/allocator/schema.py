"""The miner's database file: how it is opened, its versions, and what is said when it cannot be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .. import sqlite
from ..errors import StorageError, UsageError
from .layout import Identity

BUSY_SECONDS = 15.0

#: Scripts that lead from one version to the next. Never change one that was released: add another.
MIGRATIONS = (
    """
    CREATE TABLE identity (
        one     INTEGER PRIMARY KEY CHECK (one = 1),
        genesis BLOB    NOT NULL,
        netuid  INTEGER NOT NULL,
        hotkey  BLOB    NOT NULL,
        profile INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE disks (
        disk      INTEGER PRIMARY KEY,
        id        TEXT NOT NULL UNIQUE,   -- content of disk.id
        directory TEXT NOT NULL           -- where it was last
    ) STRICT;

    CREATE TABLE sectors (
        sector      INTEGER PRIMARY KEY CHECK (sector >= 0),
        disk        INTEGER NOT NULL REFERENCES disks,
        state       TEXT    NOT NULL CHECK (state IN ('planned', 'sealed', 'quarantined')),
        reason      TEXT    NOT NULL DEFAULT '',
        root        BLOB,
        chunk_roots BLOB,                 -- 32 bytes a chunk
        CHECK (state <> 'sealed' OR (length(root) = 32 AND chunk_roots IS NOT NULL))
    ) STRICT;
    CREATE INDEX sectors_by_state ON sectors (state);

    CREATE TABLE chunks (
        id    INTEGER PRIMARY KEY,        -- sector * chunks of a sector + chunk
        nodes BLOB NOT NULL CHECK (length(nodes) = 2048)  -- the 64 nodes at height 4
    ) STRICT;

    CREATE TABLE commitments (
        seq           INTEGER PRIMARY KEY,
        hash          BLOB    NOT NULL UNIQUE,
        prev_hash     BLOB    NOT NULL,
        profile       INTEGER NOT NULL,
        sector_count  INTEGER NOT NULL,
        capacity_root BLOB    NOT NULL,
        block_number  INTEGER NOT NULL,
        signature     BLOB    NOT NULL
    ) STRICT;

    CREATE TABLE committed (              -- entries of the newest two commitments
        seq    INTEGER NOT NULL REFERENCES commitments,
        sector INTEGER NOT NULL,
        root   BLOB    NOT NULL,
        PRIMARY KEY (seq, sector)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE quotas (
        validator TEXT    PRIMARY KEY,    -- SS58
        chunks    INTEGER NOT NULL CHECK (chunks >= 0)
    ) STRICT;
    """,
    """
    CREATE TABLE shards (
        ticket    BLOB    PRIMARY KEY CHECK (length(ticket) = 32),  -- its hash
        signed    BLOB    NOT NULL,       -- the ticket, encoded with its signature
        validator BLOB    NOT NULL,
        serial    BLOB    NOT NULL,       -- 8 bytes
        leaves    INTEGER NOT NULL,
        expires   INTEGER NOT NULL,       -- seconds since 1970
        disk      INTEGER NOT NULL REFERENCES disks,
        state     TEXT    NOT NULL CHECK (state IN ('stored', 'committed', 'trash', 'ended', 'damaged')),
        changed   INTEGER NOT NULL,       -- when it came into this state, seconds since 1970
        reason    TEXT    NOT NULL DEFAULT '',
        stored_ms INTEGER NOT NULL,       -- of the receipt
        receipt   BLOB    NOT NULL,       -- its signature
        nodes     BLOB,                   -- at height 4, 32 bytes for 16 leaves; NULL: the file is not needed
        UNIQUE (validator, serial),
        CHECK (nodes IS NOT NULL OR state IN ('ended', 'damaged'))
    ) STRICT;
    CREATE INDEX shards_live ON shards (validator) WHERE state IN ('stored', 'committed', 'trash');
    CREATE INDEX shards_by_expiry ON shards (state, expires);
    CREATE INDEX shards_going ON shards (state) WHERE nodes IS NOT NULL AND state IN ('ended', 'damaged');

    CREATE TABLE slots (                  -- chunks of which a shard takes the front
        sector INTEGER NOT NULL,
        chunk  INTEGER NOT NULL,
        ticket BLOB    NOT NULL UNIQUE REFERENCES shards,
        leaves INTEGER NOT NULL,
        root   BLOB    NOT NULL CHECK (length(root) = 32),  -- of the chunk with the shard in it
        since  INTEGER,                   -- number of the first commitment with it; NULL: none yet
        until  INTEGER,                   -- number of the first commitment without it
        hole   INTEGER NOT NULL DEFAULT 0 CHECK (hole IN (0, 1, 2)),
        ended  INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1)),
        PRIMARY KEY (sector, chunk)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX slots_new ON slots (sector) WHERE since IS NULL;
    CREATE INDEX slots_whole ON slots (since) WHERE hole < 2 AND ended = 0;
    CREATE INDEX slots_ended ON slots (sector) WHERE ended = 1;

    CREATE TABLE past_slots (             -- those that no commitment has that is still answered
        sector INTEGER NOT NULL,
        chunk  INTEGER NOT NULL,
        since  INTEGER NOT NULL,
        until  INTEGER NOT NULL,
        root   BLOB    NOT NULL,
        PRIMARY KEY (sector, chunk, since)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE composed (               -- roots, as they are now, of the sectors that have slots
        sector INTEGER PRIMARY KEY,
        root   BLOB                       -- NULL: to be made anew
    ) STRICT;

    CREATE TABLE retrievals (
        id               INTEGER PRIMARY KEY AUTOINCREMENT,
        validator        BLOB    NOT NULL,
        ticket           BLOB    NOT NULL,
        first            INTEGER NOT NULL,
        count            INTEGER NOT NULL,
        nonce_ns         INTEGER NOT NULL,
        client_signature BLOB    NOT NULL,
        miner_signature  BLOB    NOT NULL,
        at               INTEGER NOT NULL -- seconds since 1970
    ) STRICT;
    CREATE INDEX retrievals_of ON retrievals (validator, id);

    CREATE TABLE leaving (                -- has a row while the miner takes nothing new
        one INTEGER PRIMARY KEY CHECK (one = 1)
    ) STRICT;
    """,
)
VERSION = len(MIGRATIONS)

_WIPE = (
    "DELETE FROM slots",
    "DELETE FROM past_slots",
    "DELETE FROM composed",
    "DELETE FROM shards",
    "DELETE FROM retrievals",
    "DELETE FROM leaving",
    "DELETE FROM committed",
    "DELETE FROM chunks",
    "DELETE FROM sectors",
    "DELETE FROM quotas",
    "DELETE FROM disks",
    "DELETE FROM identity",
)
_RESTART = "--restart drops it and starts over"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite reports about the file at `path` into StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"database {path} cannot be used: {error}",
            remedy="Check the space and the health of its disk",
        ) from error


def connect(path: Path) -> sqlite3.Connection:
    """A connection for one concern; the caller sees to it that one thread at a time uses it.

    Raises:
        UsageError: the file cannot be opened, is damaged, or is of a later version.
    """
    try:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    try:
        _prepare(db, path)
    except sqlite3.Error as error:
        db.close()
        raise _unusable(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    if sqlite.version(db) == 0:
        db.execute("PRAGMA page_size = 8192")  # three rows of `chunks` a page; no effect on an old file
    sqlite.prepare(db, path, MIGRATIONS, remedy="Update tensorage or use --restart")


def _unusable(path: Path, error: sqlite3.Error) -> UsageError:
    if "unable to open" in str(error) or "readonly" in str(error):
        return UsageError(
            f"database {path} cannot be opened: {error}", remedy="Make its directory writable for this user"
        )
    if "locked" in str(error):
        return UsageError(
            f"database {path} is locked by another program", remedy="Find it with: fuser " + str(path)
        )
    return UsageError(
        f"database {path} is damaged: {error}",
        remedy="Restore it if the copy has the newest commitment (validators take an older one for fraud), "
        f"or {_RESTART}",
    )


def read_identity(path: Path) -> Identity | None:
    """Whose database a file is; None when there is no file or nobody has claimed it.

    Raises:
        UsageError: as connect.
    """
    if not path.exists():
        return None
    db = connect(path)
    try:
        return identity_of(db)
    except (sqlite3.Error, ValueError) as error:
        raise UsageError(f"database {path} is damaged: {error}", remedy=_RESTART.capitalize()) from error
    finally:
        db.close()


def wipe(path: Path, identity: Identity) -> bool:
    """Empty a database and give it to `identity`; the caller has it alone.

    The signed chain of commitments stays where it is the same miner's: to number anew would be to sign a
    second commitment with a number that validators know, which is their proof of fraud.

    Returns:
        False when the file cannot be used; it is as it was.
    """
    try:
        db = connect(path)
    except UsageError:
        return False
    try:
        with sqlite.transaction(db):
            known = identity_of(db)
            for statement in _WIPE:
                db.execute(statement)
            if known is None or replace(known, profile=identity.profile) != identity:
                db.execute("DELETE FROM commitments")
            _record(db, identity)
        db.execute("VACUUM")
    except (sqlite3.Error, ValueError):
        return False
    finally:
        db.close()
    return True


def identity_of(db: sqlite3.Connection) -> Identity | None:
    """The identity that a database records."""
    row = db.execute("SELECT genesis, netuid, hotkey, profile FROM identity").fetchone()
    return Identity(*row) if row else None


def _record(db: sqlite3.Connection, identity: Identity) -> None:
    db.execute(
        "INSERT INTO identity VALUES (1, ?, ?, ?, ?)",
        (identity.genesis, identity.netuid, identity.hotkey, identity.profile),
    )


def claim(db: sqlite3.Connection, path: Path, identity: Identity) -> None:
    """Record the identity in a new database, or check that it is the one recorded.

    Raises:
        UsageError: the database is another identity's.
    """
    try:
        with sqlite.transaction(db):
            known = identity_of(db)
            if known is None:
                _record(db, identity)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    if known not in (None, identity):
        raise UsageError(f"database {path} is of {known}, not of {identity}", remedy=_RESTART.capitalize())
