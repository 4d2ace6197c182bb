"""What a gateway asks miners for by itself: room for shards, and that they remove or restore some."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from transport_net import neuron

from tensorage import ticket as tickets
from tensorage.chain.auth import verify
from tensorage.chain.types import BlockRef, Endpoint, Metagraph
from tensorage.chain.wallet import Hotkey
from tensorage.errors import RequestError
from tensorage.gateway.directory import (
    CHUNK_SIZE,
    FULL_SECONDS,
    LONGEST_PAUSE,
    POLL_SECONDS,
    Directory,
    Standings,
)
from tensorage.gateway.rows import Wanted
from tensorage.gateway.schema import Issuer
from tensorage.gateway.store import FileStore
from tensorage.gateway.sweep import Sweep
from tensorage.keyauth import SigningKey
from tensorage.transport.axon import Access, Axon, Call, Reply
from tensorage.transport.dendrite import Dendrite
from tensorage.transport.file_calls import MinerCalls
from tensorage.transport.file_messages import ShardState, StorageMessage
from tensorage.transport.nonces import SqliteNonceStore

VALIDATOR = Hotkey.from_uri("//V")
ISSUER = Issuer(bytes(32), 7, VALIDATOR.public_key)
NOW = 1_800_000_000
LATER = NOW + 30 * 86400


class Keeper:
    """A miner that says how much room it has, and does as it is told with shards.

    Attributes:
        shards: hash of each ticket to its state; `told`: (what, ticket) in the order it came.
        away: whether it answers anything but with a refusal.
    """

    def __init__(self, number: int, owner: int | None = None) -> None:
        self.key = Hotkey.from_uri(f"//Keeper/{number}")
        self.coldkey = f"owner {number if owner is None else owner}"
        self.storage = StorageMessage(leaving=False, quota=10, used=0, free_bytes=1 << 40)
        self.shards: dict[bytes, str] = {}
        self.told: list[tuple[str, bytes]] = []
        self.asked = 0
        self.away = False
        self.axon: Axon | None = None
        self.endpoint: Endpoint | None = None

    async def serve(self, net: Errands, path: Path, stack: AsyncExitStack) -> None:
        nonces = SqliteNonceStore(path / f"{self.key.ss58}.sqlite")
        stack.callback(nonces.close)
        axon = Axon(
            self.key.ss58, role="miner", host="127.0.0.1", port=0, metagraph=net.metagraph, nonces=nonces
        )
        axon.route("GET", "/v1/storage", self._storage, access=Access.REGISTERED)
        one = "/v1/shards/{ticket}"
        for method, route, state in (("DELETE", one, "trash"), ("POST", f"{one}/restore", "stored")):
            axon.route(method, route, self._become(state), access=Access.VALIDATOR)
        await axon.start()
        stack.push_async_callback(axon.stop)
        self.axon, self.endpoint = axon, Endpoint("127.0.0.1", axon.port)

    async def _storage(self, call: Call) -> Reply:
        self.asked += 1
        if self.away:
            raise RequestError("unready", "starting")
        return self.storage

    def _become(self, state):
        async def become(call: Call) -> Reply:
            name = bytes.fromhex(call.path["ticket"])
            self.told.append((state, name))
            if self.away:
                raise RequestError("unready", "starting")
            if name not in self.shards:
                raise RequestError("unknown", "no such shard")
            self.shards[name] = state
            return ShardState(ticket=name, state=state, until=None)

        return become


class Errands:
    """The gateway's side, with a clock that a test moves."""

    def __init__(self, keepers: list[Keeper], store: FileStore, dendrite: Dendrite) -> None:
        self.keepers = keepers
        self.store = store
        self.now = float(NOW)
        self.standings = Standings()
        calls = MinerCalls(dendrite)
        self.directory = Directory(
            calls,
            VALIDATOR.ss58,
            metagraph=self.metagraph,
            standings=self._standings,
            outstanding=self._outstanding,
            clock=lambda: self.now,
        )
        self.sweep = Sweep(store, calls, self.metagraph, clock=lambda: self.now)

    def metagraph(self) -> Metagraph:
        others = [
            replace(neuron(uid, keeper.key, keeper.endpoint), coldkey=keeper.coldkey)
            for uid, keeper in enumerate(self.keepers, start=1)
        ]
        ours = neuron(0, VALIDATOR, Endpoint("127.0.0.1", 1), permit=True)
        return Metagraph(7, BlockRef(1, bytes(32)), 360, VALIDATOR.ss58, (ours, *others))

    async def _standings(self) -> Standings:
        return self.standings

    async def _outstanding(self):
        return self.store.outstanding()

    def room(self) -> dict[int, int]:
        """Shards that each miner can take, by its number."""
        free = {candidate.hotkey: candidate.free_chunks for candidate in self.directory.candidates()}
        return {
            number: free[keeper.key.ss58]
            for number, keeper in enumerate(self.keepers)
            if keeper.key.ss58 in free
        }

    def upload(self, numbers: range) -> tuple[bytes, int, dict[int, bytes]]:
        """A file of one stripe: its id, its account, and the hashes of its tickets; some are stored."""
        store = self.store
        account = store.add_account(os.urandom(4).hex(), "key", os.urandom(32), 1 << 30, NOW).id
        key = SigningKey(os.urandom(32))
        id = store.create_file(account, key.public_key, 1, len(self.keepers) - 1, LATER, NOW).id

        def choose(taken, out, wanted):
            return [(keeper.key.ss58, keeper.coldkey) for keeper in self.keepers]

        places = store.place(id, account, 0, 16, (), lambda hotkey: True, choose, NOW)
        wanted = [Wanted(place.number, place.hotkey, os.urandom(32)) for place in places]
        signed = store.issue(id, account, 0, 16, wanted, VALIDATOR.sign, NOW)
        names = {place.number: ticket.ticket.hash for place, ticket in zip(places, signed, strict=True)}
        receipts = []
        for number in numbers:
            keeper = self.keepers[number]
            keeper.shards[names[number]] = "stored"
            receipts.append(tickets.stored(names[number], NOW * 1000, keeper.key.sign))
        store.record_stored(id, account, 0, receipts, verify, NOW)
        store.complete(id, account, 1000, 1, bytes(32), key.seed, NOW)
        return id, account, names


