"""The devnet's memory: versioned key-value state and blocks in one SQLite file shared by processes.

A value of (pallet, item, key) is written as of a block and never changed afterwards, so a read pinned to a
block sees what that block left. One process, the producer, writes blocks, each in one transaction; any
process may put a signed extrinsic into the pool. A key is its parts as JSON, joined by commas, without
brackets: `1,"5Grw..."`; all keys that begin with given parts form one range of the index.

Journal: WAL, so that readers never wait for the producer. `synchronous=NORMAL` survives the end of a process
at any instant; only a power cut may lose the last blocks, never damage the file.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UsageError

VERSION = 1
_BUSY_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    pallet TEXT NOT NULL, item TEXT NOT NULL, key TEXT NOT NULL, block INTEGER NOT NULL, value TEXT,
    PRIMARY KEY (pallet, item, key, block)
) STRICT, WITHOUT ROWID;
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, time_ms INTEGER NOT NULL,
    root TEXT NOT NULL, events TEXT NOT NULL
) STRICT;
CREATE TABLE extrinsics (
    hash TEXT NOT NULL, block INTEGER NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL, error TEXT,
    fee INTEGER NOT NULL, PRIMARY KEY (block, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX extrinsics_by_hash ON extrinsics (hash);
CREATE TABLE pool (
    id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, signer TEXT NOT NULL, nonce INTEGER NOT NULL,
    data BLOB NOT NULL, UNIQUE (signer, nonce)
) STRICT;
CREATE TABLE refused (hash TEXT PRIMARY KEY, name TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A block's header. Hashes are 0x-hex of 32 bytes; `time_ms` is Unix time in milliseconds."""

    number: int
    hash: str
    parent: str
    time_ms: int
    root: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an extrinsic: its place, its decoded form, its error if it failed, its fee in rao."""

    hash: str
    block: int
    position: int
    body: dict[str, Any]
    error: dict[str, str] | None
    fee: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A signed extrinsic that waits for a block."""

    id: int
    hash: str
    data: bytes


def encode_key(parts: Sequence[Any]) -> str:
    """The parts of a storage key as one text."""
    return json.dumps(list(parts), separators=(",", ":"))[1:-1]


def decode_key(text: str) -> Key:
    """The inverse of `encode_key`."""
    return tuple(json.loads(f"[{text}]"))


