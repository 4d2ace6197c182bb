"""Files that are looked after by a validator that runs, on a devnet, with real miners that fail and leave."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path

from care_world import HOTKEYS, LEAVES, STRIPES, N, World, stored
from chain_net import Net, eventually, permitted
from miner_net import VALIDATOR

from tensorage.allocator import leaving
from tensorage.chain.devnet import faucet
from tensorage.chain.types import Endpoint
from tensorage.chain.wallet import load_hotkey
from tensorage.gateway.accounts import ApiKey
from tensorage.gateway.schema import FILES_NAME, Issuer
from tensorage.gateway.store import FileStore
from tensorage.seal import LEAF_SIZE
from tensorage.transport.dendrite import Peer
from tensorage.validator.ledger import connect_read_only
from tensorage.validator.status import read_status


async def test_a_file_survives_a_damaged_disk_a_miner_that_leaves_and_two_that_are_gone(tmp_path):
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(Net(tmp_path / "devnet.sqlite").producing(every=0.1))
        await net.populate()
        world = World(net, tmp_path, len(HOTKEYS))
        await world.register()
        chain = await stack.enter_async_context(net.chain())
        await permitted(chain, VALIDATOR)
        running = {}
        for number in range(world.miners):
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
        (file,) = world.root_of(bad.hotkey).rglob(f"{bad.ticket.hex()}.shard")
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
            disk.write(lambda db: leaving.mark(db, True))

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


def start_validator(net: Net, root: Path, wallets: Path) -> subprocess.Popen[str]:
    arguments = [
        f"--subtensor.network={net.endpoint}",
        f"--netuid={net.settings.netuid}",
        "--wallet.name=v",
        f"--wallet.path={wallets}",
        f"--db_root_path={root}",
        f"--logging.logging_dir={root / 'logs'}",
        "--axon.port=0",
        "--round_seconds=0.5",
        "--audit_seconds=5",
        "--hops=8",
        "--workers=1",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "tensorage", "validator", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


async def test_a_validator_killed_between_displacing_and_committing_loses_nothing(tmp_path):
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(Net(tmp_path / "devnet.sqlite", tempo=100).producing(every=0.1))
        wallets, root = tmp_path / "wallets", tmp_path / "db"
        wallet = faucet.open_wallet("v", "default", wallets, create=True)
        validator = load_hotkey("v", path=wallets)
        world = World(net, tmp_path, 5)
        async with faucet.client(net.path) as client:
            await faucet.register(client, wallet, net.settings.netuid)
            await faucet.stake(client, wallet, net.settings.netuid, 1000)
        await world.register()
        chain = await stack.enter_async_context(net.chain())
        await permitted(chain, validator)
        process = start_validator(net, root, wallets)
        stack.callback(lambda: (process.kill(), process.wait()))
        for number in range(world.miners):
            await stack.enter_async_context(world.miner(number))

        async def published() -> Endpoint | None:
            neuron = (await chain.metagraph(max_age=0)).by_hotkey(validator.ss58)
            return neuron.endpoint if neuron else None

        def paid() -> bool:
            return (
                bool(ledgers())
                and [row.credited_bytes > 0 for row in read_status(ledgers()[0])].count(True) == world.miners
            )

        def ledgers() -> list[Path]:
            return list(root.glob("sn*/validator.sqlite"))

        await eventually(published)
        await eventually(paid, 120)
        issuer = Issuer(chain.genesis_hash, net.settings.netuid, validator.public_key)
        store = stack.enter_context(FileStore(ledgers()[0].parent / FILES_NAME, issuer))
        key = ApiKey.new(validator.ss58)
        store.add_account("somebody", "key", key.key.public_key, 1 << 30, int(time.time()))
        endpoint = await published()
        await world.put(Peer(validator.ss58, endpoint), key.key)
        rows = stored(store, world)
        assert len(rows) == STRIPES * N
        process.send_signal(signal.SIGKILL)
        process.wait()

        def states() -> set[str]:
            found: set[str] = set()
            for hotkey in {row.hotkey for row in rows}:
                with world.disk(hotkey) as disk:
                    found |= disk.read(
                        lambda db: {state for (state,) in db.execute("SELECT state FROM shards")}
                    )
            return found

        assert "stored" in states()  # displaced, and by some not committed to yet
        await eventually(lambda: states() == {"committed"}, 120)
        process = start_validator(net, root, wallets)

        def slots() -> int:
            with closing(connect_read_only(ledgers()[0])) as db:
                return int(db.execute("SELECT count(*) FROM slots WHERE flaw = ''").fetchone()[0])

        def whole() -> bool:
            return [row.health for row in stored(store, world)] == ["ok"] * STRIPES * N

        await eventually(lambda: whole() and slots() == STRIPES * N and paid(), 120)
        assert {row.ticket for row in stored(store, world)} == {row.ticket for row in rows}
        assert all(row.counts["wrong"] == 0 and not row.quarantined for row in read_status(ledgers()[0]))
        await world.read_all(rows, await chain.metagraph(max_age=0))
