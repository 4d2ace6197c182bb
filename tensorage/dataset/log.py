"""The version log of a dataset, and when it holds.

Rules, for every version in turn:

1. It is a well-formed entry of this dataset (`wrong_id`).
2. Its number is one more than the last (`non_monotonic`), its prev_hash the hash of the last (`chain_break`).
3. Its owner is the key whose turn it is (`mixed_signers`): one key, or the next one after a rotation.
4. The signature has its one form (`not_canonical`) and is that key's (`bad_signature`).

Rotations form a chain from the first key to the newest. Each is signed by the old and the new key, names
the entry after which the new key begins, and leads to a key that was not there before (`bad_rotation`). Two
rotations away from one key are an `equivocation`.

A log that holds proves what its first key said, and no more: pin an owner, or anybody's log holds. That
versions were cut off its end is not to be seen here; see `memory` and `anchor`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from .. import hashchain
from ..errors import ProofError
from .entry import Entry, Signed, SignedRotation, check_form
from .errors import LogError

__all__ = [
    "MAX_ENTRIES",
    "MAX_ROTATIONS",
    "Log",
    "LogError",
    "Verified",
    "Verify",
    "equivocation",
    "verify_log",
]

#: Whether `signature` is the owner's of a 32-byte digest: (owner, digest, signature); never raises.
Verify = Callable[[str, bytes, bytes], bool]

MAX_ENTRIES = 100_000
MAX_ROTATIONS = 1_000


@dataclass(frozen=True)
class Log:
    """The versions of one dataset, oldest first, and rotations of its owner's key. Not verified by itself."""

    id: str
    entries: tuple[Signed, ...]
    rotations: tuple[SignedRotation, ...] = ()
    version: ClassVar[Literal[2]] = 2

    @property
    def head(self) -> Entry:
        """The newest version.

        Raises:
            LogError: empty.
        """
        if not self.entries:
            raise _empty(self.id)
        return self.entries[-1].entry

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The owner's keys, first to newest; LogError "empty" when there is no version."""
        if self.rotations:
            return (self.rotations[0].rotation.old, *(signed.rotation.new for signed in self.rotations))
        if not self.entries:
            raise _empty(self.id)
        return (self.entries[0].entry.owner,)

    @property
    def root_owner(self) -> str:
        """The first key: the name of the owner that no rotation changes."""
        return self.keys[0]

    @property
    def owner(self) -> str:
        """The key that signs today."""
        return self.keys[-1]

    def at(self, seq: int) -> Signed:
        """Version `seq` of a log that holds.

        Raises:
            LogError: non_monotonic; there is no such version.
        """
        if not 1 <= seq <= len(self.entries):
            raise LogError(
                "non_monotonic", f"{self.id} has no version {seq}; its newest is {len(self.entries)}"
            )
        return self.entries[seq - 1]


@dataclass(frozen=True)
class Verified:
    """What a log that holds proves.

    Attributes:
        owner: the key that signs today; `root_owner` the first.
        keys: all of them, first to newest.
        seq, entry_hash: of the newest version shown; for a log of version 1 the digest of its head.
        pinned: whether the owner was known before. If not, all this is only what the log says of itself.
    """

    id: str
    owner: str
    root_owner: str
    keys: tuple[str, ...]
    seq: int
    entry_hash: bytes
    pinned: bool
    version: Literal[1, 2]


def verify_log(log: Log, *, owner: str | None, verify: Verify, id: str | None = None) -> Verified:
    """Check a whole log.

    Args:
        owner: the pin: any key of the rotation chain, the first, the newest or one between. None trusts the
            log's own word for who owns it; the result then says `pinned=False` and the caller must warn.
        verify: `identity.verify`.
        id: the dataset that was asked for; None takes any.

    Raises:
        LogError: the first fault found.
    """
    if not log.entries:
        raise _empty(log.id)
    if id is not None and log.id != id:
        raise LogError("wrong_id", f"this is the log of {log.id[:80]!r}, not of {id!r}")
    if len(log.entries) > MAX_ENTRIES or len(log.rotations) > MAX_ROTATIONS:
        raise LogError(
            "too_large",
            f"{len(log.entries)} versions and {len(log.rotations)} rotations; at most {MAX_ENTRIES} and "
            f"{MAX_ROTATIONS} are read",
        )
    _check_rotations(log)
    if owner is not None and owner not in log.keys:
        raise LogError(
            "wrong_owner",
            f"the log of {log.id} is signed by {log.owner}, want owner {owner[:80]}",
            remedy="Ask the owner for its id by a way that you trust",
        )
    for signed in log.rotations:
        _check_rotation_signatures(signed, verify)
    keys = _key_turns(log)
    rotations = deque(signed.rotation for signed in log.rotations)
    previous: Entry | None = None
    for signed_entry, key in zip(log.entries, keys, strict=False):
        _check_entry(log.id, previous, signed_entry, key, verify)
        previous = signed_entry.entry
        while rotations and rotations[0].after == previous.seq:
            rotation = rotations.popleft()
            if rotation.entry_hash != previous.hash:
                raise LogError(
                    "bad_rotation", f"the rotation to {rotation.new} follows another version {rotation.after}"
                )
    head = log.head
    return Verified(log.id, log.owner, log.root_owner, log.keys, head.seq, head.hash, owner is not None, 2)


