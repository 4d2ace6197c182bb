"""The logs of an owner's datasets: appended to, handed on to another key, and never told in two ways.

Before anything is signed, what it says is committed to a journal. A seq of a dataset, or the end of a key's
time, is signed for nothing else from then on, whatever happens to the process in between:

    artifact on disk -> journal -> signature -> entry, manifest            one transaction each

A process that dies after the journal has published nothing; the next one with the same content finishes what
the journal says, byte for byte, and one with another content is refused. Rotations go the same way.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..encoding import ZERO_HASH
from ..errors import StorageError, UsageError
from . import identity, wire
from .bundle import Ingested
from .entry import Entry, Rotation, Signed, SignedRotation
from .errors import LogError
from .files import Disk
from .home import Home, unix_now
from .identity import Signer, kind_of
from .journal import (
    ENTRY_COLUMNS,
    RESTORE,
    ROTATION_COLUMNS,
    check_journal,
    insert,
    journal_entry,
    unfinished_entry,
    values,
)
from .log import MAX_ENTRIES, Log, verify_log
from .manifest import File, canonical, manifest_json
from .names import check_id

#: Versions up to which nobody need count the bytes of a log, and bytes that are kept free in one: for a head
#: statement, and for the rotations to come.
_FEW = 1000
_ROOM = 1 << 20


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset: `owner` signs its next version, `root_owner` signed the first; `versions` there are."""

    id: str
    owner: str
    root_owner: str
    created: int
    versions: int


_DATASET = (
    "SELECT id, owner, root_owner, created, "
    "(SELECT count(*) FROM entries WHERE entries.id = datasets.id) FROM datasets"
)


