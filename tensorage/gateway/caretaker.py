"""The caretaker: looks after the files of a gateway beside the validator's rounds.

Its duties run for ever, each step through `Quiet`, so that none begins while challenges are timed. What they
find reaches the score only between rounds, in `settle`: a miner is changed by one hand at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from ..chain.types import BlockRef
from ..receipts import Verdict, line
from ..service.duty import repeat
from ..validator import scoring, standing
from ..validator.book import Book
from ..validator.judge import Attempt, Judgement
from ..validator.standing import Miner
from .care import Care
from .health import Health
from .repair import Repairer
from .retrieval import Collector, Sampler
from .serving import Tally, Wrong

log = logging.getLogger(__name__)


class Caretaker:
    """Health, repair and retrieval in one.

    Args:
        allow_private: whether addresses are dialled that are not globally routable.
    """

    def __init__(self, care: Care, *, allow_private: bool = False) -> None:
        self._care = care
        self.health = Health(care)
        self.repairer = Repairer(care, self.health)
        self.collector = Collector(care)
        self.sampler = Sampler(care, allow_private=allow_private)

    def duties(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs for ever, by name."""
        return {
            name: repeat(name, work)
            for name, work in (
                ("checking shards", self.health.run),
                ("repairing files", self.repairer.run),
                ("collecting retrievals", self.collector.run),
                ("fetching as a client", self.sampler.run),
            )
        }

    async def settle(self, book: Book, block: BlockRef, now: int) -> None:
        """Bring what was found into the standing of miners; only between rounds.

        Args:
            block: of the last round, `now` its number.

        Raises:
            StorageError: a database cannot be read or written.
        """
        care = self._care
        tallies = await care.db(care.store.tallies, care.now())
        for hotkey, miner in list(book.miners.items()):
            tally = tallies.get(hotkey, Tally())
            after = scoring.after_serving(miner.standing, tally.served_bytes, tally.fetch_rate)
            if after != miner.standing:
                await book.save(replace(miner, standing=after), present=hotkey not in book.absent)
        charged: set[str] = set()
        for wrong in await care.db(care.store.wrongs):
            # Struck off first: a miner pays once for a shard, or, after a kill just here, not at all.
            await care.db(care.store.settled, [wrong.ticket])
            miner_now = book.miners.get(wrong.hotkey)
            if miner_now is None or wrong.hotkey in charged:
                continue
            if scoring.quarantined(miner_now.standing, now) or not await _committed(book, wrong):
                continue
            charged.add(wrong.hotkey)
            await _charge(book, miner_now, wrong, block, now)


async def _committed(book: Book, wrong: Wrong) -> bool:
    """Whether the shard stands in the newest commitment that was taken of its miner."""
    slots = await book.run(book.ledger.slots, wrong.hotkey)
    return any(slot.ticket.hash == wrong.ticket for slot in slots)


async def _charge(book: Book, miner: Miner, wrong: Wrong, block: BlockRef, now: int) -> None:
    """A receipt with the verdict `wrong`: what the miner committed to is not there."""
    reason = line(f"shard of ticket {wrong.ticket.hex()}: {wrong.reason}")
    attempt = Attempt(Verdict.WRONG, "shard", reason)
    after = standing.judged(miner, Judgement(attempt), now, deadline=1.0)
    log.warning("wrong shard charged hotkey=%s uid=%d reason=%r", miner.hotkey, miner.uid, reason)
    await book.record(after, attempt, about=miner.commitment, block=block, round=now, hops=0)
