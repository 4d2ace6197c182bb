"""The miner's database file: how it is opened, its versions, and what is said when it cannot be used.

WAL with synchronous=FULL: what was committed survives a power cut, and readers never wait for the writer.
`PRAGMA user_version` counts the migrations that were applied; a file of a later version is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

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
)
VERSION = len(MIGRATIONS)

_WIPE = (
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


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at once."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself has rolled back when the disk is full
            db.execute("ROLLBACK")
        raise


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
    version = _version(db)
    if version > VERSION:
        raise UsageError(
            f"database {path} is of version {version}, this tensorage knows {VERSION}",
            remedy="Update tensorage or use --restart",
        )
    if version == 0:
        db.execute("PRAGMA page_size = 8192")  # three rows of `chunks` a page; no effect on an old file
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    if version < VERSION:
        with transaction(db):
            for number in range(_version(db), VERSION):
                for statement in _statements(MIGRATIONS[number]):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number + 1}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit the transaction around it."""
    statement = ""
    for line in script.splitlines():
        statement += line.partition("--")[0] + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


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
        with transaction(db):
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
        with transaction(db):
            known = identity_of(db)
            if known is None:
                _record(db, identity)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    if known not in (None, identity):
        raise UsageError(f"database {path} is of {known}, not of {identity}", remedy=_RESTART.capitalize())
