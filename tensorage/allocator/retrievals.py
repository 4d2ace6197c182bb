"""The rows of retrievals: what clients have fetched, signed by both sides, kept for the validators.

Every function takes a connection inside a transaction of the caller's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ..ticket import Retrieval

KEPT_SECONDS = 7 * 86_400
#: The oldest beyond so many are dropped.
MOST = 1_000_000


def add(db: sqlite3.Connection, records: Iterable[tuple[Retrieval, bytes]], now: int) -> None:
    """Keep retrievals, each with the public key of the ticket's validator."""
    db.executemany(
        "INSERT INTO retrievals (validator, ticket, first, count, nonce_ns, client_signature, "
        "miner_signature, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                validator,
                r.ticket_hash,
                r.first,
                r.count,
                r.nonce_ns,
                r.client_signature,
                r.miner_signature,
                now,
            )
            for r, validator in records
        ],
    )


def of(db: sqlite3.Connection, validator: bytes, start: int, limit: int) -> list[tuple[int, Retrieval]]:
    """(id, retrieval) of a validator's tickets, in ascending id from `start` on."""
    query = (
        "SELECT id, ticket, first, count, nonce_ns, client_signature, miner_signature FROM retrievals "
        "WHERE validator = ? AND id >= ? ORDER BY id LIMIT ?"
    )
    return [(row[0], Retrieval(*row[1:])) for row in db.execute(query, (validator, start, limit))]


def prune(db: sqlite3.Connection, now: int) -> None:
    """Drop those that are old, or too many."""
    db.execute(
        "DELETE FROM retrievals WHERE at < ? OR id <= (SELECT max(id) FROM retrievals) - ?",
        (now - KEPT_SECONDS, MOST),
    )
