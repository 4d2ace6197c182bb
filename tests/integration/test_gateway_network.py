"""Files that are looked after by a validator that runs, on a devnet, with real miners that fail and leave."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

from bittensor.keyfiles import Keypair
from chain_net import Net, eventually, permitted
from miner_net import VALIDATOR, mining

from tensorage import shard
from tensorage.allocator import leaving
from tensorage.allocator.schema import read_identity
from tensorage.allocator.store import Store
from tensorage.chain.devnet import faucet
from tensorage.chain.types import Endpoint
from tensorage.chain.wallet import Hotkey
from tensorage.coding import erasure, spread
from tensorage.coding.keys import FileKeys
from tensorage.gateway.accounts import ApiKey
from tensorage.gateway.rows import ShardRow
from tensorage.gateway.schema import FILES_NAME, Issuer
from tensorage.gateway.store import FileStore
from tensorage.keyauth import SigningKey
from tensorage.seal import LEAF_SIZE
from tensorage.shard import read_piece
from tensorage.transport.dendrite import Dendrite, Peer, Refused
from tensorage.transport.file_calls import GatewayCalls, MinerCalls
from tensorage.transport.file_messages import CompleteFile, CreateFile, ShardWanted
from tensorage.validator.parameters import Parameters
from tensorage.validator.service import ValidatorService, ValidatorSettings
from tensorage.validator.status import read_status

MINERS, LEAVES, K, N, STRIPES = 8, 16, 2, 4, 2
FAST = Parameters(hops=8, round_seconds=0.5, audit_seconds=5.0, profiles=frozenset({0}), private=True)
HOTKEYS = [Hotkey.from_uri(f"//Kept/{number}") for number in range(MINERS)]


class World:
    """The devnet, its miners, and a validator with a gateway."""

    def __init__(self, net: Net, path: Path) -> None:
        self.net = net
        self.path = path
        self.keys = FileKeys.of(os.urandom(32))
        self.inner: list[list[bytes]] = []

    @asynccontextmanager
    async def miner(self, number: int):
        async with mining(self.net, self.root(number), 3, key=HOTKEYS[number]) as service:
            yield service

    def root(self, number: int) -> Path:
        return self.path / f"disk-{number}"

    def disk(self, hotkey: str) -> Store:
        number = next(number for number, key in enumerate(HOTKEYS) if key.ss58 == hotkey)
        (path,) = self.root(number).glob("sn*/miner.sqlite")
        identity = read_identity(path)
        assert identity is not None
        return Store(path, identity)

    @asynccontextmanager
    async def validating(self):
        settings = ValidatorSettings(
            chain=self.net.settings, root=self.path / "db", host="127.0.0.1", port=0, parameters=FAST
        )
        service = ValidatorService(settings, VALIDATOR)
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop))
        try:
            await eventually(lambda: service.axon is not None or task.done())
            if task.done():
                task.result()
            yield service
            assert not task.done()
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)

    async def put(self, gateway: Peer, key: SigningKey) -> None:
        """Put a file as a client does."""
        access = self.keys.access
        async with Dendrite(key, allow_private=True) as dendrite:
            calls, miners = GatewayCalls(dendrite), MinerCalls(dendrite)

            async def all_there() -> bool:
                try:
                    return (await calls.info(gateway)).coldkeys == MINERS
                except Refused as refused:
                    assert refused.kind == "unready"  # it asks them for the first time
                    return False

            await eventually(all_there)
            expires = int(time.time()) + 86400
            created = await calls.create_file(
                gateway,
                CreateFile(access=access.public_key, data_shards=K, parity_shards=N - K, expires=expires),
            )
            for stripe in range(STRIPES):
                data = [os.urandom(LEAVES * LEAF_SIZE) for _ in range(K)]
                self.inner.append([*data, *erasure.encode(data, N)])
                places = (await calls.placement(gateway, created.id, stripe, LEAVES)).places
                bodies = [self.outer(stripe, place.number, place.hotkey) for place in places]
                wanted = [
                    ShardWanted(number=place.number, miner=place.hotkey, root=shard.shard_root(body))
                    for place, body in zip(places, bodies, strict=True)
                ]
                tickets = await calls.tickets(gateway, created.id, stripe, LEAVES, wanted)
                receipts = [
                    await miners.put_shard(Peer(place.hotkey, place.endpoint), ticket, body)
                    for place, ticket, body in zip(places, tickets, bodies, strict=True)
                ]
                await calls.stored(gateway, created.id, stripe, receipts)
            size = STRIPES * K * LEAVES * LEAF_SIZE
            await calls.complete(
                gateway,
                created.id,
                CompleteFile(size=size, stripes=STRIPES, spread=self.keys.spread, reader=access.seed),
            )

    def outer(self, stripe: int, number: int, hotkey: str) -> bytes:
        miner = next(key for key in HOTKEYS if key.ss58 == hotkey)
        inner = self.inner[stripe][number]
        return spread.apply(self.keys.spread, self.keys.file_id, stripe, number, miner.public_key, inner)

    async def read_all(self, rows: list[ShardRow], metagraph) -> None:
        """Read shards as their client; each must be what was put."""
        async with Dendrite(self.keys.access, allow_private=True) as dendrite:
            for row in rows:
                neuron = metagraph.by_hotkey(row.hotkey)
                answer = await MinerCalls(dendrite).piece(neuron, row.decoded(), 0, LEAVES)
                data = read_piece(row.root, LEAVES, 0, LEAVES, answer)
                assert data == self.outer(row.stripe, row.number, row.hotkey)


def stored(store: FileStore, world: World) -> list[ShardRow]:
    """The stored shards of the file."""
    found = [store.stripe(world.keys.file_id, number) for number in range(STRIPES)]
    return [row for stripe in found if stripe for row in stripe.shards if row.state == "stored"]


async def test_a_file_survives_a_damaged_disk_a_miner_that_leaves_and_two_that_are_gone(tmp_path):
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(Net(tmp_path / "devnet.sqlite").producing(every=0.1))
        await net.populate()
        async with faucet.client(net.path) as client:
            for number, key in enumerate(HOTKEYS):
                cold, hot = Keypair.create_from_uri(f"//Keeper/{number}"), key.keypair
                keys = SimpleNamespace(coldkey=cold, coldkeypub=cold, hotkey=hot, hotkeypub=hot)
                await faucet.register(client, keys, net.settings.netuid)
        chain = await stack.enter_async_context(net.chain())
        await permitted(chain, VALIDATOR)
        world = World(net, tmp_path)
        running = {}
        for number in range(MINERS):
            own = await stack.enter_async_context(AsyncExitStack())
            await own.enter_async_context(world.miner(number))
            running[HOTKEYS[number].ss58] = own
        service = await stack.enter_async_context(world.validating())
        assert service.axon is not None and service.ledger_path is not None
        gateway = Peer(VALIDATOR.ss58, Endpoint("127.0.0.1", service.axon.port))
        issuer = Issuer(chain.genesis_hash, net.settings.netuid, VALIDATOR.public_key)
        store = stack.enter_context(FileStore(service.ledger_path.parent / FILES_NAME, issuer))
        key = ApiKey.new(VALIDATOR.ss58)
        store.add_account("somebody", "key", key.key.public_key, 1 << 30, int(time.time()))
        await world.put(gateway, key.key)

        def whole() -> bool:
            rows = stored(store, world)
            sound = {(row.stripe, row.number) for row in rows if row.health == "ok"}
            return len(sound) == len(rows) == STRIPES * N

        await eventually(whole)

        # What clients read is in the score, once the shards are committed to and fetched by us.
        await world.read_all(stored(store, world), await chain.metagraph(max_age=0))

        def paid() -> bool:
            tallies = store.tallies(int(time.time()))
            scores = {row.hotkey: row for row in read_status(service.ledger_path)}
            return all(
                row.hotkey in tallies
                and tallies[row.hotkey].served_bytes >= row.size
                and tallies[row.hotkey].fetch_rate > 0
                and scores[row.hotkey].credited_bytes > 0
                and scores[row.hotkey].score > 0
                for row in stored(store, world)
            )

        await eventually(paid, 120)

        # A disk is damaged: its miner finds out when it is asked, and says that it has the shard no more.
        bad = stored(store, world)[0]
        (file,) = world.root(_number(bad.hotkey)).rglob(f"{bad.ticket.hex()}.shard")
        with file.open("r+b") as damaged:
            damaged.seek(100)
            damaged.write(bytes(LEAVES * LEAF_SIZE - 200))
        store.report(bad.ticket)

        def replaced() -> bool:
            return whole() and bad.ticket not in {row.ticket for row in stored(store, world)}

        await eventually(replaced, 120)

        # A miner leaves: what it has is somewhere else before it is told to remove it.
        leaver = stored(store, world)[-1].hotkey
        with world.disk(leaver) as disk:
            leaving.mark(disk, True)

        def drained() -> bool:
            rows = store.shards_of_miner(leaver)
            return whole() and not rows

        await eventually(drained, 120)

        # Two miners are gone: more than half of what may be missing.
        for hotkey in sorted({row.hotkey for row in stored(store, world) if row.stripe == 0})[:2]:
            await running[hotkey].aclose()
            del running[hotkey]

        def rebuilt() -> bool:
            rows = [row for row in stored(store, world) if row.hotkey in running and row.health == "ok"]
            return len({row.number for row in rows if row.stripe == 0}) == N

        await eventually(rebuilt, 120)
        rows = [row for row in stored(store, world) if row.stripe == 0]
        assert len({row.coldkey for row in rows}) == N
        await world.read_all(rows, await chain.metagraph(max_age=0))


def _number(hotkey: str) -> int:
    return next(number for number, key in enumerate(HOTKEYS) if key.ss58 == hotkey)