@asynccontextmanager
async def errands(tmp_path: Path, *keepers: Keeper):
    async with AsyncExitStack() as stack:
        store = stack.enter_context(FileStore(tmp_path / "files.sqlite", ISSUER))
        dendrite = await stack.enter_async_context(Dendrite(VALIDATOR, allow_private=True))
        net = Errands(list(keepers), store, dendrite)
        for keeper in keepers:
            await keeper.serve(net, tmp_path, stack)
        yield net


async def test_only_miners_that_say_so_have_room_and_no_more_than_they_say(tmp_path):
    keepers = [Keeper(number) for number in range(6)]
    keepers[1].storage = StorageMessage(leaving=True, quota=10, used=0, free_bytes=1 << 40)
    keepers[2].storage = StorageMessage(leaving=False, quota=10, used=7, free_bytes=1 << 40)
    keepers[3].storage = StorageMessage(leaving=False, quota=10, used=0, free_bytes=2 * CHUNK_SIZE + 1)
    keepers[4].storage = StorageMessage(leaving=False, quota=3, used=9, free_bytes=1 << 40)
    async with errands(tmp_path, *keepers) as net:
        assert net.room() == {}
        await net.directory.refresh()
        assert net.room() == {0: 10, 2: 3, 3: 2, 5: 10}
        assert net.directory.leaving() == {keepers[1].key.ss58}
        assert not net.directory.serves(keepers[1].key.ss58)
        assert not net.directory.serves(VALIDATOR.ss58 + "x")
        net.standings = Standings(failing=frozenset({keepers[0].key.ss58}))
        net.now += POLL_SECONDS
        await net.directory.refresh()
        assert net.room() == {2: 3, 3: 2, 5: 10}


