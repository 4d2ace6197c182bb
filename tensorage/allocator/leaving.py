"""The row that says whether a miner leaves, and what is left for it to hand over.

Unlike a `ShardStore`, which is for the process that serves, this may be asked and said by any process. Every
function takes a connection inside a transaction of the caller's.
"""

from __future__ import annotations

import sqlite3


def marked(db: sqlite3.Connection) -> bool:
    """Whether nothing new is taken because the miner leaves."""
    return db.execute("SELECT 1 FROM leaving").fetchone() is not None


def mark(db: sqlite3.Connection, leaves: bool) -> None:
    """Take nothing new any more, or take it again; it outlasts a restart."""
    db.execute("INSERT OR IGNORE INTO leaving VALUES (1)" if leaves else "DELETE FROM leaving")


def live(db: sqlite3.Connection) -> int:
    """Shards that are neither in the trash nor over."""
    query = "SELECT count(*) FROM shards WHERE state IN ('stored', 'committed')"
    return int(db.execute(query).fetchone()[0])
