"""A gateway that looks after files, and miners in memory with real sockets and keys, which may cheat.

Files are put as a client does it, through the store's own places, tickets and receipts.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from transport_net import neuron

from tensorage import merkle, shard, ticket
from tensorage.chain.auth import verify
from tensorage.chain.types import BlockRef, Endpoint, Metagraph, Neuron
from tensorage.chain.wallet import Hotkey
from tensorage.coding import erasure
from tensorage.coding.keys import FileKeys
from tensorage.encoding import sha256
from tensorage.errors import RequestError
from tensorage.gateway.care import Care, CareSettings
from tensorage.gateway.caretaker import Caretaker
from tensorage.gateway.directory import Directory, Standings
from tensorage.gateway.rebuild import layered
from tensorage.gateway.rows import Account, FileRow, ShardRow, StripeRow, Wanted
from tensorage.gateway.schema import Issuer
from tensorage.gateway.store import FileStore
from tensorage.seal import LEAF_SIZE
from tensorage.service.quiet import Quiet
from tensorage.ticket import Retrieval, SignedTicket
from tensorage.transport.axon import Access, Axon, Call, Client, Reply, StreamCall
from tensorage.transport.dendrite import Dendrite
from tensorage.transport.file_calls import TICKET_HEADER, MinerCalls
from tensorage.transport.file_messages import (
    RETRIEVALS_PAGE,
    RetrievalMessage,
    RetrievalsPage,
    ShardChallenge,
    ShardState,
    StorageMessage,
    StoredMessage,
)
from tensorage.transport.limits import Limits, Rate
from tensorage.transport.nonces import SqliteNonceStore

GENESIS = sha256(b"genesis of the gateway tests")
NETUID = 7
VALIDATOR = Hotkey.from_uri("//Gateway")
SETTINGS = CareSettings(round_seconds=100.0, checks=1000, deadline=5.0, lost_after=4, repair_pause=0.0)
DAY = 86400


class Clock:
    """The time, and as much more as a test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def rounds(self, count: float) -> None:
        self.ahead += count * SETTINGS.round_seconds