async def test_what_is_given_away_is_not_given_twice_before_a_miner_counts_it(tmp_path):
    keeper = Keeper(0)
    keeper.storage = StorageMessage(leaving=False, quota=3, used=1, free_bytes=1 << 40)
    async with errands(tmp_path, keeper) as net:
        await net.directory.refresh()
        seed = bytes(32)
        assert net.directory.choose([], (), 5, seed) == [(keeper.key.ss58, keeper.coldkey)]
        assert net.room() == {0: 1}
        assert net.directory.choose([], {keeper.key.ss58}, 5, seed) == []
        assert len(net.directory.choose([], (), 1, seed)) == 1
        assert net.directory.choose([], (), 1, seed) == []
        # Asked anew it counts neither; one of them is known to the database as a place that is kept.
        net.now += POLL_SECONDS
        key = SigningKey(os.urandom(32))
        account = net.store.add_account("alice", "key", os.urandom(32), 1 << 30, NOW).id
        file = net.store.create_file(account, key.public_key, 1, 0, LATER, NOW)
        net.store.place(
            file.id, account, 0, 16, (), lambda hotkey: True, lambda *_: [(keeper.key.ss58, "x")], NOW
        )
        await net.directory.refresh()
        assert net.room() == {0: 1}


async def test_a_miner_that_fails_is_asked_less_and_less_and_one_without_room_sooner(tmp_path):
    failing, full = Keeper(0), Keeper(1)
    failing.away = True
    full.storage = StorageMessage(leaving=False, quota=0, used=0, free_bytes=1 << 40)
    async with errands(tmp_path, failing, full) as net:
        for _ in range(int(LONGEST_PAUSE)):
            await net.directory.refresh()
            net.now += 1.0
        assert full.asked == LONGEST_PAUSE // FULL_SECONDS
        assert failing.asked == 8  # after 0, 5, 15, 35, 75, 155, 315 and 635 seconds
        failing.away = False
        net.now += LONGEST_PAUSE
        await net.directory.refresh()
        assert net.room() == {0: 10}
        failing.away = True  # once may be the network
        net.now += POLL_SECONDS
        await net.directory.refresh()
        assert net.room() == {0: 10}
        net.now += POLL_SECONDS
        await net.directory.refresh()
        assert net.room() == {}
        failing.away = False
        net.now += LONGEST_PAUSE
        await net.directory.refresh()
        assert net.room() == {0: 10}


async def test_miners_are_told_of_removal_and_restoration_until_they_have_heard(tmp_path):
    keepers = [Keeper(number) for number in range(4)]
    async with errands(tmp_path, *keepers) as net:
        id, account, names = net.upload(range(4))
        keepers[1].away = True
        net.store.remove_file(id, account, NOW)
        await net.sweep.run()
        assert [keeper.shards[names[n]] for n, keeper in enumerate(keepers)] == [
            "trash",
            "stored",
            "trash",
            "trash",
        ]
        await net.sweep.run()
        assert [len(keeper.told) for keeper in keepers] == [1, 1, 1, 1]  # nobody is told again so soon
        keepers[1].away = False
        net.now += 120
        await net.sweep.run()
        assert keepers[1].shards[names[1]] == "trash"
        assert net.store.removals(int(net.now) + 86400) == []

        del keepers[2].shards[names[2]]
        net.store.restore_file(id, account, int(net.now))
        await net.sweep.run()
        assert [keepers[n].shards[names[n]] for n in (0, 1, 3)] == ["stored"] * 3
        (stripe,) = net.store.stripes_to_repair()
        assert stripe.missing == [2]


async def test_a_ticket_that_was_not_used_yet_is_called_back_until_it_expires(tmp_path):
    keepers = [Keeper(number) for number in range(2)]
    async with errands(tmp_path, *keepers) as net:
        _, _, names = net.upload(range(1))  # the ticket for the second miner gave no receipt
        for _ in range(40):
            await net.sweep.run()
            await net.sweep.end()
            net.now += 43200
        early = len(keepers[1].told)
        assert 10 < early < 40
        assert set(keepers[1].told) == {("trash", names[1])}
        keepers[1].shards[names[1]] = "stored"  # the client has used it after all
        net.now += 86400
        await net.sweep.run()
        assert keepers[1].shards[names[1]] == "trash"
        net.now += 86400
        await net.sweep.run()
        assert len(keepers[1].told) == early + 1
        assert keepers[0].told == []
