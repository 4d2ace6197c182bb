"""A gateway inside a validator that runs: on a devnet, over sockets, with miners of different owners."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from bittensor.keyfiles import Keypair
from care_net import Holder
from chain_net import Net, eventually, permitted

from tensorage import shard
from tensorage.chain.auth import verify
from tensorage.chain.devnet import faucet
from tensorage.chain.types import Endpoint
from tensorage.chain.wallet import Hotkey, load_hotkey
from tensorage.gateway.accounts import ApiKey
from tensorage.gateway.rows import file_id
from tensorage.keyauth import SigningKey
from tensorage.ticket import Stored
from tensorage.transport.dendrite import Dendrite, Peer, Refused
from tensorage.transport.file_calls import GatewayCalls, MinerCalls
from tensorage.transport.file_messages import CompleteFile, CreateFile, ShardWanted
from tensorage.validator.parameters import Parameters
from tensorage.validator.service import ValidatorService, ValidatorSettings

OWNERS = 6
LEAVES = 16
SIZE = LEAVES * 4096
STRANGER = Hotkey.from_uri("//Stranger")
FAST = Parameters(hops=8, round_seconds=0.5, audit_seconds=1.0, profiles=frozenset({0}), private=True)


class World:
    """A devnet, a validator with its wallet, and miners that have published where they serve."""

    def __init__(self, net: Net, path: Path, validator: Hotkey, holders: list[Holder]) -> None:
        self.net = net
        self.path = path
        self.validator = validator
        self.holders = {holder.ss58: holder for holder in holders}
        self.service: ValidatorService | None = None

    @property
    def peer(self) -> Peer:
        assert self.service is not None and self.service.axon is not None
        return Peer(self.validator.ss58, Endpoint("127.0.0.1", self.service.axon.port))

    @asynccontextmanager
    async def validating(self):
        parameters = {"chain": self.net.settings, "root": self.path / "db", "parameters": FAST}
        service = ValidatorService(ValidatorSettings(**parameters, host="127.0.0.1", port=0), self.validator)
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop))
        try:
            await eventually(lambda: service.axon is not None or task.done())
            if task.done():
                task.result()
            self.service = service
            async with Client(self, None) as anybody:
                await eventually(anybody.sees_all_miners)
            yield service
            assert not task.done()
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)

    async def keys(self, *words: str, fails: bool = False) -> str:
        """What `tensorage gateway keys` prints."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tensorage", "gateway", "keys", *words, "--wallet.name=v"),
            f"--wallet.path={self.path / 'wallets'}",
            f"--db_root_path={self.path / 'db'}",
            f"--netuid={self.net.settings.netuid}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, wrong = await asyncio.wait_for(process.communicate(), 60)
        assert b"Traceback" not in wrong
        assert (process.returncode == 2) is fails, wrong
        return (wrong if fails else said).decode()

    async def account(self, name: str, quota: str) -> ApiKey:
        return ApiKey.parse(await self.keys("create", name, "--quota", quota))


class Client:
    """A client of the gateway, who signs with any key."""

    def __init__(self, world: World, key: SigningKey | Hotkey | None) -> None:
        self.world = world
        self.dendrite = Dendrite(key, allow_private=True)
        self.calls = GatewayCalls(self.dendrite)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.dendrite.aclose()

    @property
    def peer(self) -> Peer:
        return self.world.peer

    async def info(self):
        return await self.calls.info(self.peer)

    async def sees_all_miners(self) -> bool:
        with suppress(Refused):  # as long as it is asking miners
            return (await self.info()).coldkeys == OWNERS
        return False

    async def create(self, access: SigningKey, k: int = 2, m: int = 3, *, days: int = 30):
        expires = int(time.time()) + days * 86400
        request = CreateFile(access=access.public_key, data_shards=k, parity_shards=m, expires=expires)
        return await self.calls.create_file(self.peer, request)

    async def put(self, id: bytes, stripe: int, numbers: range) -> list[Stored]:
        """Put shards of random bytes with those numbers where the gateway says."""
        places = (await self.calls.placement(self.peer, id, stripe, LEAVES)).places
        chosen = [place for place in places if place.number in numbers]
        data = [os.urandom(SIZE) for _ in chosen]
        wanted = [
            ShardWanted(number=place.number, miner=place.hotkey, root=shard.shard_root(some))
            for place, some in zip(chosen, data, strict=True)
        ]
        tickets = await self.calls.tickets(self.peer, id, stripe, LEAVES, wanted)
        miners = MinerCalls(self.dendrite)
        stored = []
        for place, ticket, some in zip(chosen, tickets, data, strict=True):
            ticket.check(verify)
            stored.append(await miners.put_shard(Peer(place.hotkey, place.endpoint), ticket, some))
        await self.calls.stored(self.peer, id, stripe, stored)
        return stored

    def complete(self, access: SigningKey, stripes: int):
        request = CompleteFile(size=1000, stripes=stripes, spread=bytes(32), reader=access.seed)
        return self.calls.complete(self.peer, file_id(access.public_key), request)


