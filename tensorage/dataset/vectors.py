"""Test vectors of version logs: what both formats make of the ingredients of a few versions.

The shapes are those of tests/vectors/dataset-log.json. Format 1 is signed, since its signatures are
deterministic and stand in the digest of the next version; format 2 shows the hashes that are signed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ..encoding import ZERO_HASH
from ..errors import UsageError
from .entry import Entry
from .errors import LogError
from .identity import EthSigner
from .legacy import LegacyRecord

MAX_ENTRIES = 4096

_Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _Version(_Model):
    manifest_hash: _Hash
    file_hash: _Hash
    size: int


class _NewVersion(_Version):
    chunk_root: _Hash
    time: int


class _Legacy(_Model):
    """Versions in format 1, to be signed with a secp256k1 key in hex."""

    kind: Literal["dataset-v1"]
    private_key: _Hash
    entries: Annotated[list[_Version], Field(min_length=1, max_length=MAX_ENTRIES)]


class _Current(_Model):
    """Versions in format 2."""

    kind: Literal["dataset-v2"]
    id: str
    owner: str
    entries: Annotated[list[_NewVersion], Field(min_length=1, max_length=MAX_ENTRIES)]


def vector(document: dict[str, Any]) -> dict[str, Any]:
    """The vector for an input of kind dataset-v1 or dataset-v2.

    Raises:
        UsageError: another kind, or values that no version has.
        pydantic.ValidationError: another shape.
        ValueError: the private key is none.
    """
    try:
        if document["kind"] == "dataset-v1":
            return _legacy(_Legacy.model_validate(document))
        if document["kind"] == "dataset-v2":
            return _current(_Current.model_validate(document))
    except LogError as error:
        raise UsageError(f"input of a vector: {error}") from error
    raise UsageError(
        f"there are no vectors of kind {document['kind']!r:.80}",
        remedy="Use dataset-v1 or dataset-v2, or leave it out",
    )


def _legacy(given: _Legacy) -> dict[str, Any]:
    signer = EthSigner(bytes.fromhex(given.private_key))
    entries = []
    previous = ""
    for seq, version in enumerate(given.entries, 1):
        record = LegacyRecord(seq, version.manifest_hash, version.file_hash, version.size, previous, "", "")
        previous = signer.sign(record.digest).hex()
        entries.append({"seq": seq, "digest": record.digest.hex(), "signature": previous})
    return {"owner": signer.owner, "entries": entries}


def _current(given: _Current) -> dict[str, Any]:
    entries = []
    previous = ZERO_HASH
    for seq, version in enumerate(given.entries, 1):
        entry = Entry(
            given.id,
            given.owner,
            seq,
            previous,
            bytes.fromhex(version.manifest_hash),
            bytes.fromhex(version.file_hash),
            version.size,
            bytes.fromhex(version.chunk_root),
            version.time,
        )
        entries.append({"seq": seq, "prev": previous.hex(), "hash": entry.hash.hex()})
        previous = entry.hash
    return {"entries": entries}
