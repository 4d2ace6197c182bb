"""Clients' files on real processes: false tickets, an old disk, a validator killed at a bad moment.

Each test can run alone. The one that fills a miner to the brim stands last, so that the others find room.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from tensorage import seal, shard
from tensorage.allocator.layout import DATABASE, Identity
from tensorage.allocator.schema import read_identity
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey, load_hotkey
from tensorage.demo.customer import Customer
from tensorage.demo.network import Network, Shape
from tensorage.demo.stage import HOTKEY
from tensorage.gateway.schema import FILES_NAME
from tensorage.keyauth import SigningKey
from tensorage.ticket import TICKET_SIZE, SignedTicket, Stored, Ticket
from tensorage.transport.dendrite import Dendrite, Peer, Refused
from tensorage.transport.file_calls import TICKET_HEADER, MinerCalls

K, M = 2, 2
N = K + M
CODE = ("--data-shards", str(K), "--parity-shards", str(M))
STRIPES = 3
SIZE = (STRIPES - 1) * (K << 22) + 1_000_000
MINERS = N + 1
NOBODY = "--gateway=http://127.0.0.1:9"
SHAPE = Shape(
    miners=MINERS,
    chunks=16,
    tempo=30,
    round_seconds=0.5,
    plan_seconds=1.0,
    validator_flags=("--audit_seconds=5", "--hops=8"),
)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Iterator[Network]:
    with Network(tmp_path_factory.mktemp("net"), SHAPE) as running:
        running.wait_until_proven()
        running.wait_for_room()
        yield running


@pytest.fixture(scope="module")
def backups(network, tmp_path_factory) -> dict[str, Path]:
    """Copies of all miners' disks from before any file was put."""
    copies = {name: tmp_path_factory.mktemp("backup") / name for name in network.miners}
    for name, copy in copies.items():
        network.hold(name)
        try:
            shutil.copytree(network.root(name), copy)
        finally:
            network.go_on(name)
    return copies


@pytest.fixture(scope="module")
def alice(network, backups, tmp_path_factory) -> Customer:
    return Customer(network, tmp_path_factory.mktemp("home") / "alice")


def put_whole(network: Network, customer: Customer, path: Path, name: str) -> str:
    """Put with all shards, again while the gateway does not know of room on enough miners; the file's id."""
    ids: list[str] = []

    def put() -> bool:
        outcome = customer.put(path, name, *CODE, "--replace").json()
        ids.append(outcome["id"])
        return outcome["short_stripes"] == 0

    network.wait(f"room for {name}", put, 60)
    return ids[-1]


