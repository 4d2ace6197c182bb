"""A devnet with miners of different owners that run, and a client that puts a file on them."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

from bittensor.keyfiles import Keypair
from chain_net import Net, eventually
from miner_net import VALIDATOR, mining

from tensorage import shard
from tensorage.allocator.schema import read_identity
from tensorage.allocator.store import Store
from tensorage.chain.devnet import faucet
from tensorage.chain.wallet import Hotkey
from tensorage.coding import erasure, spread
from tensorage.coding.keys import FileKeys
from tensorage.gateway.rows import ShardRow
from tensorage.gateway.store import FileStore
from tensorage.keyauth import SigningKey
from tensorage.seal import LEAF_SIZE
from tensorage.shard import read_piece
from tensorage.transport.dendrite import Dendrite, Peer, Refused
from tensorage.transport.file_calls import GatewayCalls, MinerCalls
from tensorage.transport.file_messages import CompleteFile, CreateFile, ShardWanted
from tensorage.validator.parameters import Parameters
from tensorage.validator.service import ValidatorService, ValidatorSettings

LEAVES, K, N, STRIPES = 16, 2, 4, 2
FAST = Parameters(hops=8, round_seconds=0.5, audit_seconds=5.0, profiles=frozenset({0}), private=True)
HOTKEYS = [Hotkey.from_uri(f"//Kept/{number}") for number in range(8)]


class World:
    """The devnet, its miners, and a validator with a gateway."""

    def __init__(self, net: Net, path: Path, miners: int) -> None:
        self.net = net
        self.miners = miners
        self.path = path
        self.keys = FileKeys.of(os.urandom(32))
        self.inner: list[list[bytes]] = []

    async def register(self) -> None:
        """Put the miners on the subnet, each with a coldkey of its own."""
        async with faucet.client(self.net.path) as client:
            for number, key in enumerate(HOTKEYS[: self.miners]):
                cold, hot = Keypair.create_from_uri(f"//Keeper/{number}"), key.keypair
                keys = SimpleNamespace(coldkey=cold, coldkeypub=cold, hotkey=hot, hotkeypub=hot)
                await faucet.register(client, keys, self.net.settings.netuid)

    @asynccontextmanager
    async def miner(self, number: int):
        async with mining(self.net, self.root(number), 3, key=HOTKEYS[number]) as service:
            yield service

    def root(self, number: int) -> Path:
        return self.path / f"disk-{number}"

    def root_of(self, hotkey: str) -> Path:
        return self.root(next(number for number, key in enumerate(HOTKEYS) if key.ss58 == hotkey))

    def disk(self, hotkey: str) -> Store:
        (path,) = self.root_of(hotkey).glob("sn*/miner.sqlite")
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
                    return (await calls.info(gateway)).coldkeys == self.miners
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
