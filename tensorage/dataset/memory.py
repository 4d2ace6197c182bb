"""What a buyer remembers of a log, and what it therefore refuses.

A log that was cut is a log that holds. What gives the cut away is something that the seller does not
control: what the buyer saw before, the time, or the chain (`anchor`). The rules, for a log that holds:

1. It has the remembered version, with the remembered hash (`lower_seq`, `other_hash`).
2. The key that signed last time is still among its keys: a rotation does not come undone (`retired_owner`).
3. A statement about its newest version comes with it (`unsigned_head`, `head_mismatch`), signed by the
   newest key and not by one that was rotated away (`retired_owner`, `bad_signature`), issued in the past
   and not over (`not_yet`, `expired`), and for no longer than a day (`too_long`).

Only what passed is remembered. Who rotates its key to undo versions that a thief signed must publish under
another id: to a buyer who has them, an undone version is a contradiction, whoever asks for it.

Look a memory up by dataset id and any key of the log (`Log.keys`), not by the first alone: a new key may
try to start a history of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from .entry import HEAD_SECONDS, Signed, SignedHead, check_form
from .errors import HeadError, LogError
from .log import Log, Verify

#: Seconds by which an owner's clock may be ahead of ours.
SKEW = 300


@dataclass(frozen=True)
class Remembered:
    """The newest version of a dataset that was verified; `seen` is when, in unix seconds.

    `root_owner` is the owner's first key, `owner` the one that was the newest.
    """

    root_owner: str
    id: str
    owner: str
    seq: int
    entry_hash: bytes
    seen: int


class OtherHashError(HeadError):
    """The log contradicts what was seen before: together they prove that its owner told two stories."""

    def __init__(self, remembered: Remembered, shown: Signed) -> None:
        super().__init__(
            "other_hash",
            f"version {shown.entry.seq} of {shown.entry.id} was {remembered.entry_hash.hex()}, now is "
            f"{shown.entry.hash.hex()}",
            remedy="Its owner has signed two histories; keep both and ask the owner",
        )
        self.remembered = remembered
        self.shown = shown


def check_memory(remembered: Remembered | None, log: Log) -> None:
    """Rules 1 and 2, for a log that holds.

    Raises:
        HeadError: lower_seq, other_hash (an OtherHashError), retired_owner.
        ValueError: the memory is of another dataset.
    """
    if remembered is None:
        return
    if remembered.id != log.id:
        raise ValueError(f"what is remembered of {remembered.id} is no help with {log.id}")
    if len(log.entries) < remembered.seq:
        raise HeadError(
            "lower_seq",
            f"the log of {log.id} ends at version {len(log.entries)}, but {remembered.seq} was seen before",
            remedy="Versions were cut off it; ask another source for the whole log",
        )
    shown = log.at(remembered.seq)
    if shown.entry.hash != remembered.entry_hash:
        raise OtherHashError(remembered, shown)
    if remembered.owner not in log.keys:
        raise HeadError(
            "retired_owner",
            f"the log of {log.id} does not know {remembered.owner}, to which its key was rotated before",
            remedy="The rotation was cut off it; ask another source for the whole log",
        )


def check_head(
    remembered: Remembered | None, log: Log, signed_head: SignedHead | None, now: int, *, verify: Verify
) -> Remembered:
    """All rules, for a log that holds; returns what to remember from now on.

    Args:
        now: unix seconds.
        verify: `identity.verify`.

    Raises:
        HeadError: with the reason.
        ValueError: the memory is of another dataset.
    """
    check_memory(remembered, log)
    if signed_head is None:
        raise HeadError(
            "unsigned_head", f"no statement of the owner's says which version of {log.id} is newest"
        )
    check_statement(log, signed_head, now, verify=verify)
    return remember(log, now)


def check_statement(log: Log, signed_head: SignedHead, now: int, *, verify: Verify) -> None:
    """Rule 3, for a log that holds.

    Raises:
        HeadError: with the reason.
    """
    head = signed_head.head
    if head.id != log.id:
        raise HeadError("head_mismatch", f"the head statement is about {head.id}, not about {log.id}")
    if head.owner in log.keys[:-1]:
        raise HeadError("retired_owner", f"the head statement is by {head.owner}, which was rotated away")
    if head.owner != log.owner:
        raise HeadError(
            "head_mismatch", f"the head statement is by {head.owner}, the log's owner is {log.owner}"
        )
    try:
        check_form(head.owner, signed_head.signature, "the head statement")
    except LogError as error:
        raise HeadError("bad_signature", error.message) from error
    if not verify(head.owner, head.hash, signed_head.signature):
        raise HeadError("bad_signature", f"the head statement is not signed by {head.owner}")
    if head.issued > now + SKEW:
        raise HeadError(
            "not_yet",
            f"the head statement is issued at {head.issued}, {head.issued - now} seconds from now",
            remedy="Compare this machine's clock with the right time",
        )
    if head.expires <= now:
        raise HeadError(
            "expired",
            f"the head statement expired at {head.expires}, {now - head.expires} seconds ago",
            remedy="The seller must show a newer one; it may be hiding newer versions",
        )
    if head.expires - head.issued > HEAD_SECONDS:
        raise HeadError("too_long", f"the head statement is good for more than {HEAD_SECONDS} seconds")
    if (head.seq, head.entry_hash) != (log.head.seq, log.head.hash):
        raise HeadError(
            "head_mismatch",
            f"the owner says that version {head.seq} ({head.entry_hash.hex()}) of {log.id} is the newest, "
            f"the log ends at version {log.head.seq} ({log.head.hash.hex()})",
        )


def remember(log: Log, now: int) -> Remembered:
    """What to remember of a log that passed."""
    return Remembered(log.root_owner, log.id, log.owner, log.head.seq, log.head.hash, now)
