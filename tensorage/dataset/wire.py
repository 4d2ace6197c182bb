"""Logs and statements as JSON.

What comes in is read strictly (`strict`), and then held against a model: no unknown name, integers that are
integers, hex in lower case and of the one right length. Every fault is a LogError with a reason. Nothing
here is verified: `log.verify_log` does, and `memory.check_head`.

A log document has {"id", "version": 2, "versions": [...], "rotations": [...], "head": {...}}; rotations and
head may be absent. Documents of format 1 have no "version", or are a bare list of records.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from .anchor import AnchorProof
from .entry import (
    Entry,
    Head,
    Offer,
    Rotation,
    Signed,
    SignedHead,
    SignedOffer,
    SignedRotation,
)
from .errors import LogError
from .legacy import LegacyLog, LegacyRecord
from .log import MAX_ENTRIES, MAX_ROTATIONS, Log
from .manifest import MAX_FILES, MAX_INTEGER, File
from .strict import strict_json

__all__ = [
    "MAX_LOG_BYTES",
    "MAX_STATEMENT_BYTES",
    "Raw",
    "anchor_json",
    "entry_json",
    "head_header",
    "head_json",
    "log_json",
    "offer_json",
    "read_anchor",
    "read_any_log",
    "read_entry",
    "read_head",
    "read_head_header",
    "read_log",
    "read_manifest",
    "read_offer",
    "rotation_json",
    "strict_json",
]

MAX_LOG_BYTES = 16 << 20
MAX_STATEMENT_BYTES = 16 << 10
MAX_PATH = 64

#: JSON text, or a JSON value that was read from some already.
Raw = bytes | str | Mapping[str, Any]

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{128}|[0-9a-f]{130})$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Integer = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Amount = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,77}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class _Entry(_Model):
    seq: Integer
    owner: Text
    prev: Hash
    manifestHash: Hash
    fileHash: Hash
    size: Integer
    chunkRoot: Hash
    time: Integer
    signature: Signature


class _Rotation(_Model):
    from_: Annotated[Text, Field(alias="from")]
    to: Text
    after: Integer
    entry: Hash
    time: Integer
    signature: Signature
    newSignature: Signature


class _Head(_Model):
    id: Text
    owner: Text
    seq: Integer
    entry: Hash
    issued: Integer
    expires: Integer
    signature: Signature


class _Offer(_Model):
    id: Text
    owner: Text
    version: Integer
    network: Text
    asset: Text
    amount: Amount
    payTo: Text
    expires: Integer
    signature: Signature


class _Log(_Model):
    id: Text
    version: Literal[2]
    versions: Annotated[list[_Entry], Field(max_length=MAX_ENTRIES), FailFast()]
    rotations: Annotated[list[_Rotation], Field(max_length=MAX_ROTATIONS), FailFast()] = []
    head: _Head | None = None


class _Record(_Model):
    seq: int
    manifestHash: Annotated[str, StringConstraints(max_length=256)]
    fileHash: Annotated[str, StringConstraints(max_length=256)]
    size: int
    prevSig: Annotated[str, StringConstraints(max_length=1024)]
    timestamp: Annotated[str, StringConstraints(pattern=r"^[0-9TZ:.+-]{0,64}$")]
    signature: Annotated[str, StringConstraints(max_length=1024)]


class _LegacyLog(_Model):
    id: Annotated[str, StringConstraints(pattern=r"^[ -~]{0,255}$")]
    versions: Annotated[list[_Record], Field(max_length=MAX_ENTRIES), FailFast()]


class _Anchor(_Model):
    seq: Integer
    entry: Hash
    index: Integer
    size: Integer
    path: Annotated[list[Hash], Field(max_length=MAX_PATH), FailFast()]


class _File(_Model):
    name: Text
    size: Integer
    sha256: Hash


class _Manifest(_Model):
    files: Annotated[list[_File], Field(min_length=1, max_length=MAX_FILES), FailFast()]


M = TypeVar("M", bound=_Model)


def _model(model: type[M], raw: Any, what: str, limit: int = MAX_STATEMENT_BYTES) -> M:
    value = strict_json(raw, what, limit) if isinstance(raw, bytes | str) else raw
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:80] or "all of it"
        reason = "not_canonical" if _only_upper_case(first) else "malformed"
        raise LogError(reason, f"{what}: {place!a}: {first['msg']}") from error


def _only_upper_case(fault: ErrorDetails) -> bool:
    """Whether the fault is hex that lower case would put right."""
    given = fault["input"]
    if fault["type"] != "string_pattern_mismatch" or not isinstance(given, str):
        return False
    return re.fullmatch(fault["ctx"]["pattern"], given.lower()) is not None


def read_log(raw: Raw) -> tuple[Log, SignedHead | None]:
    """The log of a document of format 2, and the head statement that came with it.

    Raises:
        LogError: too_large, malformed, or old_version for a log of format 1.
    """
    log, head = read_any_log(raw)
    if isinstance(log, LegacyLog):
        raise LogError(
            "old_version",
            "this log has format 1, which signs neither chunks nor the dataset's id",
            remedy="It can be verified, but not bought from",
        )
    return log, head


def read_any_log(raw: Raw | list[Any]) -> tuple[Log | LegacyLog, SignedHead | None]:
    """The log of a document of either format.

    Raises:
        LogError: too_large or malformed.
    """
    value = strict_json(raw, "the log", MAX_LOG_BYTES) if isinstance(raw, bytes | str) else raw
    if isinstance(value, list):
        value = {"id": "", "versions": value}
    if not isinstance(value, Mapping):
        raise LogError("malformed", "the log is neither an object nor a list")
    if "version" not in value:
        old = _model(_LegacyLog, value, "the log")
        return LegacyLog(old.id, tuple(_record(record) for record in old.versions)), None
    document = _model(_Log, value, "the log")
    log = Log(
        document.id,
        tuple(_entry(document.id, entry) for entry in document.versions),
        tuple(_rotation(document.id, rotation) for rotation in document.rotations),
    )
    return log, _head(document.head) if document.head else None


def read_entry(raw: Raw, id: str) -> Signed:
    """One version of dataset `id`, as it stands in a log; LogError "malformed" or "too_large"."""
    return _entry(id, _model(_Entry, raw, "the version"))


def read_head(raw: Raw) -> SignedHead:
    """A head statement; LogError "malformed" or "too_large"."""
    return _head(_model(_Head, raw, "the head statement"))


def read_offer(raw: Raw) -> SignedOffer:
    """An offer; LogError "malformed" or "too_large"."""
    o = _model(_Offer, raw, "the offer")
    offer = Offer(o.id, o.owner, o.version, o.network, o.asset, int(o.amount), o.payTo, o.expires)
    return SignedOffer(offer, bytes.fromhex(o.signature))


def read_anchor(raw: Raw) -> AnchorProof:
    """A proof that a head is under an anchored root; LogError "malformed" or "too_large"."""
    proof = _model(_Anchor, raw, "the anchor proof")
    return AnchorProof(
        proof.seq,
        bytes.fromhex(proof.entry),
        proof.index,
        proof.size,
        tuple(bytes.fromhex(sibling) for sibling in proof.path),
    )


def read_manifest(raw: Raw) -> tuple[File, ...]:
    """The files of a manifest, as `manifest_json` writes it; LogError or ProofError when it is none."""
    manifest = _model(_Manifest, raw, "the manifest", MAX_LOG_BYTES)
    return tuple(File(file.name, file.size, bytes.fromhex(file.sha256)) for file in manifest.files)


def read_head_header(text: str) -> SignedHead:
    """The head statement in an X-Dataset-Head header; LogError "malformed" or "too_large"."""
    if len(text) > MAX_STATEMENT_BYTES:
        raise LogError("too_large", f"X-Dataset-Head has {len(text)} bytes")
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise LogError("malformed", f"X-Dataset-Head is not base64: {error}") from error
    return read_head(raw)


def head_header(signed: SignedHead) -> str:
    """A head statement as the value of an X-Dataset-Head header: base64 of its JSON."""
    return base64.b64encode(json.dumps(head_json(signed), separators=(",", ":")).encode()).decode()


def log_json(log: Log, head: SignedHead | None = None) -> dict[str, Any]:
    """The document of a log."""
    document: dict[str, Any] = {
        "id": log.id,
        "version": 2,
        "versions": [entry_json(signed) for signed in log.entries],
        "rotations": [rotation_json(signed) for signed in log.rotations],
    }
    return document | {"head": head_json(head)} if head else document


def entry_json(signed: Signed) -> dict[str, Any]:
    """One version as it stands in a log."""
    entry = signed.entry
    return {
        "seq": entry.seq,
        "owner": entry.owner,
        "prev": entry.prev_hash.hex(),
        "manifestHash": entry.manifest_hash.hex(),
        "fileHash": entry.file_hash.hex(),
        "size": entry.size,
        "chunkRoot": entry.chunk_root.hex(),
        "time": entry.time,
        "signature": signed.signature.hex(),
    }


def rotation_json(signed: SignedRotation) -> dict[str, Any]:
    """One rotation as it stands in a log."""
    rotation = signed.rotation
    return {
        "from": rotation.old,
        "to": rotation.new,
        "after": rotation.after,
        "entry": rotation.entry_hash.hex(),
        "time": rotation.time,
        "signature": signed.signature.hex(),
        "newSignature": signed.new_signature.hex(),
    }


def head_json(signed: SignedHead) -> dict[str, Any]:
    """A head statement."""
    head = signed.head
    return {
        "id": head.id,
        "owner": head.owner,
        "seq": head.seq,
        "entry": head.entry_hash.hex(),
        "issued": head.issued,
        "expires": head.expires,
        "signature": signed.signature.hex(),
    }


def offer_json(signed: SignedOffer) -> dict[str, Any]:
    """An offer; the amount is decimal text, since it may exceed what JSON's numbers carry."""
    offer = signed.offer
    return {
        "id": offer.id,
        "owner": offer.owner,
        "version": offer.version,
        "network": offer.network,
        "asset": offer.asset,
        "amount": str(offer.amount),
        "payTo": offer.pay_to,
        "expires": offer.expires,
        "signature": signed.signature.hex(),
    }


