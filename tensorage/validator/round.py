"""One round: look at every miner's commitment, challenge every miner, judge all together, write it down.

The phases are apart on purpose. Listings are large and may take their time, so they come first; while
challenges are timed nothing else runs. Nothing is written before all answers are there, because whether a
failure is the miner's depends on who else failed.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from ..chain.types import BlockRef, Metagraph, Neuron
from ..challenge import Challenge
from ..commitment import Commitment, Entry, SignedCommitment
from ..errors import ChainError, ProofError, TensorageError
from ..hashchain import check_link
from ..receipts import Verdict, line
from ..service.quiet import Quiet
from ..transport.dendrite import Malformed, PeerError, Refused
from . import scoring, standing
from .book import Book
from .changes import REVIEW_SECONDS, ChangeView, unix_seconds
from .exchange import Exchange, failure, proof_failure
from .judge import FAILURES, Attempt, Judgement, ask_again, assumed_fault, conclude, excuse, excused_stall
from .ledger import Evidence
from .parameters import MAX_BETWEEN, MAX_SECTORS, Parameters
from .slots import REFUSED_KIND, Slot
from .standing import Miner, News
from .together import together

log = logging.getLogger(__name__)

#: A chain whose finality lags further behind than this finalizes nothing; its head is taken instead.
FINALITY_LAG = 64

#: Seconds of a round that may go by with looking at commitments: that share, but at least so many. Who has
#: not shown its commitment by then is asked about the one that is known, and comes earlier next time.
LOOKING_SHARE = 0.3
LEAST_LOOKING = 10.0

#: Kinds of refusal by which a miner says that it has nothing to show yet.
_NOTHING_YET = frozenset({"unknown", "unready"})


class ChainView(Protocol):
    """What a round needs of a chain; `tensorage.chain.client.Chain` is one."""

    async def head(self) -> BlockRef: ...
    async def finalized(self) -> BlockRef: ...
    async def metagraph(self, *, max_age: float) -> Metagraph: ...


class NoPermitError(TensorageError):
    """The subnet gives us no validator permit, so no miner answers us."""


@dataclass(frozen=True, slots=True)
class Look:
    """What looking at a miner's commitment brought.

    Attributes:
        miner: with its new commitment, if one was taken.
        trouble: what was wrong with what it showed, None when nothing was.
        fork: the two commitments that tell two stories.
        shown: the commitment that `trouble` is about.
        slots: of the new commitment; None when none was taken.
        refusal: why sectors got no credit, or lost it, over a ticket; empty when none did.
    """

    miner: Miner
    trouble: Attempt | None = None
    fork: tuple[SignedCommitment, SignedCommitment] | None = None
    shown: SignedCommitment | None = None
    slots: list[Slot] | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """One round that was done: the block of its challenges, who passed, and the verdicts by number."""

    number: int
    block: BlockRef
    peers: dict[str, Neuron]
    passed: frozenset[str]
    verdicts: dict[Verdict, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """One miner's challenge: what it came to, the commitment it was about, and its `round`."""

    judgement: Judgement
    about: SignedCommitment
    round: int


def unforeseen(now: int) -> int:
    """The `round` of a challenge: 32 random bits, whatever the number of the round.

    The block is public for seconds before its hash is used, and looking at commitments tells a miner that a
    round has begun. A nonce that followed from the two would be known long before the deadline runs
    (docs/decisions/0008-unforeseen-nonces.md).
    """
    return secrets.randbits(32)


