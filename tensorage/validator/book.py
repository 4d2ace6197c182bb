"""The book: what is known of every miner, in memory and in the ledger at once.

Memory changes only after the ledger has; so a full disk stops the score from moving instead of losing
receipts. All of SQLite happens in one thread of its own, never on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from ..chain.types import BlockRef
from ..commitment import SignedCommitment
from ..encoding import ZERO_HASH, sha256
from ..hashchain import Sign
from ..receipts import NO_SECTOR, Receipt
from .judge import Attempt
from .ledger import Evidence, Ledger
from .slots import Slot
from .standing import Miner

T = TypeVar("T")

_MOST_MS = 2**32 - 1


class Book:
    """Miners by hotkey, with the ledger behind them. `load` it before use and `close` it.

    Attributes:
        miners: all that were ever asked. `absent`: those of them that were not in the last metagraph.

    Args:
        sign: signs receipts with the validator's hotkey.
        unix_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        ledger: Ledger,
        sign: Sign,
        *,
        unix_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.ledger = ledger
        self.identity = ledger.identity
        self.miners: dict[str, Miner] = {}
        self.absent: set[str] = set()
        self._sign = sign
        self._unix_ms = unix_ms
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    async def load(self) -> None:
        """Read the miners. Who is still there shows with the first metagraph."""
        self.miners = await self.run(self.ledger.miners)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Do some work with the ledger, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *arguments))

    async def close(self) -> None:
        """Finish what is being written, and close the ledger."""
        await self.run(self.ledger.close)
        self._thread.shutdown(wait=False)

    async def save(self, miner: Miner, *, present: bool = True, slots: Sequence[Slot] | None = None) -> None:
        """Take note of what changed without a receipt; see `Ledger.save`."""
        await self.run(partial(self.ledger.save, miner, present=present, slots=slots))
        self.miners[miner.hotkey] = miner
        (self.absent.discard if present else self.absent.add)(miner.hotkey)

    async def record(
        self,
        miner: Miner,
        attempt: Attempt,
        *,
        about: SignedCommitment | None,
        block: BlockRef,
        round: int,
        hops: int,
        sector: int = NO_SECTOR,
        evidence: Sequence[Evidence] = (),
        fork: tuple[SignedCommitment, SignedCommitment] | None = None,
        slots: Sequence[Slot] | None = None,
    ) -> Receipt:
        """Write the receipt of an attempt, and what it made of the miner.

        Args:
            miner: as it is afterwards.
            about: the commitment that was asked about.
            round: of the challenge or of the draw; of the validator where nothing was asked.
            sector: the one that was audited.
            evidence: what is kept, beside what the attempt carries.
            slots: all of its newest commitment; None when they are as they were.
        """
        draft = Receipt(
            genesis=self.identity.genesis,
            netuid=self.identity.netuid,
            validator=self.identity.hotkey,
            seq=1,
            prev_hash=ZERO_HASH,
            unix_ms=self._unix_ms(),
            miner=miner.public_key,
            commitment_hash=about.commitment.hash if about else ZERO_HASH,
            block_number=block.number,
            block_hash=block.hash,
            round=round,
            hops=hops,
            audited_sector=sector,
            elapsed_ms=min(_MOST_MS, int(attempt.elapsed * 1000 + 0.5)),
            verdict=attempt.verdict,
            reason=attempt.reason,
            final_state=attempt.final_state,
            evidence_hash=sha256(attempt.evidence) if attempt.evidence else ZERO_HASH,
        )
        receipt = await self.run(
            partial(
                self.ledger.record,
                draft,
                miner,
                self._sign,
                evidence=evidence,
                fork=fork,
                about=about,
                slots=slots,
            )
        )
        self.miners[miner.hotkey] = miner
        return receipt