@pytest.fixture
async def world(tmp_path):
    wallet = faucet.open_wallet("v", "default", tmp_path / "wallets", create=True)
    validator = load_hotkey("v", path=tmp_path / "wallets")
    holders = [Holder(str(number)) for number in range(OWNERS)]
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(Net(tmp_path / "devnet.sqlite").producing(every=0.1))
        async with faucet.client(net.path) as client:
            await faucet.register(client, wallet, net.settings.netuid)
            await faucet.stake(client, wallet, net.settings.netuid, 1000)
            for number, holder in enumerate(holders):
                cold = Keypair.create_from_uri(f"//Owner/{number}")
                hot = holder.key.keypair
                keys = SimpleNamespace(coldkey=cold, coldkeypub=cold, hotkey=hot, hotkeypub=hot)
                await faucet.register(client, keys, net.settings.netuid)
        chain = await stack.enter_async_context(net.chain())
        await permitted(chain, validator)
        fresh = asyncio.create_task(chain.keep_fresh(1.0))
        stack.callback(fresh.cancel)
        there = SimpleNamespace(path=tmp_path, metagraph=chain.metagraph_now)
        for holder in holders:
            await holder.serve(there, stack)
            assert holder.endpoint is not None
            async with net.chain(f"//Holder/{holders.index(holder)}") as theirs:
                await theirs.serve_axon(holder.endpoint)
        yield World(net, tmp_path, validator, holders)


def refused(status: int, words: str = ""):
    return pytest.raises(Refused, match=f"^{status} .*{words}")


async def test_a_file_is_placed_stored_looked_up_and_removed_by_those_who_may(world):
    async with world.validating():
        owner, thief = await world.account("alice", "10MB"), await world.account("mallory", "10MB")
        access, other = SigningKey(os.urandom(32)), SigningKey(os.urandom(32))
        id = file_id(access.public_key)
        async with (
            Client(world, owner.key) as alice,
            Client(world, thief.key) as mallory,
            Client(world, access) as holder,
            Client(world, other) as stranger,
        ):
            info = await alice.info()
            assert (info.hotkey, info.data_shards, info.parity_shards) == (world.validator.ss58, 2, 4)
            assert (info.coldkeys, info.networks) == (OWNERS, 1)
            assert "6 shards instead of 30" in info.note
            with refused(409, "6 have room"):
                await alice.create(other, 2, 5)
            with refused(400, "expires"):
                await alice.create(other, days=500)

            made = await alice.create(access)
            assert (made.id, made.state) == (id, "uploading")
            assert await alice.create(access) == made
            places = (await alice.calls.placement(alice.peer, id, 0, LEAVES)).places
            assert [place.number for place in places] == [0, 1, 2, 3, 4]
            assert len({place.hotkey for place in places}) == 5 <= len(world.holders)
            assert (await alice.calls.placement(alice.peer, id, 0, LEAVES)).places == places

            # Tickets are for places that are kept, and for nothing else.
            free = next(hotkey for hotkey in world.holders if hotkey not in {p.hotkey for p in places})
            for number, miner in ((0, free), (0, places[1].hotkey), (5, places[0].hotkey)):
                wanted = [ShardWanted(number=number, miner=miner, root=bytes(32))]
                with refused(409, "no place"):
                    await alice.calls.tickets(alice.peer, id, 0, LEAVES, wanted)

            # A file of one account is not another's; a link looks it up and does no more.
            await alice.put(id, 0, range(1))
            for who, status in ((mallory, 404), (holder, 403), (stranger, 403)):
                for attempt in (
                    who.calls.placement(who.peer, id, 0, LEAVES),
                    who.put(id, 0, range(5)),
                    who.complete(access, 1),
                    who.calls.remove(who.peer, id),
                    who.calls.restore(who.peer, id),
                ):
                    with refused(status):
                        await attempt
            with refused(409, "made in another way"):
                await mallory.create(access)
            # A file under somebody's own key takes nothing from them.
            named = (await mallory.create(owner.key)).id
            assert (await alice.calls.file(alice.peer, id)).id == id
            await mallory.calls.remove(mallory.peer, named)
            for who, status in ((mallory, 404), (stranger, 403)):
                with refused(status):
                    await who.calls.file(who.peer, id)

            # Not before each stripe has as many shards as it takes to bring it back.
            with refused(409, "has 1 stored shards, and needs 2"):
                await alice.complete(access, 1)
            receipts = await alice.put(id, 0, range(1, 5))
            assert (await alice.complete(access, 1)).state == "stored"
            found = await holder.calls.file(holder.peer, id)
            assert found == await alice.calls.file(alice.peer, id)
            assert [place.number for place in found.stripes[0].shards] == [0, 1, 2, 3, 4]
            coldkeys = {world.holders[place.hotkey].coldkey for place in found.stripes[0].shards}
            assert len(coldkeys) == 5
            await holder.calls.report(holder.peer, id, receipts[0].ticket_hash, "late")
            with refused(404):
                await holder.calls.report(holder.peer, id, bytes(32), "late")
            account = await alice.calls.account(alice.peer)
            assert (account.name, account.quota, account.used) == ("alice", 10_000_000, 5 * SIZE)
            assert [file.id for file in (await alice.calls.files(alice.peer)).files] == [id]
            assert (await mallory.calls.files(mallory.peer)).files == []

            # Miners are told of the trash at once.
            removed = await alice.calls.remove(alice.peer, id)
            assert removed.state == "trash" and removed.until is not None
            assert 6.9 * 86400 < removed.until - time.time() <= 7 * 86400
            await eventually(lambda: sum(len(miner.trash) for miner in world.holders.values()) == 5, 30)
            assert (await alice.calls.restore(alice.peer, id)).state == "stored"


