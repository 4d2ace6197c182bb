"""A miner as a process with clients' shards on it: killed, full, and leaving with `miner exit`."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chain_net import Net, eventually, permitted
from miner_net import STARTED, VALIDATOR, Asker, Client, flags, start

from tensorage import seal, shard
from tensorage.allocator import leaving
from tensorage.allocator.schema import read_identity
from tensorage.allocator.store import Store
from tensorage.chain.devnet import faucet
from tensorage.chain.wallet import load_hotkey
from tensorage.transport.dendrite import Refused
from tensorage.transport.file_calls import MinerCalls

LEAST, MOST = shard.LEAST_LEAVES, shard.MOST_LEAVES


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    for process in STARTED:
        process.kill()
        process.wait()
        process.stderr.close()
    STARTED.clear()


@pytest.fixture
async def net(tmp_path):
    async with Net(tmp_path / "devnet.sqlite", tempo=20).producing(every=0.1) as net:
        await net.populate()
        wallet = faucet.open_wallet("m", "default", tmp_path / "wallets", create=True)
        async with faucet.client(net.path) as client:
            await faucet.register(client, wallet, net.settings.netuid)
        async with net.chain() as chain:
            await permitted(chain, VALIDATOR)
        yield net


@pytest.fixture
async def client(net, tmp_path):
    hotkey = load_hotkey("m", "default", str(tmp_path / "wallets"))
    async with net.chain() as chain, Asker(net, chain, miner=hotkey) as asker, Client(asker) as client:
        yield client


def store_of(root: Path) -> Store:
    """The database of the miner, beside it."""
    (path,) = root.glob("sn*/miner.sqlite")
    identity = read_identity(path)
    assert identity is not None
    return Store(path, identity)


async def ready(client: Client, root: Path, sectors: int) -> None:
    """Wait until the miner has committed and shared its space out."""
    await client.asker.committed(sectors, 120)
    with store_of(root) as store:
        await eventually(lambda: sum(store.partition().values()) == sectors, 30)


async def serves(client: Client) -> bool:
    try:
        return (await client.asker.dendrite.ping(await client.asker.neuron())).role == "miner"
    except Exception:
        return False


def leave(net, root: Path, wallets: Path, *extra: str, network: bool = True) -> subprocess.Popen[str]:
    """`tensorage miner exit` as a process."""
    arguments = [f"--wallet.path={wallets}", "--wallet.name=m", f"--db_root_path={root}"]
    arguments += [f"--subtensor.network={net.endpoint}", f"--netuid={net.settings.netuid}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorage", "miner", "exit", *arguments, *extra],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


async def said(process: subprocess.Popen[str], seconds: float = 60) -> tuple[str, str]:
    return await asyncio.to_thread(process.communicate, timeout=seconds)


async def test_a_miner_killed_between_receipt_and_commitment_keeps_the_shard(net, client, tmp_path):
    root, wallets = tmp_path / "disk", tmp_path / "wallets"
    process = start(flags(net, root, wallets, 2))
    await ready(client, root, 2)
    with store_of(root) as store:
        await eventually(lambda: store.pending().taken == 0, 30)
        before = await client.asker.commitment()
        ticket, data = await client.store(MOST)
        process.kill()
        process.wait()
        assert store.pending().taken == 1  # in its slot, and committed by nobody
    start(flags(net, root, wallets, 2))

    async def again() -> bool:
        return await serves(client) and (await client.asker.commitment()).seq > before.seq

    await eventually(again, 60)
    assert await client.piece(ticket) == data
    after = await client.asker.commitment()
    assert after.prev_hash == before.hash and after.capacity_root != before.capacity_root
    await client.asker.prove(after, hops=64)
    assert (await client.put(ticket, data)).ticket_hash == ticket.ticket.hash


async def test_a_full_disk_refuses_a_shard_and_goes_on_serving(net, client, tmp_path):
    root = tmp_path / "disk"
    process = start(flags(net, root, tmp_path / "wallets", 3))
    await ready(client, root, 3)
    ticket, data = await client.store(MOST)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (MOST * seal.LEAF_SIZE // 2, resource.RLIM_INFINITY))
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await client.store(MOST)
        assert (refused.value.status, refused.value.kind) == (507, "full")
    assert not list(root.rglob("*.coming")) and len(list(root.rglob("*.shard"))) == 1
    assert await client.piece(ticket) == data
    await client.asker.prove(await client.asker.commitment())
    await client.store(LEAST)  # for which there is room
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
    await client.store(MOST)
    assert process.poll() is None


async def test_a_miner_leaves_when_its_shards_are_moved_and_may_change_its_mind(net, client, tmp_path):
    root, wallets = tmp_path / "disk", tmp_path / "wallets"
    miner = start(flags(net, root, wallets, 2))
    await ready(client, root, 2)
    ticket, data = await client.store(LEAST)
    issuer = MinerCalls(client.asker.dendrite)
    neuron = await client.asker.neuron()

    outcome, _ = await said(leave(net, root, wallets, "--no_wait", "--json"))
    assert json.loads(outcome) == {"leaving": True, "shards": 1, "safe_to_stop": False}
    assert (await issuer.storage(neuron)).leaving
    with pytest.raises(Refused, match="leaving") as refused:
        await client.store(LEAST)
    assert refused.value.status == 503
    assert await client.put(ticket, data)  # which is there already

    outcome, _ = await said(leave(net, root, wallets, "--cancel", "--json"))
    assert json.loads(outcome) == {"leaving": False, "shards": 1, "safe_to_stop": False}
    assert not (await issuer.storage(neuron)).leaving
    more, _ = await client.store(LEAST)

    command = leave(net, root, wallets)
    began = time.monotonic()
    await eventually(lambda: _marked(root), 30)
    assert await client.piece(ticket) == data
    await issuer.remove(neuron, ticket.ticket.hash)
    await asyncio.sleep(1.5)
    assert command.poll() is None  # one is left
    await issuer.remove(neuron, more.ticket.hash)
    outcome, errors = await said(command)
    assert command.returncode == 0, errors
    assert "2 shards are left" in outcome and "it is safe to stop" in outcome
    assert "\x1b" not in outcome and time.monotonic() - began < 60
    assert miner.poll() is None
    await client.asker.prove(await client.asker.commitment())  # and goes on proving
    miner.send_signal(signal.SIGTERM)
    await asyncio.to_thread(miner.communicate, timeout=20)
    assert miner.returncode == 0


def _marked(root: Path) -> bool:
    with store_of(root) as store:
        return store.read(leaving.marked)


async def test_leaving_what_is_not_there_is_one_line_with_its_remedy(net, tmp_path):
    process = leave(net, tmp_path / "nowhere", tmp_path / "wallets")
    _, errors = await said(process)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: there is no miner in") and "--db_root_path" in line