def encode_value(value: Any) -> str:
    """A storage value as canonical JSON."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


class Store:
    """One connection to a devnet file; safe to use from several threads, one at a time inside.

    Raises (from the constructor):
        UsageError: there is no file and `create` is false, a newer version made it, or it is no devnet.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        if not create and not path.is_file():
            raise UsageError(
                f"there is no devnet at {path}", remedy=f"Start one with `tensorage devnet up --path {path}`."
            )
        self._lock = threading.RLock()
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as error:
            raise UsageError(
                f"cannot open the devnet at {path}: {error}", remedy="Name a path that can be written."
            ) from error
        try:
            self._prepare(create)
        except sqlite3.Error as error:
            self._db.close()
            raise UsageError(
                f"{path} is no usable devnet file: {error}", remedy="Name another path, or remove the file."
            ) from error
        except UsageError:
            self._db.close()
            raise

    def _prepare(self, create: bool) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise UsageError(
                f"the devnet at {self.path} has version {version}, this program knows up to {VERSION}",
                remedy="Upgrade tensorage, or name another path.",
            )
        if version == 0 and not create:
            raise UsageError(
                f"{self.path} holds no devnet",
                remedy="Name another path, or start one with `tensorage devnet up`.",
            )
        if create:
            self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            with self.transaction():
                if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _SCHEMA.split(";\n"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written together or not at all, and sees nothing that others write meanwhile.

        One inside another is part of it.
        """
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        with self._lock:
            row: tuple[Any, ...] | None = self._db.execute(sql, values).fetchone()
            return row

    # Settings -----------------------------------------------------------------

    def meta(self, name: str) -> Any:
        """A setting of this devnet, or None."""
        row = self._row("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else json.loads(row[0])

    def set_meta(self, name: str, value: Any) -> None:
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, encode_value(value)))

    # State --------------------------------------------------------------------

    def get(self, pallet: str, item: str, key: Key, block: int) -> tuple[bool, Any]:
        """(whether there is a value, the value) of a key as `block` left it."""
        row = self._row(
            "SELECT value FROM state WHERE pallet = ? AND item = ? AND key = ? AND block <= ?"
            " ORDER BY block DESC LIMIT 1",
            (pallet, item, encode_key(key), block),
        )
        if row is None or row[0] is None:
            return False, None
        return True, json.loads(row[0])

    def items(self, pallet: str, item: str, prefix: Key, block: int) -> list[tuple[Key, Any]]:
        """All (key, value) of an item whose key begins with `prefix`, as `block` left them, in key order."""
        low = encode_key(prefix) + "," if prefix else ""
        high = encode_key(prefix) + "-" if prefix else "\x7f"
        rows = self._rows(
            "SELECT key, value, max(block) FROM state WHERE pallet = ? AND item = ? AND key >= ? AND key < ?"
            " AND block <= ? GROUP BY key",
            (pallet, item, low, high, block),
        )
        pairs = [(decode_key(key), json.loads(value)) for key, value, _ in rows if value is not None]
        pairs.sort(key=lambda pair: tuple((isinstance(part, str), part) for part in pair[0]))
        return pairs

    # Blocks -------------------------------------------------------------------

    def version(self) -> int:
        """A number that changes when another connection has written; cheap to poll."""
        row = self._row("PRAGMA data_version")
        assert row is not None
        return int(row[0])

    def head(self) -> int:
        """The number of the newest block, -1 before genesis."""
        row = self._row("SELECT max(number) FROM blocks")
        return -1 if row is None or row[0] is None else int(row[0])

    def block(self, number: int) -> Block | None:
        row = self._row("SELECT number, hash, parent, time_ms, root FROM blocks WHERE number = ?", (number,))
        return None if row is None else Block(*row)

    def block_by_hash(self, block_hash: str) -> Block | None:
        row = self._row(
            "SELECT number, hash, parent, time_ms, root FROM blocks WHERE hash = ?", (block_hash,)
        )
        return None if row is None else Block(*row)

    def events(self, number: int) -> list[dict[str, Any]]:
        row = self._row("SELECT events FROM blocks WHERE number = ?", (number,))
        return [] if row is None else list(json.loads(row[0]))

    def receipts(self, number: int) -> list[Receipt]:
        rows = self._rows(
            "SELECT hash, block, position, body, error, fee FROM extrinsics WHERE block = ?"
            " ORDER BY position",
            (number,),
        )
        return [_receipt(row) for row in rows]

    def receipt(self, extrinsic_hash: str, block: int | None = None) -> Receipt | None:
        """The receipt of an extrinsic, in a given block or wherever it was included."""
        row = self._row(
            "SELECT hash, block, position, body, error, fee FROM extrinsics WHERE hash = ?"
            " AND (? IS NULL OR block = ?)",
            (extrinsic_hash, block, block),
        )
        return None if row is None else _receipt(row)

    def write_block(
        self,
        block: Block,
        changes: dict[tuple[str, str, Key], Any],
        receipts: Sequence[Receipt],
        events: Sequence[dict[str, Any]],
    ) -> None:
        """Write a block and what it changed, inside a transaction; a value of None removes the key."""
        with self._lock:
            self._db.execute(
                "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)",
                (
                    block.number,
                    block.hash,
                    block.parent,
                    block.time_ms,
                    block.root,
                    encode_value(list(events)),
                ),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        pallet,
                        item,
                        encode_key(key),
                        block.number,
                        None if value is None else encode_value(value),
                    )
                    for (pallet, item, key), value in changes.items()
                ],
            )
            self._db.executemany(
                "INSERT INTO extrinsics VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        receipt.hash,
                        receipt.block,
                        receipt.position,
                        encode_value(receipt.body),
                        None if receipt.error is None else encode_value(receipt.error),
                        receipt.fee,
                    )
                    for receipt in receipts
                ],
            )

    def forget(self, before: int) -> None:
        """Drop values that were superseded before block `before`; blocks and their hashes stay."""
        with self._lock:
            self._db.execute(
                "DELETE FROM state WHERE block < ?1 AND EXISTS (SELECT 1 FROM state AS newer"
                " WHERE newer.pallet = state.pallet AND newer.item = state.item AND newer.key = state.key"
                " AND newer.block > state.block AND newer.block <= ?1)",
                (before,),
            )
            self._db.execute("DELETE FROM state WHERE block < ? AND value IS NULL", (before,))
            self._db.execute("DELETE FROM refused")

    # Pool ---------------------------------------------------------------------

    def pool(self) -> list[Pending]:
        """The waiting extrinsics, oldest first."""
        return [Pending(*row) for row in self._rows("SELECT id, hash, data FROM pool ORDER BY id")]

    def pooled_nonces(self, signer: str) -> set[int]:
        return {row[0] for row in self._rows("SELECT nonce FROM pool WHERE signer = ?", (signer,))}

    def add_to_pool(self, extrinsic_hash: str, signer: str, nonce: int, data: bytes) -> bool:
        """Queue an extrinsic; False when one with this signer and nonce, or this hash, already waits."""
        with self.transaction():
            self._db.execute("DELETE FROM refused WHERE hash = ?", (extrinsic_hash,))
            cursor = self._db.execute(
                "INSERT OR IGNORE INTO pool (hash, signer, nonce, data) VALUES (?, ?, ?, ?)",
                (extrinsic_hash, signer, nonce, data),
            )
            return cursor.rowcount == 1

    def withdraw(self, extrinsic_hash: str) -> bool:
        """Take an extrinsic out of the pool; False when a block or another process already has."""
        with self.transaction():
            return self._db.execute("DELETE FROM pool WHERE hash = ?", (extrinsic_hash,)).rowcount == 1

    def take_from_pool(self, pending_id: int, extrinsic_hash: str, refusal: str | None = None) -> None:
        """Remove what a block included, or refused for a reason that its submitter can read."""
        with self._lock:
            self._db.execute("DELETE FROM pool WHERE id = ?", (pending_id,))
            if refusal is not None:
                self._db.execute("INSERT OR REPLACE INTO refused VALUES (?, ?)", (extrinsic_hash, refusal))

    def refusal(self, extrinsic_hash: str) -> str | None:
        """Why the producer dropped an extrinsic, or None."""
        row = self._row("SELECT name FROM refused WHERE hash = ?", (extrinsic_hash,))
        return None if row is None else str(row[0])


def _receipt(row: tuple[Any, ...]) -> Receipt:
    extrinsic_hash, block, position, body, error, fee = row
    return Receipt(
        extrinsic_hash, block, position, json.loads(body), json.loads(error) if error else None, fee
    )
