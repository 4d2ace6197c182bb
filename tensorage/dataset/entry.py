"""What an owner signs: versions, rotations of its key, head statements and offers, and the bytes of each.

Every hash is H over a 32-byte domain tag and fields that have a fixed width or their length in front, so no
two statements of any kind share their bytes. Strings are ASCII. An integer is at most 2^53 - 1, which JSON
carries between any two readers, except amounts of money. A statement that exists is well-formed: making one
that is not raises LogError "malformed", or "not_canonical" for an owner id in upper case. Whether an owner
id names a key, and whether a signature is good, is for `identity` to say; what a signature must look like
is said here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from ..encoding import HASH_SIZE, SIGNATURE_SIZE, sha256, tag, u8, u16, u64
from .errors import LogError
from .manifest import MAX_INTEGER
from .names import is_id

#: Seconds that a head statement is good for.
HEAD_SECONDS = 86_400
RECOVERABLE_SIZE = 65
#: Order of the group of secp256k1 (SEC 2, section 2.4.1).
SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141

_ENTRY = tag("tensorage/dataset/v2")
_ROTATION = tag("tensorage/dataset/rotation")
_HEAD = tag("tensorage/dataset/head/v1")
_OFFER = tag("tensorage/dataset/offer/v1")
_OWNER = re.compile(r"0x[0-9a-f]{40}|5[1-9A-HJ-NP-Za-km-z]{47}", re.ASCII)
_PRINTABLE = re.compile(r"[!-~]{1,255}", re.ASCII)


def check_form(owner: str, signature: bytes, what: str, *, seq: int | None = None) -> None:
    """Check that `signature` has the one form that a signature by `owner` has.

    sr25519: 64 bytes. secp256k1: 65 bytes r || s || v with v 0 or 1 and s in the lower half of the group's
    order, without which anybody could make a second signature from a first.

    Raises:
        LogError: not_canonical.
    """
    size = RECOVERABLE_SIZE if owner.startswith("0x") else SIGNATURE_SIZE
    if len(signature) != size:
        raise LogError(
            "not_canonical",
            f"{what}: the signature has {len(signature)} bytes, {owner}'s have {size}",
            seq=seq,
        )
    if size == RECOVERABLE_SIZE:
        if signature[-1] > 1:
            raise LogError(
                "not_canonical", f"{what}: the signature ends in {signature[-1]}, not 0 or 1", seq=seq
            )
        if int.from_bytes(signature[32:64], "big") > SECP256K1_ORDER // 2:
            raise LogError("not_canonical", f"{what}: the signature has a high S", seq=seq)


@dataclass(frozen=True)
class Entry:
    """One version. Hashes are 32 bytes; `size` in bytes of the artifact, `time` in unix seconds."""

    id: str
    owner: str
    seq: int
    prev_hash: bytes
    manifest_hash: bytes
    file_hash: bytes
    size: int
    chunk_root: bytes
    time: int

    def __post_init__(self) -> None:
        what = f"version {self.seq!r:.24}"
        _check_names(what, self.id, self.owner)
        _check_integers(what, seq=self.seq, size=self.size, time=self.time)
        if self.seq < 1:
            raise LogError("malformed", f"{what}: the first version is 1")
        _check_hashes(
            what,
            prev_hash=self.prev_hash,
            manifest_hash=self.manifest_hash,
            file_hash=self.file_hash,
            chunk_root=self.chunk_root,
        )

    @cached_property
    def hash(self) -> bytes:
        """Digest v2: the 32 bytes that the owner signs and the next version names."""
        return sha256(
            _ENTRY
            + _short(self.id)
            + _short(self.owner)
            + u64(self.seq)
            + self.prev_hash
            + self.manifest_hash
            + self.file_hash
            + u64(self.size)
            + self.chunk_root
            + u64(self.time)
        )


@dataclass(frozen=True)
class Signed:
    """A version and its owner's signature of its hash."""

    entry: Entry
    signature: bytes


@dataclass(frozen=True)
class Rotation:
    """The owner's key changes: versions up to `after` are by `old` or keys before it, later ones by `new`.

    It takes no number of its own; `entry_hash` is the hash of version `after`, `time` is in unix seconds.
    """

    id: str
    old: str
    new: str
    after: int
    entry_hash: bytes
    time: int

    def __post_init__(self) -> None:
        what = f"rotation after version {self.after!r:.24}"
        _check_names(what, self.id, self.old)
        _check_names(what, self.id, self.new)
        _check_integers(what, after=self.after, time=self.time)
        if self.after < 1:
            raise LogError("malformed", f"{what}: a key that signed nothing need not be rotated")
        _check_hashes(what, entry_hash=self.entry_hash)

    @cached_property
    def hash(self) -> bytes:
        """The 32 bytes that both keys sign."""
        return sha256(
            _ROTATION
            + _short(self.id)
            + _short(self.old)
            + _short(self.new)
            + u64(self.after)
            + self.entry_hash
            + u64(self.time)
        )


