"""A signed hash chain: the one log that commitments, receipts and dataset versions are three kinds of.

A record has a sequence number, the hash of the record before it, and a hash of its own that covers both
and everything else it says; its author signs the hash. The rules:

1. seq starts at 1 and rises by 1; the first record's prev_hash is 32 zero bytes.
2. prev_hash is the hash of the record with the number before.
3. One author signs the whole chain, over the 32 bytes of each hash.
4. Two records with one seq and two hashes are an equivocation: proof, signed by the author, that it told two
   stories.

Anything may be a record that has the three fields; who signs, and how, is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from .encoding import ZERO_HASH
from .errors import ProofError

#: Signs a message with the caller's own key: message -> 64-byte signature.
Sign = Callable[[bytes], bytes]
#: Verifies (public key, message, signature); False, never an exception, for any wrong bytes.
Verify = Callable[[bytes, bytes, bytes], bool]


class Record(Protocol):
    """What a record must have to stand in a chain."""

    @property
    def seq(self) -> int:
        """Its number, from 1."""

    @property
    def prev_hash(self) -> bytes:
        """The hash of the record before, 32 bytes; zero in the first."""

    @property
    def hash(self) -> bytes:
        """The hash of everything that it says, 32 bytes."""


R = TypeVar("R", bound=Record)


class ChainLinkError(ProofError):
    """A record that does not follow from the one before it."""


class EquivocationError(ProofError):
    """Two different records by one author with one sequence number. Both are kept as evidence."""

    def __init__(self, first: Record, second: Record) -> None:
        super().__init__(f"two records with seq {first.seq}: {first.hash.hex()} and {second.hash.hex()}")
        self.first = first
        self.second = second


def check_signature(record: Record, author: bytes, signature: bytes, verify: Verify) -> None:
    """Check that `author` (a public key) signed the record.

    Raises:
        ProofError: it did not.
    """
    if not verify(author, record.hash, signature):
        raise ProofError(f"record {record.seq} ({record.hash.hex()}) is not signed by {author.hex()}")


def check_link(previous: Record | None, record: Record) -> None:
    """Check that `record` follows `previous` at once (or, with none, that it is the first).

    Raises:
        EquivocationError: it has the number of `previous` and another hash.
        ChainLinkError: its number or its prev_hash is not the next.
    """
    seq, prev_hash = (previous.seq, previous.hash) if previous else (0, ZERO_HASH)
    if previous and record.seq == previous.seq and record.hash != previous.hash:
        raise EquivocationError(previous, record)
    if record.seq != seq + 1:
        raise ChainLinkError(f"record has seq {record.seq} where {seq + 1} comes next")
    if record.prev_hash != prev_hash:
        raise ChainLinkError(f"record {record.seq} follows {record.prev_hash.hex()}, not {prev_hash.hex()}")


def check_chain(
    records: Iterable[tuple[R, bytes]], author: bytes, verify: Verify, *, after: Record | None = None
) -> R | None:
    """Check signatures and links of (record, signature) pairs; returns the last record, None of none.

    Args:
        after: the trusted record that the first must follow; None when the first must have seq 1.

    Raises:
        ProofError: the first fault found, named by its seq.
    """
    previous: Record | None = after
    last: R | None = None
    for record, signature in records:
        check_link(previous, record)
        check_signature(record, author, signature, verify)
        previous = last = record
    return last
