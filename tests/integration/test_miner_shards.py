"""Clients' shards on a miner over real sockets: by ticket in, by piece out, proven all the while."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from chain_net import Net, eventually, permitted
from miner_net import HOPS, OTHER, SECTOR, VALIDATOR, Asker, Client, mining

from tensorage import commitment as commitments
from tensorage import seal, shard
from tensorage.chain.auth import verify
from tensorage.miner.service import MinerService
from tensorage.ticket import SignedTicket
from tensorage.transport.dendrite import PeerError, Refused
from tensorage.transport.file_calls import TICKET_HEADER, MinerCalls

LEAST, MOST = shard.LEAST_LEAVES, shard.MOST_LEAVES
DAY = 86_400


@asynccontextmanager
async def produced(tmp_path: Path, **genesis) -> AsyncIterator[Net]:
    async with Net(tmp_path / "devnet.sqlite", **genesis).producing() as net:
        await net.populate()
        async with net.chain() as chain:
            await permitted(chain, VALIDATOR)
        yield net


@pytest.fixture
async def net(tmp_path):
    async with produced(tmp_path) as net:
        yield net


class Stage:
    """A miner with sectors that are committed and shared out, a validator, and a client of it."""

    def __init__(self, service: MinerService, validator: Asker, client: Client) -> None:
        self.service = service
        self.validator = validator
        self.client = client
        self.issuer = MinerCalls(validator.dendrite)

    async def neuron(self):
        return await self.validator.neuron()

    async def newer(self, seq: int, seconds: float = 30.0):
        """The newest commitment, once it is above `seq`."""
        await eventually(lambda: self.service.store.commitment().commitment.seq > seq, seconds)
        return await self.validator.commitment()

    def files(self) -> list[Path]:
        return sorted(self.service.settings.roots[0].rglob("*.shard"))


@asynccontextmanager
async def stage(net: Net, root: Path, sectors: int, **changes) -> AsyncIterator[Stage]:
    async with (
        net.chain() as chain,
        mining(net, root, sectors, **changes) as service,
        Asker(net, chain) as validator,
        Client(validator) as client,
    ):
        await validator.committed(sectors, 90)
        await eventually(lambda: sum(service.store.partition().values()) == sectors)
        yield Stage(service, validator, client)


async def begin_upload(on: Stage, ticket: SignedTicket, data: bytes):
    """The head of an upload on a connection of its own, without its body."""
    endpoint = (await on.neuron()).endpoint
    reader, writer = await asyncio.open_connection(endpoint.ip, endpoint.port)
    head = (
        f"PUT /v1/shards/{ticket.ticket.hash.hex()} HTTP/1.1\r\nhost: {endpoint}\r\n"
        f"{TICKET_HEADER}: {ticket.encode().hex()}\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode())
    return reader, writer


async def refusal(call) -> Refused:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value


async def test_a_shard_that_is_put_comes_back_in_pieces_and_answers_challenges(net, tmp_path):
    async with stage(net, tmp_path / "disk", 2) as on:
        for leaves in (LEAST, MOST):
            ticket, data = await on.client.store(leaves)
            assert await on.client.piece(ticket) == data
            for first, count in ((0, 1), (leaves - 1, 1), (leaves // 2, leaves // 2), (leaves // 2, 8)):
                part = data[first * seal.LEAF_SIZE : (first + count) * seal.LEAF_SIZE]
                assert await on.client.piece(ticket, first, count) == part
            await on.client.challenge(ticket)
        storage = await on.issuer.storage(await on.neuron())
        assert (storage.quota, storage.used, storage.leaving) == (2, 2, False)
        assert storage.free_bytes > 0


async def test_a_displaced_sector_answers_under_the_new_commitment_and_the_one_before(tmp_path):
    async with produced(tmp_path, tempo=80) as net, stage(net, tmp_path / "disk", 1) as on:
        before = await on.validator.commitment()
        filler = await on.validator.dendrite.chunk_roots(await on.neuron(), 0, 1)
        ticket, _ = await on.client.store(MOST // 2)
        state = await on.issuer.restore(await on.neuron(), ticket.ticket.hash)  # which is not in the trash
        assert (state.state, state.until) == ("stored", None)
        after = await on.newer(before.seq)
        assert after.seq == before.seq + 1 and after.sector_count == 1
        assert after.block_number >= before.block_number + 80

        for commitment in (before, after):
            await on.validator.prove(commitment, hops=4 * HOPS)  # shard and filler, since half is of each
        ((index, root),) = await on.validator.dendrite.sectors(await on.neuron(), 1)
        commitments.check_listing(after, [(index, root)])
        (slot,) = await on.issuer.slots(await on.neuron(), 10)
        assert (slot.sector, slot.chunk, slot.signed()) == (0, 0, ticket)

        transition = await on.issuer.transition(await on.neuron(), 0, before.seq, 1)
        assert transition.before == b"".join(filler)
        (changed,) = transition.changed
        leaves, siblings = ticket.ticket.leaves, changed.siblings
        assert shard.chunk_root(changed.node, leaves, siblings) == filler[0]
        assert shard.chunk_root(ticket.ticket.shard_root, leaves, siblings) == transition.after == root
        assert await on.validator.dendrite.chunk_roots(await on.neuron(), 0, 1) == [root]
        assert (await on.issuer.remove(await on.neuron(), ticket.ticket.hash)).state == "trash"


async def test_the_space_of_displaced_filler_is_given_back_to_the_disk(net, tmp_path):
    async with stage(net, tmp_path / "disk", 1) as on:
        (sector,) = (tmp_path / "disk").rglob("*.sector")
        assert sector.stat().st_blocks * 512 >= SECTOR
        await on.client.store(MOST // 2)
        await eventually(lambda: sector.stat().st_blocks * 512 <= SECTOR // 2, 30)
        await on.validator.prove(await on.validator.commitment(), hops=4 * HOPS)
        settled = on.service.store.commitment().commitment.seq
        await asyncio.sleep(1.5)  # several tempos, in which nothing is left to do
        assert on.service.store.commitment().commitment.seq == settled


async def test_every_wrong_ticket_is_refused_for_its_reason(net, tmp_path):
    async with stage(net, tmp_path / "disk", 2) as on:
        client, neuron = on.client, await on.neuron()
        data = os.urandom(LEAST * seal.LEAF_SIZE)
        good = client.ticket(data)
        altered = SignedTicket(client.ticket(data).ticket, good.signature)
        cases = [
            (altered, 403, "not signed by the validator"),
            (client.ticket(data, expires=1000), 403, "expired"),
            (client.ticket(data, expires=(1 << 63)), 403, "more than 400 days"),
            (client.ticket(data, miner=OTHER.public_key), 403, "for the miner"),
            (client.ticket(data, genesis=bytes(32)), 403, "of chain 0000"),
            (client.ticket(data, netuid=77), 403, "subnet 77"),
            (client.ticket(data, key=OTHER), 403, "no validator permit"),
            (client.ticket(data, shard_root=bytes(32)), 400, "has the root"),
            (client.ticket(data, leaves=2 * LEAST), 400, "the ticket is for"),
            (client.ticket(data + data, leaves=LEAST), 400, "the ticket is for"),
        ]
        for ticket, status, reason in cases:
            body = data + data if "is for" in reason and ticket.ticket.leaves == LEAST else data
            refused = await refusal(client.put(ticket, body))
            assert refused.status == status, reason
            assert reason in str(refused)
        for header in ({}, {TICKET_HEADER: "00"}, {TICKET_HEADER: altered.encode().hex()}):
            path = f"/v1/shards/{good.ticket.hash.hex()}"
            call = client.dendrite.request(neuron, "PUT", path, body=data, headers=header, signed=False)
            assert (await refusal(call)).status == 400
        assert on.files() == [] and on.service.shards.usage() == {}
        await client.put(good, data)


async def test_a_ticket_is_judged_before_a_byte_of_its_body_is_read(net, tmp_path):
    async with stage(net, tmp_path / "disk", 1) as on:
        data = os.urandom(MOST * seal.LEAF_SIZE)
        for ticket, status in ((on.client.ticket(data, key=OTHER), 403), (on.client.ticket(data), 408)):
            reader, writer = await begin_upload(on, ticket, data)
            line = await asyncio.wait_for(reader.readline(), 15)
            assert line.split()[1] == b"%d" % status
            writer.close()


async def test_a_body_that_is_cut_leaves_nothing_and_its_ticket_stays_good(net, tmp_path):
    root = tmp_path / "disk"
    async with stage(net, root, 1) as on:
        data = os.urandom(MOST * seal.LEAF_SIZE)
        ticket = on.client.ticket(data)
        _, writer = await begin_upload(on, ticket, data)
        writer.write(data[: len(data) // 2])
        await writer.drain()
        await eventually(lambda: list(root.rglob("*.coming")), 20)
        writer.close()
        await eventually(lambda: not list(root.rglob("*.coming")), 20)
        assert on.files() == []
        await on.client.put(ticket, data)
        assert await on.client.piece(ticket) == data


async def test_a_shard_that_comes_in_while_the_miner_begins_to_leave_is_refused(net, tmp_path):
    async with stage(net, tmp_path / "disk", 1) as on:
        data = os.urandom(MOST * seal.LEAF_SIZE)
        ticket = on.client.ticket(data)
        reader, writer = await begin_upload(on, ticket, data)
        writer.write(data[: len(data) // 2])
        await eventually(lambda: list((tmp_path / "disk").rglob("*.coming")), 20)
        on.service.shards.set_leaving(True)
        writer.write(data[len(data) // 2 :])
        assert (await asyncio.wait_for(reader.readline(), 15)).split()[1] == b"503"
        writer.close()
        await eventually(lambda: not on.files(), 20)
        assert on.service.shards.live() == 0
        on.service.shards.set_leaving(False)
        await on.client.put(ticket, data)


async def test_the_same_ticket_many_times_at_once_is_one_shard_and_one_receipt(net, tmp_path):
    async with stage(net, tmp_path / "disk", 2) as on:
        data = os.urandom(MOST * seal.LEAF_SIZE)
        ticket = on.client.ticket(data)
        receipts = await asyncio.gather(*(on.client.put(ticket, data) for _ in range(6)))
        assert len(set(receipts)) == 1
        assert await on.client.put(ticket, b"") == receipts[0]  # later too, whatever is sent
        assert len(on.files()) == 1 and on.service.shards.usage() == {VALIDATOR.ss58: 1}


async def test_a_quota_is_kept_and_the_trash_counts(net, tmp_path):
    async with stage(net, tmp_path / "disk", 3) as on:
        tickets = [(await on.client.store(LEAST))[0] for _ in range(3)]
        assert (await refusal(on.client.store(LEAST))).status == 507
        await on.issuer.remove(await on.neuron(), tickets[0].ticket.hash)
        assert (await refusal(on.client.store(LEAST))).status == 507
        racing = [on.client.store(LEAST) for _ in range(4)]
        assert all(
            isinstance(each, Refused) for each in await asyncio.gather(*racing, return_exceptions=True)
        )
        assert len(on.files()) == 3


async def test_removal_and_return_are_for_the_issuer_and_a_used_ticket_is_over(net, tmp_path):
    async with stage(net, tmp_path / "disk", 2) as on:
        ticket, data = await on.client.store(LEAST)
        name, neuron = ticket.ticket.hash, await on.neuron()
        other = MinerCalls(on.validator.dendrite, OTHER)
        for stranger in (on.client.calls, other):
            for call in (stranger.remove(neuron, name), stranger.restore(neuron, name)):
                assert (await refusal(call)).status == 403
        for _ in range(2):
            state = await on.issuer.remove(neuron, name)
            assert state.state == "trash" and state.until > ticket.ticket.expires
        assert await on.client.piece(ticket) == data  # in the trash, and not lost
        refused = await refusal(on.client.put(ticket, data))
        assert (refused.status, refused.kind) == (409, "conflict")
        for _ in range(2):
            assert (await on.issuer.restore(neuron, name)).state in ("stored", "committed")
        assert await on.client.put(ticket, data)
        again = on.client.ticket(data, serial=ticket.ticket.serial, expires=ticket.ticket.expires + 1)
        assert (await refusal(on.client.put(again, data))).status == 409
        assert (await refusal(on.issuer.remove(neuron, bytes(32)))).status == 404


async def test_what_was_removed_gives_its_slot_back_and_filler_is_proven_again(net, tmp_path):
    async with stage(net, tmp_path / "disk", 1, trash_days=1.0 / DAY) as on:
        (sector,) = (tmp_path / "disk").rglob("*.sector")
        filler = sector.read_bytes()
        first = await on.validator.commitment()
        ticket, data = await on.client.store(MOST)
        await eventually(lambda: sector.read_bytes() != filler, 30)  # settled: the filler is gone
        await on.issuer.remove(await on.neuron(), ticket.ticket.hash)
        await eventually(lambda: sector.read_bytes() == filler and not on.files(), 60)
        last = await on.validator.commitment()
        assert last.capacity_root == first.capacity_root and last.seq > first.seq
        await on.validator.prove(last)
        assert await on.issuer.slots(await on.neuron(), 10) == []
        assert (await refusal(on.client.piece(ticket))).status == 404
        refused = await refusal(on.client.put(ticket, data))
        assert refused.status == 409  # until it expires
        await on.client.store(MOST)  # in the place that is free again


async def test_a_ticket_that_expires_is_given_back_by_itself(net, tmp_path):
    async with stage(net, tmp_path / "disk", 1, trash_days=0.5 / DAY) as on:
        data = os.urandom(LEAST * seal.LEAF_SIZE)
        ticket = on.client.ticket(data, expires=int(time.time()) + 3)
        await on.client.put(ticket, data)
        assert len(on.files()) == 1
        await eventually(lambda: not on.files(), 60)
        assert on.service.shards.usage() == {}
        assert (await refusal(on.client.put(ticket, data))).status == 403


async def test_pieces_are_for_the_tickets_client_and_its_validator_alone(net, tmp_path):
    async with stage(net, tmp_path / "disk", 1) as on, Client(on.validator) as stranger:
        ticket, data = await on.client.store(LEAST)
        name, neuron = ticket.ticket.hash, await on.neuron()
        by_validator = await on.issuer.piece(neuron, ticket, 0, LEAST)
        assert shard.read_piece(ticket.ticket.shard_root, LEAST, 0, LEAST, by_validator) == data
        for calls in (stranger.calls, MinerCalls(on.validator.dendrite, OTHER)):
            assert (await refusal(calls.piece(neuron, ticket, 0, LEAST))).status == 403
            assert (await refusal(calls.challenge(neuron, name, bytes(32), 1, LEAST))).status == 403
        for query in ("leaf=1&count=2", "leaf=0&count=3", "leaf=16&count=1", "leaf=0", "leaf=-1&count=1"):
            call = on.client.dendrite.request(neuron, "GET", f"/v1/shards/{name.hex()}?{query}")
            assert (await refusal(call)).status == 400
        for wrong, status in ((name.hex().upper(), 400), (bytes(32).hex(), 404)):
            call = on.client.dendrite.request(neuron, "GET", f"/v1/shards/{wrong}?leaf=0&count=1")
            assert (await refusal(call)).status == status


async def test_what_clients_read_is_told_to_the_issuer_signed_by_both(net, tmp_path):
    async with stage(net, tmp_path / "disk", 1) as on:
        ticket, _ = await on.client.store(MOST)
        neuron = await on.neuron()
        for first, count in ((0, MOST), (16, 16), (7, 1)):
            await on.client.piece(ticket, first, count)
        await on.issuer.piece(neuron, ticket, 0, 1)  # by a hotkey: no record

        async def recorded() -> bool:
            return len((await on.issuer.retrievals(neuron, 0)).retrievals) == 3

        await eventually(recorded, 20)
        first, rest = await on.issuer.retrievals(neuron, 0, 1), await on.issuer.retrievals(neuron, 2)
        assert first.next == rest.retrievals[0].id and rest.next is None
        records = [message.retrieval() for message in (*first.retrievals, *rest.retrievals)]
        assert [(each.first, each.count) for each in records] == [(0, MOST), (16, 16), (7, 1)]
        for record in records:
            record.check(ticket.ticket, verify)
        assert len({record.nonce_ns for record in records}) == 3
        other = MinerCalls(on.validator.dendrite, OTHER)
        assert (await refusal(other.retrievals(neuron, 0))).status == 403


async def test_a_damaged_shard_is_given_up_and_its_sector_proven_as_filler(net, tmp_path, caplog):
    async with stage(net, tmp_path / "disk", 1) as on:
        before = await on.validator.commitment()
        ticket, data = await on.client.store(MOST)
        await eventually(
            lambda: on.service.store.commitment().commitment.capacity_root != before.capacity_root
        )
        (file,) = on.files()
        file.write_bytes(bytes(len(data)))
        with pytest.raises(PeerError):
            await on.client.piece(ticket)
        assert (await refusal(on.client.piece(ticket))).status == 404
        assert [record for record in caplog.records if "shard damaged" in record.getMessage()]

        async def filler_again() -> bool:
            now = await on.validator.commitment()
            if now.capacity_root != before.capacity_root:
                return False
            with suppress(Refused):  # a newer one may have come
                await on.validator.prove(now)
                return True
            return False

        await eventually(filler_again, 60)
        await eventually(lambda: not on.files(), 20)


async def test_challenges_of_capacity_are_answered_in_time_while_clients_read_and_write(tmp_path):
    async with produced(tmp_path, tempo=200) as net, stage(net, tmp_path / "disk", 16) as on:
        stored = [await on.client.store(MOST) for _ in range(4)]
        busy = True

        async def reading(ticket: SignedTicket, data: bytes) -> int:
            count = 0
            while busy:
                assert await on.client.piece(ticket) == data
                count += 1
            return count

        readers = [asyncio.ensure_future(reading(*each)) for each in stored]
        writers = [asyncio.ensure_future(on.client.store(MOST)) for _ in range(8)]
        took = []
        for _ in range(5):
            began = time.monotonic()
            await on.validator.prove(await on.validator.commitment(), hops=32)
            took.append(time.monotonic() - began)
        busy = False
        assert min(await asyncio.gather(*readers)) > 0
        await asyncio.gather(*writers)
        assert max(took) < 4.0  # a deadline, on a machine that does all of this in one process
