"""Retrievals: what clients have fetched, signed by both sides, kept for the validators that ask for it.

They come with every read, so they are flushed some at a time; a crash loses the last few, which costs the
miner some credit and nobody else anything.
"""

from __future__ import annotations

import sqlite3
import threading
import time

from ..ticket import Retrieval
from .store import Store

KEPT_SECONDS = 7 * 86_400
#: The oldest beyond so many are dropped.
MOST = 1_000_000
_AT_ONCE = 256
_SECONDS = 2.0

_Row = tuple[bytes, bytes, int, int, int, bytes, bytes, int]


class Retrievals:
    """The retrievals in a database."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiting: list[_Row] = []
        self._flushed = time.monotonic()
        self._closed = False

    def add(self, retrieval: Retrieval, validator: bytes, now: int) -> None:
        """Keep one."""
        r = retrieval
        row = (
            validator,
            r.ticket_hash,
            r.first,
            r.count,
            r.nonce_ns,
            r.client_signature,
            r.miner_signature,
            now,
        )
        with self._lock:
            self._waiting.append(row)
            if len(self._waiting) < _AT_ONCE and time.monotonic() - self._flushed < _SECONDS:
                return
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            rows, self._waiting = self._waiting, []
            self._flushed = time.monotonic()
        if rows:
            self._store.write(
                lambda db: db.executemany(
                    "INSERT INTO retrievals (validator, ticket, first, count, nonce_ns, client_signature, "
                    "miner_signature, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
            )

    def close(self) -> None:
        """Write what waits; safe to call twice."""
        if not self._closed:
            self._closed = True
            self.flush()

    def of(self, validator: bytes, start: int, limit: int) -> list[tuple[int, Retrieval]]:
        """(id, retrieval) of a validator's tickets, in ascending id from `start` on."""
        self.flush()
        query = (
            "SELECT id, ticket, first, count, nonce_ns, client_signature, miner_signature FROM retrievals "
            "WHERE validator = ? AND id >= ? ORDER BY id LIMIT ?"
        )

        def work(db: sqlite3.Connection) -> list[tuple[int, Retrieval]]:
            return [(row[0], Retrieval(*row[1:])) for row in db.execute(query, (validator, start, limit))]

        return self._store.read(work)

    def prune(self, now: int) -> None:
        """Drop those that are old, or too many."""
        self.flush()
        self._store.write(
            lambda db: db.execute(
                "DELETE FROM retrievals WHERE at < ? OR id <= (SELECT max(id) FROM retrievals) - ?",
                (now - KEPT_SECONDS, MOST),
            )
        )
