"""A miner over real sockets, on a devnet and a disk of its own."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from chain_net import Faults, Net, eventually, permitted
from miner_net import HOPS, MINER, OTHER, SECTOR, VALIDATOR, Asker, mining, state_of, workers_of

from tensorage import commitment as commitments
from tensorage import seal
from tensorage.allocator.partition import quotas
from tensorage.chain.wallet import Hotkey
from tensorage.errors import UsageError
from tensorage.transport.dendrite import Refused


@pytest.fixture
async def net(tmp_path):
    async with Net(tmp_path / "devnet.sqlite").producing() as net:
        await net.populate()
        async with net.chain() as chain:
            await permitted(chain, VALIDATOR)
        yield net


@pytest.fixture
async def chain(net):
    async with net.chain() as chain:
        yield chain


def sector_files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.sector"))


async def test_a_miner_fills_its_disk_commits_and_proves_it(net, chain, tmp_path):
    async with mining(net, tmp_path / "disk", 3), Asker(net, chain) as validator:
        await eventually(lambda: validator_sees_axon(validator), 20)
        commitment = await validator.committed(3)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{(await validator.neuron()).endpoint.url}/healthz")).status_code == 200
        walk = await validator.prove(commitment, hops=HOPS)
        assert len(walk.leaf_indices) == HOPS

        entries = await validator.dendrite.sectors(await validator.neuron(), 3)
        commitments.check_listing(commitment, entries)
        profile = seal.DEV
        for index, root in entries:
            roots = await validator.dendrite.chunk_roots(await validator.neuron(), index, profile.chunks)
            assert commitments.sector_root(roots) == root
            sector = seal.sector_id(chain.genesis_hash, net.settings.netuid, MINER.public_key, profile, index)
            assert roots == seal.chunk_roots(seal.Sealer(profile), sector)


async def validator_sees_axon(validator):
    return (await validator.neuron()).endpoint is not None


@pytest.fixture
async def asked(net, chain, tmp_path):
    """(validator's side, commitment) of a miner with two sectors."""
    async with mining(net, tmp_path / "disk", 2), Asker(net, chain) as validator:
        await eventually(lambda: validator_sees_axon(validator), 20)
        yield validator, await validator.committed(2)


async def test_the_same_challenge_asked_twice_is_answered_twice(asked):
    validator, commitment = asked
    message = await validator.message(commitment)
    walks = [validator.verified(commitment, message, await validator.put(commitment, message)) for _ in "ab"]
    assert walks[0] == walks[1]


async def test_a_challenge_that_cannot_be_is_refused_with_its_reason(net, chain, asked):
    validator, commitment = asked
    wrong = [
        ({"commitment": bytes(32)}, 404, "not one of our newest two"),
        ({"block_number": commitment.block_number}, 400, "not above"),
        ({"block_hash": bytes(32)}, 400, "has the hash"),
    ]
    for changes, status, reason in wrong:
        refusals: list[Refused] = []

        async def refused_for_it(changes=changes, refusals=refusals) -> bool:
            try:
                await validator.put(commitment, await validator.message(commitment, **changes))
            except Refused as refused:
                refusals.append(refused)
            return bool(refusals)

        await eventually(refused_for_it)  # of the newest block the miner may not know the hash yet
        assert refusals[0].status == status
        assert reason in str(refusals[0])
    async with Asker(net, chain, OTHER) as miner:
        with pytest.raises(Refused, match="no validator permit") as refused:
            await miner.prove(commitment)
        assert refused.value.status == 403
    await validator.prove(commitment)


async def test_a_damaged_sector_is_refused_named_sealed_again_and_proven_again(net, chain, tmp_path, caplog):
    root = tmp_path / "disk"
    async with mining(net, root, 1), Asker(net, chain) as validator:
        await eventually(lambda: validator_sees_axon(validator), 20)
        commitment = await validator.committed(1)
        (file,) = sector_files(root)
        healthy = file.read_bytes()
        file.write_bytes(bytes(len(healthy)))
        with caplog.at_level(logging.WARNING):
            with pytest.raises(Refused, match="sector 0 is damaged") as refused:
                await validator.prove(commitment)
            assert (refused.value.status, refused.value.kind) == (503, "unready")
            with suppress(Refused):  # it may be whole again already
                await validator.prove(commitment)
        told = [record.getMessage() for record in caplog.records if "sector damaged" in record.getMessage()]
        assert len(told) == 1 and str(file) in told[0]
        await eventually(lambda: file.exists() and file.read_bytes() == healthy, 30)

        async def proves():
            try:
                await validator.prove(commitment)
            except Refused:
                return False
            return True

        await eventually(proves, 10)
        assert (await validator.commitment()).seq == commitment.seq


async def test_sealing_stands_still_while_a_challenge_is_answered(net, chain, tmp_path):
    async with mining(net, tmp_path / "disk", 300), Asker(net, chain) as validator:
        await eventually(lambda: validator_sees_axon(validator), 20)
        commitment = await validator.committed()
        (worker,) = workers_of(os.getpid())
        proving = asyncio.create_task(validator.prove(commitment, hops=1024))
        states = []
        while not proving.done():
            states.append(state_of(worker))
            await asyncio.sleep(0.005)
        assert len((await proving).leaf_indices) == 1024
        assert "T" in states
        await eventually(lambda: state_of(worker) != "T")


async def test_a_grown_miner_commits_again_after_a_tempo_and_answers_for_both(net, chain, tmp_path):
    root = tmp_path / "disk"
    async with mining(net, root, 1), Asker(net, chain) as validator:
        await eventually(lambda: validator_sees_axon(validator), 20)
        first = await validator.committed(1)
    async with mining(net, root, 3), Asker(net, chain) as validator:
        second = await validator.committed(3, 40)
        tempo = chain.metagraph_now().tempo
        assert second.seq > first.seq
        assert second.block_number >= first.block_number + tempo
        previous = await validator.commitment(second.seq - 1)
        assert previous.hash == second.prev_hash
        for commitment in (previous, second):
            await validator.prove(commitment)


async def test_a_shrunk_miner_frees_its_disk_and_commits_to_what_is_left(net, chain, tmp_path):
    root = tmp_path / "disk"
    async with mining(net, root, 3), Asker(net, chain) as validator:
        await eventually(lambda: validator_sees_axon(validator), 20)
        await validator.committed(3)
    async with mining(net, root, 1), Asker(net, chain) as validator:
        left = await validator.committed(1, 40)
        assert len(sector_files(root)) == 1
        await validator.prove(left)


async def test_a_miner_that_is_told_no_size_drops_nothing(net, tmp_path, monkeypatch):
    async with mining(net, tmp_path, 3) as service:
        await eventually(lambda: service.store.counts().sealed == 3, 30)
    monkeypatch.setattr("tensorage.config.DEFAULT_SIZE_IN_GB", SECTOR / (1 << 30))
    async with mining(net, tmp_path, 0, size_in_gb=None):
        assert len(sector_files(tmp_path)) == 3


async def test_space_is_shared_among_permitted_validators_by_stake(net, chain, tmp_path):
    async with mining(net, tmp_path / "disk", 2) as service, Asker(net, chain) as validator:
        await validator_committed(validator, 2)
        store = service.store

        def shared() -> bool:
            stakes = {neuron.hotkey: neuron.total_stake for neuron in chain.metagraph_now().validators}
            return bool(stakes) and store.partition() == quotas(stakes, 2 * seal.DEV.chunks)

        await eventually(shared, 15)  # permits and stakes move while it is planned anew


async def validator_committed(validator, sectors):
    await eventually(lambda: validator_sees_axon(validator), 20)
    return await validator.committed(sectors)


async def test_a_chain_that_is_away_is_logged_once_and_the_axon_goes_on_answering(
    net, chain, tmp_path, caplog
):
    faults = Faults()
    async with mining(net, tmp_path / "disk", 1, opener=faults.open), Asker(net, chain) as validator:
        commitment = await validator_committed(validator, 1)
        faults.away = True
        with caplog.at_level(logging.INFO, logger="tensorage"):
            caplog.clear()
            await asyncio.sleep(4)
            warnings = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
            assert len([line for line in warnings if "chain is away" in line and "remedy=" in line]) == 1
            assert len(warnings) < 5
            await validator.prove(commitment)
            faults.away = False
            await eventually(lambda: "chain answers again" in caplog.text, 20)


async def test_a_taken_port_and_an_unregistered_hotkey_end_the_start(net, tmp_path):
    async with mining(net, tmp_path / "disk", 1) as service:
        with pytest.raises(UsageError, match=r"port \d+ is in use"):
            async with mining(net, tmp_path / "other", 1, key=OTHER, port=service.endpoint.port):
                pass
    with pytest.raises(UsageError, match="is not registered"):
        async with mining(net, tmp_path / "other", 1, key=Hotkey.from_uri("//Nobody")):
            pass