async def test_an_account_that_is_unknown_revoked_or_over_its_quota_gets_nothing(world):
    async with world.validating():
        made = json.loads(await world.keys("create", "alice", "--quota=200KB", "--json"))
        access = SigningKey(os.urandom(32))
        id = file_id(access.public_key)
        async with (
            Client(world, ApiKey.parse(made["key"]).key) as alice,
            Client(world, SigningKey(os.urandom(32))) as nobody,
            Client(world, STRANGER) as stranger,
        ):
            for who in (nobody, stranger):
                with refused(403, "no access"):
                    await who.calls.account(who.peer)
                with refused(403, "no access"):
                    await who.create(access)
            await alice.create(access)
            with refused(403, "over quota"):
                await alice.put(id, 0, range(5))
            assert (await alice.calls.account(alice.peer)).used == 0
            await alice.put(id, 0, range(3))
            with refused(403, "over quota"):
                await alice.put(id, 0, range(3, 4))

            await world.keys("create", "bob", "--quota=1GB", f"--hotkey={STRANGER.ss58}")
            assert (await stranger.calls.account(stranger.peer)).name == "bob"
            assert "already" in await world.keys("create", "bob", "--quota=1GB", fails=True)
            assert "amount" in await world.keys("create", "carol", "--quota=much", fails=True)
            listed = json.loads(await world.keys("list", "--json"))
            shown = [(item["name"], item["hotkey"], item["used"]) for item in listed]
            assert shown == [("alice", None, 3 * SIZE), ("bob", STRANGER.ss58, 0)]
            assert made["key"].rpartition("_")[2] not in json.dumps(listed)

            await world.keys("revoke", "alice")
            await world.keys("revoke", "bob")
            for who in (alice, stranger):
                with refused(403, "no access"):
                    await who.calls.account(who.peer)
            with refused(403, "no access"):
                await alice.put(id, 0, range(5))
            async with Client(world, access) as holder:  # links outlive accounts
                assert (await holder.calls.file(holder.peer, id)).state == "uploading"


async def test_an_upload_goes_on_where_it_was_when_the_validator_has_been_away(world):
    access = SigningKey(os.urandom(32))
    id = file_id(access.public_key)
    async with world.validating():
        key = (await world.account("alice", "1GB")).key
        async with Client(world, key) as alice:
            await alice.create(access)
            before = (await alice.calls.placement(alice.peer, id, 0, LEAVES)).places
            await alice.put(id, 0, range(2))
    async with world.validating(), Client(world, key) as alice:
        assert (await alice.create(access)).state == "uploading"
        after = (await alice.calls.placement(alice.peer, id, 0, LEAVES)).places
        assert after == before[2:]
        failed = after[0].hotkey
        moved = (await alice.calls.placement(alice.peer, id, 0, LEAVES, [failed])).places
        assert failed not in {place.hotkey for place in moved}
        assert [place.number for place in moved] == [2, 3, 4]
        await alice.put(id, 0, range(5))
        assert (await alice.complete(access, 1)).state == "stored"
