"""What an owner says about its logs: which version is the newest, which key comes next, what is anchored."""

from __future__ import annotations

import json
import sqlite3

from ..errors import UsageError
from .anchor import AnchorProof, Heads, anchor_root, prove
from .entry import HEAD_SECONDS, Head, Rotation, SignedHead, SignedRotation
from .identity import Signer
from .journal import ROTATION_COLUMNS, begun_already, insert, journal_rotation, values
from .log import MAX_ROTATIONS
from .versions import FROM_BUNDLE, VersionRows, check_owner, check_owner_id, dataset_row, newest_version, sign

_HEAD_COLUMNS = "id, owner, seq, entry_hash, issued, expires"


class StatementRows(VersionRows):
    """Head statements, rotations and anchors."""

    # Head statements

    def head(self, id: str) -> SignedHead | None:
        """What today's owner stated about the newest version, expired or not; None where it did not."""

        def work(db: sqlite3.Connection) -> SignedHead | None:
            dataset = dataset_row(db, id)
            found = _head(db, id)
            newest = newest_version(db, id)
            if found is None or newest is None:
                return None
            head = found.head
            return found if (head.owner, head.seq, head.entry_hash) == (dataset.owner, *newest) else None

        return self._read(work)

    def sign_head(self, id: str, signer: Signer, now: int) -> SignedHead:
        """A statement about the newest version that is good for at least half of HEAD_SECONDS from `now` on.

        The one that is stored, if it is; else a new one, which is stored.

        Raises:
            UsageError: no such dataset, no version, or another's key.
            StorageError: the store cannot be used.
        """
        while True:
            dataset = self.dataset(id)
            check_owner(dataset, signer.owner)
            known = self.head(id)
            if known and known.head.issued <= now and known.head.expires - now >= HEAD_SECONDS // 2:
                return known
            newest = self._read(lambda db: newest_version(db, id))
            if newest is None:
                raise UsageError(f'dataset "{id}" has no versions yet', remedy=FROM_BUNDLE)
            head = Head(id, signer.owner, *newest, issued=now, expires=now + HEAD_SECONDS)
            signed = SignedHead(head, sign(signer, head.hash))
            if self._write(lambda db, signed=signed, newest=newest: _keep_head(db, signed, newest)):  # type: ignore[misc]
                return signed

    # Rotations

    def rotate(self, id: str, old: Signer, new: Signer, time: int) -> SignedRotation:
        """Hand a dataset on to another key, which signs its versions from the next one on.

        One that was begun and cut off is finished; one that is done already is returned.

        Args:
            time: in unix seconds.

        Raises:
            UsageError: no such dataset or version, another's key, or the key was handed on to another before.
            StorageError: the log does not hold, or cannot be written.
        """
        with self.alone():
            dataset = self.dataset(id)
            if not dataset.versions:
                raise UsageError(f'dataset "{id}" has no versions yet', remedy=FROM_BUNDLE)
            log = self.verified_log(id, "extend")
            for signed in log.rotations:
                if (signed.rotation.old, signed.rotation.new) == (old.owner, new.owner):
                    return signed
            check_owner(dataset, old.owner)
            check_owner_id(new.owner)  # before it is promised the dataset
            if new.owner in log.keys:
                raise UsageError(
                    f'{new.owner} has been a key of dataset "{id}" already', remedy="Take a new key"
                )
            if len(log.rotations) >= MAX_ROTATIONS:
                raise UsageError(
                    f'dataset "{id}" has had {MAX_ROTATIONS} rotations; buyers read no more',
                    remedy="Go on under another id",
                )
            if begun := self.unfinished(id):
                raise begun_already(begun)
            wanted = Rotation(id, old.owner, new.owner, log.head.seq, log.head.hash, time)
            rotation = self._write(lambda db: journal_rotation(db, wanted))
            signed = SignedRotation(rotation, sign(old, rotation.hash), sign(new, rotation.hash))
            self._write(lambda db: _keep_rotation(db, signed, len(log.rotations) + 1))
            return signed

    # Anchors

    def heads_of(self, owner: str) -> dict[str, tuple[int, bytes]]:
        """The newest version and its hash of every dataset that is the owner's today, by id."""

        def work(db: sqlite3.Connection) -> dict[str, tuple[int, bytes]]:
            ids = [row[0] for row in db.execute("SELECT id FROM datasets WHERE owner = ?", (owner,))]
            found = {id: newest_version(db, id) for id in ids}
            return {id: newest for id, newest in found.items() if newest is not None}

        return self._read(work)

    def begin_anchor(self, owner: str, heads: Heads) -> bytes:
        """Write down the heads that are about to be anchored; their root. ValueError when there are none."""
        root = anchor_root(heads)
        document = json.dumps({id: [seq, entry_hash.hex()] for id, (seq, entry_hash) in heads.items()})
        now = self._clock()
        self._write(
            lambda db: db.execute(
                "INSERT INTO anchors (owner, root, heads, begun) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (owner, root) DO UPDATE SET begun = excluded.begun",
                (owner, root, document, now),
            )
        )
        return root

    def finish_anchor(self, owner: str, root: bytes) -> bool:
        """Note that the chain has a root now; False when it is not one that was begun here."""
        now = self._clock()

        def work(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE anchors SET published = ? WHERE owner = ? AND root = ?", (now, owner, root)
            )
            if changed.rowcount:
                db.execute("DELETE FROM anchors WHERE owner = ? AND root != ?", (owner, root))
            return bool(changed.rowcount)

        return self._write(work)

    def anchored_heads(self, owner: str) -> dict[str, tuple[int, bytes]] | None:
        """The heads that are anchored under an owner, by id; None when none are, as far as is known here."""
        query = (
            "SELECT heads FROM anchors WHERE owner = ? AND published IS NOT NULL "
            "ORDER BY published DESC LIMIT 1"
        )
        row = self._read(lambda db: db.execute(query, (owner,)).fetchone())
        if row is None:
            return None
        return {id: (seq, bytes.fromhex(entry_hash)) for id, (seq, entry_hash) in json.loads(row[0]).items()}

    def anchored(self, id: str) -> AnchorProof | None:
        """The path from a dataset's head, as it was anchored under its owner of today, to the root on chain.

        None when it is not anchored, as far as is known here.

        Raises:
            UsageError: there is no such dataset.
        """
        heads = self.anchored_heads(self.dataset(id).owner)
        return prove(heads, id) if heads and id in heads else None


