"""The validator's ledger, validator.sqlite: receipts, and what they did to each miner.

Rules. A receipt and its effect are one transaction, so that neither is ever without the other, whenever the
process is killed. Receipts are one signed hash chain; a transaction is on the disk before anything of it is
told (synchronous=FULL), since a validator that lost a receipt in a power cut and numbered another one the
same would have signed two stories. For the same reason one process has the file at a time. A file belongs to
one hotkey on one subnet of one chain.

Receipts and the evidence for wrong ones are kept up to a bound, oldest deleted first; what proves two stories
of a miner is kept for ever. Only for a worker thread: it waits for the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import sqlite
from ..chain.address import ss58
from ..commitment import SignedCommitment
from ..encoding import ZERO_HASH, sha256, u64
from ..errors import StorageError, UsageError
from ..hashchain import Sign
from ..receipts import Receipt, from_json, to_json
from . import rows, schema
from .judge import FAULT_WINDOW
from .slots import Slot
from .standing import Miner, forgotten

LEDGER_NAME = "validator.sqlite"

RECEIPTS_KEPT = 2_000_000  # about 2 GB; a month of 256 miners
EVIDENCE_BYTES_KEPT = 256 * 1024 * 1024
COMMITMENTS_KEPT = 256  # of each miner
_PRUNE_EVERY = 256  # receipts


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """Whose ledger it is: chain (genesis hash), subnet, validator's public key."""

    genesis: bytes
    netuid: int
    hotkey: bytes

    def meta(self) -> dict[str, str]:
        return {"genesis": self.genesis.hex(), "netuid": str(self.netuid), "hotkey": ss58(self.hotkey)}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Bytes that prove a verdict.

    `hash` is that of the bytes; but for a listing that of its commitment, and for slots `slots_key`.
    """

    kind: str
    data: bytes
    hash: bytes

    @classmethod
    def of(cls, kind: str, data: bytes) -> Evidence:
        return cls(kind, data, sha256(data))


def open_ledger(path: Path, identity: LedgerIdentity, *, store_scores: bool = True) -> Ledger:
    """The ledger in a file, which is made when it is missing.

    Args:
        store_scores: whether scores are written; receipts, commitments and evidence always are.

    Raises:
        UsageError: the file cannot be opened, is no ledger, is of a newer version, belongs to another
            identity, or another process has it.
    """
    lock = _lock(path)
    try:
        return Ledger(_connect(path, identity), path, identity, lock, store_scores=store_scores)
    except BaseException:
        os.close(lock)
        raise


def delete_ledger(path: Path) -> None:
    """Delete a ledger, if there is one that no process has open.

    Raises:
        UsageError: another process has it, or it cannot be deleted.
    """
    lock = _lock(path)
    try:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be deleted: {error.strerror}", remedy="Make its directory writable"
        ) from error
    finally:
        os.close(lock)


class Ledger:
    """An open ledger; `open_ledger` makes one. Close it when done."""

    def __init__(
        self,
        db: sqlite3.Connection,
        path: Path,
        identity: LedgerIdentity,
        lock: int,
        *,
        store_scores: bool,
    ) -> None:
        self.path = path
        self.identity = identity
        self._db = db
        self._lock = lock
        self._store_scores = store_scores
        self._stored: dict[str, tuple[Any, ...]] = {}

    def close(self) -> None:
        """Close the file and let others have it; safe to call twice."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # Rounds

    def begin_round(self, block: int) -> int:
        """The number of a new round, from 1; no number is ever used twice."""
        with self._transaction():
            last = self._value("SELECT max(round) FROM rounds") or 0
            self._db.execute(
                "INSERT INTO rounds (round, block, started_ms) VALUES (?, ?, ?)",
                (last + 1, block, time.time_ns() // 1_000_000),
            )
            self._db.execute("DELETE FROM rounds WHERE round < ?", (last - 10 * FAULT_WINDOW,))
        return int(last) + 1

    def last_round(self) -> int:
        """The number of the newest round, 0 before the first."""
        with self._reading():
            return int(self._value("SELECT max(round) FROM rounds") or 0)

    def excused_rounds(self, now: int) -> int:
        """Rounds among the FAULT_WINDOW - 1 before `now` in which failures were assumed to be ours."""
        with self._reading():
            return int(
                self._value(
                    "SELECT sum(excused) FROM rounds WHERE round > ? AND round < ?", now - FAULT_WINDOW, now
                )
                or 0
            )

    def excuse_round(self, now: int) -> None:
        """Note that failures of this round are assumed to be ours."""
        with self._transaction():
            self._db.execute("UPDATE rounds SET excused = 1 WHERE round = ?", (now,))

    # Miners

    def miners(self) -> dict[str, Miner]:
        """All miners ever asked, by hotkey."""
        with self._reading():
            listed = {row["hotkey"]: row for row in self._db.execute("SELECT * FROM listings")}
            found = {}
            for row in self._db.execute("SELECT * FROM miners").fetchall():
                listing = listed.get(row["hotkey"])
                miner = rows.read_miner(
                    row,
                    partial(self._commitment, row["public_key"]),
                    rows.read_entries(listing["entries"]) if listing else (),
                    rows.read_indices(listing["credited"]) if listing else (),
                    rows.read_indices(listing["barred"]) if listing else (),
                )
                found[miner.hotkey] = miner
                self._stored[miner.hotkey] = _listed(miner)
            return found

    def save(self, miner: Miner, *, present: bool = True, slots: Sequence[Slot] | None = None) -> None:
        """Write what is known of a miner, without a receipt.

        Args:
            slots: of its newest commitment, all of them; None when they are as they were.
        """
        with self._transaction():
            self._put(miner, present=present, slots=slots)

    def slots(self, hotkey: str, sector: int | None = None) -> list[Slot]:
        """The slots of a miner's newest commitment, or those of one sector, in ascending order."""
        with self._reading():
            found = self._db.execute(
                "SELECT * FROM slots WHERE hotkey = ? AND (? OR sector = ?) ORDER BY sector, chunk",
                (hotkey, sector is None, u64(sector or 0)),
            )
            return [rows.read_slot(row) for row in found]

    def learn_fillers(self, hotkey: str, slots: Sequence[Slot]) -> None:
        """Note what filler stood in slots of a miner, as an audit of theirs has sealed it."""
        if not slots:
            return
        with self._transaction():
            self._db.executemany(
                "UPDATE slots SET filler = ? WHERE hotkey = ? AND sector = ? AND chunk = ?",
                [(slot.filler, hotkey, u64(slot.sector), slot.chunk) for slot in slots],
            )

    def with_ended_slots(self, now: int) -> set[str]:
        """Hotkeys of the miners with a slot that was good, and by now (seconds since 1970) is not."""
        with self._reading():
            found = self._db.execute(
                "SELECT DISTINCT hotkey FROM slots WHERE good_until < ? AND flaw = ''", (now,)
            )
            return {row["hotkey"] for row in found}

    def commitment(self, miner: Miner, seq: int) -> SignedCommitment | None:
        """The commitment with that seq in the miner's present chain, None if we never took it."""
        with self._reading():
            digest = self._value(
                "SELECT hash FROM commitments WHERE hotkey = ? AND seq = ? AND current = 1",
                miner.hotkey,
                u64(seq),
            )
            return self._commitment(miner.public_key, digest)

    # Receipts

    def record(
        self,
        draft: Receipt,
        miner: Miner,
        sign: Sign,
        *,
        evidence: Sequence[Evidence] = (),
        about: SignedCommitment | None = None,
        fork: tuple[SignedCommitment, SignedCommitment] | None = None,
        slots: Sequence[Slot] | None = None,
    ) -> Receipt:
        """Add a receipt to the chain, with what it did to the miner, and what proves it.

        Args:
            draft: the receipt; its seq and prev_hash are set here.
            miner: as it is after the receipt.
            about: the commitment that the receipt names, kept with it.
            fork: two commitments that tell two stories; the chain that they stand in is then at its end.
            slots: as for `save`.
        """
        with self._transaction():
            last = self._db.execute("SELECT seq, document FROM receipts ORDER BY seq DESC LIMIT 1").fetchone()
            seq, prev_hash = (
                (last["seq"] + 1, bytes.fromhex(json.loads(last["document"])["hash"]))
                if last
                else (1, ZERO_HASH)
            )
            receipt = replace(draft, seq=seq, prev_hash=prev_hash)
            document = json.dumps(to_json(receipt, sign(receipt.hash)), separators=(",", ":"))
            self._db.execute("INSERT INTO receipts VALUES (?, ?, ?)", (seq, receipt.miner, document))
            for item in evidence:
                self._db.execute(
                    "INSERT OR REPLACE INTO evidence (hash, kind, data) VALUES (?, ?, ?)",
                    (item.hash, item.kind, item.data),
                )
            if about is not None:
                self._put_commitment(miner.hotkey, about, current=False)
            if fork is not None:
                self._db.execute(
                    "INSERT INTO forks (hotkey, round, first, second) VALUES (?, ?, ?, ?)",
                    (miner.hotkey, receipt.round, *(rows.write_message(signed) for signed in fork)),
                )
            if miner.commitment is None:
                self._db.execute("UPDATE commitments SET current = 0 WHERE hotkey = ?", (miner.hotkey,))
            self._put(miner, present=True, slots=slots)
            if seq % _PRUNE_EVERY == 0:
                self._prune(seq)
        return receipt

    def receipts(
        self, start: int, limit: int, miner: bytes | None = None
    ) -> tuple[list[tuple[Receipt, bytes]], int | None]:
        """Up to `limit` receipts (all, or one miner's) from seq `start` on, and where the next page starts.

        The second is None after the last page.
        """
        with self._reading():
            documents, following = read_documents(self._db, start, limit, miner)
        return [from_json(json.loads(document)) for document in documents], following

    def evidence(self, digest: bytes) -> Evidence | None:
        """Kept evidence by its hash, None when there is none any more."""
        with self._reading():
            row = self._db.execute("SELECT kind, data FROM evidence WHERE hash = ?", (digest,)).fetchone()
        return Evidence(row["kind"], row["data"], digest) if row else None

    def commitment_message(self, digest: bytes) -> str | None:
        """The JSON of a commitment that was taken or refused, by its hash."""
        with self._reading():
            found = self._value("SELECT message FROM commitments WHERE hash = ?", digest)
        return None if found is None else str(found)

    def forks(self) -> list[tuple[str, str, str]]:
        """(hotkey, first, second): pairs of commitment messages that tell two stories."""
        with self._reading():
            return [
                tuple(row) for row in self._db.execute("SELECT hotkey, first, second FROM forks ORDER BY id")
            ]

    # Weights

    def weights_set(
        self, now: int, block: int | None, status: str, message: str, shares: Mapping[int, float]
    ) -> None:
        """Note an attempt to set weights."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO weights (round, block, status, message, weights) VALUES (?, ?, ?, ?, ?)",
                (now, block, status, message, json.dumps(dict(shares))),
            )
            self._db.execute("DELETE FROM weights WHERE id <= (SELECT max(id) FROM weights) - 10000")

    def last_weights_block(self) -> int | None:
        """The height at which weights were last set or committed, None for never."""
        with self._reading():
            found = self._value("SELECT max(block) FROM weights WHERE status IN ('set', 'committed')")
        return None if found is None else int(found)

    # Inside

    def _put(self, miner: Miner, *, present: bool, slots: Sequence[Slot] | None) -> None:
        for signed in (miner.commitment, miner.previous):
            if signed is not None:
                self._put_commitment(miner.hotkey, signed, current=True)
        stored = miner if self._store_scores else forgotten(miner, miner.standing.round)
        marks = ", ".join("?" * len(rows.MINER_COLUMNS))
        self._db.execute(
            f"INSERT OR REPLACE INTO miners ({', '.join(rows.MINER_COLUMNS)}) VALUES ({marks})",  # noqa: S608
            rows.miner_row(stored, present=present),
        )
        if self._stored.get(miner.hotkey) != _listed(stored):
            self._db.execute(
                "INSERT OR REPLACE INTO listings (hotkey, entries, credited, barred) VALUES (?, ?, ?, ?)",
                (
                    miner.hotkey,
                    rows.write_entries(stored.listing),
                    rows.write_indices(stored.credited),
                    rows.write_indices(stored.barred),
                ),
            )
            self._stored[miner.hotkey] = _listed(stored)
        if miner.commitment is None:
            slots = ()
        if slots is not None:
            marks = ", ".join("?" * len(rows.SLOT_COLUMNS))
            self._db.execute("DELETE FROM slots WHERE hotkey = ?", (miner.hotkey,))
            self._db.executemany(
                f"INSERT INTO slots ({', '.join(rows.SLOT_COLUMNS)}) VALUES ({marks})",  # noqa: S608
                [rows.slot_row(miner.hotkey, slot) for slot in slots],
            )

    def _put_commitment(self, hotkey: str, signed: SignedCommitment, *, current: bool) -> None:
        known = self._value("SELECT current FROM commitments WHERE hash = ?", signed.commitment.hash)
        if known is not None and (known or not current):
            return
        self._db.execute(
            "INSERT OR REPLACE INTO commitments VALUES (?, ?, ?, ?, ?)",
            (
                signed.commitment.hash,
                hotkey,
                u64(signed.commitment.seq),
                int(current),
                rows.write_message(signed),
            ),
        )
        self._db.execute(
            "DELETE FROM commitments WHERE hotkey = :hotkey"
            " AND hash IS NOT (SELECT commitment FROM miners WHERE hotkey = :hotkey)"
            " AND hash IS NOT (SELECT previous FROM miners WHERE hotkey = :hotkey)"
            " AND rowid <= (SELECT rowid FROM commitments WHERE hotkey = :hotkey"
            " ORDER BY rowid DESC LIMIT 1 OFFSET :kept)",
            {"hotkey": hotkey, "kept": COMMITMENTS_KEPT},
        )

    def _commitment(self, miner: bytes, digest: bytes | None) -> SignedCommitment | None:
        if digest is None:
            return None
        message = self._value("SELECT message FROM commitments WHERE hash = ?", digest)
        if message is None:
            raise StorageError(
                f"{self.path} has lost commitment {digest.hex()}",
                remedy="Restore the file from a backup, or start over with --restart",
            )
        return rows.read_message(
            message, genesis=self.identity.genesis, netuid=self.identity.netuid, miner=miner
        )

    def _prune(self, seq: int) -> None:
        self._db.execute("DELETE FROM receipts WHERE seq <= ?", (seq - RECEIPTS_KEPT,))
        self._db.execute(
            "DELETE FROM evidence WHERE id <= coalesce((SELECT id FROM (SELECT id,"
            " sum(length(data)) OVER (ORDER BY id DESC) AS bytes FROM evidence) WHERE bytes > ?"
            " ORDER BY id DESC LIMIT 1), 0)",
            (EVIDENCE_BYTES_KEPT,),
        )

    def _value(self, statement: str, *values: object) -> Any:
        row = self._db.execute(statement, values).fetchone()
        return row[0] if row else None

    @contextlib.contextmanager
    def _reading(self) -> Generator[None, None, None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _unusable(self.path, "read", error) from error

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None, None, None]:
        try:
            with sqlite.transaction(self._db):
                yield
        except BaseException as error:
            self._stored.clear()
            if not isinstance(error, sqlite3.Error):
                raise
            raise _unusable(self.path, "written", error) from error


def _listed(miner: Miner) -> tuple[Any, ...]:
    return miner.listing, miner.credited, miner.barred


def read_documents(
    db: sqlite3.Connection, start: int, limit: int, miner: bytes | None = None
) -> tuple[list[str], int | None]:
    """As `Ledger.receipts`, in the JSON that they were written in, over any connection."""
    found = db.execute(
        "SELECT seq, document FROM receipts WHERE seq >= :start ORDER BY seq LIMIT :limit"
        if miner is None
        else "SELECT seq, document FROM receipts INDEXED BY receipts_of"
        " WHERE miner = :miner AND seq >= :start ORDER BY seq LIMIT :limit",
        {"start": min(start, 2**63 - 1), "miner": miner, "limit": limit + 1},
    ).fetchall()
    following = found[limit]["seq"] if len(found) > limit else None
    return [row["document"] for row in found[:limit]], following


def connect_read_only(path: Path) -> sqlite3.Connection:
    """The ledger in a file for another process that only reads.

    Raises:
        UsageError: there is no such file, or it is no ledger of this version.
    """
    if not path.is_file():
        raise UsageError(f"there is no ledger {path}", remedy="Name the validator.sqlite of a validator")
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5, isolation_level=None)
        db.row_factory = sqlite3.Row
        version = sqlite.version(db)
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    if version != schema.VERSION:
        db.close()
        raise _other_version(path, version)
    return db


def _connect(path: Path, identity: LedgerIdentity) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        try:
            _prepare(db, path, identity)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    return db


def _prepare(db: sqlite3.Connection, path: Path, identity: LedgerIdentity) -> None:
    sqlite.prepare(db, path, schema.MIGRATIONS)
    db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", list(identity.meta().items()))
    found = dict(db.execute("SELECT key, value FROM meta").fetchall())
    for key, value in identity.meta().items():
        if found[key] != value:
            raise UsageError(
                f"{path} is the ledger of {key} {found[key]}, not of {value}",
                remedy="Name another --db_root_path, or start over with --restart",
            )


def _lock(path: Path) -> int:
    """An exclusive lock that ends with the process, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            remedy="Make the directory writable, or name another with --db_root_path",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise UsageError(
            f"another process has the ledger {path}", remedy="Stop the validator that runs, or name another"
        ) from error
    return lock


def _unusable(path: Path, what: str, error: sqlite3.Error) -> StorageError:
    return StorageError(
        f"{path} cannot be {what}: {error}", remedy="Check the space on its disk and its permissions"
    )


def _damaged(path: Path, error: sqlite3.Error) -> UsageError:
    return UsageError(
        f"{path} cannot be opened as a ledger: {error}",
        remedy="Make it readable and writable, restore it from a backup, or start over with --restart",
    )


def _other_version(path: Path, version: int) -> UsageError:
    return UsageError(
        f"{path} is of version {version}, this program knows {schema.VERSION}", remedy="Update tensorage"
    )


__all__ = [
    "LEDGER_NAME",
    "Evidence",
    "Ledger",
    "LedgerIdentity",
    "connect_read_only",
    "delete_ledger",
    "open_ledger",
    "read_documents",
]