def _empty(id: str) -> LogError:
    return LogError("empty", f"the log of {id[:80]!r} has no versions")


def _check_entry(id: str, previous: Entry | None, signed: Signed, key: str, verify: Verify) -> None:
    entry = signed.entry
    what = f"version {entry.seq}"
    if entry.id != id:
        raise LogError("wrong_id", f"{what} is of dataset {entry.id}, not of {id}", seq=entry.seq)
    try:
        hashchain.check_link(previous, entry)
    except hashchain.EquivocationError as error:
        raise LogError("equivocation", str(error), seq=entry.seq) from error
    except ProofError as error:
        expected = previous.seq + 1 if previous else 1
        reason = "chain_break" if entry.seq == expected else "non_monotonic"
        raise LogError(reason, str(error), seq=entry.seq) from error
    if entry.owner != key:
        raise LogError("mixed_signers", f"{what} is by {entry.owner}, not by {key}", seq=entry.seq)
    check_form(key, signed.signature, what, seq=entry.seq)
    if not verify(key, entry.hash, signed.signature):
        raise LogError("bad_signature", f"{what} is not signed by {key}", seq=entry.seq)


def _key_turns(log: Log) -> Iterator[str]:
    """The key that must have signed each version, without end."""
    seq = 0
    for signed in log.rotations:
        while seq < signed.rotation.after:
            seq += 1
            yield signed.rotation.old
    while True:
        yield log.owner


def _check_rotations(log: Log) -> None:
    """That rotations lead from key to key, forwards, to keys that are new. Not their signatures."""
    seen: dict[str, SignedRotation] = {}
    key, after = log.keys[0], 1
    known = {key}
    for signed in log.rotations:
        rotation = signed.rotation
        what = f"the rotation from {rotation.old} to {rotation.new}"
        if rotation.id != log.id:
            raise LogError("wrong_id", f"{what} is of dataset {rotation.id}, not of {log.id}")
        if rotation.old in seen and seen[rotation.old].rotation.hash != rotation.hash:
            raise LogError("equivocation", f"{rotation.old} is rotated away twice, to two ends")
        if rotation.old != key:
            raise LogError("bad_rotation", f"{what} stands where {key} is the owner")
        if rotation.new in known:
            raise LogError("bad_rotation", f"{what} leads back: a key that was rotated away does not return")
        if not after <= rotation.after <= len(log.entries):
            raise LogError(
                "bad_rotation",
                f"{what} is after version {rotation.after}, not after {after} to {len(log.entries)}",
            )
        seen[rotation.old] = signed
        key, after = rotation.new, rotation.after
        known.add(key)


def _check_rotation_signatures(signed: SignedRotation, verify: Verify) -> None:
    rotation = signed.rotation
    for key, signature in ((rotation.old, signed.signature), (rotation.new, signed.new_signature)):
        check_form(key, signature, f"the rotation from {rotation.old} to {rotation.new}")
        if not verify(key, rotation.hash, signature):
            raise LogError(
                "bad_rotation", f"the rotation from {rotation.old} to {rotation.new} is not signed by {key}"
            )


def equivocation(
    one: Log, other: Log
) -> tuple[Signed, Signed] | tuple[SignedRotation, SignedRotation] | None:
    """The first two statements with which two logs that hold contradict each other; None when they do not.

    Two signed versions with one number, or two rotations away from one key: whoever has both can prove to
    anybody that the owner (or whoever has its key) told two stories.
    """
    for first, second in zip(one.entries, other.entries, strict=False):
        if first.entry.hash != second.entry.hash:
            return first, second
    by_key = {signed.rotation.old: signed for signed in one.rotations}
    for rotated in other.rotations:
        mine = by_key.get(rotated.rotation.old)
        if mine and mine.rotation.hash != rotated.rotation.hash:
            return mine, rotated
    return None
