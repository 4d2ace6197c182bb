"""What clients read and what we fetch ourselves, over real sockets, and what becomes of it in the score."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest
from care_net import DAY, GENESIS, NETUID, VALIDATOR, Holder, Net, Put, cared

from tensorage import keyauth
from tensorage.chain.types import BlockRef
from tensorage.commitment import SignedCommitment, first_commitment
from tensorage.errors import RequestError
from tensorage.gateway.rows import ShardRow
from tensorage.gateway.store import FileStore
from tensorage.receipts import Verdict
from tensorage.seal import LEAF_SIZE
from tensorage.ticket import piece_path
from tensorage.validator import scoring
from tensorage.validator.book import Book
from tensorage.validator.ledger import LedgerIdentity, open_ledger
from tensorage.validator.slots import Slot
from tensorage.validator.standing import Miner


async def served(net: Net, holder: Holder) -> float:
    """Collect, and say what a miner served."""
    await net.caretaker.collector.run()
    tally = net.store.tallies(net.care.now()).get(holder.ss58)
    return tally.served_bytes if tally else 0.0


def signed_read(net: Net, put: Put, row: ShardRow, first: int, count: int, ago: float) -> None:
    """A record of a read that the client signed, so many seconds ago."""
    holder, nonce = net.holder(row), time.time_ns() - int(ago * 1e9)
    path = piece_path(row.ticket, first, count)
    asked = keyauth.request_hash("GET", path, holder.key.public_key, nonce, b"")
    holder.record(row.ticket, first, count, nonce, put.keys.access.sign(asked))


async def test_reads_of_clients_are_counted_by_distinct_leaves_and_no_more_than_the_shard(tmp_path):
    async with cared(tmp_path, 4) as net:
        put = await net.put(2, 4, leaves=32)
        row = net.stored(put)[1]
        holder = net.holder(row)
        assert await served(net, holder) == 0
        for _ in range(3):
            await net.read(put, row, 0, 8)
        assert await served(net, holder) == 8 * LEAF_SIZE
        await net.read(put, row, 4, 4)
        await net.read(put, row, 16, 16)
        assert await served(net, holder) == 24 * LEAF_SIZE
        await net.read(put, row, 0, 32)
        signed_read(net, put, row, 0, 32, ago=DAY)
        assert await served(net, holder) == row.size
        # Fades, and is of the miner that gave it alone.
        assert set(net.store.tallies(net.care.now())) == {holder.ss58}
        assert net.store.tallies(net.care.now() + 3 * DAY)[holder.ss58].served_bytes < 0.5 * row.size


async def test_records_that_are_shown_again_forged_old_or_of_the_future_count_nothing(tmp_path):
    async with cared(tmp_path, 4) as net:
        put = await net.put(2, 4)
        row, other = net.stored(put)[1], net.stored(put)[2]
        holder = net.holder(row)
        await net.read(put, row, 0, 4)
        before = await served(net, holder)
        assert before == 4 * LEAF_SIZE
        true = holder.records[0]
        false = [
            true.model_copy(update={"id": 2}),  # shown again
            true.model_copy(update={"id": 3, "leaf": 8}),  # another piece than the client asked for
            true.model_copy(update={"id": 4, "ticket": other.ticket}),  # of another miner
            true.model_copy(update={"id": 5, "nonce": true.nonce + 1}),
            true.model_copy(update={"id": 6, "leaf": 3, "count": 4}),  # no piece
        ]
        holder.records += false
        signed_read(net, put, row, 8, 8, ago=8 * DAY)
        signed_read(net, put, row, 8, 8, ago=-600)
        # The miner signs what no client asked for.
        holder.record(row.ticket, 8, 8, time.time_ns(), holder.key.sign(b"no client"))
        assert await served(net, holder) == before
        assert net.store.mark(holder.ss58).id == len(holder.records)


async def test_records_are_taken_page_by_page_and_from_the_start_when_a_miner_begins_anew(tmp_path):
    async with cared(tmp_path, 4) as net:
        put = await net.put(2, 4, leaves=1024)
        row = net.stored(put)[0]
        holder = net.holder(row)
        for leaf in range(700):
            signed_read(net, put, row, leaf, 1, ago=1)
        assert await served(net, holder) == 700 * LEAF_SIZE
        assert net.store.mark(holder.ss58).id == 700
        holder.records.clear()
        signed_read(net, put, row, 1000, 1, ago=1)
        assert await served(net, holder) == 701 * LEAF_SIZE
        net.store.close()
        with FileStore(net.store.path, net.store.issuer) as again:  # what was counted is on the disk
            assert again.tallies(net.care.now())[holder.ss58].served_bytes == 701 * LEAF_SIZE
            assert again.mark(holder.ss58).id == 1


async def test_a_fetch_of_ours_looks_like_a_clients_is_measured_and_is_not_counted_as_one(tmp_path):
    async with cared(tmp_path, 4) as net:
        put = await net.put(2, 4)
        row = net.stored(put)[0]
        holder = net.holder(row)
        fetch = await net.caretaker.sampler.fetch(row)
        assert fetch is not None
        assert (fetch.passed, fetch.reason) == (True, "")
        assert holder.asked[-1] == ("piece", "key")
        assert len(holder.records) == 1
        assert await served(net, holder) == 0
        assert net.store.tallies(net.care.now())[holder.ss58].fetch_rate == 1.0
        await net.read(put, row, fetch.first, fetch.count)  # a client reads the very same
        assert await served(net, holder) == fetch.count * LEAF_SIZE
        holder.refuse = RequestError("unready", "not for you")
        fetch = await net.caretaker.sampler.fetch(row)
        assert fetch is not None
        assert not fetch.passed
        assert net.store.tallies(net.care.now())[holder.ss58].fetch_rate == pytest.approx(0.5, abs=1e-3)
        holder.refuse = None
        # It is looked into at once.
        assert net.store.due_for_check(10, 0)[0].ticket == row.ticket


async def test_a_miner_that_gives_clients_other_bytes_than_it_is_challenged_for_is_found_by_a_fetch(tmp_path):
    async with cared(tmp_path, 6) as net:
        put = await net.put(2, 4)
        row = net.stored(put)[3]
        net.holder(row).spoil(row.ticket)
        fetch = await net.caretaker.sampler.fetch(row)
        assert fetch is not None
        assert not fetch.passed
        assert [wrong.ticket for wrong in net.store.wrongs()] == [row.ticket]
        await net.caretaker.repairer.run()
        assert net.is_whole(put)


async def test_fetches_reach_every_miner_with_shards_at_times_that_nobody_can_tell(tmp_path):
    async with cared(tmp_path, 4) as net:
        await net.put(2, 4, stripes=2)
        pauses = {await net.caretaker.sampler.run() for _ in range(40)}
        assert len(pauses) == 40
        assert all(0 <= pause <= 2 * 100 / 4 for pause in pauses)
        assert all(("piece", "key") in holder.asked for holder in net.holders)


# In the score


@asynccontextmanager
async def booked(net: Net, *rows: ShardRow):
    """A ledger in which every miner is credited with 1,000 shards, and has `rows` in its commitment."""
    identity = LedgerIdentity(GENESIS, NETUID, VALIDATOR.public_key)
    book = Book(open_ledger(net.path / "validator.sqlite", identity), VALIDATOR.sign)
    await book.load()
    for uid, holder in enumerate(net.holders, start=1):
        standing = scoring.Standing(round=1, credited_bytes=1000 * 16 * LEAF_SIZE)
        for _ in range(10):
            standing = scoring.after_pass(standing, 1, 32, 0.1)
        slots = [Slot(0, at, row.decoded()) for at, row in enumerate(rows) if row.hotkey == holder.ss58]
        key = holder.key
        drawn = first_commitment(GENESIS, NETUID, key.public_key, 0, [(0, bytes(32))], 1)
        commitment = SignedCommitment(drawn, key.sign(drawn.hash))
        miner = Miner(key.ss58, key.public_key, uid, 1, standing=standing, commitment=commitment)
        await book.save(miner, slots=slots)
    try:
        yield book
    finally:
        await book.close()


async def test_what_was_served_and_fetched_adds_to_the_score_and_survives_the_ledger(tmp_path):
    async with cared(tmp_path, 4) as net:
        put = await net.put(2, 4)
        row = net.stored(put)[1]
        async with booked(net) as book:
            before = scoring.score(book.miners[row.hotkey].standing)
            await net.read(put, row, 0, 16)
            await served(net, net.holder(row))
            await net.caretaker.settle(book, BlockRef(1, bytes(32)), 1)
            assert scoring.score(book.miners[row.hotkey].standing) == before  # no fetch of ours yet
            await net.caretaker.sampler.fetch(row)
            await net.caretaker.settle(book, BlockRef(1, bytes(32)), 1)
            after = scoring.score(book.miners[row.hotkey].standing)
            assert after / before - 1 == pytest.approx(0.5 / 1000, rel=1e-3)
            again = await book.run(book.ledger.miners)
            assert again[row.hotkey].standing == book.miners[row.hotkey].standing


async def test_a_wrong_shard_is_charged_once_and_only_when_it_was_committed_to(tmp_path):
    async with cared(tmp_path, 4) as net:
        put = await net.put(2, 4, stripes=2)
        holder = net.holders[0]
        mine = [
            row for stripe in (0, 1) for row in net.stored(put, stripe).values() if row.hotkey == holder.ss58
        ]
        other = next(row for row in net.stored(put).values() if row.hotkey != holder.ss58)
        for row in (*mine, other):
            net.holder(row).spoil(row.ticket)
        async with booked(net, *mine) as book:
            await net.caretaker.health.run()
            assert len(net.store.wrongs()) == 3
            for now in (2, 3):
                await net.caretaker.settle(book, BlockRef(7, bytes(32)), now)
            assert net.store.wrongs() == []
            charged = book.miners[holder.ss58]
            assert charged.counts == {Verdict.WRONG: 1}  # two shards in one round are one answer
            assert charged.standing.integrity == 0.5
            assert scoring.score(charged.standing) == 0
            assert mine[0].ticket.hex() in charged.reason or mine[1].ticket.hex() in charged.reason
            assert book.miners[other.hotkey].counts == {}
            receipts, _ = await book.run(book.ledger.receipts, 1, 10)
            assert [(receipt.miner, receipt.round) for receipt, _ in receipts] == [(holder.key.public_key, 2)]
