"""The sign-journal: what is about to be signed, written down before it is.

A seq of a dataset, and the end of a key's time, are signed for one content only. Every function works within
a transaction of its caller's, who signs what it returns once that is committed, and nothing else.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from ..errors import StorageError, UsageError
from .entry import Entry, Rotation
from .errors import LogError
from .log import Log

ENTRY_COLUMNS = "id, owner, seq, prev_hash, manifest_hash, file_hash, size, chunk_root, time"
ROTATION_COLUMNS = "id, old, new, after, entry_hash, time"
RESTORE = "Restore datasets.sqlite from a copy"


def values(record: object, columns: str) -> tuple[Any, ...]:
    """The fields of a record that have the names of these columns."""
    return tuple(getattr(record, column) for column in columns.split(", "))


def insert(db: sqlite3.Connection, table: str, columns: str, *row: Any) -> None:
    """Add a row to a table; `columns` as in SQL."""
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", row)  # noqa: S608 - names of ours


def journal_entry(db: sqlite3.Connection, wanted: Entry, name: str, document: bytes) -> tuple[Entry, str]:
    """Write down what is about to be signed; what was written down before, if its content is the same."""
    found = db.execute(
        f"SELECT {ENTRY_COLUMNS}, digest, name FROM journal WHERE id = ? AND seq = ?",  # noqa: S608
        (wanted.id, wanted.seq),
    ).fetchone()
    rotating = db.execute(
        "SELECT new FROM rotation_journal WHERE old = ? AND id = ?", (wanted.owner, wanted.id)
    ).fetchone()
    if rotating is not None:
        raise UsageError(
            f'{wanted.owner} was handing dataset "{wanted.id}" on to {rotating[0]} when it was cut off',
            remedy=f"Finish that first: dataset keys rotate {wanted.id}, with that key as the new one",
        )
    if found is not None:
        entry = _journaled(found)
        if entry != wanted and _content(entry) != _content(wanted):
            raise begun_already(entry)
        return entry, found[-1]
    db.execute("INSERT OR IGNORE INTO manifests VALUES (?, ?)", (wanted.manifest_hash, document))
    columns = f"{ENTRY_COLUMNS}, digest, name"
    insert(db, "journal", columns, *values(wanted, ENTRY_COLUMNS), wanted.hash, name)
    return wanted, name


def unfinished_entry(db: sqlite3.Connection, id: str) -> tuple[Entry, str] | None:
    """What was written down after the newest version: it and its artifact's name; None where nothing was."""
    row = db.execute(
        f"SELECT {ENTRY_COLUMNS}, digest, name FROM journal WHERE id = :id "  # noqa: S608
        "AND seq > (SELECT count(*) FROM entries WHERE id = :id) ORDER BY seq LIMIT 1",
        {"id": id},
    ).fetchone()
    return (_journaled(row), row[-1]) if row else None


def check_journal(db: sqlite3.Connection, log: Log) -> None:
    """Check that a log is what was written down: nothing else in it, and nothing cut off its end.

    Raises:
        LogError: it is not.
    """
    for seq, digest in db.execute("SELECT seq, digest FROM journal WHERE id = ? ORDER BY seq", (log.id,)):
        if seq > len(log.entries) + 1:
            raise LogError("chain_break", f"it ends at version {len(log.entries)}, version {seq} was signed")
        if seq <= len(log.entries) and log.at(seq).entry.hash != digest:
            raise LogError("equivocation", f"version {seq} was signed as {digest.hex()}", seq=seq)


def journal_rotation(db: sqlite3.Connection, wanted: Rotation) -> Rotation:
    """Write down a rotation about to be signed; what was written down before, if it is to the same key."""
    found = db.execute(
        f"SELECT {ROTATION_COLUMNS}, digest FROM rotation_journal WHERE old = ? AND id = ?",  # noqa: S608
        (wanted.old, wanted.id),
    ).fetchone()
    if found is None:
        columns = f"{ROTATION_COLUMNS}, digest"
        insert(db, "rotation_journal", columns, *values(wanted, ROTATION_COLUMNS), wanted.hash)
        return wanted
    rotation = Rotation(*found[:-1])
    if rotation.hash != found[-1]:
        raise StorageError(f"the journal of {wanted.id}'s rotations is damaged", remedy=RESTORE)
    if (rotation.new, rotation.after, rotation.entry_hash) != (wanted.new, wanted.after, wanted.entry_hash):
        raise UsageError(
            f'{wanted.old} was about to hand dataset "{wanted.id}" on to {rotation.new} after version '
            f"{rotation.after}, and a key is handed on once",
            remedy="Finish that rotation first: run it again with that key",
        )
    return rotation


def begun_already(entry: Entry) -> UsageError:
    """What a command says of a seq that was written down for another content."""
    return UsageError(
        f'version {entry.seq} of dataset "{entry.id}" was begun with file hash {entry.file_hash.hex()} and '
        f"manifest hash {entry.manifest_hash.hex()} and cut off before it was recorded, and no version is "
        f"signed for two contents",
        remedy=f"Record it with: dataset version {entry.id} --finish",
    )


def _journaled(row: tuple[Any, ...]) -> Entry:
    *fields, digest, _ = row
    entry = Entry(*fields)
    if entry.hash != digest:
        raise StorageError(f"the journal of {entry.id} version {entry.seq} is damaged", remedy=RESTORE)
    return entry


def _content(entry: Entry) -> tuple[Any, ...]:
    """All that a version says, but for its time."""
    return values(entry, ENTRY_COLUMNS.removesuffix(", time"))
