"""What all our SQLite files have in common: WAL, migrations, and transactions that are whole.

WAL with synchronous=FULL: what was committed survives a power cut, and readers never wait for the writer.
`PRAGMA user_version` counts the migrations that were applied; a file of a later version is refused. A
connection is opened with `isolation_level=None`, so that transactions begin where it says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError


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


def prepare(
    db: sqlite3.Connection, path: Path, migrations: Sequence[str], *, remedy: str = "Update tensorage"
) -> None:
    """Set a connection up, and bring its file to the newest version in one transaction.

    Args:
        migrations: scripts that lead from one version to the next. One that was released is never changed.
        remedy: what to do about a file of a later version.

    Raises:
        UsageError: the file is of a later version.
        sqlite3.Error: it cannot be used.
    """
    newest = len(migrations)
    if (known := version(db)) > newest:
        raise UsageError(
            f"database {path} is of version {known}, this tensorage knows {newest}", remedy=remedy
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    if known < newest:
        with transaction(db):
            for number in range(version(db), newest):  # another process may have been first
                for statement in _statements(migrations[number]):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number + 1}")


def version(db: sqlite3.Connection) -> int:
    """How many migrations a file has had."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit the transaction around it."""
    statement = ""
    for line in script.splitlines():
        statement += line.partition("--")[0] + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
