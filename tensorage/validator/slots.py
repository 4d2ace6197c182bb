"""Slots: the chunks that a miner says it gave to clients' shards, and what a validator makes of that. Pure.

Rules. A chunk that is not its filler must be named, with a ticket that somebody signed; else it was not
sealed. The ticket makes the chunk's root together with what is left of the filler (`tensorage.displaced`).
When a sector's root changes, the miner shows the chunk roots before and after and how each changed one came
about: where only slots changed, the sector has not been lost, and keeps its credit.

    filler -> shard   the sibling hashes lead from the first leaves before to the root before, and from the
                      shard's root to the root after
    shard -> shard    likewise, from the filler that is known to have stood there
    shard -> filler   the root after is that of the filler that is known to have stood there

What a miner says of a chunk whose root has not changed is not listened to: it cannot name a slot only when
that chunk is asked about, nor stop naming it when the ticket ends.

A ticket is good when it is for this miner and chain, is named once, ends at most `GRACE_SECONDS` ago and not
in more than `TERM_SECONDS`, and its signer is a validator within its share of the miner's chunks (by stake,
and a tenth more). One that was good stays good when its signer's stake or permit goes; but all that stands on
such past shares must fit into a tenth of the chunks, since stake moves from hotkey to hotkey, and each could
sign for a share of its own. A sector with a ticket that is not good has no credit. It is no fraud: a miner
may have been deceived.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..chain.types import Metagraph
from ..commitment import Entry, sector_root
from ..displaced import Sealed, compare
from ..encoding import HASH_SIZE
from ..errors import ProofError
from ..hashchain import Verify
from ..receipts import Verdict, line
from ..shard import chunk_root
from ..ticket import SignedTicket, Ticket
from .judge import Attempt

_DAY = 86_400
#: How long after its end a ticket may still be in a commitment: its trash (7 days), and time to commit again.
GRACE_SECONDS = 8 * _DAY
#: How far ahead the end of a ticket may be when it is first seen: what miners take, and a day.
TERM_SECONDS = 401 * _DAY
#: One part in so many of a share, or of all chunks, is tolerated above it.
SLACK = 10

#: Tickets with a wrong signature that are checked of one list.
MOST_FORGED = 64

#: Kind of the attempts in which a miner is refused credit over its tickets.
REFUSED_KIND = "slots"

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Slot:
    """A chunk that was given to a ticket.

    Attributes:
        sector, chunk: which.
        filler: the root that the chunk had before, None where that was not seen.
        accepted: whether the ticket was found good at some time.
        flaw: why the ticket is not good, empty when it is.
    """

    sector: int
    chunk: int
    signed: SignedTicket
    filler: bytes | None = None
    accepted: bool = False
    flaw: str = ""

    @property
    def place(self) -> Place:
        return self.sector, self.chunk

    @property
    def ticket(self) -> Ticket:
        return self.signed.ticket

    @property
    def good_until(self) -> int:
        """The last second, since 1970, at which it may be there."""
        return self.ticket.expires + GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class Facts:
    """What tickets are judged by.

    Attributes:
        miner: public key.
        chunks: in the sectors that it commits to.
        shares: share of the stake by the validator's public key; of those with a permit.
        now: seconds since 1970.
    """

    genesis: bytes
    netuid: int
    miner: bytes
    chunks: int
    shares: Mapping[bytes, float]
    now: int

    def allowed(self, validator: bytes) -> int:
        """How many slots a validator's tickets may take."""
        if validator not in self.shares:
            return 0
        quota = math.ceil(self.shares[validator] * self.chunks)
        return quota + quota // SLACK + 1

    @property
    def held_over(self) -> int:
        """How many slots may stand on shares that are gone, of all validators together."""
        return self.chunks // SLACK + 1


def shares(metagraph: Metagraph) -> dict[bytes, float]:
    """Each validator's share of the stake of all validators, by public key."""
    total = sum(neuron.total_stake for neuron in metagraph.validators)
    return {neuron.public_key: neuron.total_stake / total for neuron in metagraph.validators}


# What is named


def placed(claims: Iterable[Slot], entries: Sequence[Entry], chunks: int) -> list[Slot]:
    """The claims about chunks that there are in a listing, whose sectors have `chunks` chunks."""
    listed = {index for index, _ in entries}
    return [claim for claim in claims if claim.sector in listed and claim.chunk < chunks]


