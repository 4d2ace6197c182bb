"""`tensorage miner` as a process: how it ends, what survives, and what it says about bad input."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from chain_net import Net, eventually, permitted
from miner_net import STARTED, VALIDATOR, Asker, flags, start, state_of, workers_of

from tensorage.chain.devnet import faucet
from tensorage.chain.wallet import load_hotkey

LEAVES_WITHIN = 5.0


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    for process in STARTED:
        process.kill()
        process.wait()
        process.stderr.close()
    STARTED.clear()


@pytest.fixture
async def net(tmp_path):
    async with Net(tmp_path / "devnet.sqlite").producing(every=0.1) as net:
        await net.populate()
        wallet = faucet.open_wallet("m", "default", tmp_path / "wallets", create=True)
        async with faucet.client(net.path) as client:
            await faucet.register(client, wallet, net.settings.netuid)
        async with net.chain() as chain:
            await permitted(chain, VALIDATOR)
        yield net


@pytest.fixture
async def chain(net):
    async with net.chain() as chain:
        yield chain


@pytest.fixture
def hotkey(tmp_path, net):
    return load_hotkey("m", "default", str(tmp_path / "wallets"))


def sealed(root: Path) -> int:
    """How many sectors the database of a miner calls sealed."""
    for path in root.glob("sn*/miner.sqlite"):
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            return db.execute("SELECT count(*) FROM sectors WHERE state = 'sealed'").fetchone()[0]
        except sqlite3.OperationalError:
            return 0
        finally:
            db.close()
    return 0


def finish(process: subprocess.Popen, seconds: float = 20.0) -> str:
    """What it said on stderr; it must have ended by then."""
    _, said = process.communicate(timeout=seconds)
    return said


async def test_sigterm_ends_a_miner_within_five_seconds_also_while_it_seals(net, tmp_path):
    root = tmp_path / "disk"
    process = start(flags(net, root, tmp_path / "wallets", 500))
    await eventually(lambda: sealed(root) >= 2 or process.poll() is not None, 60)
    workers = workers_of(process.pid)
    assert process.poll() is None and workers
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    said = await asyncio.to_thread(finish, process)
    assert time.monotonic() - began < LEAVES_WITHIN
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert all(state_of(worker) == "Z" for worker in workers)
    count = sealed(root)
    assert len(list(root.rglob("*.sector"))) in (count, count + 1)


async def test_a_killed_miner_goes_on_with_its_chain_of_commitments(net, chain, hotkey, tmp_path):
    root, wallets = tmp_path / "disk", tmp_path / "wallets"
    process = start(flags(net, root, wallets, 3))
    async with Asker(net, chain, miner=hotkey) as validator:
        first = await validator.committed(3, 60)
        process.kill()
        process = start(flags(net, root, wallets, 400))
        await eventually(lambda: sealed(root) > 6 or process.poll() is not None, 60)
        process.kill()  # while it seals
        process.wait()
        count = sealed(root)
        process = start(flags(net, root, wallets, count))
        second = await validator.committed(count, 60)
        assert second.seq > first.seq
        chained = second
        while chained.seq > first.seq + 1:
            before = await validator.commitment(chained.seq - 1)
            assert before.hash == chained.prev_hash
            chained = before
        assert chained.prev_hash == first.hash
        await validator.prove(second)


async def test_a_second_miner_changes_nothing_of_the_first(net, chain, hotkey, tmp_path):
    root, wallets = tmp_path / "disk", tmp_path / "wallets"
    process = start(flags(net, root, wallets, 3))
    async with Asker(net, chain, miner=hotkey) as validator:
        first = await validator.committed(3, 60)
        for more in ([], ["--restart", "--disable_prompt"]):
            second = start([*flags(net, root, wallets, 1), *more])
            said = await asyncio.to_thread(finish, second, 60)
            assert second.returncode == 2, said
            assert "another miner answers for" in said and said.count("\n") == 1
        assert sealed(root) == 3 and process.poll() is None
        assert (await validator.committed(3, 60)).seq == first.seq


async def test_a_full_disk_is_told_once_and_filled_as_soon_as_there_is_room(net, chain, hotkey, tmp_path):
    root = tmp_path / "disk"
    log = root / "logs" / "miner.log"
    process = start(flags(net, root, tmp_path / "wallets", 2), limit=3 << 20)
    async with Asker(net, chain, miner=hotkey) as validator:
        await eventually(lambda: log.exists() and "is full" in log.read_text(), 30)
        await asyncio.sleep(4)  # in which it tries again
        lines = [line for line in log.read_text().splitlines() if "is full" in line]
        assert len(lines) == 1 and "remedy='Free space" in lines[0]
        assert process.poll() is None
        await eventually(lambda: answers(validator), 10)
        assert sealed(root) == 0

        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
        commitment = await validator.committed(2, 60)
        await validator.prove(commitment)
        assert "filling works again" in log.read_text()


async def answers(validator: Asker) -> bool:
    neuron = await validator.neuron()
    return neuron.endpoint is not None and (await validator.dendrite.ping(neuron)).role == "miner"


async def test_every_wrong_start_is_one_line_with_its_remedy_and_exit_code_2(net, tmp_path):
    wallets = tmp_path / "wallets"
    faucet.open_wallet("stranger", "default", wallets, create=True)
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    newer = tmp_path / "newer"
    probe = start(flags(net, newer, wallets, 1))
    await eventually(lambda: sealed(newer) == 1 or probe.poll() is not None, 60)
    probe.send_signal(signal.SIGTERM)
    await asyncio.to_thread(finish, probe)
    (database,) = newer.glob("sn*/miner.sqlite")
    with sqlite3.connect(database) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = [
            (["--wallet.name=nobody"], None, "no hotkey at", "btcli wallet create -w nobody"),
            (["--wallet.name=stranger"], None, "is not registered", "tensorage devnet register"),
            ([f"--axon.port={port}"], None, f"port {port} is in use", "--axon.port"),
            (["--size_in_gb=0.001"], None, "one sector has", "Ask for a sector"),
            (["--headroom=100000"], None, "no room for one sector", "Free space"),
            ([], blocked / "sub", "cannot be used", "--db_root_path"),
            ([], newer, "of version 99", "--restart"),
            (
                [f"--subtensor.network=sqlite://{tmp_path}/no.sqlite"],
                None,
                "no.sqlite",
                "tensorage devnet up",
            ),
            (["--axon.external_ip=here"], None, "'here' is no address", "--axon.external_ip"),
        ]
        started = [
            start(
                flags(
                    net,
                    root or tmp_path / f"disk-{number}",
                    wallets,
                    1,
                    f"--logging.logging_dir={tmp_path / 'logs'}",
                    *extra,
                )
            )
            for number, (extra, root, _, _) in enumerate(cases)
        ]
        sayings = await asyncio.gather(*(asyncio.to_thread(finish, process, 90) for process in started))
    for (extra, _, what, remedy), process, said in zip(cases, started, sayings, strict=True):
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert process.returncode == 2, (extra, said)
        assert "Traceback" not in said
        (line,) = errors
        assert what in line and remedy in line, (extra, line)
