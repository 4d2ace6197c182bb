"""Version logs of format 1, which are read and verified but never written.

A record names the signature of the one before as ASCII hex and is signed, with secp256k1, over

    H(tag("obol/dataset/versionlog/v1") || u64 seq || manifest hash || file hash || u64 size
      || u8 length || previous signature as hex text)

The dataset id, the owner and the time are not signed. So a log of one dataset is good for another of the
same key, and without a pinned owner it proves next to nothing: some key is found for nearly any signature.
What is refused here beyond the format's own rules: upper-case hex, a high S, and a log of several signers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..encoding import HASH_SIZE, sha256, tag, u8, u64
from .entry import RECOVERABLE_SIZE, check_form
from .errors import LogError
from .log import MAX_ENTRIES, Verified

#: The address that made a 65-byte signature of a digest: (digest, signature); None when it is no signature.
Recover = Callable[[bytes, bytes], "str | None"]

_TAG = tag("obol/dataset/versionlog/v1")
_LOWER = frozenset("0123456789abcdef")
_ANY = _LOWER | frozenset("ABCDEF")
MAX_SIZE = 2**63 - 1
MAX_PREV_SIG = 255


@dataclass(frozen=True)
class LegacyRecord:
    """One version as it stands in the log, hashes and signatures as hex text; `timestamp` is not signed."""

    seq: int
    manifest_hash: str
    file_hash: str
    size: int
    prev_sig: str
    timestamp: str
    signature: str

    @property
    def digest(self) -> bytes:
        """Digest v1, the 32 bytes that are signed.

        Raises:
            LogError: malformed or not_canonical.
        """
        what = f"dataset: version {self.seq!r:.24}: "
        if type(self.seq) is not int or not 1 <= self.seq < 2**64:
            raise LogError("malformed", what + "seq must be >= 1")
        if type(self.size) is not int or not 0 <= self.size <= MAX_SIZE:
            raise LogError("malformed", what + "size must be >= 0", seq=self.seq)
        manifest = self._hash(what, "manifestHash", self.manifest_hash)
        file = self._hash(what, "fileHash", self.file_hash)
        if len(self.prev_sig) > MAX_PREV_SIG:
            raise LogError("malformed", what + f"prevSig too long ({len(self.prev_sig)} > 255)", seq=self.seq)
        try:
            previous = self.prev_sig.encode("ascii")
        except UnicodeEncodeError as error:
            raise LogError("malformed", what + "prevSig is not ASCII", seq=self.seq) from error
        return sha256(_TAG + u64(self.seq) + manifest + file + u64(self.size) + u8(len(previous)) + previous)

    def _hash(self, what: str, name: str, text: str) -> bytes:
        if len(text) != 2 * HASH_SIZE or not _ANY.issuperset(text):
            raise LogError("malformed", what + f"{name}: want 64 hex chars, got {len(text)}", seq=self.seq)
        if not _LOWER.issuperset(text):
            raise LogError("not_canonical", what + f"{name}: want lower-case hex", seq=self.seq)
        return bytes.fromhex(text)


@dataclass(frozen=True)
class LegacyLog:
    """A log of format 1; `id` is what its document says, "" for a bare list. Not verified by itself."""

    id: str
    records: tuple[LegacyRecord, ...]
    version: ClassVar[Literal[1]] = 1


def verify_legacy(log: LegacyLog, *, owner: str | None, recover: Recover) -> Verified:
    """Check a whole log of format 1.

    Args:
        owner: the pinned address, `0x` and 40 hex digits in either case; None takes whoever signed.
        recover: `identity.recover`.

    Raises:
        LogError: the first fault found.
    """
    if not log.records:
        raise LogError("empty", "dataset: version log is empty")
    if len(log.records) > MAX_ENTRIES:
        raise LogError("too_large", f"dataset: {len(log.records)} versions; at most {MAX_ENTRIES} are read")
    want = owner.lower() if owner is not None else None
    signer: str | None = None
    digest = b""
    previous = ""
    for index, record in enumerate(log.records):
        what = f"dataset: version {record.seq!r:.24}: "
        if record.seq != index + 1:
            raise LogError(
                "non_monotonic",
                f"dataset: version at index {index} has non-monotonic seq {record.seq!r:.24}",
                seq=index + 1,
            )
        if record.prev_sig != previous:
            raise LogError(
                "chain_break", what + "chain break (prevSig does not match predecessor)", seq=record.seq
            )
        digest = record.digest
        address = recover(digest, _signature(record, what))
        if address is None:
            raise LogError("bad_signature", what + "bad signature: recover pubkey", seq=record.seq)
        if want is not None and address != want:
            raise LogError(
                "wrong_owner", what + f"signed by {address}, want owner {want[:80]}", seq=record.seq
            )
        if signer is not None and address != signer:
            raise LogError("mixed_signers", what + f"signed by {address}, not by {signer}", seq=record.seq)
        signer, previous = address, record.signature
    assert signer is not None
    return Verified(log.id, signer, signer, (signer,), len(log.records), digest, owner is not None, 1)


def _signature(record: LegacyRecord, what: str) -> bytes:
    text = record.signature
    if len(text) % 2 or not _ANY.issuperset(text):
        raise LogError("bad_signature", what + "bad signature: decode signature", seq=record.seq)
    if len(text) != 2 * RECOVERABLE_SIZE:
        raise LogError(
            "bad_signature",
            what + f"bad signature: signature length {len(text) // 2}, want 65",
            seq=record.seq,
        )
    if not _LOWER.issuperset(text):
        raise LogError("not_canonical", what + "signature: want lower-case hex", seq=record.seq)
    raw = bytes.fromhex(text)
    check_form("0x", raw, what.rstrip(": "), seq=record.seq)
    return raw
