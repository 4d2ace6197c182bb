"""A chain that stops, vanishes or swallows an answer: nothing stale is acted on, nothing is sent twice."""

import asyncio
import logging

import pytest
from chain_net import Faults, Net, eventually, permitted

from tensorage.chain import connection
from tensorage.chain.types import Endpoint
from tensorage.chain.wallet import Hotkey
from tensorage.chain.weights import ERA
from tensorage.errors import ChainError, StaleChainError

V, M1 = (Hotkey.from_uri(uri) for uri in ("//V", "//M1"))


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(connection, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(connection, "LONGEST_DELAY", 0.05)


@pytest.fixture
async def net(tmp_path):
    net = Net(tmp_path / "devnet.sqlite")
    async with net.producing():
        await net.populate()
        async with net.chain() as chain:
            await permitted(chain, V)
    return net


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


async def test_a_snapshot_serves_while_the_chain_is_away_and_then_fails_closed(net, caplog):
    caplog.set_level(logging.INFO, logger="tensorage")
    clock, faults = Clock(), Faults()
    async with net.chain(stale_after=100, clock=clock, opener=faults.open) as chain:
        known = await chain.metagraph(max_age=10)
        faults.away = True
        for now in (50, 99):
            clock.now = now
            assert await chain.metagraph(max_age=10) is known
            assert chain.metagraph_now() is known
        clock.now = 101
        with pytest.raises(StaleChainError, match="101 s old"):
            chain.metagraph_now()
        with pytest.raises(StaleChainError):
            await chain.metagraph(max_age=1000)
        net.blocks()
        faults.away = False
        clock.now = 200
        assert (await chain.metagraph(max_age=10)).block.number > known.block.number
    logged = [record.message for record in caplog.records if record.name.startswith("tensorage.chain")]
    assert [text.split(" chain=")[0] for text in logged] == ["chain is away", "chain answers again"]


async def test_a_chain_that_answers_but_makes_no_blocks_goes_stale_too(net):
    clock = Clock()
    async with net.chain(stale_after=100, clock=clock) as chain:
        known = await chain.metagraph(max_age=10)
        clock.now = 60
        assert (await chain.metagraph(max_age=10)).block == known.block
        clock.now = 120
        with pytest.raises(StaleChainError):
            await chain.metagraph(max_age=10)
        net.blocks(2)
        assert (await chain.metagraph(max_age=10)).block.number > known.block.number


async def test_one_snapshot_answers_everybody_who_asks_at_once(net):
    async with net.chain() as chain:
        asked = await asyncio.gather(*(chain.metagraph(max_age=30) for _ in range(20)))
        assert all(snapshot is asked[0] for snapshot in asked)


async def test_keep_fresh_survives_an_outage(net):
    faults = Faults()
    async with net.chain(opener=faults.open) as chain:
        first = await chain.metagraph(max_age=0)
        task = asyncio.create_task(chain.keep_fresh(0.02))
        await asyncio.sleep(0.2)
        faults.away = True
        await asyncio.sleep(0.2)
        net.blocks(3)
        faults.away = False
        await eventually(lambda: chain.metagraph_now().block != first.block)
        task.cancel()


async def test_heads_go_on_after_an_outage_and_after_a_stall(net, caplog):
    caplog.set_level(logging.INFO, logger="tensorage")
    faults, seen = Faults(), []

    async def watch(chain):
        async for head in chain.heads(stall_after=0.2):
            seen.append(head)

    async with net.chain(opener=faults.open) as chain:
        task = asyncio.create_task(watch(chain))
        async with net.producing():
            await eventually(lambda: len(seen) >= 3)
        await asyncio.sleep(0.8)  # a stall, several times as long as is borne
        faults.away = True
        await asyncio.sleep(0.2)
        faults.away = False
        before = len(seen)
        async with net.producing():
            await eventually(lambda: len(seen) >= before + 3)
            assert seen[-1].hash == await chain.block_hash(seen[-1].number)
        task.cancel()
    heights = [head.number for head in seen]
    assert heights == sorted(set(heights))
    assert len([record for record in caplog.records if "makes no blocks" in record.message]) == 1
    assert len([record for record in caplog.records if "blocks again" in record.message]) == 1


async def weights(net, chain, hotkey=M1):
    uid = (await chain.metagraph(max_age=0)).by_hotkey(hotkey.ss58).uid
    async with net.producing():
        return await chain.set_weights({uid: 1.0}, 0)


async def test_weights_that_landed_behind_a_broken_connection_are_not_sent_again(net):
    faults = Faults()
    async with net.chain("//V", opener=faults.open) as chain:
        faults.submit = "cut"
        assert (await weights(net, chain)).status == "unknown"
        faults.submit = None
        outcome = await weights(net, chain)
        assert outcome.status == "set"
        assert await net.calls("set_mechanism_weights") == [outcome.block]


async def test_weights_that_were_lost_are_sent_again_only_when_they_can_no_longer_land(net):
    faults = Faults()
    async with net.chain("//V", opener=faults.open) as chain:
        faults.submit = "lost"
        first = await weights(net, chain)
        assert first.status == "unknown"
        faults.submit = None
        waiting = await weights(net, chain)
        assert waiting.status == "unknown"
        assert waiting.block == first.block
        assert not await net.calls("set_mechanism_weights")
        net.blocks(ERA + 2)
        assert (await weights(net, chain)).status == "set"
        assert len(await net.calls("set_mechanism_weights")) == 1


async def test_weights_that_never_left_may_be_sent_at_once(net):
    faults = Faults()
    async with net.chain("//V", opener=faults.open) as chain:
        await chain.metagraph(max_age=0)
        faults.away = True
        with pytest.raises(ChainError):
            await chain.set_weights({0: 1.0}, 0)
        faults.away = False
        await asyncio.sleep(0.1)
        assert (await weights(net, chain)).status == "set"


async def test_an_axon_published_behind_a_broken_connection_is_not_published_twice(net):
    faults = Faults()
    async with net.chain("//M1", opener=faults.open) as chain, net.producing():
        faults.submit = "cut"
        assert await chain.serve_axon(Endpoint("127.0.0.1", 4242)) is True
        assert len(await net.calls("serve_axon")) == 1
