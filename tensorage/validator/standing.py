"""What a validator knows of one miner, and how commitments, audits and verdicts change it. Pure.

Rules. A miner is its hotkey; registered anew, it starts from zero. A new commitment is taken at most once a
tempo, after its whole listing was checked. Sectors in it that were credited before, with the same root, stay
credited, and so do those in which nothing but clients' shards changed places with filler; the others wait
until a sector drawn among them has passed a seal audit; those that are gone lose their credit at once. So do
those with a shard whose ticket is not good (`slots`): they are barred, and nothing is drawn among them. A
sector that was drawn stays drawn until its chunk roots have come: as long as they do not, there is no credit
at all, and a miner that gives up a drawn sector is audited like one that was caught.

What is kept for judging answers is the commitment, 200 bytes. What is kept for knowing which sectors are new
is the listing, 40 bytes a sector.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .. import seal
from ..commitment import Commitment, Entry, SignedCommitment, check_successor
from ..encoding import sha256, tag, u32
from ..hashchain import ChainLinkError, EquivocationError
from ..receipts import Verdict
from . import scoring
from .judge import Judgement
from .scoring import Standing


@dataclass(frozen=True, slots=True)
class Draw:
    """A sector drawn for a seal audit, and the block and round that it was drawn with."""

    sector: int
    block_number: int
    block_hash: bytes
    round: int


@dataclass(frozen=True, slots=True)
class Miner:
    """One miner, as a validator knows it.

    Attributes:
        hotkey: SS58; `public_key` are its 32 bytes.
        registered_at: the height of its registration.
        commitment: the newest that was taken, None before the first.
        seen_block: the height of the chain when it was taken.
        previous: the one before, while it is part of the newest and so still answered for.
        previous_seen: `seen_block` of that one.
        listing: the entries of `commitment`.
        credited: indices of the entries that an audit covers.
        barred: indices of the entries that have no credit because of a ticket.
        draw: the audit that is owed, None when none is.
        audits_due: audits that must pass before anything new is credited.
        last_audit: the round of the last audit that passed, -1 for never.
        verdict, reason: of the newest receipt, None before the first.
        failing: whether the last verdict that counted was no pass.
        counts: receipts by verdict.
    """

    hotkey: str
    public_key: bytes
    uid: int
    registered_at: int
    standing: Standing = field(default_factory=Standing)
    commitment: SignedCommitment | None = None
    seen_block: int = 0
    previous: SignedCommitment | None = None
    previous_seen: int = 0
    listing: tuple[Entry, ...] = field(default=(), repr=False)
    credited: frozenset[int] = field(default=frozenset(), repr=False)
    barred: frozenset[int] = field(default=frozenset(), repr=False)
    draw: Draw | None = None
    audits_due: int = 1
    last_audit: int = -1
    verdict: Verdict | None = None
    reason: str = ""
    failing: bool = False
    counts: Mapping[Verdict, int] = field(default_factory=dict)

    @property
    def committed_bytes(self) -> int:
        return self.commitment.commitment.size if self.commitment else 0

    @property
    def pending(self) -> list[int]:
        """Indices of the entries that wait for an audit, ascending."""
        return [index for index, _ in self.listing if index not in self.credited and index not in self.barred]

    @property
    def candidates(self) -> list[int]:
        """Indices of the entries that an audit is drawn among: what waits for one, else what has credit."""
        return self.pending or [index for index, _ in self.listing if index in self.credited]

    def root_of(self, sector: int) -> bytes | None:
        """The committed root of a sector, None when it is not in the listing."""
        return dict(self.listing).get(sector)

    def covers(self, commitment_hash: bytes) -> bool:
        """Whether it is the commitment known already."""
        return self.commitment is not None and self.commitment.commitment.hash == commitment_hash


class News(enum.Enum):
    """What a commitment that a miner shows is to us."""

    KNOWN = "known"
    NEXT = "next"
    SKIPPED = "skipped"  # those between are asked for first
    EARLY = "early"  # another one within a tempo
    FUTURE = "future"  # of a block that we do not know yet
    STALE = "stale"  # older than the one we know


def news(miner: Miner, shown: Commitment, head: int, tempo: int) -> News:
    """What to make of a commitment with a good signature.

    Raises:
        EquivocationError, ChainLinkError: it tells another story than the ones before.
    """
    if shown.block_number > head:
        return News.FUTURE
    if miner.commitment is None:
        return News.NEXT
    known = miner.commitment.commitment
    if shown.hash == known.hash:
        return News.KNOWN
    previous = miner.previous.commitment if miner.previous else None
    if previous is not None and shown.seq == previous.seq and shown.hash != previous.hash:
        raise EquivocationError(previous, shown)
    if shown.seq < known.seq:
        return News.STALE
    if shown.seq <= known.seq + 1:
        check_successor(known, shown)
    if head - miner.seen_block < tempo:
        return News.EARLY
    return News.NEXT if shown.seq == known.seq + 1 else News.SKIPPED


def taken(
    miner: Miner,
    signed: SignedCommitment,
    entries: Sequence[Entry],
    head: int,
    now: int,
    *,
    verified: Collection[int] = (),
    barred: Collection[int] = (),
) -> Miner:
    """The miner after its new commitment, with a checked listing, was taken at height `head`.

    Args:
        verified: sectors of which it was checked that nothing but slots changed since the one before.
        barred: sectors with a ticket that is not good.
    """
    before = dict(miner.listing)
    kept = {
        index for index, root in entries if index in before and (before[index] == root or index in verified)
    }
    grown = bool(before) and len(kept) == len(before)  # else the one before may not be answered for
    changed = replace(
        miner,
        standing=scoring.diluted(miner.standing, now, len(kept), len(entries)),
        commitment=signed,
        seen_block=head,
        previous=miner.commitment if grown else None,
        previous_seen=miner.seen_block if grown else 0,
        listing=tuple(entries),
        credited=frozenset((miner.credited & kept).difference(barred)),
        barred=frozenset(barred),
        audits_due=max(1, miner.audits_due),
    )
    if miner.draw is not None and miner.draw.sector not in kept:
        changed = replace(changed, draw=None, credited=frozenset(), audits_due=scoring.REAUDIT_SECTORS)
    return _with_credit(changed)


def unfollowed(miner: Miner) -> Miner:
    """The miner when the commitments between the known and the shown one are not to be had: from zero."""
    return replace(
        miner,
        standing=replace(miner.standing, passed=0.0, sampled=0.0, credited_bytes=0),
        previous=None,
        listing=(),
        credited=frozenset(),
        barred=frozenset(),
        draw=None,
        audits_due=scoring.REAUDIT_SECTORS,
    )


def registered(miner: Miner, uid: int, registered_at: int, now: int) -> Miner:
    """The miner as the metagraph has it now; from zero when it was registered anew."""
    if registered_at == miner.registered_at:
        return miner if uid == miner.uid else replace(miner, uid=uid)
    return _with_credit(
        replace(
            miner,
            uid=uid,
            registered_at=registered_at,
            standing=scoring.after_registration(miner.standing, now),
            credited=frozenset(),
            draw=None,
            audits_due=max(1, miner.audits_due),
            failing=False,
        )
    )


def judged(miner: Miner, judgement: Judgement, now: int, deadline: float) -> Miner:
    """The miner after a challenge."""
    attempt = judgement.attempt
    standing = miner.standing
    if judgement.verdict is Verdict.PASSED:
        standing = (
            scoring.after_late_pass(standing, now)
            if judgement.second
            else scoring.after_pass(standing, now, attempt.leaves, attempt.elapsed / deadline)
        )
    elif judgement.verdict is Verdict.WRONG:
        standing = scoring.after_wrong(standing, now)
    elif judgement.verdict is Verdict.VALIDATOR_FAULT or miner.commitment is None:
        standing = scoring.at_round(standing, now)  # nothing to lose before the first commitment
    else:
        standing = scoring.after_miss(standing, now)
    return noted(replace(miner, standing=standing), judgement.verdict, attempt.reason)


def noted(miner: Miner, verdict: Verdict, reason: str) -> Miner:
    """The miner with one more receipt."""
    counts = {**miner.counts, verdict: miner.counts.get(verdict, 0) + 1}
    failing = miner.failing if verdict is Verdict.VALIDATOR_FAULT else verdict is not Verdict.PASSED
    return replace(miner, verdict=verdict, reason=reason, counts=counts, failing=failing)


def forgotten(miner: Miner, now: int) -> Miner:
    """The miner without its score: what is left when scores are not stored or not restored."""
    standing = Standing(round=now, quarantined_until=miner.standing.quarantined_until)
    return replace(
        miner, standing=standing, credited=frozenset(), audits_due=max(1, miner.audits_due), failing=False
    )


def caught(miner: Miner, now: int) -> Miner:
    """The miner after a fraud. After its quarantine it begins with whatever commitment it shows then."""
    return replace(
        miner,
        standing=scoring.after_fraud(miner.standing, now),
        commitment=None,
        previous=None,
        listing=(),
        credited=frozenset(),
        barred=frozenset(),
        draw=None,
        audits_due=scoring.REAUDIT_SECTORS,
    )


def target(miner: Miner, block: int) -> SignedCommitment | None:
    """The commitment that a challenge with the block of height `block` is about, None when none can be.

    The block must be younger than the commitment, by what it says and by when we saw it first.
    """
    for signed, seen in ((miner.commitment, miner.seen_block), (miner.previous, miner.previous_seen)):
        if (
            signed is not None
            and signed.commitment.sector_count
            and block > max(signed.commitment.block_number, seen)
        ):
            return signed
    return None


# Audits


def draw_seed(commitment_hash: bytes, validator: bytes, block_hash: bytes, now: int) -> bytes:
    """What a draw follows from: facts that nobody knew when the commitment was shown."""
    return sha256(tag("tensorage/audit/v1") + block_hash + commitment_hash + validator + u32(now))


def drawn(candidates: Sequence[int], seed: bytes) -> int:
    """One of the candidates, uniformly (the first 16 bytes of the seed modulo their number)."""
    return candidates[int.from_bytes(seed[:16], "big") % len(candidates)]


def with_draw(miner: Miner, validator: bytes, block_number: int, block_hash: bytes, now: int) -> Miner:
    """The miner with a sector drawn: among those that wait for credit, else among those that have it.

    A draw that is still owed stays. Without a commitment, or with none of these, nothing is drawn.
    """
    candidates = miner.candidates
    if miner.draw is not None or miner.commitment is None or not candidates:
        return miner
    seed = draw_seed(miner.commitment.commitment.hash, validator, block_hash, now)
    return replace(miner, draw=Draw(drawn(candidates, seed), block_number, block_hash, now))


def audit_passed(miner: Miner, now: int) -> Miner:
    """The sector that was drawn is as it must be; with the last audit due, all that is not barred has credit.

    Where several are due, each is drawn with a block of its own.
    """
    due = max(0, miner.audits_due - 1)
    all_of_it = frozenset(index for index, _ in miner.listing if index not in miner.barred)
    credited = all_of_it if due == 0 else miner.credited
    return _with_credit(replace(miner, draw=None, audits_due=due, credited=credited, last_audit=now))


def audit_unanswered(miner: Miner, now: int) -> Miner:
    """The chunk roots did not come: a miss, and no credit until they do."""
    return _uncredited(replace(miner, standing=scoring.after_miss(miner.standing, now)))


def audit_wrong(miner: Miner, now: int) -> Miner:
    """The chunk roots are not those of the committed sector: a wrong answer, and no credit."""
    return _uncredited(replace(miner, standing=scoring.after_wrong(miner.standing, now)))


def audit_refused(miner: Miner, now: int) -> Miner:
    """The sector that was drawn is as its tickets make it, but one of them is not good: no credit for it."""
    assert miner.draw is not None
    return with_barred(replace(miner, draw=None, last_audit=now), miner.barred | {miner.draw.sector})


def with_barred(miner: Miner, sectors: Collection[int]) -> Miner:
    """The miner when the tickets in these sectors, and no others, are not good.

    What is not barred any more waits for an audit.
    """
    listed = {index for index, _ in miner.listing}
    barred = frozenset(listed.intersection(sectors))
    due = miner.audits_due if barred >= miner.barred else max(1, miner.audits_due)
    return _with_credit(replace(miner, barred=barred, credited=miner.credited - barred, audits_due=due))


def _uncredited(miner: Miner) -> Miner:
    return _with_credit(replace(miner, credited=frozenset(), audits_due=max(1, miner.audits_due)))


def _with_credit(miner: Miner) -> Miner:
    size = seal.profile(miner.commitment.commitment.profile).size if miner.commitment else 0
    return replace(miner, standing=replace(miner.standing, credited_bytes=len(miner.credited) * size))


def tells_two_stories(error: Exception) -> bool:
    """Whether a refusal of a commitment is proof, signed by the miner, that its chain is not one story.

    Two hashes at one seq are; so is a successor that names another predecessor than the one that was signed,
    or an earlier block.
    """
    return isinstance(error, (EquivocationError, ChainLinkError))


def scores(miners: Collection[Miner], now: int) -> dict[str, float]:
    """The score of each miner in round `now`, by hotkey."""
    return {miner.hotkey: scoring.score(scoring.at_round(miner.standing, now)) for miner in miners}