class VersionRows(Home):
    """Datasets and their versions."""

    def __init__(
        self,
        home: Path,
        *,
        disk: Disk | None = None,
        clock: Callable[[], int] = unix_now,
        rng: Callable[[int], bytes] = os.urandom,
        waiting: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(home, disk=disk, clock=clock, rng=rng, waiting=waiting)
        self._logs: dict[str, tuple[tuple[int, int], Log]] = {}

    # Datasets

    def create(self, id: str, owner: str) -> Dataset:
        """Make a dataset without versions; one that is there and has the owner stays as it is.

        Raises:
            UsageError: the id or the owner id is none, or another owner has the dataset.
        """
        check_id(id)
        check_owner_id(owner)
        now = self._clock()

        def work(db: sqlite3.Connection) -> Dataset:
            db.execute("INSERT OR IGNORE INTO datasets VALUES (?, ?, ?, ?)", (id, owner, owner, now))
            found = dataset_row(db, id)
            if found.owner != owner and not found.versions:
                begun = db.execute("SELECT 1 FROM journal WHERE id = ?", (id,)).fetchone()
                if begun is None:
                    db.execute(
                        "UPDATE datasets SET owner = ?, root_owner = ? WHERE id = ?", (owner, owner, id)
                    )
            return dataset_row(db, id)

        found = self._write(work)
        check_owner(found, owner)
        return found

    def check_owner(self, id: str, owner: str) -> None:
        """Check that versions of a dataset may be signed by a key, if there are any yet.

        Raises:
            UsageError: another key has signed them, or is about to.
        """
        known = [found for found in self.datasets() if found.id == id]
        if known and (known[0].versions or self.unfinished(id)):
            check_owner(known[0], owner)

    def datasets(self) -> list[Dataset]:
        """All datasets, by id."""
        return self._read(lambda db: [Dataset(*row) for row in db.execute(f"{_DATASET} ORDER BY id")])

    def dataset(self, id: str) -> Dataset:
        """One dataset.

        Raises:
            UsageError: there is none with that id.
        """
        return self._read(lambda db: dataset_row(db, id))

    def newest(self, id: str) -> tuple[int, int]:
        """How many versions and how many rotations a dataset has: whether its log is longer than it was.

        Raises:
            UsageError: there is no such dataset.
        """
        return self._read(lambda db: (dataset_row(db, id).versions, _rotations(db, id)))

    def log(self, id: str) -> Log:
        """The log of a dataset as it is stored, not verified; empty before its first version.

        Raises:
            UsageError: there is no such dataset.
            StorageError: what is stored is no log.
        """

        def work(db: sqlite3.Connection) -> Log:
            length = dataset_row(db, id).versions, _rotations(db, id)
            known = self._logs.get(id)
            if known and known[0] == length:
                return known[1]
            log = _log(db, id)
            self._logs[id] = length, log
            return log

        try:
            return self._read(work)
        except LogError as error:
            raise StorageError(
                f'what is stored of dataset "{id}" is no log: {error}', remedy=RESTORE
            ) from error

    def verified_log(self, id: str, doing: str) -> Log:
        """The log of a dataset, read anew and verified against its first owner; it has a version.

        Args:
            doing: "extend" or "serve", for the message.

        Raises:
            StorageError: it does not hold: `refusing to ... dataset`.
            UsageError: there is no such dataset.
        """
        self._logs.pop(id, None)
        dataset, log = self.dataset(id), self.log(id)
        try:
            _check_log(log, dataset)
            self._read(lambda db: check_journal(db, log))
        except LogError as error:
            raise StorageError(
                f'refusing to {doing} dataset "{id}": existing version log fails verification: {error}',
                remedy=RESTORE,
            ) from error
        return log

    # Versions

    def append(self, id: str, bundle: Ingested, signer: Signer, time: int) -> Signed:
        """Sign the next version of a dataset and record it.

        One that was begun with the same content and cut off is finished, with the time that it had then.

        Args:
            bundle: what was put into the store.
            signer: the owner's key.
            time: of the version, in unix seconds.

        Raises:
            UsageError: no such dataset, another's key, or this seq was begun with another content.
            StorageError: the log that is there does not hold, or cannot be written.
        """
        with self.alone():
            dataset = self.dataset(id)
            check_owner(dataset, signer.owner)
            log = self.verified_log(id, "extend") if dataset.versions else Log(id, ())
            _check_room(log)
            previous = log.head if log.entries else None
            wanted = Entry(
                id=id,
                owner=signer.owner,
                seq=previous.seq + 1 if previous else 1,
                prev_hash=previous.hash if previous else ZERO_HASH,
                manifest_hash=bundle.manifest_hash,
                file_hash=bundle.digest.sha256,
                size=bundle.digest.size,
                chunk_root=bundle.digest.chunk_root,
                time=time,
            )
            document = canonical(manifest_json(bundle.files))
            entry, name = self._write(lambda db: journal_entry(db, wanted, bundle.name, document))
            return self._record(entry, name, signer)

    def unfinished(self, id: str) -> Entry | None:
        """The version that was begun and cut off before it was recorded, None when there is none."""
        found = self._read(lambda db: unfinished_entry(db, id))
        return found and found[0]

    def finish(self, id: str, signer: Signer) -> Signed | None:
        """Record the version that was begun and cut off, as it was begun; None when there is none.

        Its artifact is in the store.

        Raises:
            UsageError, StorageError: as `append`.
        """
        with self.alone():
            dataset = self.dataset(id)
            check_owner(dataset, signer.owner)
            if dataset.versions:
                self.verified_log(id, "extend")
            begun = self._read(lambda db: unfinished_entry(db, id))
            return begun and self._record(*begun, signer)

    def _record(self, entry: Entry, name: str, signer: Signer) -> Signed:
        """Sign what the journal says, and make it the newest version."""
        signed = Signed(entry, sign(signer, entry.hash))

        def work(db: sqlite3.Connection) -> None:
            columns = f"{ENTRY_COLUMNS}, signature, name"
            insert(db, "entries", columns, *values(entry, ENTRY_COLUMNS), signed.signature, name)

        self._write(work)
        return signed

    def manifest(self, manifest_hash: bytes) -> tuple[File, ...]:
        """The files of a manifest, in the order of their names.

        Raises:
            StorageError: it is not in the store.
        """
        query = "SELECT document FROM manifests WHERE hash = ?"
        row = self._read(lambda db: db.execute(query, (manifest_hash,)).fetchone())
        if row is None:
            raise StorageError(f"manifest {manifest_hash.hex()} is missing from {self.path}", remedy=RESTORE)
        files = json.loads(row[0])["files"]
        return tuple(File(file["name"], file["size"], bytes.fromhex(file["sha256"])) for file in files)

    def artifact_name(self, id: str, seq: int) -> str:
        """What the artifact of a version was called in its bundle.

        Raises:
            UsageError: there is no such version.
        """
        query = "SELECT name FROM entries WHERE id = ? AND seq = ?"
        row = self._read(lambda db: db.execute(query, (id, seq)).fetchone())
        if row is None:
            raise UsageError(f'dataset "{id}" has no version {seq}')
        return str(row[0])


FROM_BUNDLE = "Record one with: dataset from BUNDLE --name ID"


def _check_log(log: Log, dataset: Dataset) -> None:
    verify_log(log, owner=dataset.root_owner, verify=identity.verify, id=dataset.id)
    if (log.root_owner, log.owner) != (dataset.root_owner, dataset.owner):
        raise LogError("wrong_owner", f"it is {log.owner}'s, not {dataset.owner}'s")


def check_owner_id(owner: str) -> None:
    """Check that an owner id names a key; UsageError when it does not."""
    try:
        kind_of(owner)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_owner(dataset: Dataset, owner: str) -> None:
    if dataset.owner != owner:
        raise UsageError(
            f'dataset "{dataset.id}" is signed by {dataset.owner}, this key is {owner}',
            remedy="Use the owner's key (--signer, --wallet.name, --wallet.hotkey, --key)",
        )


def sign(signer: Signer, digest: bytes) -> bytes:
    signature = signer.sign(digest)
    if not identity.verify(signer.owner, digest, signature):
        raise StorageError(f"the key of {signer.owner} makes signatures that are not its own")
    return signature


def dataset_row(db: sqlite3.Connection, id: str) -> Dataset:
    row = db.execute(f"{_DATASET} WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise UsageError(f"dataset \"{id[:80]}\" not found — create it with 'dataset from'")
    return Dataset(*row)


def _check_room(log: Log) -> None:
    """That buyers will still read a log with one version more."""
    if len(log.entries) <= _FEW:
        return
    size = len(json.dumps(wire.log_json(log)))
    if len(log.entries) >= MAX_ENTRIES or size > wire.MAX_LOG_BYTES - _ROOM:
        raise UsageError(
            f'the log of dataset "{log.id}" has {len(log.entries)} versions and {size} bytes; '
            f"buyers read no more",
            remedy="Go on under another id",
        )


def _rotations(db: sqlite3.Connection, id: str) -> int:
    return int(db.execute("SELECT count(*) FROM rotations WHERE id = ?", (id,)).fetchone()[0])


def _log(db: sqlite3.Connection, id: str) -> Log:
    entries = db.execute(f"SELECT {ENTRY_COLUMNS}, signature FROM entries WHERE id = ? ORDER BY seq", (id,))  # noqa: S608
    rotations = db.execute(
        f"SELECT {ROTATION_COLUMNS}, signature, new_signature FROM rotations WHERE id = ? ORDER BY number",  # noqa: S608
        (id,),
    )
    return Log(
        id,
        tuple(Signed(Entry(*entry), signature) for *entry, signature in entries),
        tuple(SignedRotation(Rotation(*rotation), one, two) for *rotation, one, two in rotations),
    )


def newest_version(db: sqlite3.Connection, id: str) -> tuple[int, bytes] | None:
    row = db.execute(
        f"SELECT {ENTRY_COLUMNS} FROM entries WHERE id = ? ORDER BY seq DESC LIMIT 1",  # noqa: S608
        (id,),
    ).fetchone()
    if row is None:
        return None
    entry = Entry(*row)
    return entry.seq, entry.hash
