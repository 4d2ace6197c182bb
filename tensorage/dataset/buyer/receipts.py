"""Receipts of what was bought: which bytes, under which signature, from whom, and what was paid.

A receipt is a JSON object, kept in the book and beside the file as FILE.receipt.json (0600). It proves by
itself that the owner signed a version with that file hash: it carries the version as it stands in the log and
the rotations that lead from the first key to the one that signed. What was paid and where it was fetched is
the buyer's own note.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ...errors import ProofError, UsageError
from .. import identity, wire
from ..entry import Signed, check_form
from ..errors import LogError
from ..files import Disk, write_atomically
from ..legacy import LegacyLog, LegacyRecord
from ..log import Log
from ..manifest import File, manifest_json
from ..options import day
from ..payments.pricing import read_atomic, shown
from .target import TakenError
from .trust import Trusted, record_json

FORMAT = "tensorage/dataset/receipt/v1"
_SUFFIX = ".receipt.json"
_MOST = 4 << 20


def beside(path: Path) -> Path:
    """Where the receipt of a file is kept."""
    return path.with_name(path.name + _SUFFIX)


def receipt(
    trusted: Trusted,
    seq: int,
    *,
    id: str,
    path: Path,
    url: str,
    time: int,
    files: tuple[File, ...] | None,
    payment: dict[str, Any] | None,
) -> dict[str, Any]:
    """The receipt of a version.

    Args:
        path: where the file is.
        url: the seller's.
        time: unix seconds.
        files: the manifest, checked against the signed hash; None where it is not known.
        payment: network, asset, amount, payee, payer and place of what was paid.
    """
    log = trusted.log
    if isinstance(log, Log):
        signed = log.at(seq)
        entry, entry_hash, owner = wire.entry_json(signed), signed.entry.hash, signed.entry.owner
        rotations = [wire.rotation_json(rotated) for rotated in log.rotations[: log.keys.index(owner)]]
    else:
        record = log.records[seq - 1]
        entry, entry_hash, owner, rotations = record_json(record), record.digest, trusted.verified.owner, []
    return {
        "format": FORMAT,
        "id": id,
        "logVersion": log.version,
        "rootOwner": trusted.verified.root_owner,
        "owner": owner,
        "pinned": trusted.verified.pinned,
        "seq": seq,
        "entryHash": entry_hash.hex(),
        "entry": entry,
        "rotations": rotations,
        "signature": entry["signature"],
        "fileHash": entry["fileHash"],
        "manifestHash": entry["manifestHash"],
        "size": entry["size"],
        "manifest": None if files is None else manifest_json(files),
        "payment": payment,
        "anchored": trusted.anchored,
        "url": url,
        "time": time,
        "path": str(path),
    }


def check_beside(path: Path, *, force: bool) -> None:
    """Check that nothing but a receipt stands where that of a file goes.

    Raises:
        TakenError: something does, and `force` was not said.
    """
    note = beside(path)
    if force or not os.path.lexists(note):
        return
    taken = TakenError(
        f"{note} is there and is no receipt", remedy="Move it, name another --out, or lose it with --force"
    )
    if not stat.S_ISREG(note.lstat().st_mode):
        raise taken
    try:
        read(note)
    except UsageError as error:
        raise taken from error


def write(path: Path, document: dict[str, Any], *, force: bool) -> None:
    """Put a receipt beside its file, in place of another one.

    Raises:
        TakenError: as `check_beside`.
        StorageError: the disk refuses.
    """
    check_beside(path, force=force)
    write_atomically(Disk(), beside(path), json.dumps(document, indent=1).encode() + b"\n", 0o600)


def read(path: Path) -> dict[str, Any]:
    """A receipt in a file.

    Raises:
        UsageError: there is none.
    """
    try:
        with path.open("rb") as file:
            found = wire.strict_json(file.read(_MOST + 1), f"receipt {path}", _MOST)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", remedy="Name a receipt") from error
    except LogError as error:
        raise UsageError(error.message, remedy="Name a receipt, or the file that it is for") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UsageError(f"{path} is no receipt", remedy="Name a receipt, or the file that it is for")
    return found


def lines(document: dict[str, Any]) -> list[str]:
    """A receipt for people. What the owner did not sign may be anything, in a receipt that somebody sent."""
    moment, paid = document.get("time"), document.get("payment")
    when = f", {day(moment)} UTC" if type(moment) is int and 0 <= moment < 1 << 36 else ""
    trusted = "" if document.get("pinned") is True else " (trusted on first use)"
    lines = [
        f"{document['id']} v{document['seq']}: {document.get('path')}",
        f"bytes: {document['size']}",
        f"file hash: {document['fileHash']}",
        f"manifest hash: {document['manifestHash']}",
        f"entry: {document['entryHash']}",
        f"owner: {document['owner']}{trusted}",
        f"from: {document.get('url')}{when}",
    ]
    if isinstance(paid, dict):
        amount, asset, payee, network = (paid.get(name) for name in ("amount", "asset", "payTo", "network"))
        lines.append(f"paid: {_money(amount, asset, network)} to {payee} on {network}")
    return lines


def _money(amount: Any, asset: Any, network: Any) -> str:
    try:
        return shown(read_atomic(amount), network if isinstance(network, str) else "")
    except (ValueError, UsageError):  # of a network that nothing is paid on: as it says
        return f"{amount} {asset}"


def check(document: dict[str, Any]) -> None:
    """Check what a receipt proves by itself: that its owner signed the version that it names.

    Raises:
        ProofError: it does not.
    """
    try:
        _check(document)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ProofError(f"the receipt lacks what it should have: {error}") from error


def _check(document: dict[str, Any]) -> None:
    entry = document["entry"]
    for name in ("seq", "fileHash", "manifestHash", "size", "signature"):
        if document[name] != entry[name]:
            raise ProofError(f"the receipt says another {name} than the version in it")
    owner = str(document["owner"])
    if document["logVersion"] == 2:
        signed = wire.read_entry(entry, document["id"])
        entry_hash = signed.entry.hash
        _check_signed(signed, owner)
    else:
        log, _ = wire.read_any_log({"id": document["id"], "versions": [entry]})
        assert isinstance(log, LegacyLog)
        entry_hash = _check_record(log.records[0], owner)
    if document["entryHash"] != entry_hash.hex():
        raise ProofError(
            f"the receipt names entry {document['entryHash']!r:.80}, its version is {entry_hash.hex()}"
        )
    key = document["rootOwner"]
    for rotation in document["rotations"]:
        key = _check_rotation(rotation, key, document["id"])
    if key != owner:
        raise ProofError(f"no rotation leads from {document['rootOwner']!r:.80} to {owner[:80]!r}")


def _check_signed(signed: Signed, owner: str) -> None:
    if signed.entry.owner != owner:
        raise ProofError(f"the version is by {signed.entry.owner}, the receipt says {owner[:80]!r}")
    check_form(owner, signed.signature, "the version")
    if not identity.verify(owner, signed.entry.hash, signed.signature):
        raise ProofError(f"the version is not signed by {owner}")


def _check_record(record: LegacyRecord, owner: str) -> bytes:
    made = identity.recover(record.digest, bytes.fromhex(record.signature))
    if made != owner:
        raise ProofError(f"the version is signed by {made}, the receipt says {owner[:80]!r}")
    return record.digest


def _check_rotation(rotation: dict[str, Any], key: str, id: str) -> str:
    """The key that a rotation leads to."""
    log, _ = wire.read_log({"id": id, "version": 2, "versions": [], "rotations": [rotation]})
    signed = log.rotations[0]
    if signed.rotation.old != key:
        raise ProofError(f"the rotation from {signed.rotation.old} does not begin at {key[:80]!r}")
    for owner, signature in (
        (signed.rotation.old, signed.signature),
        (signed.rotation.new, signed.new_signature),
    ):
        if not identity.verify(owner, signed.rotation.hash, signature):
            raise ProofError(f"the rotation to {signed.rotation.new} is not signed by {owner}")
    return signed.rotation.new