def random_file(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def rows(path: Path, query: str, *values: object) -> list[tuple]:
    """Rows of another process's database."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        return db.execute(query, values).fetchall()


def database(network: Network, miner: str) -> Path:
    (path,) = network.root(miner).glob(f"*/{DATABASE}")
    return path


def start_again(network: Network, name: str, port: int) -> None:
    """Start a neuron where it served before, and wait until it is ready."""
    network.start(name, f"--axon.port={port}")

    def ready() -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            try:
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    network.wait(name, ready, 60)


@contextmanager
def no_blocks(network: Network) -> Iterator[None]:
    """Hold the chain: a miner that has committed lately does not commit again meanwhile."""
    flag, found = f"--path={network.stage.devnet}", []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            if flag in path.read_text(errors="replace").split("\0"):
                found.append(int(path.parent.name))
    (pid,) = found
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# What a validator has noted


@dataclass(frozen=True)
class Kept:
    """A shard of a file as its validator's gateway has it."""

    miner: str
    ticket: bytes
    health: str
    receipt: bytes


def kept(network: Network, validator: str, file: str) -> list[Kept]:
    """The stored shards of a file, by its id in hex, in their order."""
    ledger = network.stage.ledger(validator)
    names = {network.hotkey(name): name for name in network.miners}
    query = (
        "SELECT hotkey, ticket, health, receipt FROM shards"
        " WHERE file = ? AND state = 'stored' ORDER BY stripe, number"
    )
    found = rows(ledger.with_name(FILES_NAME), query, bytes.fromhex(file))
    return [Kept(names[hotkey], *values) for hotkey, *values in found]


def paid(network: Network, validator: str) -> set[bytes]:
    """Tickets for which some miner's newest commitment has a slot that is good."""
    found = rows(network.stage.ledger(validator), "SELECT ticket FROM slots WHERE flaw = ''")
    return {SignedTicket.decode(ticket).ticket.hash for (ticket,) in found}


def holds_any(network: Network, validator: str, miner: str) -> bool:
    """Whether a shard of any file still counts as this miner's, or was lost there and is not made up for."""
    query = (
        "SELECT 1 FROM shards JOIN files ON files.id = file"
        " WHERE hotkey = ? AND shards.state IN ('stored', 'lost') AND files.state = 'stored'"
    )
    ledger = network.stage.ledger(validator)
    return bool(rows(ledger.with_name(FILES_NAME), query, network.hotkey(miner)))


def states(network: Network, shards: list[Kept]) -> list[str]:
    """What the miners of these shards have noted of them: "stored", and "committed" from then on."""
    query = "SELECT state FROM shards WHERE ticket = ?"
    return [rows(database(network, each.miner), query, each.ticket)[0][0] for each in shards]


def whole(network: Network, validator: str, file: str) -> Callable[[], bool]:
    """Whether all shards of a file of SIZE are healthy, and their miners paid for them."""

    def holds() -> bool:
        now = kept(network, validator, file)
        tickets = {each.ticket for each in now}
        healthy = [each.health for each in now] == ["ok"] * STRIPES * N
        return healthy and tickets <= paid(network, validator)

    return holds


def test_a_validator_killed_between_displacing_and_the_next_commitment_loses_nothing(
    network, alice, tmp_path
):
    validator, port = alice.validator, network.endpoint(alice.validator).port
    path = random_file(tmp_path / "file", SIZE)
    first = put_whole(network, alice, random_file(tmp_path / "first", 1000), "first")
    committing = kept(network, validator, first)
    # Who has just committed does so again a tempo later.
    network.wait("commitments", lambda: set(states(network, committing)) == {"committed"}, 60)
    with no_blocks(network):
        file = put_whole(network, alice, path, "acknowledged")
        network.kill(validator)
        before, standings = kept(network, validator, file), network.status(validator)
        assert len(before) == STRIPES * N and "stored" in states(network, before)

    start_again(network, validator, port)
    network.wait("shards that count", whole(network, validator, file), 90)
    assert set(states(network, before)) == {"committed"}
    now = kept(network, validator, file)
    assert [(each.ticket, each.receipt) for each in now] == [(each.ticket, each.receipt) for each in before]

    def trusted() -> bool:
        found = network.status(validator).values()
        size = SHAPE.chunks * seal.DEV.size
        return [(each.verdict, each.credited_bytes) for each in found] == [("passed", size)] * MINERS

    network.wait("trust in all miners", trusted, 60)
    for name, standing in network.status(validator).items():
        assert (standing.counts["wrong"], standing.quarantined, standing.integrity) == (0, False, 1.0)
        assert standing.score > 0.9 * standings[name].score
    assert alice.get("acknowledged", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_miner_with_an_old_disk_is_found_out_and_its_shards_are_made_anew_elsewhere(
    network, backups, alice, tmp_path
):
    validator = alice.validator
    path = random_file(tmp_path / "file", SIZE)
    file = put_whole(network, alice, path, "outlives")
    network.wait("shards that count", whole(network, validator, file), 90)
    before = kept(network, validator, file)
    miner = before[0].miner if before[0].miner != network.miners[0] else before[1].miner
    gone = {each.ticket for each in before if each.miner == miner}
    port = network.endpoint(miner).port

    network.kill(miner)
    score = network.status(validator)[miner].score
    shutil.rmtree(network.root(miner))
    shutil.copytree(backups[miner], network.root(miner))
    start_again(network, miner, port)
    # Asked where its shards were when it was put, whatever the validator has done by now.
    told = alice.run("verify", "outlives", "--json", NOBODY)
    assert told.code == 1, told
    report = json.loads(told.stdout)
    assert report["verdict"] == "readable"
    found = report["failed"]
    assert {bad["hotkey"] for bad in found} == {network.hotkey(miner)} and len(found) == len(gone)
    assert all("404 unknown" in bad["reason"] for bad in found)

    def found_out() -> bool:
        standing = network.status(validator)[miner]
        return "is not one of our newest two" in standing.reason and standing.score < score

    network.wait("the loss of what it had", lambda: not holds_any(network, validator, miner), 90)
    network.wait("the loss of its score", found_out, 60)
    network.wait("shards that count", whole(network, validator, file), 90)
    after = kept(network, validator, file)
    assert {each.ticket for each in before} - {each.ticket for each in after} == gone
    assert alice.run("verify", "outlives").code == 0
    assert alice.get("outlives", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


# Tickets

LEAVES = shard.LEAST_LEAVES
#: Where each field of an encoded ticket ends: the format, the fields of `Ticket`, the signature.
ENDS = {
    "format": 1,
    "genesis": 33,
    "netuid": 35,
    "validator": 67,
    "client": 99,
    "miner": 131,
    "shard_root": 163,
    "leaves": 167,
    "expires": 175,
    "serial": 183,
    "signature": TICKET_SIZE,
}


class Issuer:
    """Signs tickets as a validator does, and brings shards to one miner as a client does."""

    def __init__(
        self, network: Network, key: Hotkey, peer: Peer, dendrites: tuple[Dendrite, Dendrite]
    ) -> None:
        (self.miner,) = (name for name in network.miners if network.hotkey(name) == peer.hotkey)
        identity = read_identity(database(network, self.miner))
        assert identity is not None
        self.network = network
        self.key = key
        self.identity: Identity = identity
        self.peer = peer
        self.access = SigningKey(os.urandom(32))
        self.validator, self.dendrite = MinerCalls(dendrites[0]), dendrites[1]
        self.client = MinerCalls(self.dendrite)
        self._serial = time.time_ns()  # far from those of the validator's own tickets

    def ticket(self, data: bytes, **changes: object) -> SignedTicket:
        """A ticket for these bytes; good for an hour unless `changes` say otherwise."""
        self._serial += 1
        ticket = Ticket(
            self.identity.genesis,
            self.identity.netuid,
            self.key.public_key,
            self.access.public_key,
            self.identity.hotkey,
            shard.shard_root(data),
            LEAVES,
            int(time.time()) + 3600,
            self._serial,
        )
        ticket = replace(ticket, **changes)
        return SignedTicket(ticket, self.key.sign(ticket.hash))

    async def put(self, ticket: SignedTicket, data: bytes) -> Stored:
        """Bring a shard; the receipt, which is checked."""
        stored = await self.client.put_shard(self.peer, ticket, data)
        stored.check(self.identity.hotkey, verify)
        return stored

    async def put_raw(self, header: bytes, name: bytes, data: bytes) -> None:
        """Bring a shard by whatever is in the header, to the path of a name."""
        headers = {TICKET_HEADER: header.hex()}
        path = f"/v1/shards/{name.hex()}"
        await self.dendrite.request(self.peer, "PUT", path, body=data, headers=headers, signed=False)

    def disk(self) -> tuple[dict[str, str], list[tuple]]:
        """What the miner keeps for clients: its files and their digests, and the rows of shards and slots."""
        root = self.network.root(self.miner)
        files = {path.name: sha256(path.read_bytes()).hexdigest() for path in root.glob("*/shards/*/*")}
        query = "SELECT shards.ticket, receipt, sector, chunk FROM shards LEFT JOIN slots USING (ticket)"
        return files, sorted(rows(database(self.network, self.miner), query))


@asynccontextmanager
async def issuing(network: Network, miner: str) -> AsyncIterator[Issuer]:
    key = load_hotkey(network.validators[0], HOTKEY, network.stage.wallets)
    peer = Peer(network.hotkey(miner), await asyncio.to_thread(network.endpoint, miner))
    async with (
        Dendrite(key, allow_private=True) as as_validator,
        Dendrite(None, allow_private=True, per_peer=16) as as_client,
    ):
        yield Issuer(network, key, peer, (as_validator, as_client))


async def refusal(call) -> tuple[int, str, str]:
    """Status, kind and text of a refusal."""
    with pytest.raises(Refused) as refused:
        await call
    return refused.value.status, refused.value.kind, str(refused.value)


async def test_a_ticket_that_is_replayed_brings_the_same_receipt_until_its_shard_is_removed(network, backups):
    async with issuing(network, network.miners[0]) as issuer:
        data = os.urandom(LEAVES * seal.LEAF_SIZE)
        ticket = issuer.ticket(data)
        receipt = await issuer.put(ticket, data)
        disk = issuer.disk()
        assert [row[:2] for row in disk[1]].count((ticket.ticket.hash, receipt.signature)) == 1
        assert set(await asyncio.gather(*(issuer.put(ticket, data) for _ in range(6)))) == {receipt}
        assert await issuer.put(ticket, b"") == receipt  # whatever is sent
        assert issuer.disk() == disk

        network.kill(issuer.miner)
        start_again(network, issuer.miner, issuer.peer.endpoint.port)
        assert await issuer.put(ticket, data) == receipt
        again = issuer.ticket(data, serial=ticket.ticket.serial, expires=ticket.ticket.expires + 1)
        assert (await refusal(issuer.put(again, data)))[:2] == (409, "conflict")
        assert issuer.disk() == disk

        assert (await issuer.validator.remove(issuer.peer, ticket.ticket.hash)).state == "trash"
        assert (await refusal(issuer.put(ticket, data)))[:2] == (409, "conflict")
        assert issuer.disk() == disk  # in the trash


async def test_a_ticket_with_a_flipped_bit_in_any_field_is_refused(network, backups):
    async with issuing(network, network.miners[0]) as issuer:
        data = os.urandom(LEAVES * seal.LEAF_SIZE)
        good = issuer.ticket(data)
        disk = issuer.disk()
        for field, end in ENDS.items():
            altered = bytearray(good.encode())
            altered[end - 1] ^= 1
            name = good.ticket.hash
            status = (403, "forbidden") if field == "signature" else (400, "malformed")
            assert (await refusal(issuer.put_raw(bytes(altered), name, data)))[:2] == status, field
            if field == "format":
                continue
            # Under the name that it has then; a shard of 17 leaves cannot be.
            name = SignedTicket.decode(bytes(altered)).ticket.hash
            status = (400, "malformed") if field == "leaves" else (403, "forbidden")
            assert (await refusal(issuer.put_raw(bytes(altered), name, data)))[:2] == status, field
        longer = replace(good, ticket=replace(good.ticket, leaves=2 * LEAVES))
        assert (await refusal(issuer.put(longer, 2 * data)))[:2] == (403, "forbidden")
        assert issuer.disk() == disk
        other = bytes([data[0] ^ 1]) + data[1:]
        assert (await refusal(issuer.put(good, other)))[:2] == (400, "malformed")
        network.wait("the end of the upload", lambda: issuer.disk() == disk, 20)
        await issuer.put(good, data)


async def test_tickets_that_have_ended_or_are_not_for_a_miner_of_this_validator_are_refused(network, backups):
    async with issuing(network, network.miners[0]) as issuer:
        data = os.urandom(LEAVES * seal.LEAF_SIZE)
        disk = issuer.disk()
        other = load_hotkey(network.miners[1], HOTKEY, network.stage.wallets)
        stranger = Hotkey.from_uri("//Stranger")
        theirs = issuer.ticket(data, validator=stranger.public_key).ticket
        cases = [
            (issuer.ticket(data, expires=int(time.time()) - 1), "expired"),
            (issuer.ticket(data, expires=int(time.time()) + 401 * 86_400), "more than 400 days"),
            (issuer.ticket(data, miner=other.public_key), "for the miner"),
            (issuer.ticket(data, genesis=bytes(32)), "of chain 0000"),
            (issuer.ticket(data, netuid=77), "for subnet 77"),
            (SignedTicket(theirs, stranger.sign(theirs.hash)), "no validator permit"),
        ]
        for ticket, reason in cases:
            status, kind, said = await refusal(issuer.put(ticket, data))
            assert (status, kind) == (403, "forbidden") and reason in said
        assert issuer.disk() == disk


async def test_a_ticket_over_the_validators_quota_is_refused_and_what_is_stored_stays(network, backups):
    async with issuing(network, network.miners[0]) as issuer:
        storage = await issuer.validator.storage(issuer.peer)
        shards = [os.urandom(LEAVES * seal.LEAF_SIZE) for _ in range(storage.quota - storage.used)]
        tickets = [issuer.ticket(data) for data in shards]
        receipts = [await issuer.put(*each) for each in zip(tickets, shards, strict=True)]
        disk = issuer.disk()
        data = os.urandom(LEAVES * seal.LEAF_SIZE)
        racing = [refusal(issuer.put(issuer.ticket(data), data)) for _ in range(4)]
        for status, kind, said in await asyncio.gather(*racing):
            assert (status, kind) == (507, "full") and f"quota here is {storage.quota} chunks" in said
        assert issuer.disk() == disk
        assert await issuer.put(tickets[-1], b"") == receipts[-1]
        await issuer.validator.remove(issuer.peer, tickets[-1].ticket.hash)
        assert (await refusal(issuer.put(issuer.ticket(data), data)))[:2] == (507, "full")  # the trash counts
        assert issuer.disk() == disk