def _head(db: sqlite3.Connection, id: str) -> SignedHead | None:
    row = db.execute(f"SELECT {_HEAD_COLUMNS}, signature FROM heads WHERE id = ?", (id,)).fetchone()  # noqa: S608
    return SignedHead(Head(*row[:-1]), row[-1]) if row else None


def _keep_head(db: sqlite3.Connection, signed: SignedHead, newest: tuple[int, bytes]) -> bool:
    """Store a statement, unless it is not about the newest version, or not by the owner, any more."""
    head = signed.head
    if newest_version(db, head.id) != newest or dataset_row(db, head.id).owner != head.owner:
        return False
    db.execute("DELETE FROM heads WHERE id = ?", (head.id,))
    insert(db, "heads", f"{_HEAD_COLUMNS}, signature", *values(head, _HEAD_COLUMNS), signed.signature)
    return True


def _keep_rotation(db: sqlite3.Connection, signed: SignedRotation, number: int) -> None:
    rotation = signed.rotation
    columns = f"number, {ROTATION_COLUMNS}, signature, new_signature"
    signatures = signed.signature, signed.new_signature
    insert(db, "rotations", columns, number, *values(rotation, ROTATION_COLUMNS), *signatures)
    db.execute("UPDATE datasets SET owner = ? WHERE id = ?", (rotation.new, rotation.id))
    db.execute("DELETE FROM heads WHERE id = ?", (rotation.id,))