@dataclass(frozen=True)
class SignedRotation:
    """A rotation, signed by the old key and by the new one."""

    rotation: Rotation
    signature: bytes
    new_signature: bytes


@dataclass(frozen=True)
class Head:
    """The owner says which version is the newest, for a while: `issued` and `expires` are unix seconds."""

    id: str
    owner: str
    seq: int
    entry_hash: bytes
    issued: int
    expires: int

    def __post_init__(self) -> None:
        what = f"head statement for version {self.seq!r:.24}"
        _check_names(what, self.id, self.owner)
        _check_integers(what, seq=self.seq, issued=self.issued, expires=self.expires)
        if self.seq < 1:
            raise LogError("malformed", f"{what}: the first version is 1")
        if self.expires <= self.issued:
            raise LogError("malformed", f"{what}: expires at {self.expires}, before it is issued")
        _check_hashes(what, entry_hash=self.entry_hash)

    @cached_property
    def hash(self) -> bytes:
        """The 32 bytes that the owner signs."""
        return sha256(
            _HEAD
            + _short(self.id)
            + _short(self.owner)
            + u64(self.seq)
            + self.entry_hash
            + u64(self.issued)
            + u64(self.expires)
        )


@dataclass(frozen=True)
class SignedHead:
    """A head statement and its owner's signature."""

    head: Head
    signature: bytes


@dataclass(frozen=True)
class Offer:
    """The owner's price for one version: no proxy between can put in another payee or amount.

    `amount` is in the smallest unit of `asset` (rao, atomic units of a token), `expires` in unix seconds.
    """

    id: str
    owner: str
    version: int
    network: str
    asset: str
    amount: int
    pay_to: str
    expires: int

    def __post_init__(self) -> None:
        what = f"offer of version {self.version!r:.24}"
        _check_names(what, self.id, self.owner)
        _check_integers(what, version=self.version, expires=self.expires)
        if self.version < 1:
            raise LogError("malformed", f"{what}: the first version is 1")
        if type(self.amount) is not int or not 0 < self.amount < 2**256:
            raise LogError("malformed", f"{what}: amount {self.amount!r:.90} is not 1 to 2^256 - 1")
        for name, text in (("network", self.network), ("asset", self.asset), ("pay_to", self.pay_to)):
            if type(text) is not str or not _PRINTABLE.fullmatch(text):
                raise LogError("malformed", f"{what}: {name} {text!r:.80} is not 1 to 255 printable letters")

    @cached_property
    def hash(self) -> bytes:
        """The 32 bytes that the owner signs."""
        return sha256(
            _OFFER
            + _short(self.id)
            + _short(self.owner)
            + u64(self.version)
            + _long(self.network)
            + _long(self.asset)
            + self.amount.to_bytes(32, "big")
            + _long(self.pay_to)
            + u64(self.expires)
        )


@dataclass(frozen=True)
class SignedOffer:
    """An offer and its owner's signature."""

    offer: Offer
    signature: bytes


def _short(text: str) -> bytes:
    raw = text.encode("ascii")
    return u8(len(raw)) + raw


def _long(text: str) -> bytes:
    raw = text.encode("ascii")
    return u16(len(raw)) + raw


def _check_names(what: str, dataset: str, owner: str) -> None:
    if type(dataset) is not str or not is_id(dataset):
        raise LogError("malformed", f"{what}: {dataset!r:.80} is no dataset id")
    if type(owner) is not str or not _OWNER.fullmatch(owner):
        upper = type(owner) is str and owner[:2].lower() == "0x" and _OWNER.fullmatch(owner.lower())
        raise LogError(
            "not_canonical" if upper else "malformed",
            f"{what}: {owner!r:.80} is no owner id: an SS58 address, or 0x and 40 lower-case hex digits",
        )


def _check_integers(what: str, **values: int) -> None:
    for name, value in values.items():
        if type(value) is not int or not 0 <= value <= MAX_INTEGER:
            raise LogError("malformed", f"{what}: {name} {value!r:.40} is not 0 to 2^53 - 1")


def _check_hashes(what: str, **values: bytes) -> None:
    for name, value in values.items():
        if type(value) is not bytes or len(value) != HASH_SIZE:
            raise LogError("malformed", f"{what}: {name} is not {HASH_SIZE} bytes")
