"""Whether a log is to be believed: who signed it, whether it is the newest, whether it was another before.

Rules. The owner is the one that `--owner` names, or the one that was trusted for this address before; at an
address that was never used, it is whoever signed the log, and that is said loudly. Then memory, the head
statement and, where asked for, the chain are heard (`memory`, `anchor`). Only what passed all is remembered.
What contradicts the memory is kept, with what it contradicts, as evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...chain.client import Chain
from ...chain.network import ChainSettings
from ...errors import StorageError, UsageError
from .. import identity, verifying, wire
from ..anchor import AnchorProof, check_anchor, root_in
from ..entry import SignedHead
from ..errors import HeadError
from ..legacy import LegacyLog, LegacyRecord
from ..log import Log, Verified
from ..memory import OtherHashError, Remembered, check_memory, check_statement
from .book import Book, Memory
from .urls import Place

Tell = Callable[[str], None]
_TRIES = 5


@dataclass(frozen=True)
class Trusted:
    """A log that was verified. `head` is the statement that came with it.

    Attributes:
        anchored: the version that the chain vouches for; None where the chain was not asked.
    """

    log: Log | LegacyLog
    head: SignedHead | None
    verified: Verified
    anchored: int | None = None

    @property
    def says(self) -> str:
        """What `verify` prints."""
        found = self.verified
        return f"Chain valid: {found.seq} version(s), head v{found.seq}, owner {found.owner}"


@dataclass(frozen=True)
class OnChain:
    """What the chain and the seller say of an anchor."""

    roots: dict[str, bytes]
    proof: AnchorProof | None

    def check(self, log: Log | LegacyLog) -> int:
        """The version that the chain vouches for.

        Raises:
            HeadError: none, or another than the log's.
        """
        if isinstance(log, LegacyLog):
            raise HeadError("not_anchored", "a log of format 1 is anchored nowhere")
        return check_anchor(log, self.proof, self.roots.get(log.owner))


async def roots_on_chain(settings: ChainSettings) -> dict[str, bytes]:
    """What owners have anchored on a subnet, by hotkey.

    Raises:
        UsageError, ChainError: the chain cannot be asked.
    """
    async with Chain(settings) as chain:
        found = await chain.commitments()
    roots = {hotkey: root_in(data.decode("latin-1")) for hotkey, data in found.items()}
    return {hotkey: root for hotkey, root in roots.items() if root is not None}


def check_pin(owner: str | None) -> str | None:
    """An owner id as --owner gives it, in its one spelling.

    Raises:
        UsageError: it is none.
    """
    if owner is None:
        return None
    text = owner.strip()
    text = text.lower() if text[:2].lower() == "0x" else text
    try:
        identity.kind_of(text)
    except ValueError as error:
        raise UsageError(
            f"--owner {owner[:80]!a} names no owner: {error}",
            remedy="Give an SS58 address, or 0x and 40 hex digits",
        ) from error
    return text


def judge(
    book: Book,
    raw: bytes,
    *,
    now: int,
    tell: Tell,
    id: str | None,
    owner: str | None,
    place: Place | None = None,
    fresh: bool = True,
    chain: OnChain | None = None,
) -> Trusted:
    """Check a log document by all rules, and remember it.

    Args:
        now: unix seconds.
        tell: hears, a line each, what the user must know.
        id: the dataset that was asked for; None takes any.
        owner: the user's pin.
        place: where it came from; None for a file.
        fresh: whether a head statement must come with it.

    Raises:
        LogError, HeadError: the first fault found.
    """
    log, head = wire.read_any_log(raw)
    pin = owner
    if pin is None and place is not None:
        pin = book.owner_at(place.base, place.id)
    verified = verifying.verify(log, owner=pin, id=id)
    if not verified.pinned:
        _warn(book, verified, place, tell)
    name = id or verified.id
    if isinstance(log, Log) and fresh:
        if head is None:
            raise HeadError(
                "unsigned_head", f"no statement of the owner's says which version of {name} is the newest"
            )
        check_statement(log, head, now, verify=identity.verify)
    anchored = chain.check(log) if chain is not None else None
    for _ in range(_TRIES):
        _recall(book, log, verified, name, pin, now)
        if not name or book.remember(_memory(log, verified, name, now), verified.keys):
            break
    else:
        raise StorageError(f"{book.path} changes all the time", remedy="Run the command again")
    if place is not None:
        book.trust(place.base, place.id, verified.root_owner, now)
    return Trusted(log, head, verified, anchored)


def _warn(book: Book, verified: Verified, place: Place | None, tell: Tell) -> None:
    where = f" at {place.base}" if place is not None else ""
    tell(
        f"WARNING: no owner is pinned{where}: trusting {verified.owner} on first use. Anybody can sign a log "
        f"with a key of their own. Compare this owner with what its owner says elsewhere, and pin it: "
        f"--owner {verified.owner}"
    )
    for known in book.owners_of(place.id if place is not None else verified.id):
        if known not in verified.keys:
            tell(f"WARNING: you know a dataset of that name by another owner, {known}")
    if verified.version == 1:
        tell("WARNING: this log has format 1, in which an owner that is not pinned proves nothing at all")


def _recall(book: Book, log: Log | LegacyLog, verified: Verified, id: str, pin: str | None, now: int) -> None:
    """Hold a log against everything that is remembered of that dataset under any of its keys."""
    keys = {*verified.keys, *([pin] if pin is not None else [])}
    for memory in book.memories(id, keys):
        try:
            if isinstance(log, Log):
                check_memory(memory.remembered, log)
            else:
                _check_legacy(memory.remembered, log)
        except OtherHashError as error:
            book.accuse(id, memory.statement, wire.entry_json(error.shown), now)
            raise
        except HeadError as error:
            if error.reason == "other_hash" and isinstance(log, LegacyLog):
                shown = log.records[memory.remembered.seq - 1]
                book.accuse(id, memory.statement, record_json(shown), now)
            raise


def _check_legacy(remembered: Remembered, log: LegacyLog) -> None:
    if len(log.records) < remembered.seq:
        raise HeadError(
            "lower_seq",
            f"the log of {remembered.id} ends at version {len(log.records)}, but {remembered.seq} was seen "
            "before",
            remedy="Versions were cut off it; ask another source for the whole log",
        )
    shown = log.records[remembered.seq - 1].digest
    if shown != remembered.entry_hash:
        raise HeadError(
            "other_hash",
            f"version {remembered.seq} of {remembered.id} was {remembered.entry_hash.hex()}, now is "
            f"{shown.hex()}",
            remedy="Its owner has signed two histories; keep both and ask the owner",
        )


def _memory(log: Log | LegacyLog, verified: Verified, id: str, now: int) -> Memory:
    statement = wire.entry_json(log.entries[-1]) if isinstance(log, Log) else record_json(log.records[-1])
    return Memory(
        Remembered(verified.root_owner, id, verified.owner, verified.seq, verified.entry_hash, now), statement
    )


def record_json(record: LegacyRecord) -> dict[str, object]:
    """A record of format 1 as it stands in its log."""
    return {
        "seq": record.seq,
        "manifestHash": record.manifest_hash,
        "fileHash": record.file_hash,
        "size": record.size,
        "prevSig": record.prev_sig,
        "timestamp": record.timestamp,
        "signature": record.signature,
    }
