"""The nonces of requests that were accepted, so that each is accepted once.

One SQLite file, kept over restarts and shared by every axon process that opens it: the insertion of a pair is
one statement, and its own answer to whether the pair was new. A pair may be forgotten once its request would
be refused as stale; since a nonce is the time of signing, its own value says when. WAL with
synchronous=NORMAL: what was accepted survives a killed process; a power cut may lose the last moments, and a
machine takes longer to boot than a signature stays fresh.

Only for a worker thread: it waits for the disk and for other writers. `Admission` keeps it off the event
loop.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ..errors import RequestError, StorageError, UsageError

_VERSION = 1
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS nonces (
    nonce  INTEGER NOT NULL,   -- nanoseconds since 1970
    hotkey TEXT    NOT NULL,   -- SS58 of a hotkey, hex of a client's key
    PRIMARY KEY (nonce, hotkey)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_PURGE_AT_ONCE = 10_000
_PURGE_EVERY = 1.0


class SqliteNonceStore:
    """A nonce store on one SQLite file, for btauth/1 (the SDK's NonceStore protocol) and keyauth/1.

    Args:
        path: the file; it and its directory are made when they are missing.
        retention: for how many seconds a nonce is kept; at least the freshness window plus the skew allowed.
        max_nonces: how many are kept at most; beyond it requests are refused, never forgotten.
        clock_ns: wall time in nanoseconds since 1970.
        wait_seconds: how long to wait for another process that is writing.

    Raises:
        UsageError: the file cannot be opened, is no database, or is of a newer version.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention: float = 60.0,
        max_nonces: int = 1_000_000,
        clock_ns: Callable[[], int] = time.time_ns,
        wait_seconds: float = 2.0,
    ) -> None:
        self.path = path
        self.retention = retention
        self._max_nonces = max_nonces
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._next_purge = 0
        self._full = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=wait_seconds, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"cannot open the nonce database {path}: {error}",
                remedy="Make its directory writable, or delete the file if it is damaged: it is made anew",
            ) from error

    def _prepare(self) -> None:
        with closing(self._db.execute("PRAGMA user_version")) as rows:
            version = rows.fetchone()[0]
        if version > _VERSION:
            raise UsageError(
                f"the nonce database {self.path} is of version {version}, this program knows {_VERSION}",
                remedy="Update tensorage, or delete the file",
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if version < _VERSION:
            self._db.executescript(_SCHEMA)

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        """True, and the pair is recorded, when it was not there; False when it was.

        Raises:
            RequestError: "rate_limited"; the store is full of nonces that are still fresh.
            StorageError: the database cannot be written.
        """
        try:
            with self._lock:
                self._purge()
                if self._full:
                    raise RequestError(
                        "rate_limited", "too many requests are being remembered; try again in a minute"
                    )
                with closing(
                    self._db.execute(
                        "INSERT INTO nonces (nonce, hotkey) VALUES (?, ?) ON CONFLICT DO NOTHING",
                        (nonce_ns, hotkey_ss58),
                    )
                ) as inserted:
                    return inserted.rowcount == 1
        except sqlite3.Error as error:
            raise StorageError(
                f"the nonce database {self.path} cannot be written: {error}",
                remedy="Check the space on its disk; delete the file if it is damaged",
            ) from error

    def _purge(self) -> None:
        """Once a second, forget a bounded number of nonces that are stale by themselves."""
        now, every = self._clock_ns(), int(_PURGE_EVERY * 1e9)
        if self._next_purge - every <= now < self._next_purge:  # earlier than that, the clock was put back
            return
        self._next_purge = now + every
        self._db.execute(
            "DELETE FROM nonces WHERE (nonce, hotkey) IN "
            "(SELECT nonce, hotkey FROM nonces WHERE nonce < ? ORDER BY nonce LIMIT ?)",
            (now - int(self.retention * 1e9), _PURGE_AT_ONCE),
        )
        with closing(self._db.execute("SELECT count(*) FROM nonces")) as rows:
            self._full = rows.fetchone()[0] >= self._max_nonces

    def close(self) -> None:
        """Close the database; safe to call twice."""
        with self._lock:
            self._db.close()
