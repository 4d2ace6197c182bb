"""The SDK's own client, intents and reads on a devnet, as several processes would use it at once."""

import asyncio
import time

import bittensor as bt
import pytest
from bittensor import calls
from bittensor.error_map import ErrorCode
from devnet_live import BLOCK_TIME, live, wallet

from tensorage.chain.devnet import open_substrate
from tensorage.chain.devnet.store import Store

ALICE, BOB, EVE = (wallet(uri) for uri in ("//Alice", "//Bob", "//Eve"))


@pytest.fixture
def path(tmp_path):
    with live(tmp_path / "devnet.sqlite") as path:
        yield path


@pytest.fixture
async def client(path):
    async with bt.Client("local", substrate=open_substrate(path)) as client:
        yield client


async def fund(client, address, tao=500):
    result = await client.execute(bt.Transfer(dest_ss58=address, amount_tao=tao), ALICE)
    result.raise_for_failure()


async def register(client, wallet):
    await fund(client, wallet.coldkey.ss58_address)
    return await client.execute(bt.BurnedRegister(netuid=1), wallet)


async def test_a_neurons_life_through_the_sdks_intents(client):
    first = await register(client, BOB)
    assert first.success
    assert first.data["shielded"]
    again = await client.execute(bt.BurnedRegister(netuid=1), BOB)
    assert (again.success, again.error.code) == (False, ErrorCode.ALREADY_EXISTS)
    hotkey = BOB.hotkey.ss58_address
    uid = await client.neurons.uid(hotkey_ss58=hotkey, netuid=1)
    assert uid == 1
    assert (await client.execute(bt.AddStake(netuid=1, hotkey_ss58=hotkey, amount_tao=100), BOB)).success
    assert (await client.execute(bt.ServeAxon(netuid=1, ip="127.0.0.1", port=8091), BOB)).success
    limited = await client.execute(bt.ServeAxon(netuid=1, ip="127.0.0.1", port=8092), BOB)
    assert limited.error.code is ErrorCode.RATE_LIMITED
    commitment = calls.Commitments.set_commitment(netuid=1, info={"fields": [[{"Raw5": b"hello"}]]})
    assert (await client.submit_call(commitment, BOB, signer="hotkey")).success
    await client.wait_for_epoch(1, timeout=30)
    weights = await client.execute(bt.SetWeights(netuid=1, weights={0: 1.0, 1: 3.0}), BOB)
    assert weights.success
    with pytest.raises(bt.ChainError) as too_fast:
        await client.execute(bt.SetWeights(netuid=1, weights={0: 1.0}), BOB)
    assert too_fast.value.code is ErrorCode.RATE_LIMITED
    await client.wait_for_epoch(1, timeout=30)
    graph = await client.subnets.metagraph(1)
    neuron = graph.by_hotkey(hotkey)
    assert neuron.axon == "127.0.0.1:8091"
    assert neuron.commitment.value == "hello"
    assert neuron.validator_permit
    assert neuron.dividends == 1.0
    assert neuron.alpha_stake.alpha > 100
    assert graph.neurons[0].incentive == 1.0
    assert (await client.weights.weights(netuid=1))[uid] == pytest.approx({0: 0.25, 1: 0.75}, abs=1e-4)
    with pytest.raises(bt.ChainError) as nobody:
        await client.execute(bt.SetWeights(netuid=1, weights={0: 1.0}), EVE)
    assert nobody.value.code is ErrorCode.NOT_REGISTERED


async def test_a_read_at_a_block_sees_what_that_block_left(client):
    assert (await register(client, BOB)).success
    head = await client.block()
    before = await (await client.at(head)).subnets.metagraph(1)
    assert (await register(client, EVE)).success
    assert len(await client.subnets.metagraph(1)) == len(before) + 1
    assert len(await (await client.at(head)).subnets.metagraph(1)) == len(before)
    genesis = await client.at(0)
    assert len(await genesis.subnets.metagraph(1)) == 1
    assert (await client.block_info(head)).hash == await client._substrate.block_hash(head)
    with pytest.raises(bt.ChainError):
        await (await client.at(10**6)).subnets.metagraph(1)


async def test_heads_come_one_by_one_and_final_ones_a_block_later(client):
    await client.wait_for_block(3)
    best, final = [], []

    async def watch(found, **options):
        async for header in client.blocks(**options):
            found.append((header.number, header.parent_hash))
            if len(found) == 12:
                return

    await asyncio.gather(watch(best), watch(final, finalized=True))
    for found in (best, final):
        numbers = [number for number, _ in found]
        assert numbers == list(range(numbers[0], numbers[0] + 12))
        for number, parent in found:
            assert parent == await client._substrate.block_hash(number - 1)
    assert best[0][0] - final[0][0] in (0, 1)
    assert await client.finalized_block() in (await client.block() - 1, await client.block())
    assert await client.block_time() == BLOCK_TIME
    age = time.time() - (await client.timestamp()).timestamp()
    assert -1 < age < 10