def sound(claims: Iterable[Slot], known: Iterable[Slot], facts: Facts, verify: Verify) -> list[Slot]:
    """The claims whose ticket is one: signed by its validator. The others name nothing.

    A ticket that cannot be good whoever signed it is left unchecked. After `MOST_FORGED` that were not
    signed, no more of the new ones are believed: whoever names these means to have us check signatures.

    Args:
        known: slots of which those that were accepted were checked before.
    """
    checked = {slot.signed for slot in known if slot.accepted}
    found, forged = [], 0
    for claim in claims:
        possible = claim.ticket.validator in facts.shares and not _flaw(claim, facts)
        if possible and claim.signed not in checked:
            if forged >= MOST_FORGED:
                continue
            try:
                claim.signed.check(verify)
            except ProofError:
                forged += 1
                continue
        found.append(claim)
    return found


def by_sector(slots: Iterable[Slot]) -> dict[int, dict[int, Slot]]:
    """Slots by sector, then by chunk."""
    found: dict[int, dict[int, Slot]] = {}
    for slot in slots:
        found.setdefault(slot.sector, {})[slot.chunk] = slot
    return found


# What changed


@dataclass(frozen=True, slots=True)
class Change:
    """How a chunk got a shard: the root that its first leaves had, as many as the shard has, and siblings."""

    node: bytes
    siblings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """A sector under two commitments, by the miner's word.

    Attributes:
        before, after: chunk roots.
        changed: how chunks got a shard, by number.
    """

    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    changed: Mapping[int, Change]


def check_transition(
    transition: Transition,
    before: bytes,
    after: bytes,
    known: Mapping[int, Slot],
    claimed: Mapping[int, Slot],
) -> dict[int, Slot]:
    """Check that nothing but slots changed in a sector; returns its slots afterwards, by chunk.

    Args:
        before, after: the sector's committed roots.
        known: its slots before.
        claimed: what the miner names now.

    Raises:
        ProofError: something else changed, or may have.
    """
    for roots, root in ((transition.before, before), (transition.after, after)):
        if sector_root(roots) != root:
            raise ProofError("the chunk roots do not lead to the committed sector root")
    if len(transition.before) != len(transition.after):
        raise ProofError("the sector has another number of chunks than before")
    slots = {}
    for number, (was, becomes) in enumerate(zip(transition.before, transition.after, strict=True)):
        old = known.get(number)
        new = old if was == becomes else _changed(number, was, becomes, old, claimed, transition.changed)
        if new is not None:
            slots[number] = new
    return slots


def _changed(
    number: int,
    was: bytes,
    becomes: bytes,
    old: Slot | None,
    claimed: Mapping[int, Slot],
    changed: Mapping[int, Change],
) -> Slot | None:
    """The slot of a chunk whose root changed, None when its filler is back."""
    filler = was if old is None else old.filler
    new = claimed.get(number)
    if new is None:
        if filler is None or becomes != filler or old is None:
            raise ProofError(
                f"chunk {number} changed, and is neither a named slot nor the filler that it was"
            )
        return None
    change = changed.get(number)
    if change is None:
        raise ProofError(f"chunk {number} changed, and it is not shown how")
    leaves = new.ticket.leaves
    base = chunk_root(change.node, leaves, change.siblings)
    # Over a shard of no more leaves, what stands beside the new one is filler too.
    over = old is not None and old.ticket.leaves <= leaves and base == was
    if base != filler and not over:
        raise ProofError(f"chunk {number}: what is shown of it is not what stood there")
    if chunk_root(new.ticket.shard_root, leaves, change.siblings) != becomes:
        raise ProofError(f"chunk {number} changed in more than the leaves of its ticket")
    return replace(new, filler=filler)


def merged(
    known: Iterable[Slot],
    claims: Iterable[Slot],
    before: Mapping[int, bytes],
    entries: Sequence[Entry],
    checked: Mapping[int, Mapping[int, Slot]],
) -> list[Slot]:
    """The slots of a new commitment, in ascending order.

    Args:
        known: those of the commitment before, whose listing was `before`.
        claims: what the miner names now.
        checked: slots of the sectors whose transition was checked.
    """
    old, new = by_sector(known), by_sector(claims)
    accepted = {slot.ticket.hash for slots in old.values() for slot in slots.values() if slot.accepted}
    found: list[Slot] = []
    for sector, root in entries:
        if before.get(sector) == root:
            slots: Mapping[int, Slot] = old.get(sector, {})
        elif sector in checked:
            slots = checked[sector]
        else:
            there = old.get(sector, {})
            slots = {
                chunk: replace(slot, filler=there[chunk].filler) if chunk in there else slot
                for chunk, slot in new.get(sector, {}).items()
            }
        found += (
            replace(slots[chunk], accepted=slots[chunk].ticket.hash in accepted) for chunk in sorted(slots)
        )
    return found