class Rounds:
    """Does rounds, one at a time.

    Args:
        salt: makes the `round` of a challenge in the round of that number.
        quiet: what other work of this process asks before each step.
        unix: tells the time by which tickets end, seconds since 1970.
    """

    def __init__(
        self,
        chain: ChainView,
        exchange: Exchange,
        book: Book,
        parameters: Parameters,
        *,
        salt: Callable[[int], int] = unforeseen,
        unix: Callable[[], int] = unix_seconds,
        quiet: Quiet | None = None,
    ) -> None:
        self._salt = salt
        self._changes = ChangeView(exchange, book, unix)
        self._quiet = quiet or Quiet()
        self._chain = chain
        self._exchange = exchange
        self._book = book
        self._parameters = parameters
        self._address = book.identity.hotkey

    async def run(self) -> Report:
        """Do one round.

        Raises:
            ChainError: the chain is away. StorageError: the ledger cannot be written.
            NoPermitError: no miner would answer us.
        """
        started = time.monotonic()
        book = self._book
        metagraph = await self._chain.metagraph(max_age=self._parameters.round_seconds / 2)
        neurons = _asked(metagraph, self._address)
        head = await self._chain.head()
        block = await challenge_block(self._chain, head)
        now = await book.run(book.ledger.begin_round, block.number)
        await self._follow(metagraph, neurons, now)
        jobs = {
            hotkey: partial(self._looking, neuron, book.miners[hotkey], head.number, metagraph, now)
            for hotkey, neuron in _rotated(neurons, now)
            if hotkey in book.miners and not scoring.quarantined(book.miners[hotkey].standing, now)
        }
        within = max(LEAST_LOOKING, LOOKING_SHARE * self._parameters.round_seconds)
        looks = await together(jobs, self._parameters.concurrency, within=within)
        troubled = [look for look in looks.values() if look.trouble is not None]
        for look in looks.values():
            if look.trouble is None and look.miner != book.miners[look.miner.hotkey]:
                await self._keep(look, block, now)
        await self._review(neurons, metagraph, block, now)
        for look in troubled:
            await self._record_trouble(look, neurons[look.miner.hotkey], block, now)
        challenged = await self._challenge_all(neurons, {look.miner.hotkey for look in troubled}, block, now)
        judgements = await self._record(challenged, block, now)
        verdicts: dict[Verdict, int] = {}
        for judgement in (asked.judgement for asked in judgements.values()):
            verdicts[judgement.verdict] = verdicts.get(judgement.verdict, 0) + 1
        passed = frozenset(
            hotkey for hotkey, asked in judgements.items() if asked.judgement.verdict is Verdict.PASSED
        )
        seconds = time.monotonic() - started
        return Report(now, block, neurons, passed, verdicts, seconds)

    # Who is there

    async def _follow(self, metagraph: Metagraph, neurons: dict[str, Neuron], now: int) -> None:
        """Bring the book in line with the metagraph."""
        book = self._book
        for hotkey, neuron in neurons.items():
            known = book.miners.get(hotkey)
            if known is None:
                if neuron.endpoint is not None:
                    fresh = Miner(hotkey, neuron.public_key, neuron.uid, neuron.registered_at)
                    await book.save(replace(fresh, standing=replace(fresh.standing, round=now)))
                continue
            current = standing.registered(known, neuron.uid, neuron.registered_at, now)
            if current != known or hotkey in book.absent:
                await book.save(current)
        for hotkey in set(book.miners) - set(neurons) - book.absent:
            await book.save(book.miners[hotkey], present=False)

    # Looking

    async def _looking(self, neuron: Neuron, miner: Miner, head: int, metagraph: Metagraph, now: int) -> Look:
        unknown = miner.commitment is None
        try:
            # A validator is told by its ping: asking it for a commitment would fill its log with refusals.
            if unknown and neuron.validator_permit and not await self._exchange.is_miner(neuron):
                return Look(miner)
            return await self._look(neuron, miner, head, metagraph, now)
        except PeerError as error:
            if not unknown:
                return Look(miner)  # the challenge that follows will tell
            attempt = failure(error)
            if isinstance(error, Malformed):
                attempt = replace(attempt, verdict=Verdict.REFUSED)
            nothing_yet = isinstance(error, Refused) and error.kind in _NOTHING_YET
            if nothing_yet or neuron.validator_permit or neuron.endpoint is None:
                return Look(miner)
            return Look(miner, attempt)

    async def _look(self, neuron: Neuron, miner: Miner, head: int, metagraph: Metagraph, now: int) -> Look:
        try:
            shown = await self._exchange.commitment(neuron, miner.public_key)
        except ProofError as error:
            return Look(miner, proof_failure(error, "commitment"))
        objection = self._objection(shown.commitment)
        if objection is not None:
            return Look(miner, Attempt(Verdict.REFUSED, "commitment", objection), shown=shown)
        try:
            what = standing.news(miner, shown.commitment, head, metagraph.tempo)
        except ProofError as error:
            return self._forked(miner, miner.commitment, shown, error)
        if what is News.STALE:
            return await self._stale(miner, shown)
        if what in (News.KNOWN, News.EARLY, News.FUTURE):
            return Look(miner)
        if what is News.SKIPPED:
            found = await self._catch_up(neuron, miner, shown)
            if isinstance(found, Look):
                return found
            miner = found
        try:
            entries = await self._listing(neuron, miner, shown)
        except (ProofError, Malformed) as error:
            reason = line(error.message)
            return Look(miner, Attempt(Verdict.WRONG, "listing", reason), shown=shown)
        if entries is None:
            return Look(self._book.miners[miner.hotkey])  # it has a newer one already: next round
        changes = await self._changes.of(neuron, miner, shown, entries, metagraph)
        if changes is None:
            return Look(self._book.miners[miner.hotkey])
        taken = standing.taken(
            miner, shown, entries, head, now, verified=changes.verified, barred=changes.barred
        )
        log.info(
            "commitment taken hotkey=%s seq=%d sectors=%d pending=%d slots=%d barred=%d",
            miner.hotkey,
            shown.commitment.seq,
            len(entries),
            len(taken.pending),
            len(changes.slots),
            len(changes.barred),
        )
        return Look(taken, slots=changes.slots, refusal=_refusal(changes.barred, miner.barred))

    def _objection(self, commitment: Commitment) -> str | None:
        """Why a commitment is not taken, though it is well made."""
        if commitment.profile not in self._parameters.profiles:
            return f"sectors of profile {commitment.profile} prove nothing and are not paid on this network"
        if commitment.sector_count > MAX_SECTORS:
            return f"{commitment.sector_count} sectors in one commitment; at most {MAX_SECTORS} are taken"
        return None

    async def _stale(self, miner: Miner, shown: SignedCommitment) -> Look:
        """It shows a lower seq than the one we know: from an old backup, or another story."""
        seq = shown.commitment.seq
        seen = await self._book.run(self._book.ledger.commitment, miner, seq)
        if seen is not None and seen.commitment.hash != shown.commitment.hash:
            return self._forked(miner, seen, shown, ProofError(f"two commitments with seq {seq}"))
        known = miner.commitment.commitment.seq if miner.commitment else 0
        log.warning("an old commitment is shown hotkey=%s seq=%d known=%d", miner.hotkey, seq, known)
        return Look(miner)

    async def _catch_up(self, neuron: Neuron, miner: Miner, shown: SignedCommitment) -> Miner | Look:
        """Check the commitments between the known and the shown one."""
        assert miner.commitment is not None
        previous = miner.commitment
        if shown.commitment.seq - previous.commitment.seq > MAX_BETWEEN:
            return standing.unfollowed(miner)
        for seq in range(previous.commitment.seq + 1, shown.commitment.seq + 1):
            following = shown
            try:
                if seq < shown.commitment.seq:
                    following = await self._exchange.commitment(neuron, miner.public_key, seq)
                check_link(previous.commitment, following.commitment)
            except Refused as error:
                if error.kind != "unknown":
                    raise
                return standing.unfollowed(miner)
            except ProofError as error:
                if not standing.tells_two_stories(error):
                    return Look(miner, proof_failure(error, "commitment"))
                return self._forked(miner, previous, following, error)
            previous = following
        return miner

    async def _listing(self, neuron: Neuron, miner: Miner, shown: SignedCommitment) -> list[Entry] | None:
        """The listing of what was shown; None when the miner has a newer commitment meanwhile.

        Raises:
            ProofError, Malformed: it is not the listing of what was shown, and that is still the newest.
        """
        try:
            return await self._exchange.listing(neuron, shown.commitment)
        except (ProofError, Malformed):
            newest = await self._exchange.commitment(neuron, miner.public_key)
            if newest.commitment.hash == shown.commitment.hash:
                raise
            return None

    def _forked(
        self, miner: Miner, first: SignedCommitment | None, second: SignedCommitment, error: ProofError
    ) -> Look:
        assert first is not None
        reason = line(f"two stories in one chain of commitments: {error.message}")
        return Look(miner, Attempt(Verdict.WRONG, "fork", reason), fork=(first, second), shown=second)

    async def _keep(self, look: Look, block: BlockRef, now: int) -> None:
        """Write down what was taken; with a receipt where a ticket costs credit, which tells the miner."""
        miner = look.miner
        if not look.refusal:
            await self._book.save(miner, slots=look.slots)
            return
        log.warning("tickets are not good hotkey=%s uid=%d reason=%r", miner.hotkey, miner.uid, look.refusal)
        attempt = Attempt(Verdict.REFUSED, REFUSED_KIND, look.refusal)
        await self._book.record(
            standing.noted(miner, attempt.verdict, attempt.reason),
            attempt,
            about=miner.commitment,
            block=block,
            round=now,
            hops=0,
            slots=look.slots,
        )

    async def _review(
        self, neurons: dict[str, Neuron], metagraph: Metagraph, block: BlockRef, now: int
    ) -> None:
        """Judge slots again where time or stake may have changed what they are."""
        until = time.monotonic() + REVIEW_SECONDS
        for hotkey in await self._changes.to_review(now):
            miner = self._book.miners[hotkey]
            if hotkey not in neurons or miner.commitment is None:
                continue
            if time.monotonic() > until:
                break  # the others in the next round
            changes = await self._changes.review(miner, metagraph)
            after = standing.with_barred(miner, changes.barred)
            look = Look(after, slots=changes.slots, refusal=_refusal(changes.barred, miner.barred))
            await self._keep(look, block, now)

    async def _record_trouble(self, look: Look, neuron: Neuron, block: BlockRef, now: int) -> None:
        assert look.trouble is not None
        miner, attempt = self._book.miners[look.miner.hotkey], look.trouble
        if look.fork is not None:
            log.warning("fork found hotkey=%s uid=%d reason=%r", miner.hotkey, neuron.uid, attempt.reason)
            after = standing.noted(standing.caught(miner, now), attempt.verdict, attempt.reason)
        else:
            after = standing.judged(miner, Judgement(attempt), now, self._parameters.deadline)
        await self._book.record(
            after, attempt, about=look.shown, block=block, round=now, hops=0, fork=look.fork
        )

    # Challenging

    async def _challenge_all(
        self, neurons: dict[str, Neuron], troubled: set[str], block: BlockRef, now: int
    ) -> dict[str, Asked]:
        targets = {}
        for hotkey in neurons:
            miner = self._book.miners.get(hotkey)
            if miner is None or hotkey in troubled or scoring.quarantined(miner.standing, now):
                continue
            target = standing.target(miner, block.number)
            if target is not None:
                targets[hotkey] = target
        jobs = {
            hotkey: partial(self._challenging, neurons[hotkey], target, block, now)
            for hotkey, target in targets.items()
        }
        async with self._quiet.timed():
            return await together(jobs, self._parameters.concurrency)

    async def _challenging(self, neuron: Neuron, about: SignedCommitment, block: BlockRef, now: int) -> Asked:
        commitment, number = about.commitment, self._salt(now)
        challenge = Challenge(
            block.hash, commitment.netuid, self._address, commitment.miner, commitment.hash, number
        )
        excusable = self._book.miners[neuron.hotkey].verdict is not Verdict.VALIDATOR_FAULT

        async def once() -> Attempt:
            attempt = await self._exchange.challenge(neuron, commitment, challenge, block.number)
            return excused_stall(attempt, self._parameters.deadline) if excusable else attempt

        first = await once()
        return Asked(conclude(first, await once() if ask_again(first) else None), about, number)

    async def _record(self, challenged: dict[str, Asked], block: BlockRef, now: int) -> dict[str, Asked]:
        """Judge all together and write it down; returns what it came to."""
        book = self._book
        way = assumed_fault(
            {hotkey: asked.judgement for hotkey, asked in challenged.items()},
            {hotkey for hotkey in challenged if book.miners[hotkey].failing},
            await book.run(book.ledger.excused_rounds, now),
        )
        if way is not None:
            await book.run(book.ledger.excuse_round, now)
            verdict, kind = way
            log.warning(
                "many failed alike, so it is taken as our fault verdict=%s kind=%s", verdict.word, kind
            )
        judged = {}
        for hotkey, asked in challenged.items():
            judgement = asked.judgement if way is None else excuse(asked.judgement, way)
            judged[hotkey] = replace(asked, judgement=judgement)
            attempt = judgement.attempt
            miner = standing.judged(book.miners[hotkey], judgement, now, self._parameters.deadline)
            if judgement.verdict is Verdict.WRONG or judgement.verdict in FAILURES:
                log.info(
                    "challenge failed hotkey=%s uid=%d verdict=%s reason=%r",
                    hotkey,
                    miner.uid,
                    judgement.verdict.word,
                    attempt.reason,
                )
            kept = (
                [Evidence.of("answer", attempt.evidence)]
                if judgement.verdict is Verdict.WRONG and attempt.evidence
                else []
            )
            await book.record(
                miner,
                attempt,
                about=asked.about,
                block=block,
                round=asked.round,
                hops=self._parameters.hops,
                evidence=kept,
            )
        return judged