async def test_submissions_of_one_account_at_once_all_get_in(client, path):
    async def pay(number):
        async with bt.Client("local", substrate=open_substrate(path)) as own:
            return await own.execute(
                bt.Transfer(dest_ss58=EVE.coldkey.ss58_address, amount_tao=1 + number), ALICE
            )

    results = await asyncio.gather(*(pay(number) for number in range(8)))
    assert [result.message for result in results if not result.success] == []
    balance = await client.balances.get(EVE.coldkey.ss58_address)
    assert balance.tao == sum(range(1, 9))


async def test_an_extrinsic_signed_elsewhere_is_taken_with_its_own_signature_only(client):
    alice = ALICE.coldkey
    call = calls.Balances.transfer_keep_alive(BOB.coldkey.ss58_address, 10**9)
    unsigned = await client.prepare_call(call, address=alice.ss58_address)
    copy = type(unsigned).from_dict(unsigned.to_dict())  # across a machine boundary
    forged = await client.submit_signature(copy, EVE.coldkey.sign(copy.payload))
    assert (forged.success, forged.error.name) == (False, "BadProof")
    done = await client.submit_signature(copy, alice.sign(copy.payload))
    assert done.success
    replay = await client.submit_signature(copy, alice.sign(copy.payload))
    assert (replay.success, replay.error.name) == (False, "Stale")
    decoded = await client.decode_scale("Call", "0x" + unsigned.call_data.hex())
    assert decoded["call_function"] == "transfer_keep_alive"


async def test_a_subnet_with_commit_reveal_shows_the_sdks_timelocked_commit_as_pending(tmp_path):
    with live(tmp_path / "devnet.sqlite", commit_reveal=True) as path:
        async with bt.Client("local", substrate=open_substrate(path)) as client:
            assert (await register(client, BOB)).success
            hotkey = BOB.hotkey.ss58_address
            stake = bt.AddStake(netuid=1, hotkey_ss58=hotkey, amount_tao=100)
            assert (await client.execute(stake, BOB)).success
            await client.wait_for_block(await client.block() + 6)
            result = await client.execute(bt.SetWeights(netuid=1, weights={0: 1.0, 1: 1.0}), BOB)
            assert result.success
            pending = await client.weights.timelocked_weight_commits(netuid=1)
            ((commit,),) = pending.values()
            assert commit["hotkey"] == hotkey
            assert commit["reveal_round"] == result.data["reveal_round"]
            assert await client.weights.weights(netuid=1) == {}


async def test_what_a_devnet_does_not_have_is_said(client):
    for attempt in (
        client.query(("SubtensorModule", "NoSuchItem")),
        client.query_map(("Nowhere", "Nothing")),
        client.runtime(("NoApi", "no_method"), []),
        client.constant(("System", "NoConstant")),
        client.compose(calls.Call("Contracts", "call", {})),
        client.decode_scale("u32", "0x00"),
        client.multisig([ALICE.coldkey.ss58_address, BOB.coldkey.ss58_address], 2),
    ):
        with pytest.raises(bt.ChainError):
            await attempt


def test_the_blocking_client_works_from_any_thread(path):
    client = bt.SyncClient("local", substrate=open_substrate(path))
    try:
        assert client.subnets.burn(1).tao > 0
        first = client.block
        client.wait_for_block()
        assert client.block > first
    finally:
        client.close()


async def test_without_a_producer_reads_answer_and_submissions_say_what_to_start(tmp_path):
    path = tmp_path / "devnet.sqlite"
    with live(path):
        pass
    transfer = bt.Transfer(dest_ss58=BOB.coldkey.ss58_address, amount_tao=1)
    async with bt.Client("local", substrate=open_substrate(path)) as client:
        assert (await client.balances.get(ALICE.coldkey.ss58_address)).tao > 0
        with pytest.raises(bt.RpcConnectionError, match="tensorage devnet up --path"):
            await client.execute(transfer, ALICE)
        heads = client.blocks()
        await anext_of(heads)
        with pytest.raises(bt.RpcConnectionError, match="nobody makes blocks"):
            await asyncio.wait_for(anext_of(heads), 10)
        with live(path):
            assert (await client.execute(transfer, ALICE)).success
    with pytest.raises(bt.RpcConnectionError, match="there is no devnet"):
        await bt.Client("local", substrate=open_substrate(tmp_path / "none")).connect()


def anext_of(iterator):
    return iterator.__anext__()


async def waiting(store):
    """Until an extrinsic is in the pool."""
    for _ in range(500):
        if store.pool():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nothing came into the pool")


async def test_a_submission_whose_producer_goes_away_is_withdrawn(tmp_path, monkeypatch):
    path = tmp_path / "devnet.sqlite"
    with live(path, block_time=5.0):
        async with bt.Client("local", substrate=open_substrate(path)) as client:
            transfer = bt.Transfer(dest_ss58=BOB.coldkey.ss58_address, amount_tao=1)
            task = asyncio.create_task(client.execute(transfer, ALICE))
            store = Store(path)
            await waiting(store)
            monkeypatch.setattr("tensorage.chain.devnet.substrate.is_producing", lambda path: False)
            monkeypatch.setattr("tensorage.chain.devnet.substrate._WITHOUT_PRODUCER", 0.3)
            with pytest.raises(bt.RpcConnectionError, match="nobody makes blocks"):
                await task
            assert store.pool() == []
            store.close()