# Whether it is good


def judged(slots: Collection[Slot], facts: Facts) -> list[Slot]:
    """The slots with the flaws of their tickets, in the order of their places."""
    tickets: set[bytes] = set()
    serials: set[tuple[bytes, int]] = set()
    used: Counter[bytes] = Counter()
    held_over = 0
    found = []
    for slot in sorted(slots, key=lambda slot: (not slot.accepted, slot.place)):
        ticket = slot.ticket
        serial = (ticket.validator, ticket.serial)
        flaw = _flaw(slot, facts)
        if not flaw and (ticket.hash in tickets or serial in serials):
            flaw = f"ticket {ticket.serial} takes more than one slot"
        if not flaw:
            if used[ticket.validator] < facts.allowed(ticket.validator):
                used[ticket.validator] += 1
            elif slot.accepted and held_over < facts.held_over:
                held_over += 1
            else:
                flaw = _over(ticket, facts)
        tickets.add(ticket.hash)
        serials.add(serial)
        found.append(replace(slot, flaw=flaw, accepted=slot.accepted or not flaw))
    return sorted(found, key=lambda slot: slot.place)


def _flaw(slot: Slot, facts: Facts) -> str:
    """What is wrong with a ticket for itself."""
    ticket = slot.ticket
    if (ticket.genesis, ticket.netuid) != (facts.genesis, facts.netuid):
        return f"ticket {ticket.serial} is of another chain or subnet"
    if ticket.miner != facts.miner:
        return f"ticket {ticket.serial} is for another miner"
    if facts.now > slot.good_until:
        return f"ticket {ticket.serial} has ended {(facts.now - ticket.expires) // _DAY} days ago"
    if ticket.expires > facts.now + TERM_SECONDS and not slot.accepted:
        return f"ticket {ticket.serial} ends in more than {TERM_SECONDS // _DAY} days"
    return ""


def _over(ticket: Ticket, facts: Facts) -> str:
    signer = ticket.validator.hex()
    if ticket.validator not in facts.shares:
        return f"ticket {ticket.serial} is signed by {signer}, which has no validator permit"
    return f"ticket {ticket.serial} is over the share of {signer}: {facts.allowed(ticket.validator)} chunks"


def barred(slots: Iterable[Slot]) -> dict[int, str]:
    """The sectors without credit, and why: the first flaw in each."""
    found: dict[int, str] = {}
    for slot in slots:
        if slot.flaw:
            found.setdefault(slot.sector, f"chunk {slot.chunk} of sector {slot.sector}: {slot.flaw}")
    return found


# Audits


def audited(sector: int, roots: Sequence[bytes], sealed: Sealed, slots: Mapping[int, Slot]) -> Attempt:
    """What an audit comes to: chunk roots that lead to the committed root, against a seal of our own.

    Args:
        slots: of the sector, by chunk; their nodes must be in `sealed`.
    """
    evidence = b"".join(roots)
    found = compare(roots, sealed, {chunk: slot.ticket for chunk, slot in slots.items()})
    if found.false:
        reason = (
            f"{len(found.false)} of {len(roots)} chunks of sector {sector} are not the sealed ones, "
            f"the first is chunk {found.false[0]}"
        )
        if found.false[0] in slots:
            reason += f", nor what ticket {slots[found.false[0]].ticket.serial} makes of it"
        return Attempt(Verdict.WRONG, "seal", line(reason), evidence=evidence)
    reason = f"sector {sector} was sealed again: all {len(roots)} chunks agree"
    if not found.held:
        return Attempt(Verdict.PASSED, "", reason, evidence=evidence)
    why = barred(slots[chunk] for chunk in found.held).get(sector)
    if why is not None:
        return Attempt(Verdict.REFUSED, REFUSED_KIND, line(f"no credit: {why}"), evidence=evidence)
    reason += f", {len(found.held)} of them with the shards of their tickets"
    return Attempt(Verdict.PASSED, "", line(reason), evidence=evidence)


def fillers(slots: Mapping[int, Slot], sealed: Sealed) -> list[Slot]:
    """The slots of a sector with the filler that an audit has sealed."""
    return [replace(slot, filler=sealed.roots[chunk]) for chunk, slot in slots.items()]


def split(roots: bytes) -> tuple[bytes, ...]:
    """Roots that stand one behind the other."""
    return tuple(roots[at : at + HASH_SIZE] for at in range(0, len(roots), HASH_SIZE))
