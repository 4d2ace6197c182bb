"""The client's catalog: which files there are, their names and keys, and where their shards lie.

SQLite, WAL, synchronous=FULL, STRICT; each method is one transaction, any thread may call it, and processes
share the file. A file goes through these states:

    uploading -> stored -> removing -> trash -> forgotten
                    ^                     |
                    +------- undo --------+

1. A name has at most one file that is uploading and one that is stored; a replacement takes the name in the
   transaction that makes it stored, and not before.
2. A stripe's mark, which says what plaintext it was made of, is here before any byte of the stripe is sent.
   The key of a file is used for nothing else from then on.
3. The key of a file is forgotten only with its row: after its trash time, or when its upload is given up.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from .. import sqlite
from ..errors import StorageError, UsageError

BUSY_SECONDS = 15.0

State = Literal["uploading", "stored", "removing", "trash"]
Kind = Literal["file", "directory"]

#: Scripts that lead from one version to the next. Never change one that was released: add another.
MIGRATIONS = (
    """
    CREATE TABLE files (
        id             BLOB PRIMARY KEY CHECK (length(id) = 16),
        name           TEXT    NOT NULL,
        key            BLOB    NOT NULL CHECK (length(key) = 32),
        kind           TEXT    NOT NULL CHECK (kind IN ('file', 'directory')),
        state          TEXT    NOT NULL CHECK (state IN ('uploading', 'stored', 'removing', 'trash')),
        data_shards    INTEGER NOT NULL,
        parity_shards  INTEGER NOT NULL,
        created        INTEGER NOT NULL,   -- seconds since 1970, like all times here
        expires        INTEGER NOT NULL,
        genesis        BLOB    NOT NULL,
        netuid         INTEGER NOT NULL,
        gateway_hotkey TEXT    NOT NULL,   -- SS58
        gateway_ip     TEXT    NOT NULL,
        gateway_port   INTEGER NOT NULL,
        size           INTEGER,            -- plaintext bytes, once all of it is stored
        sha256         BLOB,
        until          INTEGER             -- end of the time in the trash
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX names_stored ON files (name) WHERE state = 'stored';
    CREATE UNIQUE INDEX names_uploading ON files (name) WHERE state = 'uploading';

    CREATE TABLE stripes (
        file   BLOB    NOT NULL REFERENCES files ON DELETE CASCADE,
        number INTEGER NOT NULL,
        leaves INTEGER NOT NULL,
        length INTEGER NOT NULL,           -- ciphertext bytes in it
        prefix INTEGER NOT NULL,           -- plaintext bytes from the file's start that it was made of
        digest BLOB    NOT NULL,           -- keyed, of that prefix
        whole  INTEGER NOT NULL DEFAULT 0, -- 1 once enough of its shards are stored
        PRIMARY KEY (file, number)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE shards (
        file      BLOB    NOT NULL,
        stripe    INTEGER NOT NULL,
        number    INTEGER NOT NULL,
        ticket    BLOB    NOT NULL,        -- encoded and signed
        hotkey    TEXT    NOT NULL,        -- of the miner, SS58
        ip        TEXT,                    -- NULL, and port, while it serves nowhere
        port      INTEGER,
        unix_ms   INTEGER NOT NULL,        -- of the miner's receipt; 0 where the validator has it
        signature BLOB    NOT NULL,
        PRIMARY KEY (file, stripe, number),
        FOREIGN KEY (file, stripe) REFERENCES stripes ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    """,
)
VERSION = len(MIGRATIONS)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file, as of table `files`."""

    id: bytes
    name: str
    key: bytes = field(repr=False)
    kind: Kind
    state: State
    data_shards: int
    parity_shards: int
    created: int
    expires: int
    genesis: bytes
    netuid: int
    gateway_hotkey: str
    gateway_ip: str
    gateway_port: int
    size: int | None = None
    sha256: bytes | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """What a stripe was made of.

    Attributes:
        length: ciphertext bytes in it.
        prefix: plaintext bytes, from the file's first on, that had to be known to make it.
        digest: 32 bytes, keyed, of those.
    """

    number: int
    leaves: int
    length: int
    prefix: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard that a miner has given its receipt for, as of table `shards`."""

    stripe: int
    number: int
    ticket: bytes
    hotkey: str
    ip: str | None
    port: int | None
    unix_ms: int
    signature: bytes


class Catalog:
    """The catalog in the file at `path`. A context manager.

    Raises:
        UsageError: the file cannot be opened, is damaged or of a later version.
        StorageError: from any method, when it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"{path} cannot be opened: {error}", remedy="Make it writable for this user"
            ) from error
        try:
            sqlite.prepare(self._db, self.path, MIGRATIONS)
        except sqlite3.Error as error:
            self._db.close()
            full = "disk is full" in str(error)
            remedy = "Make room there" if full else "Restore it from a copy; it holds your files' keys"
            raise UsageError(f"{path} cannot be used: {error}", remedy=remedy) from error
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database; safe to call twice."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._db)
            except sqlite3.Error as error:
                raise self._broken(error) from error

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                with sqlite.transaction(self._db):
                    return work(self._db)
            except sqlite3.Error as error:
                raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> StorageError:
        return StorageError(
            f"catalog {self.path} cannot be used: {error}",
            remedy="Check the space and the health of its disk",
        )

    # Files

    def files(self, *states: State) -> list[FileRow]:
        """The files in any of these states (all, when none is named), by name."""
        rows = self._read(lambda db: db.execute(f"{_SELECT} ORDER BY name, created").fetchall())
        return [row for row in map(_file, rows) if not states or row.state in states]

    def named(self, name: str, state: State) -> FileRow | None:
        """The file of that name in that state, the newest where there are several."""
        query = f"{_SELECT} WHERE name = ? AND state = ? ORDER BY created DESC, id LIMIT 1"
        row = self._read(lambda db: db.execute(query, (name, state)).fetchone())
        return _file(row) if row else None

    def file(self, id: bytes) -> FileRow | None:
        """The file with that id."""
        row = self._read(lambda db: db.execute(f"{_SELECT} WHERE id = ?", (id,)).fetchone())
        return _file(row) if row else None

    def begin(self, row: FileRow) -> None:
        """Record a file that is now to be uploaded.

        Raises:
            UsageError: one of that name is uploading already.
        """
        marks = ", ".join("?" * len(fields(FileRow)))
        try:
            self._write(lambda db: db.execute(f"INSERT INTO files VALUES ({marks})", _values(row)))  # noqa: S608
        except StorageError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise UsageError(f"{row.name!r} is being put already") from error
            raise

    def finish(self, id: bytes, size: int, sha256: bytes) -> FileRow | None:
        """Give an uploaded file its name; the file that had it is `removing` from now on, and returned."""

        def work(db: sqlite3.Connection) -> FileRow | None:
            (name,) = db.execute("SELECT name FROM files WHERE id = ?", (id,)).fetchone()
            old = db.execute(f"{_SELECT} WHERE name = ? AND state = 'stored'", (name,)).fetchone()
            db.execute("UPDATE files SET state = 'removing' WHERE name = ? AND state = 'stored'", (name,))
            db.execute(
                "UPDATE files SET state = 'stored', size = ?, sha256 = ? WHERE id = ?", (size, sha256, id)
            )
            return _file(old) if old else None

        return self._write(work)

    def move(self, id: bytes, state: State, until: int | None = None) -> None:
        """Note what became of a file.

        Raises:
            UsageError: it would be stored under a name that another has by now.
        """
        try:
            self._write(
                lambda db: db.execute(
                    "UPDATE files SET state = ?, until = ? WHERE id = ?", (state, until, id)
                )
            )
        except StorageError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise UsageError(
                    "another file has that name by now", remedy="Remove that one first, or name this one's id"
                ) from error
            raise

    def forget(self, id: bytes) -> None:
        """Drop a file and its key."""
        self._write(lambda db: db.execute("DELETE FROM files WHERE id = ?", (id,)))

    def expire(self, now: int) -> None:
        """Forget what nobody can bring back: files whose time in the trash, or whose whole time, is over."""
        self._write(
            lambda db: db.execute(
                "DELETE FROM files WHERE (state = 'trash' AND until <= ?) "
                "OR (state IN ('trash', 'removing') AND expires <= ?)",
                (now, now),
            )
        )

    # Stripes and shards

    def mark(self, file: bytes, mark: Mark) -> Mark | None:
        """Record what a stripe is made of, unless it is known already; returns what was known."""

        def work(db: sqlite3.Connection) -> Mark | None:
            known = db.execute(
                "SELECT number, leaves, length, prefix, digest FROM stripes WHERE file = ? AND number = ?",
                (file, mark.number),
            ).fetchone()
            if known:
                return Mark(*known)
            db.execute(
                "INSERT INTO stripes (file, number, leaves, length, prefix, digest) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (file, *astuple(mark)),
            )
            return None

        return self._write(work)

    def stripes(self, file: bytes) -> list[tuple[Mark, bool]]:
        """The stripes that were begun, in order, and whether enough of each is stored."""
        query = (
            "SELECT number, leaves, length, prefix, digest, whole FROM stripes WHERE file = ? ORDER BY number"
        )
        return self._read(lambda db: [(Mark(*row[:-1]), bool(row[-1])) for row in db.execute(query, (file,))])

    def keep(self, file: bytes, shards: Iterable[ShardRow], *, whole: int | None = None) -> None:
        """Record shards that are stored and, with them, that stripe `whole` needs no more of them."""

        def work(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(file, *astuple(shard)) for shard in shards],
            )
            if whole is not None:
                db.execute("UPDATE stripes SET whole = 1 WHERE file = ? AND number = ?", (file, whole))

        self._write(work)

    def lose(self, file: bytes, stripe: int, numbers: Iterable[int]) -> None:
        """Drop shards of a stripe that do not count."""
        rows = [(file, stripe, number) for number in numbers]
        if rows:
            self._write(
                lambda db: db.executemany(
                    "DELETE FROM shards WHERE file = ? AND stripe = ? AND number = ?", rows
                )
            )

    def moved(self, hotkey: str, ip: str | None, port: int | None) -> None:
        """Note where a miner serves now."""
        self._write(
            lambda db: db.execute(
                "UPDATE shards SET ip = :ip, port = :port WHERE hotkey = :hotkey "
                "AND (ip IS NOT :ip OR port IS NOT :port)",
                {"ip": ip, "port": port, "hotkey": hotkey},
            )
        )

    def short(self, file: bytes, shards: int) -> dict[int, int]:
        """Stripes with fewer than so many stored shards, and how many each has."""
        query = (
            "SELECT stripes.number, count(shards.number) AS stored FROM stripes LEFT JOIN shards "
            "ON shards.file = stripes.file AND shards.stripe = stripes.number WHERE stripes.file = ? "
            "GROUP BY stripes.number HAVING stored < ?"
        )
        return self._read(lambda db: dict(db.execute(query, (file, shards)).fetchall()))

    def shards(self, file: bytes, stripe: int | None = None) -> list[ShardRow]:
        """The stored shards of a file, or of one stripe of it, in order."""
        query = (
            "SELECT stripe, number, ticket, hotkey, ip, port, unix_ms, signature FROM shards "
            "WHERE file = ? AND (? IS NULL OR stripe = ?) ORDER BY stripe, number"
        )
        return self._read(lambda db: [ShardRow(*row) for row in db.execute(query, (file, stripe, stripe))])


_SELECT = f"SELECT {', '.join(column.name for column in fields(FileRow))} FROM files"  # noqa: S608


def _file(row: tuple[Any, ...]) -> FileRow:
    return FileRow(*row)


def _values(row: FileRow) -> tuple[Any, ...]:
    return tuple(getattr(row, column.name) for column in fields(FileRow))