class Holder:
    """A miner that holds shards. Honest, unless a test changes what it has or how it answers.

    Attributes:
        shards: bytes by ticket hash, which a test may spoil.
        trash: those it was told to remove.
        refuse: what it says to everything that is about a shard.
        asked: routes that were asked, with the kind of whoever asked.
        records: retrievals, by number.
    """

    def __init__(self, name: str) -> None:
        self.uri = f"//Holder/{name}"
        self.key = Hotkey.from_uri(self.uri)
        self.coldkey = Hotkey.from_uri(f"//Owner/{name}").ss58
        self.shards: dict[bytes, bytearray] = {}
        self.tickets: dict[bytes, SignedTicket] = {}
        self.trash: set[bytes] = set()
        self.records: list[RetrievalMessage] = []
        self.refuse: RequestError | None = None
        self.refuse_uploads = False
        self.leaving = False
        self.asked: list[tuple[str, str]] = []
        self.endpoint: Endpoint | None = None
        self.axon: Axon | None = None

    @property
    def ss58(self) -> str:
        return self.key.ss58

    async def serve(self, net: Net, stack: AsyncExitStack) -> None:
        nonces = SqliteNonceStore(net.path / f"{self.ss58}.nonces.sqlite")
        stack.callback(nonces.close)
        self.axon = axon = Axon(
            self.ss58,
            role="miner",
            host="127.0.0.1",
            port=0,
            metagraph=net.metagraph,
            nonces=nonces,
            limits=Limits(per_address=Rate(1000, 1000), per_hotkey=Rate(1000, 1000)),
        )
        one = "/v1/shards/{ticket}"
        axon.stream("PUT", one, self._put, total_seconds=30)
        axon.route("GET", one, self._piece, access=Access.CLIENT, knows=self._knows)
        axon.route("POST", f"{one}/challenge", self._challenge, access=Access.CLIENT, knows=self._knows)
        axon.route("DELETE", one, self._remove, access=Access.CLIENT, knows=self._knows)
        axon.route("GET", "/v1/storage", self._storage, access=Access.REGISTERED)
        axon.route("GET", "/v1/retrievals", self._retrievals, access=Access.VALIDATOR)
        await axon.start()
        stack.push_async_callback(axon.stop)
        self.endpoint = Endpoint("127.0.0.1", axon.port)

    async def die(self) -> None:
        """Serve no more."""
        assert self.axon is not None
        await self.axon.stop()

    def spoil(self, ticket_hash: bytes) -> None:
        """Change a bit of every leaf of a shard."""
        data = self.shards[ticket_hash]
        for at in range(0, len(data), LEAF_SIZE):
            data[at] ^= 1

    def _knows(self, client: Client, path: Mapping[str, str]) -> bool:
        signed = self.tickets.get(bytes.fromhex(path["ticket"]))
        if signed is None:
            raise RequestError("unknown", "no such shard")
        return client.public_key in (signed.ticket.client, signed.ticket.validator)

    def _found(self, call: Call, route: str) -> tuple[bytes, bytearray]:
        self.asked.append((route, call.signer.kind))
        if self.refuse is not None:
            raise self.refuse
        name = bytes.fromhex(call.path["ticket"])
        if name not in self.shards:
            raise RequestError("unknown", "no such shard")
        return name, self.shards[name]

    async def _put(self, call: StreamCall) -> Reply:
        signed = SignedTicket.from_hex(call.headers[TICKET_HEADER])
        signed.check(verify)
        if self.refuse_uploads:
            raise RequestError("unready", "no more today")
        data = b"".join([bytes(piece) async for piece in call.chunks(signed.ticket.size)])
        if shard.shard_root(data) != signed.ticket.shard_root:
            raise RequestError("malformed", "another root")
        self.shards[signed.ticket.hash] = bytearray(data)
        self.tickets[signed.ticket.hash] = signed
        return StoredMessage.of(ticket.stored(signed.ticket.hash, int(time.time() * 1000), self.key.sign))

    async def _piece(self, call: Call) -> Reply:
        name, data = self._found(call, "piece")
        first, count = call.number("leaf"), call.number("count")
        nodes = merkle.level(merkle.leaf_hashes(data, LEAF_SIZE), count.bit_length() - 1)
        path = merkle.path(nodes, first // count)
        client = call.signer
        if client.kind == "key" and client.signature is not None:
            self.record(name, first, count, client.nonce_ns, client.signature)
        return b"".join([*path, data[first * LEAF_SIZE : (first + count) * LEAF_SIZE]])

    def record(self, name: bytes, first: int, count: int, nonce_ns: int, signature: bytes) -> None:
        drawn = Retrieval(name, first, count, nonce_ns, signature, b"")
        signed = replace(drawn, miner_signature=self.key.sign(drawn.hash))
        self.records.append(RetrievalMessage.of(len(self.records) + 1, signed))

    async def _challenge(self, call: Call) -> Reply:
        name, data = self._found(call, "challenge")
        asked = call.json(ShardChallenge)
        hashes = merkle.levels(merkle.leaf_hashes(data, LEAF_SIZE))

        def read(leaf: int) -> tuple[bytes, list[bytes]]:
            return bytes(data[leaf * LEAF_SIZE : (leaf + 1) * LEAF_SIZE]), merkle.path_in(hashes, leaf)

        nonce = shard.nonce(asked.salt, call.signer.public_key, self.key.public_key, name)
        return shard.answer(nonce, asked.hops, len(data) // LEAF_SIZE, read, self.key.sign)

    async def _remove(self, call: Call) -> Reply:
        name, _ = self._found(call, "remove")
        self.trash.add(name)
        return ShardState(ticket=name, state="trash", until=int(time.time()) + 7 * DAY)

    async def _storage(self, call: Call) -> Reply:
        return StorageMessage(leaving=self.leaving, quota=1000, used=len(self.shards), free_bytes=1 << 40)

    async def _retrievals(self, call: Call) -> Reply:
        limit = call.number("limit", RETRIEVALS_PAGE)
        found = [record for record in self.records if record.id >= call.number("from", 0)]
        following = found[limit].id if len(found) > limit else None
        return RetrievalsPage(retrievals=found[:limit], next=following)


@dataclass(frozen=True)
class Put:
    """A file that was put: its keys, and the inner bytes of the shards of each stripe."""

    keys: FileKeys
    shards: list[list[bytes]]

    @property
    def id(self) -> bytes:
        return self.keys.file_id


class Net:
    """The gateway and its miners."""

    def __init__(self, path: Path, holders: list[Holder]) -> None:
        self.path = path
        self.holders = holders
        self.by_key = {holder.ss58: holder for holder in holders}
        self.gone: set[str] = set()
        self.clock = Clock()
        self.quiet = Quiet()
        self.scores: dict[str, float] = {}
        self.store: FileStore
        self.account: Account
        self.care: Care
        self.caretaker: Caretaker
        self.directory: Directory
        self.dendrite: Dendrite

    def metagraph(self) -> Metagraph:
        ours = neuron(0, VALIDATOR, None, permit=True)
        there = [holder for holder in self.holders if holder.ss58 not in self.gone]
        others = [self._neuron(uid, holder) for uid, holder in enumerate(there, start=1)]
        return Metagraph(NETUID, BlockRef(1, bytes(32)), 360, VALIDATOR.ss58, (ours, *others))

    def _neuron(self, uid: int, holder: Holder) -> Neuron:
        return replace(neuron(uid, holder.key, holder.endpoint), coldkey=holder.coldkey)

    async def _standings(self) -> Standings:
        return Standings(self.scores)

    async def _outstanding(self) -> Mapping[str, int]:
        return self.store.outstanding()

    async def refresh(self) -> None:
        """Ask all miners anew what they can take."""
        self.directory = Directory(
            MinerCalls(self.dendrite),
            VALIDATOR.ss58,
            metagraph=self.metagraph,
            standings=self._standings,
            outstanding=self._outstanding,
        )
        await self.directory.refresh()

    # What a Market is; the directory is made anew with each refresh.

    def candidates(self):
        return self.directory.candidates()

    def leaving(self):
        return self.directory.leaving()

    async def put(self, k: int, n: int, *, leaves: int = 16, stripes: int = 1) -> Put:
        """Put a file of random bytes on the first n miners that the directory knows."""
        now = int(time.time())
        keys = FileKeys.of(os.urandom(32))
        file = self.store.create_file(self.account.id, keys.access.public_key, k, n - k, now + 30 * DAY, now)
        whole = []
        for stripe in range(stripes):
            data = [os.urandom(leaves * LEAF_SIZE) for _ in range(k)]
            inner = [*data, *erasure.encode(data, n)]
            whole.append(inner)
            places = self.store.place(
                file.id,
                self.account.id,
                stripe,
                leaves,
                (),
                lambda hotkey: True,
                lambda taken, out, wanted: self.directory.choose(taken, out, wanted, os.urandom(32)),
                now,
            )
            spread = replace(file, spread=keys.spread)
            outer = {
                place.number: layered(spread, stripe, place.number, place.hotkey, inner[place.number])
                for place in places
            }
            wanted = [Wanted(p.number, p.hotkey, shard.shard_root(outer[p.number])) for p in places]
            tickets = self.store.issue(file.id, self.account.id, stripe, leaves, wanted, VALIDATOR.sign, now)
            receipts = [
                await MinerCalls(self.dendrite).put_shard(
                    self.peer(place.hotkey), signed, outer[place.number]
                )
                for place, signed in zip(places, tickets, strict=True)
            ]
            self.store.record_stored(file.id, self.account.id, stripe, receipts, verify, now)
        size = stripes * k * leaves * LEAF_SIZE
        self.store.complete(file.id, self.account.id, size, stripes, keys.spread, keys.access.seed, now)
        return Put(keys, whole)

    def peer(self, hotkey: str) -> Neuron:
        found = self.metagraph().by_hotkey(hotkey)
        assert found is not None
        return found

    def file(self, put: Put) -> FileRow:
        found = self.store.file(put.id)
        assert found is not None
        return found

    def stripe(self, put: Put, number: int = 0) -> StripeRow:
        found = self.store.stripe(put.id, number)
        assert found is not None
        return found

    def stored(self, put: Put, stripe: int = 0) -> dict[int, ShardRow]:
        """The stored shards of a stripe, by number."""
        return {row.number: row for row in self.stripe(put, stripe).shards if row.state == "stored"}

    def holder(self, row: ShardRow) -> Holder:
        return self.by_key[row.hotkey]

    def is_whole(self, put: Put) -> bool:
        """Whether every shard of a file lies, as it must be, on a miner of its own."""
        for number, inner in enumerate(put.shards):
            there = self.stored(put, number)
            if len(there) != len(inner) or len({row.coldkey for row in there.values()}) != len(inner):
                return False
            for row in there.values():
                data = self.holder(row).shards.get(row.ticket, bytearray())
                outer = layered(self.file(put), number, row.number, row.hotkey, inner[row.number])
                if data != outer or shard.shard_root(outer) != row.root:
                    return False
        return True

    async def read(self, put: Put, row: ShardRow, first: int, count: int) -> bytes:
        """Read a piece as the file's client."""
        async with Dendrite(put.keys.access, allow_private=True) as dendrite:
            return await MinerCalls(dendrite).piece(self.peer(row.hotkey), row.decoded(), first, count)


@asynccontextmanager
async def cared(tmp_path: Path, miners: int, settings: CareSettings = SETTINGS) -> AsyncIterator[Net]:
    """So many miners, and a gateway with an account."""
    async with AsyncExitStack() as stack:
        net = Net(tmp_path, [Holder(f"{number}") for number in range(miners)])
        for holder in net.holders:
            await holder.serve(net, stack)
        net.store = stack.enter_context(
            FileStore(tmp_path / "files.sqlite", Issuer(GENESIS, NETUID, VALIDATOR.public_key))
        )
        net.account = net.store.add_account("somebody", "key", os.urandom(32), 1 << 40, int(time.time()))
        net.dendrite = await stack.enter_async_context(Dendrite(VALIDATOR, allow_private=True))
        worker = ThreadPoolExecutor(2)
        stack.callback(worker.shutdown, wait=False)
        net.care = Care(
            store=net.store,
            dendrite=net.dendrite,
            public_key=VALIDATOR.public_key,
            sign=VALIDATOR.sign,
            verify=verify,
            metagraph=net.metagraph,
            market=net,
            worker=worker,
            quiet=net.quiet,
            settings=settings,
            clock=net.clock,
        )
        net.caretaker = Caretaker(net.care, allow_private=True)
        await net.refresh()
        yield net