def anchor_json(proof: AnchorProof) -> dict[str, Any]:
    """A proof that a head is under an anchored root."""
    return {
        "seq": proof.seq,
        "entry": proof.entry_hash.hex(),
        "index": proof.index,
        "size": proof.size,
        "path": [sibling.hex() for sibling in proof.path],
    }


def _entry(id: str, e: _Entry) -> Signed:
    entry = Entry(
        id,
        e.owner,
        e.seq,
        bytes.fromhex(e.prev),
        bytes.fromhex(e.manifestHash),
        bytes.fromhex(e.fileHash),
        e.size,
        bytes.fromhex(e.chunkRoot),
        e.time,
    )
    return Signed(entry, bytes.fromhex(e.signature))


def _rotation(id: str, r: _Rotation) -> SignedRotation:
    rotation = Rotation(id, r.from_, r.to, r.after, bytes.fromhex(r.entry), r.time)
    return SignedRotation(rotation, bytes.fromhex(r.signature), bytes.fromhex(r.newSignature))


def _head(h: _Head) -> SignedHead:
    head = Head(h.id, h.owner, h.seq, bytes.fromhex(h.entry), h.issued, h.expires)
    return SignedHead(head, bytes.fromhex(h.signature))


def _record(r: _Record) -> LegacyRecord:
    return LegacyRecord(r.seq, r.manifestHash, r.fileHash, r.size, r.prevSig, r.timestamp, r.signature)
