"""A validator's rounds against a miner as it is run: clients' shards come and go, and its credit stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from miner_net import MINER, VALIDATOR
from test_miner_shards import MOST, Stage, produced, stage

from tensorage import seal
from tensorage.chain.auth import verify
from tensorage.receipts import NO_SECTOR, Verdict
from tensorage.validator import export
from tensorage.validator.audit import Auditor
from tensorage.validator.book import Book
from tensorage.validator.exchange import Exchange
from tensorage.validator.lag import LagMeter
from tensorage.validator.ledger import LedgerIdentity, open_ledger
from tensorage.validator.parameters import Parameters
from tensorage.validator.pool import SealPool
from tensorage.validator.round import Rounds
from tensorage.validator.standing import Miner

PARAMETERS = Parameters(
    hops=8, deadline=2.0, round_seconds=60.0, audit_seconds=60.0, profiles=frozenset({0}), private=True
)


class Watch:
    """A validator's rounds over a running subnet."""

    def __init__(self, on: Stage, book: Book, rounds: Rounds, auditor: Auditor) -> None:
        self.on = on
        self.book = book
        self.rounds = rounds
        self.auditor = auditor

    @property
    def miner(self) -> Miner:
        return self.book.miners[MINER.ss58]

    async def until(
        self, done: Callable[[Miner], bool], *, credited: int, pause: float = 0.05, seconds: float = 60
    ) -> None:
        """Rounds, one after the other, until it is so; with at least so many sectors credited in each."""
        ends = time.monotonic() + seconds
        while True:
            report = await self.rounds.run()
            await self.auditor.run(report.peers, report.passed, report.block, report.number)
            assert len(self.miner.credited) >= credited
            assert set(self.miner.counts) <= {Verdict.PASSED}, self.miner.reason
            if done(self.miner):
                return
            assert time.monotonic() < ends, "it did not come to that"
            await asyncio.sleep(pause)


@asynccontextmanager
async def watching(on: Stage, directory: Path) -> AsyncIterator[Watch]:
    async with AsyncExitStack() as stack:
        chain = on.validator.chain
        identity = LedgerIdentity(chain.genesis_hash, chain.netuid, VALIDATOR.public_key)
        book = Book(open_ledger(directory / "validator.sqlite", identity), VALIDATOR.sign)
        await book.load()
        stack.push_async_callback(book.close)
        worker = stack.enter_context(ThreadPoolExecutor(1))
        sealer = stack.enter_context(ThreadPoolExecutor(1))
        exchange = Exchange(on.validator.dendrite, identity, PARAMETERS, verify, LagMeter(), worker)
        rounds = Rounds(chain, exchange, book, PARAMETERS)
        yield Watch(on, book, rounds, Auditor(exchange, book, PARAMETERS, SealPool(1, sealer)))


async def test_a_miner_that_is_run_keeps_its_credit_while_shards_come_and_go(tmp_path):
    async with (
        produced(tmp_path, tempo=80) as net,
        stage(net, tmp_path / "disk", 2, trash_days=1e-5) as on,
        watching(on, tmp_path) as watch,
    ):
        await watch.until(lambda miner: len(miner.credited) == 2, credited=0)
        ticket, _ = await on.client.store(MOST // 2)
        before = watch.miner.commitment.commitment.seq
        await on.newer(before)
        await watch.until(lambda miner: miner.commitment.commitment.seq > before, credited=2)
        (slot,) = await watch.book.run(watch.book.ledger.slots, MINER.ss58)
        assert (slot.ticket, slot.flaw, slot.accepted) == (ticket.ticket, "", True)
        assert slot.filler is not None
        # An audit of the sector that it is in: steady ones draw it sooner or later.
        await watch.until(lambda miner: with_shards(watch, slot.sector), credited=2)
        await on.issuer.remove(await on.neuron(), ticket.ticket.hash)
        # A miner that is always being asked does not come to seal again.
        await watch.until(lambda miner: not named(watch), credited=2, pause=0.5)
        found = export.check(export.export(watch.book.ledger.path), verify)
        assert found.verdicts["passed"] == found.receipts
        assert watch.miner.standing.credited_bytes == 2 * seal.DEV.size


def with_shards(watch: Watch, sector: int) -> bool:
    """Whether the newest audit was of that sector, and met a shard in it."""
    page, _ = watch.book.ledger.receipts(0, 10_000)
    audits = [receipt for receipt, _ in page if receipt.audited_sector != NO_SECTOR]
    return audits[-1].audited_sector == sector and "shards of their tickets" in audits[-1].reason


def named(watch: Watch) -> bool:
    return bool(watch.book.ledger.slots(MINER.ss58))
