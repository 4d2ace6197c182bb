"""Whether a miner leaves, and what is left for it to hand over: for the miner, and for a command beside it.

Unlike `ShardStore`, which is for the process that serves, this may be asked and said by any process.
"""

from __future__ import annotations

from .store import Store


def marked(store: Store) -> bool:
    """Whether nothing new is taken because the miner leaves."""
    return store.read(lambda db: db.execute("SELECT 1 FROM leaving").fetchone()) is not None


def mark(store: Store, leaves: bool) -> None:
    """Take nothing new any more, or take it again; it outlasts a restart."""
    query = "INSERT OR IGNORE INTO leaving VALUES (1)" if leaves else "DELETE FROM leaving"
    store.write(lambda db: db.execute(query))


def live(store: Store) -> int:
    """Shards that are neither in the trash nor over."""
    query = "SELECT count(*) FROM shards WHERE state IN ('stored', 'committed')"
    return int(store.read(lambda db: db.execute(query).fetchone())[0])