def _refusal(barred: Mapping[int, str], before: Collection[int]) -> str:
    """Why sectors have no credit that had it, or might have had; empty when there is none."""
    new = [reason for index, reason in sorted(barred.items()) if index not in before]
    if not new:
        return ""
    return line(f"no credit for {len(new)} sectors: {new[0]}")


async def challenge_block(chain: ChainView, head: BlockRef) -> BlockRef:
    """The block whose hash goes into this round's nonces: the newest that nothing can replace any more."""
    finalized = await chain.finalized()
    return head if head.number - finalized.number > FINALITY_LAG else finalized


def _rotated(neurons: dict[str, Neuron], now: int) -> list[tuple[str, Neuron]]:
    """The neurons, beginning with another one each round, so that slow ones cannot always be in the way."""
    listed = list(neurons.items())
    start = now * 37 % len(listed) if listed else 0
    return listed[start:] + listed[:start]


def _asked(metagraph: Metagraph, address: bytes) -> dict[str, Neuron]:
    """The neurons that are asked, by hotkey: all but ourselves.

    Raises:
        ChainError: we are not in the metagraph. NoPermitError: we have no permit.
    """
    ours = [neuron for neuron in metagraph.neurons if neuron.public_key == address]
    if not ours:
        raise ChainError("our hotkey is not in the metagraph", remedy="Register it on the subnet")
    if not ours[0].validator_permit:
        raise NoPermitError(
            f"uid {ours[0].uid} has no validator permit, so no miner answers it",
            remedy=f"Add stake: btcli stake add --netuid {metagraph.netuid}; permits are given at each epoch",
        )
    return {neuron.hotkey: neuron for neuron in metagraph.neurons if neuron is not ours[0]}
