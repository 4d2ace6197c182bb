"""Seal audits: that what a miner keeps are the sealed bytes, and not others that it committed to.

Rules. A sector is drawn with a block that is younger than our first sight of the commitment, among what waits
for credit, or else among all that has it; the draw is written down before the miner hears of it and stands
until it is answered. Its chunk roots must lead to the committed sector root, and be those that sealing gives,
or what a client's ticket makes of these where its shard took the place of filler (`slots`). Sealing takes
seconds of a core, so there is a budget: what waits for credit comes first, but every third audit is of what
was checked longest ago, so that no flood of new sectors ends the steady ones. Who does not show its chunk
roots costs none of it, and is asked less and less often. A difference is sealed once more before it is called
fraud: a bit of our own memory may have flipped.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .. import seal
from ..chain.types import BlockRef, Neuron
from ..commitment import sector_root
from ..displaced import Sealed, encode_slots, slots_key
from ..errors import ProofError
from ..receipts import Verdict, line
from ..ticket import SignedTicket
from ..transport.dendrite import PeerError
from . import rows, scoring, slots, standing
from .book import Book
from .exchange import Exchange, failure, proof_failure
from .judge import FAILURES, Attempt
from .ledger import Evidence
from .parameters import Parameters
from .pool import SealingError, SealPool
from .slots import Slot
from .standing import Draw, Miner
from .together import together

log = logging.getLogger(__name__)

#: A miner of which nothing waits for credit is audited at most this often.
STEADY_ROUNDS = 12
#: One audit of so many is of what is credited, whatever waits.
STEADY_EVERY = 3
#: Share of a round after which no audit is begun: miners may take their time to show chunk roots.
AUDIT_SHARE = 0.25
#: Seconds of a core for a sector, until one was measured.
FIRST_ESTIMATE = {seal.DEV.number: 0.1, seal.MAIN.number: 12.0}
_ESTIMATE_STEP = 0.3


def queue(
    miners: Iterable[Miner],
    passed: Collection[str],
    block: int,
    now: int,
    not_before: Mapping[str, int] | None = None,
) -> list[Miner]:
    """The miners whose audit is due in this round, most urgent first.

    Args:
        passed: who answered this round's challenge; who did not is not asked for more.
        block: height of the block to draw with.
        not_before: rounds before which a hotkey is left alone.
    """
    barred = {} if not_before is None else not_before
    due = [
        miner
        for miner in miners
        if miner.hotkey in passed
        and now >= barred.get(miner.hotkey, 0)
        and (miner.draw is not None or miner.candidates)
        and not scoring.quarantined(miner.standing, now)
        and (miner.draw is not None or block > _known_since(miner))
        and (_urgent(miner) or now - miner.last_audit >= STEADY_ROUNDS)
    ]
    return sorted(due, key=lambda miner: (not miner.pending, miner.last_audit, miner.uid))


def _urgent(miner: Miner) -> bool:
    return miner.draw is not None or bool(miner.pending)


def _known_since(miner: Miner) -> int:
    said = miner.commitment.commitment.block_number if miner.commitment else 0
    return max(said, miner.seen_block)


@dataclass
class Budget:
    """Seconds of a core for audits: so many a round, saved up until one audit can be paid.

    Attributes:
        estimates: seconds of a core for a sector, by profile; corrected by what is measured.
    """

    seconds_a_round: float
    left: float = 0.0

    def __post_init__(self) -> None:
        self.estimates = dict(FIRST_ESTIMATE)

    def begin(self) -> None:
        """A new round."""
        most = self.seconds_a_round + max(self.estimates.values())
        self.left = min(most, self.left + self.seconds_a_round)

    def take(self, profile: int) -> bool:
        """Set aside the cost of one audit; False when there is not enough left."""
        if self.seconds_a_round <= 0 or self.left < self.estimates[profile]:
            return False
        self.left -= self.estimates[profile]
        return True

    def give_back(self, profile: int) -> None:
        """Undo `take`: nothing was sealed."""
        self.left += self.estimates[profile]

    def spent(self, profile: int, seconds: float) -> None:
        """Correct what was set aside by what it took."""
        estimate = self.estimates[profile]
        self.left += estimate - seconds
        self.estimates[profile] = estimate + _ESTIMATE_STEP * (seconds - estimate)


class Auditor:
    """Does the audits of each round."""

    def __init__(self, exchange: Exchange, book: Book, parameters: Parameters, pool: SealPool) -> None:
        self._exchange = exchange
        self._book = book
        self._pool = pool
        self._deadline = parameters.deadline
        self._budget = Budget(parameters.audit_seconds)
        self._seconds = AUDIT_SHARE * parameters.round_seconds
        self._begun = 0
        self._unanswered: dict[str, int] = {}  # audits in a row that brought no chunk roots, by hotkey
        self._not_before: dict[str, int] = {}

    async def run(self, peers: dict[str, Neuron], passed: Collection[str], block: BlockRef, now: int) -> int:
        """Do what is due and paid for; the number of audits that came to a verdict.

        Raises:
            StorageError: the ledger cannot be written. SealingError: this machine cannot seal.
        """
        self._budget.begin()
        # Drawn for all who are due, also for those who did not pass or cannot be paid for: the challenge
        # tells a miner what would be drawn, and refusing it must not bring another draw.
        for miner in queue(list(self._book.miners.values()), peers, block.number, now):
            drawn = standing.with_draw(miner, self._book.identity.hotkey, block.number, block.hash, now)
            if drawn.draw != miner.draw:
                await self._book.save(drawn)
        due = queue(self._book.miners.values(), passed, block.number, now, self._not_before)
        waiting = deque(miner for miner in due if miner.pending)
        steady = deque(miner for miner in due if not miner.pending)
        failed: list[SealingError] = []
        until = time.monotonic() + self._seconds

        async def work() -> int:
            done = 0
            while time.monotonic() < until and (miner := self._next(waiting, steady)) is not None:
                try:
                    await self._audit(miner, peers[miner.hotkey], block, now)
                except SealingError as error:
                    failed.append(error)
                else:
                    done += 1
            return done

        workers = self._pool.workers
        done = await together(dict.fromkeys(range(workers), work), workers)
        if failed:
            raise failed[0]
        return sum(done.values())

    def _next(self, waiting: deque[Miner], steady: deque[Miner]) -> Miner | None:
        """The next miner to audit, its cost set aside; None when there is none, or nothing to pay it with."""
        turn = self._begun % STEADY_EVERY == STEADY_EVERY - 1
        chosen = steady if steady and (turn or not waiting) else waiting
        if not chosen:
            return None
        commitment = chosen[0].commitment
        assert commitment is not None
        if not self._budget.take(commitment.commitment.profile):
            return None
        self._begun += 1
        return chosen.popleft()

    async def _audit(self, miner: Miner, peer: Neuron, block: BlockRef, now: int) -> None:
        book = self._book
        drawn = standing.with_draw(miner, book.identity.hotkey, block.number, block.hash, now)
        if drawn.draw != miner.draw:
            await book.save(drawn)
        assert drawn.draw is not None
        draw, tickets = drawn.draw, {}
        attempt, roots = await self._fetch(drawn, draw, peer)
        if attempt is None:
            self._unanswered.pop(miner.hotkey, None)
            known = await book.run(book.ledger.slots, miner.hotkey, draw.sector)
            named = {slot.chunk: slot for slot in known}
            attempt, sealed = await self._compare(drawn, draw, roots, named)
            tickets = {
                chunk: slot.signed for chunk, slot in named.items() if roots[chunk] != sealed.roots[chunk]
            }
            if attempt.verdict is Verdict.PASSED:
                fillers = slots.fillers(named, sealed)
                await book.run(book.ledger.learn_fillers, miner.hotkey, fillers)
        else:
            self._put_off(drawn, now)
        await self._record(drawn, draw, attempt, now, tickets)

    def _put_off(self, miner: Miner, now: int) -> None:
        """A miner did not show what was asked for: nothing was sealed, and others come before it."""
        assert miner.commitment is not None
        self._budget.give_back(miner.commitment.commitment.profile)
        times = self._unanswered[miner.hotkey] = self._unanswered.get(miner.hotkey, 0) + 1
        self._not_before[miner.hotkey] = now + min(STEADY_ROUNDS, 2 ** min(times - 1, 8))

    async def _fetch(self, miner: Miner, draw: Draw, peer: Neuron) -> tuple[Attempt | None, Sequence[bytes]]:
        """The chunk roots of the drawn sector, or what was wrong with them."""
        assert miner.commitment is not None
        known = miner.commitment.commitment
        count = seal.profile(known.profile).chunks
        try:
            try:
                roots: Sequence[bytes] = await self._exchange.chunk_roots(peer, draw.sector, count)
            except PeerError as error:
                log.debug(
                    "chunk roots are asked for once more hotkey=%s error=%r", miner.hotkey, error.message
                )
                roots = await self._exchange.chunk_roots(peer, draw.sector, count)
            if sector_root(roots) != miner.root_of(draw.sector):
                # They are of the newest commitment, which may be a later one than that which was drawn from.
                newest = await self._exchange.commitment(peer, miner.public_key)
                if newest.commitment.hash != known.hash:
                    told = await self._exchange.transition(peer, draw.sector, known.seq, count)
                    roots = told.before
        except PeerError as error:
            attempt = failure(error)
            return replace(attempt, reason=line(f"seal audit of sector {draw.sector}: {attempt.reason}")), []
        except ProofError as error:
            return proof_failure(error, "commitment"), []
        if sector_root(roots) != miner.root_of(draw.sector):
            reason = f"the chunk roots of sector {draw.sector} do not lead to the committed sector root"
            return Attempt(Verdict.WRONG, "chunk-roots", reason, evidence=b"".join(roots)), roots
        return None, roots

    async def _compare(
        self, miner: Miner, draw: Draw, roots: Sequence[bytes], named: dict[int, Slot]
    ) -> tuple[Attempt, Sealed]:
        """Seal the drawn sector and compare.

        Args:
            named: the slots of the sector, by chunk.

        Raises:
            SealingError: this machine cannot seal, or not twice alike.
        """
        assert miner.commitment is not None
        c = miner.commitment.commitment
        identity = (c.genesis, c.netuid, c.miner, c.profile, draw.sector)
        sealed, seconds = await self._pool.sealed(*identity, named)
        self._budget.spent(c.profile, seconds)
        attempt = slots.audited(draw.sector, roots, sealed, named)
        if attempt.verdict is Verdict.WRONG:
            again, more = await self._pool.sealed(*identity, named)
            self._budget.left -= more
            if again != sealed:
                raise SealingError(
                    f"sector {draw.sector} was sealed twice and came out differently",
                    remedy="Test this machine's memory",
                )
        return replace(attempt, elapsed=seconds), sealed

    async def _record(
        self, miner: Miner, draw: Draw, attempt: Attempt, now: int, tickets: Mapping[int, SignedTicket]
    ) -> None:
        """Write down what an audit came to.

        Args:
            tickets: of the chunks of the sector that were displaced.
        """
        kept: list[Evidence] = []
        refused = attempt.kind == slots.REFUSED_KIND
        if attempt.verdict is Verdict.PASSED:
            after = standing.audit_passed(miner, now)
        elif refused:
            after = standing.audit_refused(miner, now)
        elif attempt.verdict in FAILURES:
            after = standing.audit_unanswered(miner, now)
        else:
            fraud = attempt.kind == "seal"
            after = standing.caught(miner, now) if fraud else standing.audit_wrong(miner, now)
            assert miner.commitment is not None
            digest = miner.commitment.commitment.hash
            kept.append(Evidence("listing", rows.write_entries(miner.listing), digest))
            if attempt.evidence:
                kept.append(Evidence.of("chunk-roots", attempt.evidence))
        if tickets and attempt.evidence:
            # Without these nobody else could tell what the chunk roots must be.
            assert miner.commitment is not None
            key = slots_key(miner.commitment.commitment.hash, draw.sector)
            kept += [
                Evidence.of("chunk-roots", attempt.evidence),
                Evidence("slots", encode_slots(tickets), key),
            ]
        level = logging.INFO if attempt.verdict is Verdict.PASSED else logging.WARNING
        log.log(
            level,
            "seal audit hotkey=%s uid=%d verdict=%s reason=%r",
            miner.hotkey,
            miner.uid,
            attempt.verdict.word,
            attempt.reason,
        )
        await self._book.record(
            standing.noted(after, attempt.verdict, attempt.reason),
            attempt,
            about=miner.commitment,
            block=BlockRef(draw.block_number, draw.block_hash),
            round=draw.round,
            hops=0,
            sector=draw.sector,
            evidence=kept,
        )
