"""What a new commitment changed in sectors that were known: fetching the slots, and having them checked.

Rules. All slots of the newest commitment are fetched whenever one is taken; how a sector changed is asked for
only where its root did, and within a bound of number and time: what does not come in time has changed for
all we know, and waits for an audit. A miner from before there were slots has none.

The slots are no part of the commitment's bytes. So the miner is asked for its commitment once more when all
is there: what it named belongs to what it showed only while that is the newest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..chain.types import Metagraph, Neuron
from ..commitment import Entry, SignedCommitment
from ..errors import ProofError
from ..seal import profile
from ..transport.dendrite import Refused
from . import slots
from .book import Book
from .exchange import Exchange
from .slots import Facts, Slot
from .standing import Miner
from .together import together

log = logging.getLogger(__name__)

#: Most sectors of one miner that are asked about in a round, and seconds that it may take.
MOST_TRANSITIONS = 1024
TRANSITIONS_SECONDS = 30.0
#: A miner with a ticket that is not good is judged again once in so many rounds.
REVIEW_ROUNDS = 12
#: Seconds of a round that judging again may take.
REVIEW_SECONDS = 10.0
_AT_ONCE = 2  # as many as a dendrite has connections to one peer


def unix_seconds() -> int:
    """Seconds since 1970."""
    return int(time.time())


@dataclass(frozen=True, slots=True)
class Changes:
    """What a commitment that is to be taken says of slots.

    Attributes:
        verified: sectors with another root than before in which nothing but slots changed.
        slots: all of it, with the flaws of their tickets.
        barred: the sectors without credit over a ticket, and why.
    """

    verified: frozenset[int] = frozenset()
    slots: list[Slot] = field(default_factory=list)
    barred: Mapping[int, str] = field(default_factory=dict)


class ChangeView:
    """Looks at what changed.

    Args:
        unix: tells the time by which tickets end, seconds since 1970.
    """

    def __init__(self, exchange: Exchange, book: Book, unix: Callable[[], int] = unix_seconds) -> None:
        self._exchange = exchange
        self._book = book
        self._unix = unix

    async def of(
        self,
        neuron: Neuron,
        miner: Miner,
        shown: SignedCommitment,
        entries: Sequence[Entry],
        metagraph: Metagraph,
    ) -> Changes | None:
        """What `shown`, with a checked listing, changed; None when the miner has a newer one meanwhile.

        Raises:
            PeerError: the slots did not come.
            ProofError: the commitment that is newest now is not the miner's.
        """
        claims = await self._exchange.slots(neuron)
        before = dict(miner.listing)
        known = await self._known(miner)
        changed = [index for index, root in entries if index in before and before[index] != root]
        if not claims and not known and not changed:
            return Changes()
        facts = self._facts(shown, metagraph)
        claims = slots.placed(claims, entries, profile(shown.commitment.profile).chunks)
        claims = await self._exchange.in_worker(slots.sound, claims, known, facts, self._exchange.verify)
        checked = await self._transitions(neuron, miner, shown, dict(entries), changed, claims, known)
        newest = await self._exchange.commitment(neuron, miner.public_key)
        if newest.commitment.hash != shown.commitment.hash:
            return None

        def judge() -> list[Slot]:
            return slots.judged(slots.merged(known, claims, before, entries, checked), facts)

        found = await self._exchange.in_worker(judge)
        return Changes(frozenset(checked), found, slots.barred(found))

    async def review(self, miner: Miner, metagraph: Metagraph) -> Changes:
        """The slots of the commitment that is known, judged again: tickets end, stakes come and go."""
        assert miner.commitment is not None
        facts = self._facts(miner.commitment, metagraph)
        known = await self._known(miner)

        def judge() -> list[Slot]:
            return slots.judged(slots.sound(known, known, facts, self._exchange.verify), facts)

        found = await self._exchange.in_worker(judge)
        return Changes(slots=found, barred=slots.barred(found))

    async def to_review(self, now: int) -> list[str]:
        """Hotkeys of the miners with slots that may be judged otherwise than they were; most urgent first.

        Those with a ticket that has ended, and now and then those with one that was not good. Each round
        begins with others, so that none of them can always be in the way.
        """
        ended = await self._book.run(self._book.ledger.with_ended_slots, self._unix())
        again = {
            hotkey
            for hotkey, miner in self._book.miners.items()
            if miner.barred and (now + miner.uid) % REVIEW_ROUNDS == 0
        }
        return [*_rotated(ended, now), *_rotated(again - ended, now)]

    async def _known(self, miner: Miner) -> list[Slot]:
        if miner.commitment is None:
            return []
        return await self._book.run(self._book.ledger.slots, miner.hotkey)

    async def _transitions(
        self,
        neuron: Neuron,
        miner: Miner,
        shown: SignedCommitment,
        after: Mapping[int, bytes],
        changed: Sequence[int],
        claims: Sequence[Slot],
        known: Sequence[Slot],
    ) -> dict[int, dict[int, Slot]]:
        """The slots of the sectors in which nothing else changed, by sector and chunk."""
        if miner.commitment is None or miner.commitment.commitment.profile != shown.commitment.profile:
            return {}
        seq = miner.commitment.commitment.seq
        chunks = profile(shown.commitment.profile).chunks
        before, old, new = dict(miner.listing), slots.by_sector(known), slots.by_sector(claims)

        async def look(index: int) -> dict[int, Slot] | None:
            try:
                transition = await self._exchange.transition(neuron, index, seq, chunks)
                roots = before[index], after[index]
                return slots.check_transition(transition, *roots, old.get(index, {}), new.get(index, {}))
            except (ProofError, Refused) as error:
                if isinstance(error, Refused) and error.kind != "unknown":
                    raise
                log.info(
                    "a sector changed and has to be audited hotkey=%s sector=%d reason=%r",
                    miner.hotkey,
                    index,
                    error.message,
                )
                return None

        jobs = {index: partial(look, index) for index in changed[:MOST_TRANSITIONS]}
        looked = await together(jobs, _AT_ONCE, within=TRANSITIONS_SECONDS)
        if len(looked) < len(changed):
            log.warning(
                "not all sectors that changed could be looked at hotkey=%s looked=%d changed=%d",
                miner.hotkey,
                len(looked),
                len(changed),
            )
        return {index: found for index, found in looked.items() if found is not None}

    def _facts(self, signed: SignedCommitment, metagraph: Metagraph) -> Facts:
        commitment = signed.commitment
        return Facts(
            genesis=commitment.genesis,
            netuid=commitment.netuid,
            miner=commitment.miner,
            chunks=commitment.sector_count * profile(commitment.profile).chunks,
            shares=slots.shares(metagraph),
            now=self._unix(),
        )


def _rotated(hotkeys: Collection[str], now: int) -> list[str]:
    listed = sorted(hotkeys)
    start = now * 37 % len(listed) if listed else 0
    return listed[start:] + listed[:start]
