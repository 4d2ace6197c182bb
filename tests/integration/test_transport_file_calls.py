"""What is asked of miners and gateways for files, over real sockets, and what is made of wrong answers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from transport_net import MINER, VALIDATOR, peer, serving

from tensorage import shard, ticket
from tensorage.chain.auth import verify
from tensorage.encoding import HASH_SIZE, sha256
from tensorage.keyauth import SigningKey
from tensorage.merkle import leaf_hashes, root
from tensorage.ticket import Retrieval, SignedTicket, Ticket
from tensorage.transport.axon import Access, Axon, Call, Client, Reply, StreamCall
from tensorage.transport.dendrite import Dendrite, Malformed
from tensorage.transport.file_calls import TICKET_HEADER, GatewayCalls, MinerCalls
from tensorage.transport.file_messages import (
    Accepted,
    AccountMessage,
    ChangedChunk,
    CompleteFile,
    CreateFile,
    FileCreated,
    FileMessage,
    FilesPage,
    FileState,
    GatewayInfo,
    Place,
    PlacementMessage,
    PlacementRequest,
    ReportMessage,
    RetrievalMessage,
    RetrievalsPage,
    ShardChallenge,
    ShardPlace,
    ShardState,
    ShardWanted,
    SlotMessage,
    SlotsPage,
    StorageMessage,
    StoredBatch,
    StoredMessage,
    StoredNumbers,
    StripeMessage,
    TicketsMessage,
    TicketsRequest,
    Transition,
)
from tensorage.transport.messages import Message

KEY = SigningKey(sha256(b"the file's access key"))
LEAVES = 64
DATA = os.urandom(LEAVES * 4096)
ID = sha256(KEY.public_key)[:16]


def knows(who: Client, path: Mapping[str, str]) -> bool:
    return who.public_key == KEY.public_key


def signed(serial: int = 1, data: bytes = DATA) -> SignedTicket:
    made = Ticket(
        genesis=bytes(32),
        netuid=7,
        validator=VALIDATOR.public_key,
        client=KEY.public_key,
        miner=MINER.public_key,
        shard_root=shard.shard_root(data),
        leaves=len(data) // 4096,
        expires=2_000_000_000,
        serial=serial,
    )
    return SignedTicket(made, VALIDATOR.sign(made.hash))


TICKET = signed()
HASH = TICKET.ticket.hash


@asynccontextmanager
async def gateway(
    tmp_path: Path, answers: dict[str, Message], asked: list[object]
) -> AsyncIterator[tuple[Axon, GatewayCalls]]:
    """An axon that answers "METHOD /path" as it is told, and notes what it was asked."""
    async with serving(tmp_path) as axon, Dendrite(KEY, allow_private=True, deadline=10) as dendrite:
        for route, answer in answers.items():
            method, path = route.split()

            async def handler(call: Call, answer: Message = answer) -> Reply:
                asked.append((dict(call.path), dict(call.query), call.body))
                return answer

            axon.route(method, path, handler, access=Access.CLIENT, knows=knows)
        yield axon, GatewayCalls(dendrite)


@asynccontextmanager
async def miner(tmp_path: Path) -> AsyncIterator[tuple[Axon, MinerCalls]]:
    async with serving(tmp_path) as axon, Dendrite(None, allow_private=True, deadline=10) as dendrite:
        yield axon, MinerCalls(dendrite, KEY)


def answering(axon: Axon, method: str, path: str, *replies: Reply) -> list[Call]:
    """Serve `replies` in turn, the last for ever; gives the calls."""
    calls: list[Call] = []

    async def handler(call: Call) -> Reply:
        calls.append(call)
        return replies[min(len(calls), len(replies)) - 1]

    axon.route(method, path, handler, access=Access.CLIENT, knows=lambda who, path: True)
    return calls


async def test_a_shard_is_brought_with_its_ticket_and_the_receipt_comes_back(tmp_path):
    taken: list[tuple[SignedTicket, bytes]] = []

    async def put(call: StreamCall) -> Reply:
        brought = SignedTicket.from_hex(call.headers[TICKET_HEADER])
        brought.check(verify)
        assert call.path["ticket"] == brought.ticket.hash.hex()
        assert call.length == brought.ticket.size
        body = b"".join([bytes(piece) async for piece in call.chunks(brought.ticket.size)])
        taken.append((brought, body))
        return StoredMessage.of(ticket.stored(brought.ticket.hash, 5, MINER.sign))

    async with miner(tmp_path) as (axon, calls):
        axon.stream("PUT", "/v1/shards/{ticket}", put, total_seconds=30)
        large = os.urandom(4 << 20)
        for data in (DATA, memoryview(large)):
            made = signed(data=bytes(data))
            receipt = await calls.put_shard(peer(axon), made, data)
            receipt.check(MINER.public_key, verify)
            assert receipt.ticket_hash == made.ticket.hash
            assert taken.pop() == (made, bytes(data))


async def test_a_receipt_for_another_ticket_is_malformed(tmp_path):
    async def put(call: StreamCall) -> Reply:
        return StoredMessage.of(ticket.stored(bytes(32), 5, MINER.sign))

    async with miner(tmp_path) as (axon, calls):
        axon.stream("PUT", "/v1/shards/{ticket}", put, total_seconds=30)
        with pytest.raises(Malformed, match="not for"):
            await calls.put_shard(peer(axon), TICKET, DATA)


async def test_a_read_of_a_piece_is_a_retrieval_that_the_client_signed(tmp_path):
    first, count = 16, 16
    hashes = leaf_hashes(DATA, 4096)
    nodes = [root(hashes[start : start + 16]) for start in range(0, LEAVES, 16)]
    above = [nodes[0], sha256(b"\1" + nodes[2] + nodes[3])]
    async with miner(tmp_path) as (axon, calls):
        served = answering(
            axon, "GET", "/v1/shards/{ticket}", b"".join(above) + DATA[first * 4096 :][: count * 4096]
        )
        answer = await calls.piece(peer(axon), TICKET, first, count)
        data = shard.read_piece(TICKET.ticket.shard_root, LEAVES, first, count, answer)
        assert bytes(data) == DATA[first * 4096 :][: count * 4096]
        (call,) = served
        record = Retrieval(HASH, first, count, call.signer.nonce_ns, call.signer.signature or b"", b"")
        complete = Retrieval(*list(vars(record).values())[:5], MINER.sign(record.hash))
        complete.check(TICKET.ticket, verify)


async def test_a_piece_that_is_too_short_or_too_long_is_malformed(tmp_path):
    size = shard.piece_size(LEAVES, 16)
    async with miner(tmp_path) as (axon, calls):
        answering(axon, "GET", "/v1/shards/{ticket}", bytes(size - 1), bytes(size + 1))
        for _ in range(2):
            with pytest.raises(Malformed, match=str(size)):
                await calls.piece(peer(axon), TICKET, 0, 16)


async def test_a_miner_is_asked_everything_that_it_serves(tmp_path):
    record = RetrievalMessage(
        id=7, ticket=HASH, leaf=0, count=1, nonce=3, client_signature=bytes(64), miner_signature=bytes(64)
    )
    changed = ChangedChunk(chunk=1, node=bytes(32), siblings=[bytes(32)] * 6)
    transition = Transition(before=bytes(HASH_SIZE * 256), after=bytes(HASH_SIZE * 256), changed=[changed])
    async with miner(tmp_path) as (axon, calls):
        them = peer(axon)
        state = ShardState(ticket=HASH, state="trash", until=9)
        removed = answering(axon, "DELETE", "/v1/shards/{ticket}", state)
        restored = answering(axon, "POST", "/v1/shards/{ticket}/restore", state)
        challenged = answering(axon, "POST", "/v1/shards/{ticket}/challenge", b"answer")
        answering(axon, "GET", "/v1/storage", StorageMessage(leaving=True, quota=4, used=3, free_bytes=2))
        moved = answering(axon, "GET", "/v1/sectors/{index}/transition", transition)
        answering(axon, "GET", "/v1/retrievals", RetrievalsPage(retrievals=[record], next=8))
        assert await calls.remove(them, HASH) == state
        assert await calls.restore(them, HASH) == state
        answer, elapsed = await calls.challenge(them, HASH, b"s" * 32, 3, LEAVES)
        assert answer == b"answer"
        assert 0 < elapsed < 10
        assert challenged[0].json(ShardChallenge) == ShardChallenge(salt=b"s" * 32, hops=3)
        assert (await calls.storage(them)).quota == 4
        assert await calls.transition(them, 5, 2, 256) == transition
        assert (moved[0].path["index"], moved[0].query["before"]) == ("5", "2")
        page = await calls.retrievals(them, 7)
        assert page.retrievals[0].retrieval().nonce_ns == 3
        for asked in (removed, restored, challenged):
            assert asked[0].path["ticket"] == HASH.hex()
        for wrong in (calls.remove, calls.restore):
            with pytest.raises(Malformed, match="not of"):
                await wrong(them, bytes(32))
        with pytest.raises(Malformed, match="instead of 255"):
            await calls.transition(them, 5, 2, 255)
        with pytest.raises(Malformed, match="got others"):
            await calls.retrievals(them, 8)


def slots(start: int, count: int, following: int | None) -> SlotsPage:
    numbers = range(start, start + count)
    named = [SlotMessage(sector=n // 256, chunk=n % 256, ticket=TICKET.encode()) for n in numbers]
    return SlotsPage(slots=named, next=following)


async def test_all_slots_are_read_page_by_page(tmp_path):
    async with miner(tmp_path) as (axon, calls):
        asked = answering(
            axon, "GET", "/v1/slots", slots(0, 1024, 1024), slots(1024, 1000, 2024), slots(2024, 1, None)
        )
        read = await calls.slots(peer(axon), 5000)
        assert [slot.sector * 256 + slot.chunk for slot in read] == list(range(2025))
        assert [call.query["from"] for call in asked] == ["0", "1024", "2024"]
        assert read[0].signed() == TICKET


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ([slots(0, 600, 600), slots(600, 600, None)], "over 1000 slots"),
        ([slots(0, 10, 10), slots(0, 10, 20)], "stands after"),
        ([slots(0, 10, 0)], "comes after"),
        ([slots(0, 0, 5)], "comes after"),
        ([slots(0, 10, 10), slots(10, 10, 5)], "comes after"),
    ],
)
async def test_slots_that_never_end_or_repeat_are_malformed(tmp_path, pages, why):
    async with miner(tmp_path) as (axon, calls):
        answering(axon, "GET", "/v1/slots", *pages)
        with pytest.raises(Malformed, match=why):
            await calls.slots(peer(axon), 1000)


async def test_a_gateway_is_asked_everything_that_it_serves(tmp_path):
    asked: list[tuple[dict[str, str], dict[str, str], bytes]] = []
    place = Place(number=3, hotkey=MINER.ss58, ip="127.0.0.1", port=9)
    lies = ShardPlace(
        number=3, ticket=TICKET.encode(), hotkey=MINER.ss58, ip=None, port=None, health="ok", checked=None
    )
    stripe = StripeMessage(number=4, leaves=LEAVES, shards=[lies])
    state = FileState(id=ID, state="stored", until=1)
    file = FileMessage(
        id=ID, state="stored", expires=5, data_shards=10, parity_shards=20, size=6, stripe_count=5,
        stripes=[stripe],
    )  # fmt: skip
    answers = {
        "GET /v1/account": AccountMessage(name="me", quota=2, used=1),
        "POST /v1/files": FileCreated(id=ID, data_shards=10, parity_shards=20, state="uploading"),
        "POST /v1/files/{id}/stripes/{n}/placement": PlacementMessage(places=[place]),
        "POST /v1/files/{id}/stripes/{n}/tickets": TicketsMessage.of([TICKET]),
        "POST /v1/files/{id}/stripes/{n}/stored": StoredNumbers(stored=[3]),
        "POST /v1/files/{id}/complete": state,
        "GET /v1/files/{id}": file,
        "GET /v1/files": FilesPage(files=[state]),
        "DELETE /v1/files/{id}": state,
        "POST /v1/files/{id}/restore": state,
        "POST /v1/files/{id}/report": Accepted(),
    }
    async with gateway(tmp_path, answers, asked) as (axon, calls):
        them = peer(axon)

        def body() -> bytes:
            path, _, sent = asked.pop()
            assert path == {"id": ID.hex(), "n": "4"}
            return sent

        assert (await calls.account(them)).name == "me"
        create = CreateFile(access=KEY.public_key, data_shards=10, parity_shards=20, expires=5)
        assert (await calls.create_file(them, create)).id == ID
        assert CreateFile.model_validate_json(asked[-1][2]) == create
        assert (await calls.placement(them, ID, 4, LEAVES, [MINER.ss58])).places == [place]
        assert PlacementRequest.model_validate_json(body()).avoid == [MINER.ss58]
        wanted = ShardWanted(number=3, miner=MINER.ss58, root=TICKET.ticket.shard_root)
        assert await calls.tickets(them, ID, 4, LEAVES, [wanted]) == [TICKET]
        assert TicketsRequest.model_validate_json(body()).shards == [wanted]
        receipt = ticket.stored(HASH, 5, MINER.sign)
        assert (await calls.stored(them, ID, 4, [receipt])).stored == [3]
        assert StoredBatch.model_validate_json(body()).receipts[0].stored() == receipt
        done = CompleteFile(size=6, stripes=5, spread=bytes(32), reader=KEY.seed)
        assert await calls.complete(them, ID, done) == state
        assert CompleteFile.model_validate_json(asked[-1][2]) == done
        assert await calls.file(them, ID) == file
        assert file.stripes[0].shards[0].signed() == TICKET
        assert (await calls.files(them)).files == [state]
        assert await calls.remove(them, ID) == state
        assert await calls.restore(them, ID) == state
        await calls.report(them, ID, HASH, "x" * 1000)
        assert ReportMessage.model_validate_json(asked[-1][2]).ticket == HASH
        for wrong in (calls.file, calls.remove, calls.restore):
            with pytest.raises(Malformed, match="not"):
                await wrong(them, bytes(16))
        with pytest.raises(Malformed, match="got others"):
            await calls.file(them, ID, 5)
        for leaves, shards in (
            (LEAVES * 2, [wanted]),
            (LEAVES, [wanted, wanted.model_copy(update={"number": 4})]),
        ):
            with pytest.raises(Malformed, match="not those that were asked for"):
                await calls.tickets(them, ID, 4, leaves, shards)


async def test_the_largest_messages_fit_into_what_is_read(tmp_path):
    asked: list[object] = []
    far = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    lies = [
        ShardPlace(
            number=number,
            ticket=TICKET.encode(),
            hotkey=MINER.ss58,
            ip=far,
            port=65535,
            health="unchecked",
            checked=2**64 - 1,
        )
        for number in range(256)
    ]
    stripes = [StripeMessage(number=2**32 - 40 + n, leaves=1024, shards=lies) for n in range(32)]
    file = FileMessage(
        id=ID, state="uploading", expires=2**64 - 1, data_shards=10, parity_shards=246, size=2**64 - 1,
        stripe_count=2**32 - 1, stripes=stripes, next=2**64 - 1,
    )  # fmt: skip
    most = [SlotMessage(sector=2**64 - 1, chunk=n % 256, ticket=TICKET.encode()) for n in range(256)]
    full = SlotsPage(slots=most)
    records = [
        RetrievalMessage(
            id=2**64 - 600 + n,
            ticket=HASH,
            leaf=2**32 - 1,
            count=2**32 - 1,
            nonce=2**64 - 1,
            client_signature=bytes(64),
            miner_signature=bytes(64),
        )
        for n in range(512)
    ]
    changed = [ChangedChunk(chunk=n, node=bytes(32), siblings=[bytes(32)] * 6) for n in range(256)]
    roots = bytes(256 * 32)
    states = [FileState(id=ID, state="uploading", until=2**64 - 1)] * 512
    places = [Place(number=n, hotkey=MINER.ss58, ip=far, port=65535) for n in range(256)]
    answers = {
        "GET /v1/files/{id}": file,
        "GET /v1/files": FilesPage(files=states, next=2**64 - 1),
        "POST /v1/files/{id}/stripes/{n}/placement": PlacementMessage(places=places),
        "POST /v1/files/{id}/stripes/{n}/tickets": TicketsMessage.of([TICKET] * 256),
        "GET /v1/slots": full,
        "GET /v1/retrievals": RetrievalsPage(retrievals=records, next=2**64 - 1),
        "GET /v1/sectors/{index}/transition": Transition(before=roots, after=roots, changed=changed),
        "POST /v1/files/{id}/stripes/{n}/stored": StoredNumbers(stored=[255] * 256),
        "GET /v1/gateway": GatewayInfo(
            hotkey=MINER.ss58,
            genesis=bytes(32),
            netuid=65535,
            spec_version=2**32 - 1,
            data_shards=10,
            parity_shards=20,
            coldkeys=2**32 - 1,
            networks=2**32 - 1,
            max_expiry_seconds=2**64 - 1,
            note="\u0001" * 500,
        ),
    }
    async with gateway(tmp_path, answers, asked) as (axon, calls):
        them = peer(axon)
        assert await calls.file(them, ID) == file
        assert len((await calls.files(them)).files) == 512
        assert len((await calls.placement(them, ID, 1, 16)).places) == 256
        wanted = [ShardWanted(number=n, miner=MINER.ss58, root=TICKET.ticket.shard_root) for n in range(256)]
        assert len(await calls.tickets(them, ID, 1, LEAVES, wanted)) == 256
        receipts = [ticket.stored(HASH, 2**64 - 1, MINER.sign)] * 256
        assert len((await calls.stored(them, ID, 1, receipts)).stored) == 256
        miners = MinerCalls(calls._dendrite)
        assert len(await miners.slots(them, 5000)) == 256
        assert len((await miners.retrievals(them, 0)).retrievals) == 512
        assert len((await miners.transition(them, 0, 1, 256)).changed) == 256
        response = await calls._dendrite.request(them, "GET", "/v1/gateway")
        assert len(GatewayInfo.model_validate_json(response.body).note) == 500


async def test_anyone_may_ask_whose_gateway_it_is(tmp_path):
    info = GatewayInfo(
        hotkey=VALIDATOR.ss58, genesis=bytes(32), netuid=7, spec_version=1, data_shards=4, parity_shards=8,
        coldkeys=12, networks=1, max_expiry_seconds=86400, note="",
    )  # fmt: skip

    async def tell(call: Call) -> Reply:
        return info

    async with serving(tmp_path) as axon, Dendrite(None, allow_private=True) as dendrite:
        axon.route("GET", "/v1/gateway", tell, access=Access.ANYONE)
        assert await GatewayCalls(dendrite).info(peer(axon)) == info
