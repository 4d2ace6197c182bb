"""Version logs for tests: signed for real, by keys that everybody knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from tensorage.chain.wallet import Hotkey
from tensorage.dataset.entry import (
    HEAD_SECONDS,
    SECP256K1_ORDER,
    Entry,
    Head,
    Rotation,
    Signed,
    SignedHead,
    SignedRotation,
)
from tensorage.dataset.identity import EthSigner, HotkeySigner, Signer
from tensorage.dataset.log import Log
from tensorage.encoding import ZERO_HASH

NOW = 1_760_000_000
ALICE, BOB, CHARLIE, EVE = (
    HotkeySigner(Hotkey.from_uri(f"//{name}")) for name in ("Alice", "Bob", "Charlie", "Eve")
)
DORA, FRANK = (EthSigner(sha256(name).digest()) for name in (b"dora", b"frank"))


def filled(text: str) -> bytes:
    """32 bytes that stand for `text`."""
    return sha256(text.encode()).digest()


def sign(entry: Entry, signer: Signer) -> Signed:
    return Signed(entry, signer.sign(entry.hash))


def next_entry(log: Log, signer: Signer, *, size: int = 100) -> Signed:
    """A next version of a log, possibly empty, by `signer`."""
    seq = len(log.entries) + 1
    prev = log.head.hash if log.entries else ZERO_HASH
    name = f"{log.id} {seq} {size}"
    files = [filled(f"{kind} {name}") for kind in ("manifest", "file", "chunks")]
    entry = Entry(log.id, signer.owner, seq, prev, files[0], files[1], size, files[2], NOW + seq)
    return sign(entry, signer)


def append(log: Log, signer: Signer, *, size: int = 100) -> Log:
    return Log(log.id, (*log.entries, next_entry(log, signer, size=size)), log.rotations)


def sign_rotation(rotation: Rotation, old: Signer, new: Signer) -> SignedRotation:
    return SignedRotation(rotation, old.sign(rotation.hash), new.sign(rotation.hash))


def rotate(log: Log, old: Signer, new: Signer) -> Log:
    """The log with its key rotated after its newest version."""
    rotation = Rotation(log.id, old.owner, new.owner, log.head.seq, log.head.hash, NOW + log.head.seq)
    return Log(log.id, log.entries, (*log.rotations, sign_rotation(rotation, old, new)))


def make_log(turns: Sequence[tuple[Signer, int]] = ((ALICE, 3),), *, id: str = "sft-demo") -> Log:
    """A log that holds: for each turn, so many versions by the signer, and a rotation to the next."""
    log = Log(id, ())
    before: Signer | None = None
    for signer, count in turns:
        if before:
            log = rotate(log, before, signer)
        for _ in range(count):
            log = append(log, signer)
        before = signer
    return log


def cut(log: Log, seq: int) -> Log:
    """The log as it was when `seq` was its newest version."""
    rotations = tuple(signed for signed in log.rotations if signed.rotation.after < seq)
    return Log(log.id, log.entries[:seq], rotations)


def sign_head(log: Log, signer: Signer, *, issued: int = NOW, life: int = HEAD_SECONDS) -> SignedHead:
    head = Head(log.id, signer.owner, log.head.seq, log.head.hash, issued, issued + life)
    return SignedHead(head, signer.sign(head.hash))


def high_s(signature: bytes) -> bytes:
    """The second signature that anybody can make of a secp256k1 signature."""
    s = SECP256K1_ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([signature[64] ^ 1])


def with_entry(log: Log, index: int, signed: Signed) -> Log:
    """The log with another version in the place `index`."""
    return replace(log, entries=(*log.entries[:index], signed, *log.entries[index + 1 :]))
